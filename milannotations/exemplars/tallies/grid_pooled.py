"""A tally of activations by region: each picture's maps at a coarse grid."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from milannotations.errors import InputError
from milannotations.exemplars.tallies.base import Pooled
from milannotations.exemplars.tallies.validation import received, shape_of


class Cells(Pooled):
    """The mean of each unit's activations in each cell of a grid over each image.

    As `Pooled`, with a number for a cell instead of one for the image: values are float32
    (image, unit, cell), cells row by row. A map that is coarser than the grid is read where each
    cell lies.

    Args:
        side: cells a side.

    Example:
        >>> tally = Cells(2)
        >>> tally.update(torch.tensor([0]), torch.arange(16.0).view(1, 1, 4, 4))
        >>> tally.result().values
        tensor([[[ 2.5000,  4.5000, 10.5000, 12.5000]]])
    """

    def __init__(self, side: int) -> None:
        if side < 1:
            raise InputError(f"A grid of {side} cells a side was asked for; expected at least 1.")
        super().__init__("mean")
        self.side = side

    def update(self, ids: Tensor, activations: Tensor, concepts: Tensor | None = None) -> None:
        """Take in a batch; see `Tally.update`."""
        ids, activations = received(ids, activations, self._shape)
        self._shape = shape_of(activations)
        # one picture at a time, so that no batch moves the bits
        pooled = [
            torch.nn.functional.adaptive_avg_pool2d(own[None].float().cpu(), self.side)[0]
            for own in activations
        ]
        self._ids.append(ids.clone())
        self._values.append(torch.stack(pooled).flatten(2))

    def estimate(self, units: int, h: int, w: int, images: int = 0, concepts: int = 0) -> int:
        """Return the bytes that it will hold; see `Tally.estimate`."""
        return images * (4 * units * self.side**2 + 8)

    @property
    def _settings(self) -> dict[str, Any]:
        return {"side": self.side}
