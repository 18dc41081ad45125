"""The paper's edit, from pictures to a record: `milan reproduce edit`.

Hernandez et al. 2022, section 7: class names are written on half of the training pictures, a
ResNet-18 is trained on them, its 1,024 units are described by MILAN, and those are deleted whose
description has `word`, `text` or `letter` anywhere in it. Without pictures this runs on the mini
world.

What differs from 2022, and why: how names are drawn was never published, so every choice is in the
record; an output a class rather than 1,000; numbers are chosen on validation pictures; controls
pass through the same pipeline; every draw has a seed; and several networks are trained.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import baselines
from leaderboard.applications.common import keyword_flags
from leaderboard.applications.common.train_classifier import Training
from leaderboard.applications.edit.config import EditConfig
from leaderboard.applications.edit.task import Edit, edit
from leaderboard.evaluation.predictions import Predictions, from_descriptions
from leaderboard.record_format import application_record
from milannotations.errors import InputError

if TYPE_CHECKING:
    from leaderboard.applications.common.ablated_accuracy import Trial
    from leaderboard.applications.edit.spurious_cues import Cue
    from leaderboard.record_format.application_record import ApplicationRecord
    from milannotations.exemplars import Loaded, RunConfig

LAYERS = ("conv1", "layer1", "layer2", "layer3", "layer4")
METHOD = "milan"

SUPPLIED_BY = {"training": "--training EDITION", "activations": "--subject MODEL --probe PROBE"}
"""What a method may need that nobody gives it here, and the options that do."""

PAPER = {
    "before": 0.588,
    "trained on clean pictures": 0.808,
    "text units": 300,
    "deleted": 13,
    "gain": 0.049,
}
"""Hernandez et al. 2022, section 7: accuracy on pictures with wrong names, of 1,024 units."""


def paper_settings(placebos: int, seed: int = 0) -> EditConfig:
    """Return the paper's words, anywhere in words."""
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
    training: Training | None = None,
    epochs: int | None = None,
    cue: Cue | None = None,
    names: dict[str, str] | None = None,
    limit: int | None = None,
    cache: str | None = None,
    run: RunConfig | None = None,
    tell: Callable[[str], Any] = lambda line: None,
) -> ApplicationRecord:
    """Return what the edit comes to with the paper's settings, and write its folder.

    Args:
        out: folder of the record.
        images: pictures in a folder a class; None takes the mini world.
        method: describes units.
        model: the method's model, such as a folder that `milan train` wrote.
        architecture: of torchvision's.
        layers: whose units are described.
        seeds: of training: 0, 1, ...
        placebos: None takes 19 on pictures, 99 on the mini world.
        training, cue, names, limit: see `classifier.train` and `edit_real.write_roles`.
        epochs: of training, at most; None leaves what `training` says.
        cache: folder that keeps pictures, networks, exemplars and descriptions.
        run: of passes.
        tell: is called with a line of progress.

    Raises:
        InputError: see `edit_real.write_roles`, `baselines.describe` and `edit`.
    """
    application_record.check_free(out, "edit")
    asked = {"reproduce": "edit", "method": method, "seeds": seeds, "paper": PAPER}
    place = Path(cache) if cache else Path(f"{os.fspath(out)}.work")
    if images is None:
        from leaderboard.applications.common.mini_networks import Workshop
        from leaderboard.applications.edit.mini import MiniTrials

        mini = MiniTrials(Workshop(place, tell=tell), range(seeds))
        return mini.edit(method, None, paper_settings(placebos or 99), asked).save(out)
    needs = [each for each in baselines.get(method).spec.requires if each in SUPPLIED_BY]
    if needs:  # said now, and not when networks were trained
        raise InputError(
            f"'{method}' needs {' and '.join(needs)}, beyond the exemplars of a new network. "
            "Describe them by hand: milan edit --prepare, then milan describe "
            f"{' '.join(SUPPLIED_BY[each] for each in needs)}."
        )
    if epochs is not None:
        training = replace(training or Training(), epochs=epochs)
    made = _edited(
        place, images, method, model, architecture, layers, seeds, paper_settings(placebos or 19),
        training, cue, names, limit, run, asked, tell,
    )  # fmt: skip
    return made.save(out)


def _edited(
    place: Path,
    images: str,
    method: str,
    model: str | None,
    architecture: str,
    layers: Sequence[str],
    seeds: int,
    settings: EditConfig,
    training: Training | None,
    cue: Cue | None,
    names: dict[str, str] | None,
    limit: int | None,
    run: RunConfig | None,
    asked: dict[str, Any],
    tell: Callable[[str], Any],
) -> Edit:
    from leaderboard.applications.edit import real_networks
    from milannotations.exemplars.output.make import make_edition

    roles = real_networks.write_roles(
        images, place / "pictures", cue, names=names, shares=real_networks.TRAINED, limit=limit,
        progress=run.progress if run else False,
    )  # fmt: skip
    trials: list[Trial] = []
    rows: list[Any] = []
    spec = baselines.get(method).spec
    for seed in range(seeds):
        name = f"{architecture}-{roles.cue.kind}-{seed}".replace("_", "-")
        loaded = _trained(place / f"{name}.safetensors", architecture, roles, seed, training, tell)
        tell(f"{name}: exemplars")
        shown = roles.labelled("shown", real_networks.preprocessing_of(loaded)).pictures
        edition = place / "exemplars"
        computed = make_edition(loaded, shown, layers, edition, name, run=run, overwrite=True)
        assert computed is not None
        tell(f"{name}: {method} describes")
        options = {} if model is None else {"model": model}
        described = baselines.describe(edition, method, config=name, options=options)
        rows += from_descriptions(described).rows
        trials.append(
            real_networks.trial_of(
                loaded, name, layers, roles, seed=seed, run=run, folder=place, computed=computed
            )
        )
    return edit(
        trials,
        Predictions(tuple(rows)),
        settings=settings,
        method=f"{spec.name}@{spec.version}",
        data=Path(images).resolve().name,
        asked=asked,
    )


def _trained(
    path: Path,
    architecture: str,
    roles: Any,
    seed: int,
    training: Training | None,
    tell: Callable[[str], Any],
) -> Loaded:
    """Return a network that is trained on the role `train`, unless its file is there."""
    import json

    from safetensors import safe_open
    from safetensors.torch import load_file

    from leaderboard.applications.common import train_classifier
    from milannotations.exemplars import Loaded, Preprocessing

    preprocessing = Preprocessing.imagenet()
    if not path.is_file():
        tell(f"{path.stem}: training")
        shown = {
            role: roles.labelled(role, preprocessing) for role in ("train", "validation-clean")
        }
        train_classifier.train(
            architecture, shown["train"], shown["validation-clean"], len(roles.classes), path,
            seed=seed, settings=training,
        )  # fmt: skip
    model = train_classifier.network(architecture, len(roles.classes))
    model.load_state_dict(load_file(path))
    with safe_open(path, "pt") as file:
        source = json.loads(file.metadata()["made"])
    return Loaded(model.eval(), preprocessing, path.stem, source=source)
