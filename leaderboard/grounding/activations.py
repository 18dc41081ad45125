"""What units did on pictures that played no part in choosing their exemplars.

Activations are those of the exemplar engine's tallies, of one pass over the pictures
(`baselines.Probing`), kept by content where a cache is given: any number of descriptions, metrics
and methods costs no further pass.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from leaderboard.metrics.base import Floats
from milannotations.errors import InputError
from milannotations.schema import Unit

if TYPE_CHECKING:
    from PIL import Image

    from baselines import Subject
    from baselines.shared.probe_statistics import Probing
    from milannotations.probes import Concept, Probe
    from milannotations.probes.base import Labels

MIN_IMAGES = 20
"""Pictures that a score takes; fewer say nothing of when a unit fires."""


class ProbeSubset:
    """Some pictures of a probe data set, themselves a probe data set.

    Args:
        probe: all of them.
        places: which, ascending.
        chosen: how they were chosen, for records.
    """

    def __init__(self, probe: Probe, places: Sequence[int], chosen: Mapping[str, Any]) -> None:
        self.whole, self.places = probe, list(places)
        self.name, self.concepts = probe.name, probe.concepts
        listed = hashlib.sha256(" ".join(map(str, self.places)).encode()).hexdigest()
        self.source = {**probe.source, "sample": {**chosen, "places": listed}}

    def __len__(self) -> int:
        return len(self.places)

    def source_id(self, i: int) -> str:
        """Return where a picture came from."""
        return self.whole.source_id(self.places[i])

    def image(self, i: int) -> Image.Image:
        """Return a picture, RGB, whole."""
        return self.whole.image(self.places[i])

    def labels(self, i: int, size: tuple[int, int]) -> Labels:
        """Return label maps; see `probes.Probe`."""
        return self.whole.labels(self.places[i], size)


@dataclass(frozen=True)
class ImageSampling:
    """Which pictures of a probe data set are looked at.

    Attributes:
        limit: how many, drawn uniformly; None takes all of them.
        seed: of the draw.
        without: source ids of pictures that are left out: exemplars of the units.
    """

    limit: int | None = None
    seed: int = 0
    without: Collection[str] = field(default=frozenset(), repr=False)

    def __call__(self, probe: Probe) -> Probe:
        """Return the pictures that are looked at.

        Raises:
            InputError: fewer than `MIN_IMAGES`.
        """
        without = set(self.without)
        left = [i for i in range(len(probe)) if not without or probe.source_id(i) not in without]
        taken_out = len(probe) - len(left)
        if self.limit is not None and self.limit < len(left):
            draw = np.random.default_rng([self.seed, len(left), self.limit])
            left = [left[i] for i in np.sort(draw.permutation(len(left))[: self.limit])]
        if len(left) < MIN_IMAGES:
            beside = f", {taken_out:,} of them exemplars that were left out" if taken_out else ""
            raise InputError(
                f"{len(left):,} held-out pictures of {probe.name} ({len(probe):,} pictures"
                f"{beside}); expected at least {MIN_IMAGES}. Give other pictures: --images DIR, or "
                "keep the exemplars, which the record then says: --keep-exemplars."
            )
        if len(left) == len(probe):
            return probe
        how = {"pictures": len(left), "seed": self.seed, "exemplars_left_out": taken_out}
        return ProbeSubset(probe, left, how)


class HeldOutActivations:
    """Activations of networks on one set of pictures, whole or by region.

    Args:
        probings: networks on the pictures, by name. All are shown the same ones.
        grid: regions a side; None takes pictures whole, with mean activations.
        pool: of whole pictures: `mean` or `max` over positions.

    Raises:
        InputError: networks on different pictures.
    """

    def __init__(
        self, probings: Mapping[str, Probing], *, grid: int | None = None, pool: str = "mean"
    ) -> None:
        digests = {json.dumps(each.probe.source, sort_keys=True) for each in probings.values()}
        if len(digests) != 1:
            raise InputError(
                f"{len(probings)} networks were shown {len(digests)} sets of pictures; expected "
                "one that all are shown, so that a description is looked for once."
            )
        self.probings, self.grid, self.pool = dict(probings), grid, pool

    @property
    def probe(self) -> Probe:
        """The pictures, with what is known of them."""
        return next(iter(self.probings.values())).probe

    @property
    def concepts(self) -> tuple[Concept, ...]:
        """What label maps of the pictures tell."""
        return next(iter(self.probings.values())).concepts

    @property
    def samples(self) -> int:
        """Pictures, or regions of all pictures."""
        return len(self.probe) * (1 if self.grid is None else self.grid**2)

    @cached_property
    def layers(self) -> dict[tuple[str, str], Floats]:
        """Activations by network and layer: float64 (sample, unit)."""
        found: dict[tuple[str, str], Floats] = {}
        for network, probing in self.probings.items():
            for label, values in _read(probing, self.grid, self.pool).items():
                found[network, label] = values.astype(np.float64)
        return found

    def covers(self, units: Sequence[Unit]) -> NDArray[np.bool_]:
        """Return which units are among those that were seen: bool (unit,)."""
        sizes = {key: values.shape[1] for key, values in self.layers.items()}
        return np.array([unit.unit < sizes.get(unit[:2], 0) for unit in units], dtype=bool)

    def of(self, keys: Sequence[str]) -> Floats:
        """Return activations of units by key: float64 (sample, unit), nan of those not seen.

        Args:
            keys: `network/layer/unit`, as `str(Unit)` writes them.
        """
        found = np.full((self.samples, len(keys)), np.nan)
        places: dict[tuple[str, str], list[tuple[int, int]]] = {}
        for column, key in enumerate(keys):
            head, _, index = key.rpartition("/")
            known = self._named.get(head)
            if known is not None and int(index) < self.layers[known].shape[1]:
                places.setdefault(known, []).append((column, int(index)))
        for layer, pairs in places.items():
            columns, indices = zip(*pairs, strict=True)
            found[:, list(columns)] = self.layers[layer][:, list(indices)]
        return found

    @cached_property
    def _named(self) -> dict[str, tuple[str, str]]:
        return {f"{network}/{layer}": (network, layer) for network, layer in self.layers}

    @cached_property
    def source(self) -> dict[str, Any]:
        """Pictures and networks, for records."""
        return {
            "images": {**self.probe.source, "count": len(self.probe)},
            "networks": {name: each.source["model"] for name, each in self.probings.items()},
            "grid": self.grid,
            "pool": "cells" if self.grid is not None else self.pool,
        }

    @cached_property
    def digest(self) -> str:
        """Of networks and pictures: equal ones, equal activations."""
        made = json.dumps(self.source, sort_keys=True)
        return hashlib.sha256(made.encode()).hexdigest()[:24]


def _read(probing: Probing, grid: int | None, pool: str) -> dict[str, NDArray[np.float32]]:
    """Return activations by layer: float32 (sample, unit)."""
    if grid is None:
        return {label: values.numpy() for label, values in probing.pooled(pool).items()}
    from milannotations.exemplars.tallies.grid_pooled import Cells

    side = grid
    tallied = probing.tallied(f"cells {side}", lambda _: Cells(side))
    return {
        label: found.values.movedim(1, 2).flatten(0, 1).numpy() for label, found in tallied.items()
    }


def exemplar_source_ids(
    edition: str | os.PathLike[str], config: str | None = None
) -> frozenset[str]:
    """Return the source ids of all exemplars of an edition; none where it has no pictures.

    Raises:
        InputError: no such edition or config.
    """
    from milannotations.editions import loading
    from milannotations.editions.configs import pick_config

    config = pick_config(edition, config)
    loaded = loading.load(edition, config, columns=["source_ids"], streaming=True)
    rows = (row["source_ids"] for part in loaded.values() for row in part)
    return frozenset(each for row in rows if row is not None for each in row)


def probe_subject(
    subject: Subject,
    units: Sequence[Unit],
    sampling: Callable[[Probe], Probe],
    *,
    grid: int | None = None,
) -> HeldOutActivations:
    """Return what the units of a network did on held-out pictures.

    Args:
        subject: the network, and the pictures.
        units: whose layers are looked at.
        sampling: chooses among the pictures.
        grid: see `HeldOutActivations`.

    Raises:
        InputError: as `Subject.probings`; too few pictures.
    """
    return HeldOutActivations(subject.probings(units, sampling), grid=grid)


def probe_mini(*, grid: int | None = None, networks: Collection[str] = ()) -> HeldOutActivations:
    """Return the networks of the mini world on scenes that no exemplar is of.

    Args:
        grid: see `HeldOutActivations`.
        networks: those alone.

    Raises:
        InputError: no such network.
    """
    from baselines.shared.probe_statistics import of_mini as probings

    return HeldOutActivations(probings(list(networks)), grid=grid)
