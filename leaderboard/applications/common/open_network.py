"""Inputs of tasks, opened by name: networks with test images, exemplars, measured selectivity."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from annotated_types import Ge

from leaderboard.applications.common.ablated_accuracy import TEST, AblatedNetwork
from leaderboard.applications.common.labelled_images import LabelledImages
from leaderboard.evaluation.predictions import Predictions
from milannotations.errors import InputError, some
from milannotations.schema import Unit
from milannotations.utils.files import TextTable, check_is_file, parse_whole_number

if TYPE_CHECKING:
    from milannotations.exemplars import Layer, RunConfig


def open_network(
    predictions: Predictions,
    model: str,
    images: str,
    layers: Sequence[str],
    *,
    weights: str | None = None,
    random: bool = False,
    preprocess: str | None = None,
    limit: Annotated[int, Ge(1)] | None = None,
    classes: str | Sequence[str] | None = None,
    run: RunConfig | None = None,
) -> AblatedNetwork:
    """Open a network with test images, under the name that the predictions give it.

    Args:
        predictions: descriptions of the units of one network.
        model: the network, as in `milan exemplars`.
        images: test images in ImageFolder layout (one folder per class).
        layers: layers whose units are used.
        weights: file of weights (safetensors or .pth).
        random: use random weights.
        preprocess: imagenet[:SIDE] or file.py:name (default: the network's own).
        limit: number of images, spread evenly over all of them (default: all).
        classes: file of class folders, one per output of the network (default: by name).
        run: batches and device of the passes.

    Raises:
        InputError: predictions of several networks; no such network, layer or image; other
            classes than the network's outputs.
    """
    from milannotations.exemplars import RunConfig, load_model, open_images
    from milannotations.exemplars.images.class_labels import class_labels
    from milannotations.exemplars.networks.loading import resolve_preprocessing

    names = list(dict.fromkeys(unit.network for unit in predictions.units))
    if len(names) != 1:
        raise InputError(
            f"{model} is one network, and the predictions are of {len(names)} ({some(names)}). "
            "Give the files of one."
        )
    loaded = load_model(model, weights=weights, random=random, preprocess=preprocess)
    preprocessing = resolve_preprocessing(loaded)
    everything = open_images(images, preprocessing)  # class folders are listed before the limit
    folders = sorted({everything.source_id(i).partition("/")[0] for i in range(len(everything))})
    dataset = everything if limit is None else open_images(images, preprocessing, limit=limit)
    outputs, widths = _measure_sizes(loaded.model, dataset, layers, run or RunConfig())
    if classes is None:
        if len(folders) < outputs:
            raise InputError(
                f"The network has {outputs:,} output classes, and {images} has {len(folders):,} "
                "folders. Say which classes they are: --classes FILE with the name of a folder "
                "per line, one line per output."
            )
        class_names: list[str] = folders
    else:
        class_names = read_lines(classes) if isinstance(classes, str) else list(classes)
        if len(class_names) != outputs:
            raise InputError(
                f"--classes names {len(class_names):,} classes, and the network has {outputs:,} "
                "output classes."
            )
    if classes is None:
        class_labels(everything, outputs)  # raises unless the folders are the network's classes
    labels = class_labels(dataset, class_names)
    source = {**dataset.source, "preprocessing": dataset.preprocessing}
    return AblatedNetwork(
        names[0],
        loaded.model,
        widths,
        {TEST: LabelledImages(dataset, labels, source)},
        class_names,
        source=loaded.source,
        run=run,
        deterministic=False,
    )


def open_exemplars(
    edition: str | os.PathLike[str], predictions: Predictions
) -> tuple[list[Unit], dict[str, Any], dict[str, dict[str, Any]]]:
    """Open the exemplars of the networks that predictions are of.

    Args:
        edition: folder or name of an edition of these networks.
        predictions: descriptions of their units.

    Returns:
        All units of the networks, their exemplars (`datasets.Dataset`) by network, and the source
        of the exemplars by network, for the record.

    Raises:
        InputError: the edition lacks a network.
    """
    import baselines
    from baselines.framework.units import unit_keys
    from milannotations.editions.configs import list_configs

    units: list[Unit] = []
    exemplars: dict[str, Any] = {}
    sources: dict[str, dict[str, Any]] = {}
    configs = list_configs(edition)
    for network in dict.fromkeys(unit.network for unit in predictions.units):
        if network in configs:
            config = network
        elif len(configs) == 1:  # an edition of one network, which may have another name
            config = next(iter(configs))
        else:
            raise InputError(f"{edition} has no network '{network}' (configs: {some(configs)}).")
        exemplars[network] = baselines.open_units(edition, config=config, network=network)
        units += unit_keys(exemplars[network])
        sources[network] = {"edition": Path(edition).name, "config": config}
    return units, exemplars, sources


def read_selectivity(path: str | os.PathLike[str]) -> dict[Unit, float]:
    """Read measured selectivity by unit from a CSV network,layer,unit,selectivity.

    Raises:
        InputError: other columns, or a value that is not a number.
    """
    table = TextTable(path)
    lacking = {"network", "layer", "unit", "selectivity"} - set(table.columns)
    if lacking:
        raise InputError(
            f"{path} lacks {', '.join(sorted(lacking))}; expected the columns "
            "network,layer,unit,selectivity."
        )
    selectivity = {}
    for line, row in table:
        where = f"{path}, line {line}"
        try:
            value = float(row["selectivity"])
        except ValueError:
            raise InputError(
                f"{where}: selectivity '{row['selectivity']}' is not a number."
            ) from None
        unit = Unit(row["network"], row["layer"], parse_whole_number(row["unit"], where))
        selectivity[unit] = value
    return selectivity


def read_lines(path: str) -> list[str]:
    """Return the lines of a file that are not blank."""
    text = check_is_file(path).read_text(encoding="utf-8")
    return [line.strip() for line in text.splitlines() if line.strip()]


def _measure_sizes(
    model: Any, images: Any, layers: Sequence[str], run: RunConfig
) -> tuple[int, dict[str | Layer, int]]:
    """Return the number of the network's outputs, and of the units of each layer."""
    import torch

    from milannotations.exemplars.hooks.ablation import Ablator

    ablator = Ablator(model, torch.utils.data.Subset(images, [0]), list(layers), run=run)
    outputs = int(ablator.logits([{}]).shape[-1])
    return outputs, {layer: ablator.widths[label] for label, layer in ablator.layers.items()}
