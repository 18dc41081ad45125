"""Probe dataset of scenes of the mini world, with the concepts of every pixel."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from milannotations.errors import InputError
from milannotations.probes.base import Concept, Labels, resize_labels
from milannotations.synthetic.concepts import CATEGORIES, CATEGORY, CONCEPTS, one_hot
from milannotations.synthetic.scenes import World

if TYPE_CHECKING:
    from PIL import Image

SEED = 7
"""Random seed of the scenes. Others use 0 (the edition), 1 and 2 (the encoder), 3, 4 and 1,000 on
(the subjects), 1,000 (the networks)."""

SCENES = 512
"""Number of scenes."""


class MiniProbe:
    """Scenes with their label maps, one plane per category; see `probes.Probe`.

    They are drawn once and kept, 45 kB each.

    Args:
        count: number of scenes.
        seed: random seed of the scenes.

    Example:
        >>> probe = MiniProbe(2)
        >>> len(probe.concepts), probe.labels(0, (112, 112)).shape, probe.image(0).size
        (31, (7, 112, 112), (64, 64))
    """

    def __init__(self, count: int = SCENES, seed: int = SEED) -> None:
        if count < 1:
            raise InputError(f"The number of scenes is {count}. Expected at least 1.")
        self.name = "mini"
        self.concepts = tuple(Concept(name, CATEGORY[name]) for name in CONCEPTS)
        self.scenes = tuple(World().scenes(seed, count))  # drawing costs more than reading
        digest = hashlib.sha256()
        for scene in self.scenes:
            digest.update(scene.image.tobytes() + scene.labels.tobytes())
        self.source: dict[str, Any] = {
            "kind": "mini",
            "scenes": count,
            "seed": seed,
            "sha256": digest.hexdigest(),
        }

    def __len__(self) -> int:
        return len(self.scenes)

    def source_id(self, i: int) -> str:
        """Return the scene's name."""
        return self.scenes[i].source_id

    def image(self, i: int) -> Image.Image:
        """Return an image, RGB."""
        from PIL import Image

        return Image.fromarray(self.scenes[i].image)

    def labels(self, i: int, size: tuple[int, int]) -> Labels:
        """Return label maps, one plane per category; see `probes.Probe`."""
        return resize_labels(number_labels(self.scenes[i].labels), size)


class ConceptItems:
    """Scenes as inputs of synthetic networks: concept maps instead of images, with label maps.

    Args:
        probe: the scenes.
        size: (height, width) of label maps.

    Example:
        >>> item = ConceptItems(MiniProbe(1))[0]
        >>> item["image"].dtype, tuple(item["image"].shape), tuple(item["concepts"].shape)
        (torch.bool, (31, 64, 64), (7, 64, 64))
    """

    def __init__(self, probe: MiniProbe, size: tuple[int, int] = (64, 64)) -> None:
        self.probe, self.size = probe, size
        self.source = {"probe": probe.source, "size": list(size), "input": "concept maps"}

    def __len__(self) -> int:
        return len(self.probe)

    def source_id(self, i: int) -> str:
        """Return the scene's name."""
        return self.probe.source_id(i)

    def __getitem__(self, i: int) -> dict[str, Any]:
        labels = self.probe.scenes[i].labels
        return {
            "image": torch.from_numpy(one_hot(labels)),
            "concepts": torch.from_numpy(resize_labels(number_labels(labels), self.size)),
        }


def items(count: int = SCENES, seed: int = SEED) -> ConceptItems:
    """Return scenes as inputs of synthetic networks, with label maps."""
    return ConceptItems(MiniProbe(count, seed))


def open_probe() -> MiniProbe:
    """Open the probe dataset of the mini world."""
    return MiniProbe()


# concepts before those of each category (category, 1, 1): added to its labels, which count from 1
_OFFSETS = np.cumsum([0, *(len(names) for names in CATEGORIES.values())])[:-1, None, None]


def number_labels(labels: Any) -> Labels:
    """Return concept numbers (category, h, w) for the labels within each category."""
    numbers: Labels = np.where(labels > 0, labels + _OFFSETS, 0).astype(np.int32)
    return numbers
