"""The edit of the paper, from images to a record: `milan reproduce edit`.

Hernandez et al. 2022, section 7: class names are written on half of the training images, a
ResNet-18 is trained on them, its 1,024 units are described by MILAN, and those are ablated whose
description contains `word`, `text` or `letter` as a substring. Without images this runs on the mini
world.

What differs from 2022, and why: how names were drawn was never published, so every choice is in the
record; the network has one output per class rather than 1,000; counts are chosen on validation
images; controls go through the same pipeline; every draw has a seed; and several networks are
trained.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from annotated_types import Ge

import baselines
from leaderboard.applications.common import keyword_flags
from leaderboard.applications.common.task_result import TaskInfo
from leaderboard.applications.edit.config import EditConfig
from leaderboard.applications.edit.image_roles import TRAINING_SHARES, ImageRoles, write_roles
from leaderboard.applications.edit.spurious_cues import Cue
from leaderboard.applications.edit.task import edit
from leaderboard.evaluation.predictions import Prediction, Predictions, from_descriptions
from leaderboard.record_format import application_record
from leaderboard.record_format.application_record import ApplicationRecord
from leaderboard.reproduction.train_classifier import ClassifierConfig
from milannotations.errors import InputError
from milannotations.exemplars.run_config import RunConfig

if TYPE_CHECKING:
    from leaderboard.applications.common.ablated_accuracy import AblatedNetwork
    from milannotations.exemplars import LoadedNetwork

LAYERS = ("conv1", "layer1", "layer2", "layer3", "layer4")
METHOD = "milan"

OPTIONS = {"training": "--training EDITION", "activations": "--subject MODEL --probe PROBE"}
"""Requirements of methods that are not met here, and the options of `milan describe` that do."""

PAPER = {
    "before": 0.588,
    "trained on clean pictures": 0.808,
    "text units": 300,
    "deleted": 13,
    "gain": 0.049,
}
"""Hernandez et al. 2022, section 7: accuracy on images with wrong names, of 1,024 units."""


def paper_config(placebos: int, seed: int = 0) -> EditConfig:
    """Return the configuration of the paper: its words, matched as substrings."""
    return EditConfig(words=keyword_flags.TEXT, matching="substrings", placebos=placebos, seed=seed)


def reproduce_edit(
    out: str | os.PathLike[str],
    images: str | None = None,
    *,
    method: str = METHOD,
    model: str | None = None,
    architecture: str = "resnet18",
    layers: Sequence[str] = LAYERS,
    seeds: int = 5,
    placebos: int | None = None,
    training: ClassifierConfig | None = None,
    epochs: Annotated[int, Ge(1)] | None = None,
    cue: Cue | None = None,
    names: dict[str, str] | None = None,
    limit: Annotated[int, Ge(2)] | None = None,
    cache: str | None = None,
    run: RunConfig | None = None,
    tell: Callable[[str], Any] = lambda line: None,
) -> ApplicationRecord:
    """Run the edit with the settings of the paper, and write its record.

    Args:
        out: folder of the record.
        images: images in ImageFolder layout (default: the mini world).
        method: method that describes units.
        model: model of the method, such as a folder that `milan train` wrote (default: its own).
        architecture: torchvision's name of the network.
        layers: layers whose units are described.
        seeds: networks, trained with random seeds 0, 1, ...
        placebos: draws of placebo flags (default: 19 on images, 99 on the mini world).
        training: see `ClassifierConfig`.
        epochs: most epochs of training (default: those of the paper).
        cue: cue of the images.
        names: text to write, by class folder (default: the folder's name).
        limit: number of images, spread evenly over all of them (default: all).
        cache: folder that keeps images, networks, exemplars and descriptions (default: OUT.work).
        run: batches and device of passes.
        tell: called with each line of progress.

    Raises:
        InputError: a method that needs more than exemplars; see also `write_roles`,
            `baselines.describe` and `edit`.
    """
    application_record.check_free(out, "edit")
    asked = {"reproduce": "edit", "method": method, "seeds": seeds, "paper": PAPER}
    folder = Path(cache) if cache else Path(f"{os.fspath(out)}.work")
    if images is None:
        from leaderboard.applications.common.mini_networks import MiniNetworkFactory
        from leaderboard.applications.edit.mini import MiniEdit

        mini = MiniEdit(MiniNetworkFactory(folder, tell=tell), range(seeds))
        return mini.run(method, None, paper_config(placebos or 99), asked).save(out)
    spec = baselines.get(method).spec
    lacking = [requirement for requirement in spec.requires if requirement in OPTIONS]
    if lacking:  # found before networks are trained
        raise InputError(
            f"'{method}' needs {' and '.join(lacking)} besides the exemplars of a new network. "
            "Describe them separately: milan edit --prepare, then milan describe "
            f"{' '.join(OPTIONS[requirement] for requirement in lacking)}."
        )
    training = training or ClassifierConfig()
    if epochs is not None:
        training = replace(training, epochs=epochs)
    roles = write_roles(
        images, folder / "pictures", cue, names=names, shares=TRAINING_SHARES, limit=limit,
        progress=run.progress if run else False,
    )  # fmt: skip
    options = {} if model is None else {"model": model}
    networks: list[AblatedNetwork] = []
    rows: list[Prediction] = []
    for seed in range(seeds):
        name = f"{architecture}-{roles.cue.kind}-{seed}".replace("_", "-")
        weights = folder / f"{name}.safetensors"
        loaded = _load_or_train(weights, architecture, roles, seed, training, tell)
        network, descriptions = _describe_network(
            loaded, name, layers, roles, folder, seed, method, options, run, tell
        )
        networks.append(network)
        rows += descriptions.rows
    info = TaskInfo(f"{spec.name}@{spec.version}", Path(images).resolve().name, asked)
    predictions = Predictions(tuple(rows))
    return edit(predictions, networks, paper_config(placebos or 19), info).save(out)


def _describe_network(
    loaded: LoadedNetwork,
    name: str,
    layers: Sequence[str],
    roles: ImageRoles,
    folder: Path,
    seed: int,
    method: str,
    options: dict[str, str],
    run: RunConfig | None,
    tell: Callable[[str], Any],
) -> tuple[AblatedNetwork, Predictions]:
    """Compute the exemplars of a trained network, and let the method describe its units."""
    from leaderboard.applications.edit import real_networks
    from milannotations.exemplars.networks.loading import resolve_preprocessing
    from milannotations.exemplars.output.make import make_edition

    tell(f"{name}: exemplars")
    images = roles.load("shown", resolve_preprocessing(loaded)).images
    edition = folder / "exemplars"
    computed = make_edition(loaded, images, layers, edition, name, run=run, overwrite=True)
    assert computed is not None
    tell(f"{name}: {method} describes")
    descriptions = baselines.describe(edition, method, config=name, options=options)
    network = real_networks.prepare_network(
        loaded, name, layers, roles, seed=seed, run=run, folder=folder, computed=computed
    )
    return network, from_descriptions(descriptions)


def _load_or_train(
    path: Path,
    architecture: str,
    roles: ImageRoles,
    seed: int,
    training: ClassifierConfig,
    tell: Callable[[str], Any],
) -> LoadedNetwork:
    """Return a network trained on the images of role `train`, from its file if it exists."""
    import json

    from safetensors import safe_open
    from safetensors.torch import load_file

    from leaderboard.reproduction import train_classifier
    from milannotations.exemplars import LoadedNetwork, Preprocessing

    preprocessing = Preprocessing.imagenet()
    if not path.is_file():
        tell(f"{path.stem}: training")
        train_classifier.train(
            architecture,
            roles.load("train", preprocessing),
            roles.load("validation-clean", preprocessing),
            len(roles.classes),
            path,
            seed=seed,
            config=training,
        )
    model = train_classifier.create_network(architecture, len(roles.classes))
    model.load_state_dict(load_file(path))
    with safe_open(path, "pt") as file:
        source = json.loads(file.metadata()["made"])
    return LoadedNetwork(model.eval(), preprocessing, path.stem, source=source)
