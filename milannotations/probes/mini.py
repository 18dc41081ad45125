"""Scenes of the mini world as a probe data set: every pixel's concepts are known."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from milannotations.probes.base import Concept, Labels
from milannotations.synthetic.concepts import CATEGORY, CHANNEL, CONCEPTS, one_hot
from milannotations.synthetic.dataset import SceneDataset

if TYPE_CHECKING:
    from PIL import Image

SEED = 3
"""Of the scenes: none of the edition's, the encoder's or the subjects' are among them."""

SCENES = 512


class MiniProbe:
    """Scenes with their label maps, one plane a category; see `probes.Probe`.

    Args:
        count: of scenes.
        seed: of the stream.
    """

    def __init__(self, count: int = SCENES, seed: int = SEED) -> None:
        self.name = "mini"
        self.concepts = tuple(Concept(name, CATEGORY[name]) for name in CONCEPTS)
        self.scenes = SceneDataset(count, seed=seed)
        self.source: dict[str, Any] = {"probe": "mini", "scenes": count, "seed": seed}

    def __len__(self) -> int:
        return len(self.scenes)

    def source_id(self, i: int) -> str:
        """Return where a picture came from."""
        return self.scenes.scene(i).source_id

    def picture(self, i: int) -> Image.Image:
        """Return a picture, RGB."""
        from PIL import Image

        return Image.fromarray(self.scenes.scene(i).image)

    def labels(self, i: int, size: tuple[int, int]) -> Labels:
        """Return label maps, one plane a category; see `probes.Probe`."""
        return _resized(_numbered(self.scenes.scene(i).labels), size)


class ConceptItems:
    """What a synthetic network is shown: concept maps instead of a picture, and label planes.

    Args:
        probe: the scenes.
        size: of label maps, (height, width).
    """

    def __init__(self, probe: MiniProbe, size: tuple[int, int] = (64, 64)) -> None:
        self.probe, self.size = probe, size
        self.source = {"probe": probe.source, "size": list(size), "input": "concept maps"}

    def __len__(self) -> int:
        return len(self.probe)

    def source_id(self, i: int) -> str:
        """Return where a picture came from."""
        return self.probe.source_id(i)

    def __getitem__(self, i: int) -> dict[str, Any]:
        labels = self.probe.scenes.scene(i).labels
        return {
            "image": torch.from_numpy(one_hot(labels)),
            "concepts": torch.from_numpy(_resized(_numbered(labels), self.size)),
        }


def open_probe() -> MiniProbe:
    """Return the mini world's probe data set."""
    return MiniProbe()


# the number in label planes of each category's labels; 0 stays 0
_FIRST = np.array(
    [
        min(CHANNEL[n] for n in CONCEPTS if CATEGORY[n] == c)
        for c in dict.fromkeys(CATEGORY.values())
    ]
)


def _numbered(labels: Any) -> Labels:
    """Return planes of concept numbers, of label maps of categories (category, h, w)."""
    found: Labels = np.where(labels > 0, labels.astype(np.int32) + _FIRST[:, None, None], 0)
    return found.astype(np.int32)


def _resized(planes: Labels, size: tuple[int, int]) -> Labels:
    """Return planes at another size, nearest."""
    high, wide = planes.shape[1:]
    rows, columns = np.arange(size[0]) * high // size[0], np.arange(size[1]) * wide // size[1]
    return np.ascontiguousarray(planes[:, rows[:, None], columns[None]])
