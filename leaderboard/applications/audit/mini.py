"""Audit of pairs of networks of the mini world, one of each pair trained on blurred faces alone.

In the training images of the first network, faces are sharp in the first four classes and blurred
in the others, so that it gains by looking at eyes and mouths. For its twin, with the same seed,
images and order, all faces are blurred. Exemplars of both are from the same scenes, with sharp
faces. That the first network has units for faces and its twin has none is measured on pixels; the
audit asks whether a method's descriptions say so.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from leaderboard.applications.audit.config import AuditConfig
from leaderboard.applications.audit.task import Audit, audit
from leaderboard.applications.common.mini_networks import MiniNetworkFactory
from leaderboard.applications.common.mini_task import MiniTask
from leaderboard.applications.common.task_result import TaskInfo
from leaderboard.evaluation.predictions import Predictions
from milannotations.schema import Unit
from milannotations.synthetic.subjects import SubjectWorld

SHARP_WORLD = SubjectWorld(face=0.9, telling_faces=True)
"""World of the first network of a pair."""

WORLDS = (SHARP_WORLD, replace(SHARP_WORLD, blurred_faces=True))
"""Worlds of the two networks of a pair."""

EXEMPLAR_WORLD = SubjectWorld(face=0.5)
"""World of the exemplars: sharp faces in every second image, of all classes."""

SEEDS = 5
"""Pairs of networks: the fewest for which an exact sign-flip test can give p below .05."""

AT = 0.3
"""Least share of a unit's exemplar masks inside faces, of a face unit; by chance it is .04."""


class MiniAudit(MiniTask[AuditConfig, Audit]):
    """Audit of pairs of trained networks of the mini world.

    Args:
        factory: makes networks, exemplars and descriptions.
        seeds: random seeds of training, one pair each.
    """

    def __init__(
        self, factory: MiniNetworkFactory, seeds: Sequence[int] = tuple(range(SEEDS))
    ) -> None:
        self.pairs = [tuple(factory.network(world, seed) for world in WORLDS) for seed in seeds]
        networks = [network for pair in self.pairs for network in pair]
        super().__init__(factory, networks, EXEMPLAR_WORLD)
        self.selectivity: dict[Unit, float] = {}
        for network in networks:
            self.selectivity |= factory.mask_shares(network, EXEMPLAR_WORLD, "face")

    def run_on(self, predictions: Predictions, config: AuditConfig | None, info: TaskInfo) -> Audit:
        return audit(
            predictions,
            [unit for network in self.networks for unit in network.units],
            pairs=[(first.name, second.name) for first, second in self.pairs],
            config=config or AuditConfig(at=AT),
            selectivity=self.selectivity,
            networks={network.name: network.source for network in self.networks},
            images={"exemplars": self.factory.exemplar_scenes(EXEMPLAR_WORLD).source},
            # contact sheets of one pair are enough to look at
            exemplars={
                network.name: self.factory.units(network, EXEMPLAR_WORLD)
                for network in self.pairs[0]
            },
            info=info,
        )
