"""Probe dataset of a folder of images, labelled by class folder or not at all.

    DIR/cat/1.jpg       an image of the class `cat`: all of its pixels are `cat`
    DIR/2.jpg           an image without labels

Methods that bring their own concepts (CLIP-Dissect with a list) need only the images.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from milannotations.exemplars.images.folder import FolderSource
from milannotations.probes.base import Concept, Labels

if TYPE_CHECKING:
    from PIL import Image

CATEGORY = "class"
"""Category of all concepts."""


class ImageFolderProbe:
    """Images in class folders, loose, or both; see `probes.Probe`.

    Args:
        path: the folder.

    Raises:
        InputError: the folder holds no images.
    """

    def __init__(self, path: Path) -> None:
        self._images = FolderSource(path)
        self.name = f"images:{self._images.name}"
        classes = [Path(path).parts[:-1][:1] for path in self._images.paths]  # () for loose images
        names = sorted({parts[0] for parts in classes if parts})
        self.concepts = tuple(Concept(name, CATEGORY) for name in names)
        self._numbers = [names.index(parts[0]) + 1 if parts else 0 for parts in classes]
        self.source: dict[str, Any] = {
            **self._images.describe(range(len(self))),
            "kind": "images",
            "pictures": len(self),
            "concepts": len(names),
        }

    def __len__(self) -> int:
        return len(self._images)

    def source_id(self, i: int) -> str:
        """Return the path of an image within the folder."""
        return self._images.source_id(i)

    def image(self, i: int) -> Image.Image:
        """Return an image, RGB, uncropped."""
        return self._images.load(i)

    def labels(self, i: int, size: tuple[int, int]) -> Labels:
        """Return a label map that has the image's class everywhere; see `probes.Probe`."""
        return np.full((1, *size), self._numbers[i], np.int32)


def open_probe(path: Path) -> ImageFolderProbe:
    """Open the images of a folder."""
    return ImageFolderProbe(path)
