"""Edit of networks of the mini world that learned to read."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from leaderboard.applications.common import keyword_flags
from leaderboard.applications.common.ablated_accuracy import AblatedNetwork
from leaderboard.applications.common.labelled_images import LabelledImages
from leaderboard.applications.common.mini_networks import (
    TEXT_WORLD,
    MiniNetwork,
    MiniNetworkFactory,
)
from leaderboard.applications.common.mini_scenes import Scenes
from leaderboard.applications.common.mini_task import MiniTask
from leaderboard.applications.common.task_result import TaskInfo
from leaderboard.applications.edit.arms import measure_arms
from leaderboard.applications.edit.config import EditConfig
from leaderboard.applications.edit.task import Edit, edit
from leaderboard.evaluation.predictions import Predictions
from milannotations.synthetic.subjects import (
    CLASSES,
    TEST_SCENES,
    TRAINING_SCENES,
    VALIDATION_SCENES,
    SubjectWorld,
)

SEEDS = 5
"""Networks of the mini world."""

IMAGES = 1000
"""Images of each role."""

BATCH = 50
"""Images in a batch."""

FAST_SHARES = (0.0, 0.125, 0.25, 0.5)
"""Shares of the flagged units that `milan run` tries."""


def fast_config(placebos: int, seed: int = 0) -> EditConfig:
    """Return the configuration of `milan run`: one protocol, and fewer counts to choose from."""
    return EditConfig(
        protocols=("edit-conflict",), placebos=placebos, shuffles=1, shares=FAST_SHARES, seed=seed
    )


def draw_images(count: int = IMAGES, world: SubjectWorld = TEXT_WORLD) -> dict[str, LabelledImages]:
    """Return labelled images of each role: without text, and with the name of a wrong class."""
    worlds = {
        "clean": replace(world, text=0.0),
        "conflict": replace(world, text=1.0, adversarial=True),
    }
    streams = {"validation": VALIDATION_SCENES, "test": TEST_SCENES}
    return {
        f"{part}-{kind}": _label(Scenes(of_kind, count, stream))
        for part, stream in streams.items()
        for kind, of_kind in worlds.items()
    }


class MiniEdit(MiniTask[EditConfig, Edit]):
    """Edit of trained networks of the mini world.

    Args:
        factory: makes networks, exemplars and descriptions.
        seeds: random seeds of training, one network each.
        images: number of images of each role.
        world: world of the training images.
    """

    def __init__(
        self,
        factory: MiniNetworkFactory,
        seeds: Sequence[int] = tuple(range(SEEDS)),
        images: int = IMAGES,
        world: SubjectWorld = TEXT_WORLD,
    ) -> None:
        super().__init__(factory, [factory.network(world, seed) for seed in seeds], world)
        labelled = draw_images(images, world)
        self.ablated = [self._ablated_network(network, labelled) for network in self.networks]

    def run_on(self, predictions: Predictions, config: EditConfig | None, info: TaskInfo) -> Edit:
        if config is not None and config.fine_tune:
            self._add_training_images()
        return edit(predictions, self.ablated, config, info)

    def write_exemplars(self, out: Path) -> None:
        """Write the exemplars to describe: an edition with one config per network."""
        for network in self.networks:
            self.factory.write_exemplars(network, self.exemplar_world, out)

    def measure(self, method: str, config: EditConfig) -> None:
        """Measure the accuracies that an edit by a method needs, so that the cache has them."""
        predictions = self.describe(method)
        for network in self.ablated:
            flags = keyword_flags.flag_units(
                predictions, network.units, config.words, config.matching
            )
            for protocol in config.protocols:
                measure_arms(network, flags, protocol, config)

    def _ablated_network(
        self, network: MiniNetwork, labelled: Mapping[str, LabelledImages]
    ) -> AblatedNetwork:
        from milannotations.exemplars import RunConfig

        world = self.exemplar_world
        return AblatedNetwork(
            network.name,
            network.channels_last_model(),
            network.widths,
            labelled,
            CLASSES,
            seed=network.seed,
            source=network.source,
            mask_shares=self.factory.mask_shares(network, world, "text", per_exemplar=True),
            selectivity=self.factory.selectivity(network, world, "text"),
            run=RunConfig(batch_size=BATCH, device="cpu"),
            folder=self.factory.folder,
        )

    def _add_training_images(self) -> None:
        """Add the first training images of each network, for fine-tuning its last layer."""
        for network in self.ablated:
            if "training" not in network.images:
                count = len(network.images["test-clean"])
                scenes = Scenes(self.exemplar_world, count, TRAINING_SCENES + network.seed)
                network.images = {**network.images, "training": _label(scenes)}


def _label(scenes: Scenes) -> LabelledImages:
    return LabelledImages(scenes, scenes.labels, scenes.source)
