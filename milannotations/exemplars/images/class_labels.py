"""Class labels of images in ImageFolder layout (one folder per class)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from milannotations.errors import InputError, some


def class_labels(images: Any, classes: Sequence[str] | int | None = None) -> NDArray[np.int64]:
    """Return the class label of each image of a folder in ImageFolder layout.

    Args:
        images: images, as `exemplars.open_images` returns them.
        classes: names of the class folders in the order of the network's outputs; or the number
            of outputs, which take the folders in the order of their names; None for the folders
            that exist.

    Returns:
        Index of each image's class among the network's outputs, int64 (image,).

    Raises:
        InputError: an image outside a class folder; a class that the network does not have.
    """
    names = [images.source_id(i).rpartition("/")[0].split("/")[0] for i in range(len(images))]
    if not all(names):
        raise InputError(
            f"{images.source_id(names.index(''))} lies in no class folder; expected one folder per "
            "class, as for torchvision's ImageFolder."
        )
    present = sorted(set(names))
    if isinstance(classes, int):
        if classes < len(present):
            raise InputError(
                f"There are images of {len(present):,} classes, and the network has {classes:,} "
                f"output classes: {some(present)}. Give images of classes that it was trained on."
            )
        known = present
    else:
        known = list(classes) if classes is not None else present
    unknown = [name for name in present if name not in known]
    if unknown:
        raise InputError(
            f"The network lacks the classes {some(unknown)} (it has: {some(known)}). Give images "
            "of classes that it was trained on."
        )
    index = {name: i for i, name in enumerate(known)}
    return np.array([index[name] for name in names], dtype=np.int64)
