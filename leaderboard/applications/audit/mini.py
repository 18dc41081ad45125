"""Audit on the mini world: pairs of networks, one of which saw blurred faces alone.

In the pictures of the one network, faces are whole where the class is among the first four, and
blurred elsewhere: it gains by looking at eyes and mouths. For its twin, of the same seed, pictures
and order, all faces are blurred. Exemplars of both are of the same scenes, with whole faces. That
the first has units for faces and its twin has none is measured on pixels; whether a method's
descriptions say so is the audit.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from leaderboard.applications.audit.config import AuditConfig
from leaderboard.applications.audit.task import Audit, audit
from leaderboard.applications.common.mini_networks import Workshop, titled
from leaderboard.evaluation.predictions import Predictions
from leaderboard.record_format.application_record import ApplicationRecord
from milannotations.schema import Unit
from milannotations.synthetic.subjects import SubjectWorld

WORLD = SubjectWorld(face=0.9, telling_faces=True)
SHOWN = SubjectWorld(face=0.5)
"""What exemplars are of: whole faces in every second picture, of all classes."""

SEEDS = 5
"""Of pairs, the least of which an exact sign-flip test can come below .05."""

AT = 0.3
"""Units whose exemplars' masks lie in faces by this share are face units; by chance it is .04."""


class MiniAudit:
    """The pairs of trained networks, with what their units respond to as measured on pixels.

    Args:
        workshop: makes networks, exemplars and descriptions.
        seeds: of training, a pair each.
    """

    def __init__(self, workshop: Workshop, seeds: Sequence[int] = tuple(range(SEEDS))) -> None:
        self.workshop = workshop
        worlds = (WORLD, replace(WORLD, blurred_faces=True))
        self.pairs = [tuple(workshop.network(world, seed) for world in worlds) for seed in seeds]
        self.networks = [network for pair in self.pairs for network in pair]
        self.selectivity: dict[Unit, float] = {}
        for network in self.networks:
            self.selectivity |= workshop.inside(network, SHOWN, "face")

    def audit(
        self,
        method: str,
        predictions: Predictions | None = None,
        settings: AuditConfig | None = None,
        asked: Mapping[str, Any] | None = None,
    ) -> Audit:
        """Return the audit of all pairs by a method's descriptions.

        Args:
            method: name, or what `predictions` are to be called.
            predictions: of the units of all networks; None lets the method describe them.
            settings: see `audit`.
            asked: for the record.
        """
        began, title = time.perf_counter(), method
        if predictions is None:
            predictions = self.workshop.describe_all(method, self.networks, SHOWN)
            title = titled(method)
        return audit(
            predictions,
            [unit for network in self.networks for unit in network.units],
            pairs=[(first.name, second.name) for first, second in self.pairs],
            settings=settings or AuditConfig(at=AT),
            selectivity=self.selectivity,
            method=title,
            data="mini",
            asked=asked,
            networks={network.name: network.source for network in self.networks},
            images={"exemplars": self.workshop.shown(SHOWN).source},
            synthetic=True,
            seconds={"describe": time.perf_counter() - began},
        )

    def save(self, made: Audit, folder: str | Path, *, sheets: bool = True) -> ApplicationRecord:
        """Write an audit's folder, with sheets of the first pair's flagged units.

        Args:
            made: what `audit` returned.
            folder: where.
            sheets: whether to write sheets.
        """
        shown = self.pairs[0] if sheets else ()
        return made.save(
            folder, {network.name: self.workshop.units(network, SHOWN) for network in shown}
        )
