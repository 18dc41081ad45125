"""What applications are run on, opened by name: networks with test pictures, editions, files."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from leaderboard.applications.analyze.task import Target
from milannotations.errors import InputError, some
from milannotations.schema import Unit
from milannotations.utils.files import TextTable, check_is_file, parse_whole_number

if TYPE_CHECKING:
    from leaderboard.evaluation.predictions import Predictions
    from milannotations.exemplars import RunConfig


def open_target(
    predictions: Predictions,
    model: str,
    images: str,
    layers: Sequence[str],
    *,
    weights: str | None = None,
    random: bool = False,
    preprocess: str | None = None,
    limit: int | None = None,
    classes: str | Sequence[str] | None = None,
    run: RunConfig | None = None,
) -> Target:
    """Return a network with test pictures, under the name that the predictions have for it.

    Args:
        predictions: of one network.
        model, weights, random, preprocess: as of `milan exemplars`.
        images: a folder with a folder a class.
        layers: whose units take part.
        limit: so many pictures, evenly over all of them.
        classes: names of the class folders in the order of the network's outputs, or a file of
            them, a line each; None takes the folders by name, as many as there are outputs.
        run: of the passes.

    Raises:
        InputError: predictions of several networks; no such network, layer or picture; classes
            that the network lacks.
    """
    from milannotations.exemplars import Preprocessing, RunConfig, load_model, open_images
    from milannotations.exemplars.hooks.ablation import labels_of

    networks = list(dict.fromkeys(unit.network for unit in predictions.units))
    if len(networks) != 1:
        raise InputError(
            f"{model} is one network, and the predictions are of {len(networks)} "
            f"({some(networks)}). Give the files of one."
        )
    loaded = load_model(model, weights=weights, random=random, preprocess=preprocess)
    preprocessing = loaded.preprocessing or Preprocessing.imagenet()
    pictures = open_images(images, preprocessing, limit=limit)
    outputs, sizes = _widths(loaded.model, pictures, layers, run or RunConfig())
    there = sorted({pictures.source_id(i).partition("/")[0] for i in range(len(pictures))})
    if classes is None:
        if len(there) < outputs:
            raise InputError(
                f"The network tells {outputs:,} classes, and {images} has {len(there):,}. Say "
                "which they are: --classes FILE, the folders' names, a line an output."
            )
        names: list[str] = there
    else:
        names = lines(classes) if isinstance(classes, str) else list(classes)
        if len(names) != outputs:
            raise InputError(
                f"{len(names):,} names of classes were given, and the network tells {outputs:,}."
            )
    labels = labels_of(pictures, names if classes is not None else outputs)
    return Target(
        networks[0],
        loaded.model,
        layers,
        sizes,
        pictures,
        labels,
        names,
        dict(loaded.source),
        {**pictures.source, "preprocessing": pictures.preprocessing},
        run,
    )


def open_sheets(
    edition: str | os.PathLike[str], predictions: Predictions
) -> tuple[list[Unit], dict[str, Any], dict[str, dict[str, Any]]]:
    """Return all units of the networks, those with exemplars by network, and where these are from.

    Args:
        edition: folder or name, of the networks that the predictions are of.
        predictions: whose networks are looked up.
    """
    import baselines
    from baselines.framework.run import unit_keys
    from milannotations.editions.configs import list_configs

    members: list[Unit] = []
    sheets: dict[str, Any] = {}
    images: dict[str, dict[str, Any]] = {}
    wanted = list(dict.fromkeys(unit.network for unit in predictions.units))
    known = list_configs(edition)
    for network in wanted:
        config = network if network in known else next(iter(known)) if len(known) == 1 else None
        if config is None:
            raise InputError(f"{edition} has no network '{network}' (configs: {some(known)}).")
        units = baselines.open_units(edition, config=config, network=network)
        sheets[network] = units
        members += unit_keys(units)
        images[network] = {"edition": Path(edition).name, "config": config}
    return members, sheets, images


def open_selectivity(path: str | os.PathLike[str]) -> dict[Unit, float]:
    """Return measured selectivity by unit, from a CSV network,layer,unit,selectivity.

    Raises:
        InputError: other columns, or a value that is no number.
    """
    table = TextTable(path)
    lacking = {"network", "layer", "unit", "selectivity"} - set(table.columns)
    if lacking:
        raise InputError(
            f"{path} lacks {', '.join(sorted(lacking))}; network,layer,unit,selectivity was "
            "expected."
        )
    found = {}
    for line, row in table:
        where = f"{path}, line {line}"
        try:
            value = float(row["selectivity"])
        except ValueError:
            raise InputError(f"{where}: selectivity '{row['selectivity']}' is no number.") from None
        unit = Unit(row["network"], row["layer"], parse_whole_number(row["unit"], where))
        found[unit] = value
    return found


def _widths(
    model: Any, pictures: Any, layers: Sequence[str], run: RunConfig
) -> tuple[int, dict[str, int]]:
    """Return how many outputs a network has, and how many units each layer."""
    import torch

    from milannotations.exemplars.hooks.ablation import Ablator

    ablator = Ablator(model, torch.utils.data.Subset(pictures, [0]), list(layers), run=run)
    outputs = int(ablator.logits([{}]).shape[-1])
    return outputs, {label: ablator.widths[label] for label in ablator.layers}


def lines(path: str) -> list[str]:
    """Return the lines of a file that are not blank."""
    text = check_is_file(path).read_text(encoding="utf-8")
    return [line.strip() for line in text.splitlines() if line.strip()]
