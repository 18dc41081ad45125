"""Analysis on the mini world: the networks that learned to read, for any number of methods.

What no method changes is made once: networks, exemplars, and the accuracy without each set of
units that was measured.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from leaderboard.applications.analyze.config import AnalyzeConfig
from leaderboard.applications.analyze.language import Language, open_language
from leaderboard.applications.analyze.task import Accuracies, Analysis, Target, analyze
from leaderboard.applications.common.mini_networks import (
    CLASSES,
    LAYERS,
    MiniNetwork,
    Scenes,
    Workshop,
    titled,
)
from leaderboard.applications.edit.mini import WORLD
from leaderboard.evaluation.predictions import Predictions
from milannotations.synthetic.subjects import TEST_SCENES, SubjectWorld

PICTURES = 500
SIMILAR_TO = ("text",)
BATCH = 100


class MiniAnalysis:
    """The trained networks with their test pictures.

    Args:
        workshop: makes networks, exemplars and descriptions.
        seeds: of training.
        pictures: to measure accuracy on, of the world that the networks learned from.
        language: counts words; None takes the words of the mini world, whatever is installed, so
            that outcomes compare across machines.
        world: what networks learn from.
    """

    def __init__(
        self,
        workshop: Workshop,
        seeds: Sequence[int] = (0, 1, 2),
        pictures: int = PICTURES,
        language: Language | None = None,
        world: SubjectWorld = WORLD,
    ) -> None:
        self.workshop, self.world = workshop, world
        self.language = language or open_language("mini")
        shown = Scenes(world, pictures, TEST_SCENES)
        self.networks = [workshop.network(world, seed) for seed in seeds]
        self.targets = [self._target(network, shown) for network in self.networks]
        self._measured: dict[str, dict[str, Accuracies]] = {}

    def _target(self, network: MiniNetwork, shown: Scenes) -> Target:
        from milannotations.exemplars import RunConfig

        return Target(
            network.name,
            network.quick(),
            LAYERS,
            network.source["units"],
            shown,
            shown.labels,
            CLASSES,
            network.source,
            shown.source,
            RunConfig(batch_size=BATCH, device="cpu"),
        )

    def analyze(
        self,
        method: str,
        predictions: Predictions | None = None,
        settings: AnalyzeConfig | None = None,
        asked: Mapping[str, Any] | None = None,
    ) -> Analysis:
        """Return the analysis of all networks by a method's descriptions.

        Args:
            method: name, or what `predictions` are to be called.
            predictions: of the units of all networks; None lets the method describe them.
            settings: see `analyze`.
            asked: for the record.
        """
        began = time.perf_counter()
        settings = settings or AnalyzeConfig(similar_to=SIMILAR_TO)
        title = method
        if predictions is None:
            predictions = self.workshop.describe_all(method, self.networks, self.world)
            title = titled(method)
        described = time.perf_counter() - began
        if settings.how not in self._measured:
            self._measured[settings.how] = {
                target.name: Accuracies(target, settings.how, self._kept(target, settings))
                for target in self.targets
            }
        return analyze(
            predictions,
            self.targets,
            self.language,
            settings,
            measured=self._measured[settings.how],
            method=title,
            data="mini",
            asked=asked,
            synthetic=True,
            seconds={"describe": described},
        )

    def _kept(self, target: Target, settings: AnalyzeConfig) -> Path:
        key = (dict(target.source), dict(target.images), settings.how)
        path = self.workshop.entry("accuracies", *key, suffix=".json").path
        assert path is not None
        return path
