"""Tally of the overlap of units with concepts and with the categories of concepts."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from milannotations.exemplars import Overlap


class CategoryOverlap(Overlap):
    """Overlap of each unit's active positions with each concept and with each category.

    A category counts as a further concept, which covers the whole of every image in which one of
    its concepts is labelled. Categories come after the concepts. See `exemplars.Overlap`.

    Args:
        thresholds: (unit,), finite.
        category_of: (concept,), index of each concept's category.
    """

    def __init__(self, thresholds: Tensor, category_of: NDArray[np.int64]) -> None:
        self._category_of = torch.from_numpy(category_of)
        self._n_categories = int(category_of.max()) + 1
        super().__init__(thresholds, concepts=len(category_of) + self._n_categories)

    def update(self, ids: Tensor, activations: Tensor, concepts: Tensor | None = None) -> None:
        """Update the counts with a batch; concepts are label planes, see `Overlap`."""
        if concepts is not None and concepts.dim() == 4:
            concepts = self._add_categories(concepts)
        super().update(ids, activations, concepts)

    def estimate(self, units: int, h: int, w: int, images: int = 0, concepts: int = 0) -> int:
        """Return the bytes that it will hold; see `Tally.estimate`."""
        n_concepts = len(self._category_of) + self._n_categories
        return super().estimate(units, h, w, images, n_concepts)

    def _add_categories(self, planes: Tensor) -> Tensor:
        """Return label planes (image, plane, height, width) with planes of categories added."""
        n_concepts = len(self._category_of)
        present = torch.zeros(len(planes), self._n_categories, dtype=torch.bool)
        for image, labels in enumerate(planes.cpu()):
            # labels are numbered from 1; 0 is none
            concepts = labels.flatten().bincount(minlength=n_concepts + 1)[1:].nonzero()[:, 0]
            present[image, self._category_of[concepts]] = True
        numbers = torch.arange(self._n_categories) + n_concepts + 1
        # Sorted, the numbers of an image's categories come before its zeros, so that as many
        # planes are enough as the image with most categories has.
        n_planes = int(present.sum(1).max())
        numbers = (present * numbers).sort(1, descending=True).values[:, :n_planes]
        category_planes = numbers.to(planes)[:, :, None, None].expand(-1, -1, *planes.shape[2:])
        return torch.cat([planes, category_planes], 1)
