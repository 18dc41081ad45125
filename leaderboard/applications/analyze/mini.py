"""Analysis of networks of the mini world that learned to read."""

from __future__ import annotations

from collections.abc import Sequence

from leaderboard.applications.analyze.config import AnalyzeConfig
from leaderboard.applications.analyze.language import Language, open_language
from leaderboard.applications.analyze.task import Analysis, analyze
from leaderboard.applications.common.ablated_accuracy import TEST, AblatedNetwork
from leaderboard.applications.common.labelled_images import LabelledImages
from leaderboard.applications.common.mini_networks import (
    TEXT_WORLD,
    MiniNetwork,
    MiniNetworkFactory,
)
from leaderboard.applications.common.mini_scenes import Scenes
from leaderboard.applications.common.mini_task import MiniTask
from leaderboard.applications.common.task_result import TaskInfo
from leaderboard.evaluation.predictions import Predictions
from milannotations.synthetic.subjects import CLASSES, TEST_SCENES, SubjectWorld

IMAGES = 500
"""Test images of the mini world."""

SIMILAR_TO = ("text",)
"""Words whose similarity to descriptions is a score."""

BATCH = 100
"""Images in a batch."""


class MiniAnalysis(MiniTask[AnalyzeConfig, Analysis]):
    """Analysis of trained networks of the mini world on test images.

    Args:
        factory: makes networks, exemplars and descriptions.
        seeds: random seeds of training, one network each.
        images: number of test images, from the world that the networks were trained on.
        language: counts words; None takes the words of the mini world, whatever is installed, so
            that records of several machines compare.
        world: world of the training images.
    """

    def __init__(
        self,
        factory: MiniNetworkFactory,
        seeds: Sequence[int] = (0, 1, 2),
        images: int = IMAGES,
        language: Language | None = None,
        world: SubjectWorld = TEXT_WORLD,
    ) -> None:
        super().__init__(factory, [factory.network(world, seed) for seed in seeds], world)
        self.language = language or open_language("mini")
        scenes = Scenes(world, images, TEST_SCENES)
        labelled = LabelledImages(scenes, scenes.labels, scenes.source)
        self.ablated = [self._ablated_network(network, labelled) for network in self.networks]

    def run_on(
        self, predictions: Predictions, config: AnalyzeConfig | None, info: TaskInfo
    ) -> Analysis:
        config = config or AnalyzeConfig(similar_to=SIMILAR_TO)
        return analyze(predictions, self.ablated, self.language, config, info)

    def _ablated_network(self, network: MiniNetwork, labelled: LabelledImages) -> AblatedNetwork:
        from milannotations.exemplars import RunConfig

        return AblatedNetwork(
            network.name,
            network.channels_last_model(),
            network.widths,
            {TEST: labelled},
            CLASSES,
            source=network.source,
            run=RunConfig(batch_size=BATCH, device="cpu"),
            folder=self.factory.folder,
            deterministic=False,
        )
