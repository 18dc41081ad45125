"""Scenes of the mini world as a dataset of labelled images."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from milannotations.synthetic.subjects import TEST_SCENES, SubjectWorld

if TYPE_CHECKING:
    from numpy.typing import NDArray


class Scenes(torch.utils.data.Dataset[dict[str, Any]]):
    """Scenes of a world, drawn once and kept in memory, as a dataset for exemplars and ablation.

    Args:
        world: the world.
        count: number of scenes.
        seed: seed of the stream of scenes.

    Attributes:
        labels: int64 (scene,), indices in `CLASSES`.

    Example:
        >>> scenes = Scenes(SubjectWorld(), 3)
        >>> tuple(scenes[2]["image"].shape), scenes.source_id(2), len(scenes.labels)
        ((3, 64, 64), 'subject-4-000002', 3)
    """

    def __init__(self, world: SubjectWorld, count: int, seed: int = TEST_SCENES) -> None:
        self.world, self.seed = world, seed
        drawn = [world.scene(seed, index) for index in range(count)]
        self.scenes = [scene for scene, _ in drawn]
        self.labels: NDArray[np.int64] = np.array([label for _, label in drawn], dtype=np.int64)

    def __len__(self) -> int:
        return len(self.scenes)

    def __getitem__(self, index: int) -> dict[str, Any]:
        image = torch.from_numpy(self.scenes[index].image).permute(2, 0, 1)
        return {"image": image.float() / 255}

    def source_id(self, index: int) -> str:
        """Return a scene's name."""
        return self.scenes[index].source_id

    def iter_pixels(self, ids: Sequence[int], workers: int | None = None) -> Iterator[Any]:
        """Yield images, uint8 (64, 64, 3); see `exemplars.ImageDataset`."""
        return (self.scenes[int(i)].image for i in ids)

    @property
    def source(self) -> dict[str, Any]:
        """Source of the images with a digest, for the record."""
        digest = hashlib.sha256()
        for scene in self.scenes:
            digest.update(scene.image.tobytes())
        return {
            "kind": "subject scenes",
            "world": asdict(self.world),
            "seed": self.seed,
            "images": len(self),
            "sha256": digest.hexdigest(),
        }

    @property
    def preprocessing(self) -> dict[str, Any]:
        """Preprocessing of the images, for the record."""
        return {"transform": "none: values from 0 to 1"}
