"""Edit on the mini world: networks that learned to read, for any number of methods.

What no method changes is made once: networks, exemplars, single-unit orders, and placebos of the
same numbers per layer.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from leaderboard.applications.common import keyword_flags
from leaderboard.applications.common.ablated_accuracy import Labelled, Trial
from leaderboard.applications.common.mini_networks import (
    CLASSES,
    LAYERS,
    MiniNetwork,
    Scenes,
    Workshop,
    titled,
)
from leaderboard.applications.edit.config import EditConfig
from leaderboard.applications.edit.task import Edit, arms_of, edit
from leaderboard.evaluation.predictions import Predictions
from milannotations.synthetic.subjects import (
    TEST_SCENES,
    TRAINING_SCENES,
    VALIDATION_SCENES,
    Subject,
    SubjectWorld,
)

WORLD = SubjectWorld(text=0.3)
"""Three in ten pictures carry the name of their class in a corner. Where half of them do, half of a
network's units come to be of text, and random ones are of text as often. Chosen on networks of
seeds 5 and 6, of which nothing is reported."""

SEEDS = 5
PICTURES = 1000
"""Of each role."""

BATCH = 50

FAST = (0.0, 0.125, 0.25, 0.5)
"""Shares of flagged units that `milan run` tries."""


def fast(placebos: int, seed: int = 0) -> EditConfig:
    """Return the settings of `milan run`: one protocol, and fewer numbers to choose from."""
    return EditConfig(
        protocols=("edit-conflict",), placebos=placebos, shuffles=1, shares=FAST, seed=seed
    )


def labelled(count: int = PICTURES, world: SubjectWorld = WORLD) -> dict[str, Labelled]:
    """Return the pictures that edits are chosen and reported on, by role."""
    plain = replace(world, text=0.0)
    wrong = replace(world, text=1.0, adversarial=True)
    streams = {"validation": VALIDATION_SCENES, "test": TEST_SCENES}
    made = {}
    for part, stream in streams.items():
        for kind, of in (("clean", plain), ("conflict", wrong)):
            scenes = Scenes(of, count, stream)
            made[f"{part}-{kind}"] = Labelled(scenes, scenes.labels, scenes.source)
    return made


class MiniTrials:
    """The trained networks with their pictures.

    Args:
        workshop: makes networks, exemplars and descriptions.
        seeds: of training.
        pictures: of each role.
        world: what networks learn from.
    """

    def __init__(
        self,
        workshop: Workshop,
        seeds: Sequence[int] = tuple(range(SEEDS)),
        pictures: int = PICTURES,
        world: SubjectWorld = WORLD,
    ) -> None:
        self.workshop, self.world = workshop, world
        shown = labelled(pictures, world)
        self.networks = [workshop.network(world, seed) for seed in seeds]
        self.trials = [self._trial(network, shown) for network in self.networks]

    def _add_training(self) -> None:
        """Let heads be trained on the first pictures that each network learned from."""
        for trial in self.trials:
            if "training" not in trial.pictures:
                count = len(trial.pictures["test-clean"].labels)
                scenes = Scenes(self.world, count, TRAINING_SCENES + trial.seed)
                shown = Labelled(scenes, scenes.labels, scenes.source)
                trial.pictures = {**trial.pictures, "training": shown}

    def _trial(self, network: MiniNetwork, shown: dict[str, Labelled]) -> Trial:
        from milannotations.exemplars import RunConfig

        return Trial(
            network.name,
            network.quick(),
            dict(zip(LAYERS, Subject.widths, strict=True)),
            shown,
            len(CLASSES),
            seed=network.seed,
            source=network.source,
            shown=self.workshop.inside(network, self.world, "text", each=True),
            selectivity=self.workshop.selectivity(network, self.world, "text"),
            run=RunConfig(batch_size=BATCH, device="cpu"),
            folder=self.workshop.folder,
        )

    def write_exemplars(self, out: Path) -> None:
        """Write what is to be described: an edition, a config a network."""
        for network in self.networks:
            self.workshop.write(network, self.world, out)

    def measure(self, method: str, settings: EditConfig) -> None:
        """Measure what the edit by a method's descriptions takes; a folder keeps it for `edit`."""
        predictions = self.workshop.describe_all(method, self.networks, self.world)
        for trial in self.trials:
            said = keyword_flags.flagged(
                predictions, trial.units, settings.words, settings.matching
            )
            for protocol in settings.protocols:
                arms_of(trial, said, protocol, settings)

    def edit(
        self,
        method: str,
        predictions: Predictions | None = None,
        settings: EditConfig | None = None,
        asked: dict[str, Any] | None = None,
    ) -> Edit:
        """Return the edit of all networks by a method's descriptions.

        Args:
            method: name, or name@version with `predictions`.
            predictions: of the units of all networks; None lets the method describe them.
            settings: see `edit`.
            asked: for the record.
        """
        began, title = time.perf_counter(), method
        if settings is not None and settings.fine_tune:
            self._add_training()
        if predictions is None:
            predictions = self.workshop.describe_all(method, self.networks, self.world)
            title = titled(method)
        return edit(
            self.trials,
            predictions,
            settings=settings,
            method=title,
            data="mini",
            asked=asked or {},
            synthetic=True,
            seconds={"describe": time.perf_counter() - began},
        )
