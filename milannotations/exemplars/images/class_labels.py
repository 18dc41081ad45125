"""Class labels of images in class folders."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from milannotations.errors import InputError, some


def class_labels(pictures: Any, classes: Sequence[str] | int | None = None) -> NDArray[np.int64]:
    """Return the class of each picture of a folder with a folder a class.

    Args:
        pictures: as `exemplars.open_images` opens them.
        classes: names of the folders, in the order of the network's outputs; or how many outputs
            it has, one a folder by name; None takes the folders that are there, by name.

    Raises:
        InputError: pictures without a class; a class that the network lacks.
    """
    names = [pictures.source_id(i).rpartition("/")[0].split("/")[0] for i in range(len(pictures))]
    if not all(names):
        raise InputError(
            f"{pictures.source_id(names.index(''))} lies in no class's folder; expected a folder "
            "a class, as torchvision's ImageFolder wants them."
        )
    there = sorted(set(names))
    if isinstance(classes, int):
        if classes < len(there):
            raise InputError(
                f"There are pictures of {len(there):,} classes, and the network tells "
                f"{classes:,}: {some(there)}. Show it classes that it was trained on."
            )
        known = there
    else:
        known = list(classes) if classes is not None else there
    unknown = [name for name in there if name not in known]
    if unknown:
        raise InputError(
            f"The network lacks the classes {some(unknown)} (it has: {some(known)}). Show it "
            "classes that it was trained on."
        )
    place = {name: i for i, name in enumerate(known)}
    return np.array([place[name] for name in names], dtype=np.int64)
