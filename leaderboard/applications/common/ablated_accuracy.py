"""One trained network with pictures of several roles: what it answers without sets of units.

Every set is measured once, whoever asks: arms, methods and protocols share single-unit ablations,
controls of equal size, and the whole network. A folder keeps what was measured, by content, so
that the next method finds it there.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from milannotations.errors import InputError
from milannotations.schema import Unit
from milannotations.utils.cache import Cache, CacheEntry, content_key

if TYPE_CHECKING:
    from torch import nn

    from milannotations.exemplars import Ablator, Layer, RunConfig

ROLES = ("validation-clean", "validation-conflict", "test-clean", "test-conflict")
"""Pictures without what was added, and with what names another class; to choose on, to report.
A role `training` may stand beside them: what a head is trained on."""


@dataclass(frozen=True)
class Labelled:
    """Pictures with classes.

    Attributes:
        pictures: a data set, as of `exemplars.compute`.
        labels: int64 (picture,), places among the network's outputs.
        source: where they came from, for a record, with a digest.
    """

    pictures: Any
    labels: NDArray[np.int64]
    source: Mapping[str, Any]

    def __post_init__(self) -> None:
        if len(self.pictures) != len(self.labels):
            raise InputError(
                f"{len(self.pictures):,} pictures came with {len(self.labels):,} classes."
            )


class Trial:
    """A trained network, and the pictures that edits of it are chosen and reported on.

    Args:
        name: of the network, as predictions call it.
        model: the network.
        layers: whose units may be deleted, with the number of units of each.
        pictures: by role (`ROLES`).
        classes: outputs of the network.
        seed: of its training, and of the draws that are made for it.
        source: what the network is, for a record, with a digest.
        shown: which share of each unit's exemplars' masks lies in what is to be deleted: what
            descriptions can tell; None where it is not known.
        selectivity: which share of where each unit is active, on any picture, lies in it; None
            where it is not known.
        run: of the passes.
        folder: where what was measured is kept; None keeps it in memory.
    """

    def __init__(
        self,
        name: str,
        model: nn.Module,
        layers: Mapping[str | Layer, int],
        pictures: Mapping[str, Labelled],
        classes: int,
        *,
        seed: int = 0,
        source: Mapping[str, Any] | None = None,
        shown: Mapping[Unit, float] | None = None,
        selectivity: Mapping[Unit, float] | None = None,
        run: RunConfig | None = None,
        folder: Path | None = None,
    ) -> None:
        from milannotations.exemplars import Layer

        self.name, self.model, self.pictures, self.classes = name, model, pictures, classes
        self.seed, self.source = seed, dict(source or {})
        self.shown, self.selectivity = shown, selectivity
        self.layers = [Layer.parse(each) if isinstance(each, str) else each for each in layers]
        self.widths = {
            layer.label: width for layer, width in zip(self.layers, layers.values(), strict=True)
        }
        self.run, self.folder = run, folder
        self._measured: dict[str, dict[str, list[int]]] = {}
        self._ablators: dict[str, Ablator] = {}

    @cached_property
    def units(self) -> list[Unit]:
        """Its units, in order."""
        return [
            Unit(self.name, layer, i) for layer, width in self.widths.items() for i in range(width)
        ]

    def accuracies(self, role: str, sets: Sequence[Sequence[Unit]]) -> list[float]:
        """Return the share of right answers without each set of units.

        Args:
            role: of the pictures.
            sets: units of this network.
        """
        by_class = self.right(role, sets)
        return [float(each) for each in by_class.sum(1) / max(1, len(self.pictures[role].labels))]

    def right(self, role: str, sets: Sequence[Sequence[Unit]]) -> NDArray[np.int64]:
        """Return how many pictures of each class are told without each set: (set, class)."""
        from milannotations.synthetic.training import reproducible

        shown, kept = self.pictures[role], self._kept(role)
        keys = [_key(each) for each in sets]
        missing = {key: each for key, each in zip(keys, sets, strict=True) if key not in kept}
        if missing:
            ablator = self._ablator(role)
            with reproducible(self.seed):
                answers = ablator.predictions([_by_layer(each) for each in missing.values()])
            right = answers == shown.labels
            for key, row in zip(missing, right, strict=True):
                kept[key] = np.bincount(shown.labels[row], minlength=self.classes).tolist()
            self._keep(role)
        return np.array([kept[key] for key in keys], dtype=np.int64).reshape(-1, self.classes)

    def order(self, role: str) -> list[Unit]:
        """Return all units, those first without which alone the most pictures are told.

        Hernandez et al. 2022, section 7. Where units tie, a seeded draw decides.
        """
        alone = self.accuracies(role, [[unit] for unit in self.units])
        lots = np.random.default_rng([self.seed, 7]).permutation(len(self.units))
        places = sorted(range(len(alone)), key=lambda i: (-alone[i], lots[i]))
        return [self.units[i] for i in places]

    def tuned(
        self, roles: Sequence[str], sets: Sequence[Sequence[Unit]], epochs: int
    ) -> dict[str, NDArray[np.int64]]:
        """Return `right` by role when the head is trained on without each set of units.

        The head is the network's last linear layer. It learns from what comes to it of the role
        `training`, by AdamW at 1e-4 in batches of 128, as the 2022 code did.

        Raises:
            InputError: there are no pictures to train on, or no linear layer at the end.
        """
        from leaderboard.applications.common.head_tuning import features, head_of, tune
        from milannotations.synthetic.training import reproducible

        if "training" not in self.pictures:
            raise InputError(f"{self.name} has no training pictures: its head cannot be trained.")
        place, head = head_of(self.model)
        by_layer = [_by_layer(each) for each in sets]
        with reproducible(self.seed):
            known = {
                role: features(
                    self.model, place, self.pictures[role], self.layers, self.run, by_layer
                )
                for role in ("training", *roles)
            }
            labels = self.pictures["training"].labels
            heads = [tune(head, own, labels, epochs, self.seed) for own in known["training"]]
        found = {}
        for role in roles:
            labels = self.pictures[role].labels
            rows = []
            for answers, of_set in zip(heads, known[role], strict=True):
                right = answers(of_set) == labels
                rows.append(np.bincount(labels[right], minlength=self.classes))
            found[role] = np.array(rows, dtype=np.int64).reshape(-1, self.classes)
        return found

    # ---- what is kept

    def _ablator(self, role: str) -> Ablator:
        from milannotations.exemplars import Ablator

        if role not in self._ablators:
            shown = self.pictures[role].pictures
            self._ablators[role] = Ablator(self.model, shown, self.layers, run=self.run)
        return self._ablators[role]

    def _entry(self, role: str) -> CacheEntry:
        if self.folder is None:  # the network's digest takes time
            return CacheEntry(None)
        key = (self._digest, dict(self.pictures[role].source), sorted(self.widths))
        return Cache(self.folder).entry("ablated", *key, suffix=".json")

    @cached_property
    def _digest(self) -> str | None:
        from milannotations.exemplars.networks.digest import network_digest

        return network_digest(self.model)

    def _kept(self, role: str) -> dict[str, list[int]]:
        if role not in self._measured:
            self._measured[role] = self._entry(role).read_json() or {}
        return self._measured[role]

    def _keep(self, role: str) -> None:
        self._entry(role).write_json(self._measured[role])


def _by_layer(units: Sequence[Unit]) -> dict[str, list[int]]:
    found: dict[str, list[int]] = {}
    for unit in units:
        found.setdefault(unit.layer, []).append(unit.unit)
    return found


def _key(units: Sequence[Unit]) -> str:
    named = sorted((unit.layer, unit.unit) for unit in units)
    return content_key(named)[:24]
