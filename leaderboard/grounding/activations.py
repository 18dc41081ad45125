"""Activations of units on held-out images: images that no exemplar was chosen from.

Activations are read with the exemplar engine's tallies in one pass over the images
(`baselines.shared.probe_statistics`). With a cache they are stored under the digest of their
content, so further descriptions, metrics and methods need no other pass.
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
    from baselines.shared.probe_statistics import ProbeStatistics
    from milannotations.probes import Concept, Probe
    from milannotations.probes.base import Labels

MIN_IMAGES = 20
"""Fewest held-out images for a score."""

Layer = tuple[str, str]


class ProbeSubset:
    """A subset of the images of a probe dataset; itself a probe dataset.

    Args:
        probe: the whole probe dataset.
        indices: indices of the images, ascending.
        sampling: how the images were chosen, for records.
    """

    def __init__(self, probe: Probe, indices: Sequence[int], sampling: Mapping[str, Any]) -> None:
        self.whole, self.indices = probe, list(indices)
        self.name, self.concepts = probe.name, probe.concepts
        digest = hashlib.sha256(" ".join(map(str, self.indices)).encode()).hexdigest()
        self.source = {**probe.source, "sample": {**sampling, "places": digest}}

    def __len__(self) -> int:
        return len(self.indices)

    def source_id(self, i: int) -> str:
        """Return the source id of an image."""
        return self.whole.source_id(self.indices[i])

    def image(self, i: int) -> Image.Image:
        """Return an image, RGB, uncropped."""
        return self.whole.image(self.indices[i])

    def labels(self, i: int, size: tuple[int, int]) -> Labels:
        """Return the label maps of an image; see `probes.Probe`."""
        return self.whole.labels(self.indices[i], size)


@dataclass(frozen=True)
class ImageSampling:
    """Choice of held-out images from a probe dataset.

    Attributes:
        limit: number of images, drawn uniformly; None takes all of them.
        seed: random seed of the draw.
        without: source ids of images to leave out: exemplars of the units.
    """

    limit: int | None = None
    seed: int = 0
    without: Collection[str] = field(default=frozenset(), repr=False)

    def __call__(self, probe: Probe) -> Probe:
        """Return the chosen images as a probe dataset.

        Raises:
            InputError: fewer than `MIN_IMAGES` images are left.
        """
        without = set(self.without)
        indices = [i for i in range(len(probe)) if not without or probe.source_id(i) not in without]
        n_left_out = len(probe) - len(indices)
        if self.limit is not None and self.limit < len(indices):
            rng = np.random.default_rng([self.seed, len(indices), self.limit])
            indices = [indices[i] for i in np.sort(rng.permutation(len(indices))[: self.limit])]
        if len(indices) < MIN_IMAGES:
            beside = f", {n_left_out:,} of them exemplars that were left out" if n_left_out else ""
            raise InputError(
                f"Only {len(indices):,} held-out images of {probe.name} ({len(probe):,} images"
                f"{beside}); expected at least {MIN_IMAGES}. Give other images with --images DIR, "
                "or keep the exemplars with --keep-exemplars (the record then says so)."
            )
        if len(indices) == len(probe):
            return probe
        # The keys are part of the record and of the digest of the activations.
        sampling = {"pictures": len(indices), "seed": self.seed, "exemplars_left_out": n_left_out}
        return ProbeSubset(probe, indices, sampling)


class HeldOutActivations:
    """Activations of one or more networks on one set of images, per image or per region.

    Args:
        probings: networks on the images, by name; all see the same images.
        grid: regions per side; None pools whole images.
        pool: pooling over positions of a whole image: `mean` or `max`.

    Raises:
        InputError: the networks see different images.
    """

    def __init__(
        self,
        probings: Mapping[str, ProbeStatistics],
        *,
        grid: int | None = None,
        pool: str = "mean",
    ) -> None:
        sources = {
            json.dumps(probing.probe.source, sort_keys=True) for probing in probings.values()
        }
        if len(sources) != 1:
            raise InputError(
                f"{len(probings)} networks were shown {len(sources)} sets of images; expected one "
                "set for all networks."
            )
        self.probings, self.grid, self.pool = dict(probings), grid, pool

    @property
    def probe(self) -> Probe:
        """Probe dataset with the images and their labels."""
        return next(iter(self.probings.values())).probe

    @property
    def concepts(self) -> tuple[Concept, ...]:
        """Concepts in the label maps of the images."""
        return next(iter(self.probings.values())).concepts

    @property
    def samples(self) -> int:
        """Number of images, or of regions of all images."""
        return len(self.probe) * (1 if self.grid is None else self.grid**2)

    @cached_property
    def layers(self) -> dict[Layer, Floats]:
        """Activations by network and layer: float64 (sample, unit)."""
        activations: dict[Layer, Floats] = {}
        for network, probing in self.probings.items():
            for label, values in _read(probing, self.grid, self.pool).items():
                activations[network, label] = values.astype(np.float64)
        return activations

    def covers(self, units: Sequence[Unit]) -> NDArray[np.bool_]:
        """Return which units have activations: bool (unit,)."""
        sizes = {layer: values.shape[1] for layer, values in self.layers.items()}
        return np.array([unit.unit < sizes.get(unit[:2], 0) for unit in units], dtype=bool)

    def of(self, keys: Sequence[str]) -> Floats:
        """Return activations of units by key.

        Args:
            keys: `network/layer/unit`, as `str(Unit)` writes them.

        Returns:
            float64 (sample, unit); nan for units without activations.
        """
        activations = np.full((self.samples, len(keys)), np.nan)
        # Group the columns by layer, so that each layer is indexed once.
        by_layer: dict[Layer, list[tuple[int, int]]] = {}
        for column, key in enumerate(keys):
            head, _, index = key.rpartition("/")
            layer = self._layer_of_head.get(head)
            if layer is not None and int(index) < self.layers[layer].shape[1]:
                by_layer.setdefault(layer, []).append((column, int(index)))
        for layer, pairs in by_layer.items():
            columns, units = zip(*pairs, strict=True)
            activations[:, list(columns)] = self.layers[layer][:, list(units)]
        return activations

    @cached_property
    def _layer_of_head(self) -> dict[str, Layer]:
        """Layer by the head of a unit's key: network names may hold slashes as well."""
        return {f"{network}/{layer}": (network, layer) for network, layer in self.layers}

    @cached_property
    def source(self) -> dict[str, Any]:
        """Images, networks and pooling, for records."""
        return {
            "images": {**self.probe.source, "count": len(self.probe)},
            "networks": {name: probing.source["model"] for name, probing in self.probings.items()},
            "grid": self.grid,
            "pool": "cells" if self.grid is not None else self.pool,
        }

    @cached_property
    def digest(self) -> str:
        """Digest of `source`: equal digests, equal activations."""
        return hashlib.sha256(json.dumps(self.source, sort_keys=True).encode()).hexdigest()[:24]


def _read(probing: ProbeStatistics, grid: int | None, pool: str) -> dict[str, NDArray[np.float32]]:
    """Return activations by layer: float32 (sample, unit)."""
    if grid is None:
        return {label: values.numpy() for label, values in probing.pooled_activations(pool).items()}
    from milannotations.exemplars.tallies.grid_pooled import GridPooled

    side = grid
    results = probing.run_tally(f"cells {side}", lambda _: GridPooled(side))
    # (image, unit, cell) -> (image, cell, unit) -> (image * cell, unit)
    return {
        label: result.values.movedim(1, 2).flatten(0, 1).numpy()
        for label, result in results.items()
    }


def exemplar_source_ids(
    edition: str | os.PathLike[str], config: str | None = None
) -> frozenset[str]:
    """Return the source ids of all exemplars of an edition; empty if it has no images.

    Raises:
        InputError: unknown edition or config.
    """
    from milannotations.editions import loading
    from milannotations.editions.configs import pick_config

    config = pick_config(edition, config)
    splits = loading.load(edition, config, columns=["source_ids"], streaming=True)
    rows = (row["source_ids"] for split in splits.values() for row in split)
    return frozenset(source_id for row in rows if row is not None for source_id in row)


def probe_subject(
    subject: Subject,
    units: Sequence[Unit],
    sampling: Callable[[Probe], Probe],
    *,
    grid: int | None = None,
) -> HeldOutActivations:
    """Read the activations of a network's units on held-out images.

    Args:
        subject: the network and the images.
        units: units whose layers are read.
        sampling: chooses held-out images, such as `ImageSampling`.
        grid: see `HeldOutActivations`.

    Raises:
        InputError: as `Subject.probe_statistics`; too few images.
    """
    return HeldOutActivations(subject.probe_statistics(units, sampling), grid=grid)


def probe_mini(*, grid: int | None = None, networks: Collection[str] = ()) -> HeldOutActivations:
    """Read the activations of the mini networks on scenes that no exemplar was chosen from.

    Args:
        grid: see `HeldOutActivations`.
        networks: names of networks; all of them if empty.

    Raises:
        InputError: unknown network.
    """
    from baselines.shared.probe_statistics import mini_probe_statistics

    return HeldOutActivations(mini_probe_statistics(list(networks)), grid=grid)
