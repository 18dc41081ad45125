"""Any folder of pictures as a probe data set: what is known of a picture is its class, if anything.

    DIR/cat/1.jpg       a picture of the class `cat`: all of it counts as `cat`
    DIR/2.jpg           a picture of which nothing is known

Methods that bring their own concepts (CLIP-Dissect with a list) need no more than the pictures.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from milannotations.exemplars.images.sources import Folder
from milannotations.probes.base import Concept, Labels

if TYPE_CHECKING:
    from PIL import Image

CATEGORY = "class"


class ImageFolderProbe:
    """Pictures in class folders, or loose, or both; see `probes.Probe`.

    Args:
        path: the folder.

    Raises:
        InputError: there are no pictures in it.
    """

    def __init__(self, path: Path) -> None:
        self._pictures = Folder(path)
        self.name = f"images:{self._pictures.name}"
        classes = [Path(each).parts[:-1][:1] for each in self._pictures.paths]
        names = sorted({each[0] for each in classes if each})
        self.concepts = tuple(Concept(name, CATEGORY) for name in names)
        self._numbers = [names.index(each[0]) + 1 if each else 0 for each in classes]
        self.source: dict[str, Any] = {
            **self._pictures.describe(range(len(self))),
            "kind": "images",
            "pictures": len(self),
            "concepts": len(names),
        }

    def __len__(self) -> int:
        return len(self._pictures)

    def source_id(self, i: int) -> str:
        """Return the picture's path within the folder."""
        return self._pictures.source_id(i)

    def image(self, i: int) -> Image.Image:
        """Return a picture, RGB, whole."""
        return self._pictures.load(i)

    def labels(self, i: int, size: tuple[int, int]) -> Labels:
        """Return a label map that is of the picture's class everywhere; see `probes.Probe`."""
        return np.full((1, *size), self._numbers[i], np.int32)


def open_probe(path: Path) -> ImageFolderProbe:
    """Return the pictures of a folder."""
    return ImageFolderProbe(path)
