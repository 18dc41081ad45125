"""Images with class labels, as a dataset and as (image, label) items for training."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from milannotations.errors import InputError


@dataclass(frozen=True)
class LabelledImages:
    """Images with the class of each.

    Indexing gives (image tensor, label), as a `DataLoader` collates them.

    Attributes:
        images: a dataset, as `exemplars.compute` takes it.
        labels: int64 (image,), indices among the network's outputs.
        source: where the images are from, with a digest, for the record.
    """

    images: Any
    labels: NDArray[np.int64]
    source: Mapping[str, Any]

    def __post_init__(self) -> None:
        if len(self.images) != len(self.labels):
            raise InputError(
                f"{len(self.labels):,} labels for {len(self.images):,} images; expected one label "
                "per image."
            )

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: int) -> tuple[Any, int]:
        item = self.images[index]
        return item["image"] if isinstance(item, dict) else item, int(self.labels[index])

    def class_counts(self, classes: int) -> NDArray[np.int64]:
        """Return the number of images of each class: int64 (class,)."""
        counts: NDArray[np.int64] = np.bincount(self.labels, minlength=classes)
        return counts
