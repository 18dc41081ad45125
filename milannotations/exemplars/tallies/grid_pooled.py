"""Tally of activations pooled over the cells of a grid on each image."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from milannotations.errors import InputError
from milannotations.exemplars.tallies.pooled import Pooled


class GridPooled(Pooled):
    """The mean of each unit's activations in each cell of a grid over each image.

    As `Pooled`, with a number per cell instead of one per image: values are float32 (image, unit,
    cell), cells row by row. A map that is coarser than the grid is read where each cell lies.

    Args:
        side: cells per side.

    Raises:
        InputError: side is below 1.

    Example:
        >>> tally = GridPooled(2)
        >>> tally.update(torch.tensor([0]), torch.arange(16.0).view(1, 1, 4, 4))
        >>> tally.result().values
        tensor([[[ 2.5000,  4.5000, 10.5000, 12.5000]]])
    """

    def __init__(self, side: int) -> None:
        if side < 1:
            raise InputError(f"A grid has {side} cells per side; expected at least 1.")
        super().__init__("mean")
        self.side = side

    def estimate(self, units: int, h: int, w: int, images: int = 0, concepts: int = 0) -> int:
        """Return the bytes that it will hold; see `Tally.estimate`."""
        return images * (4 * units * self.side**2 + 8)

    @property
    def _settings(self) -> dict[str, Any]:
        return {"side": self.side}

    def _update(self, ids: Tensor, activations: Tensor, concepts: Tensor | None) -> None:
        # one image at a time, so that the bits do not depend on the batch
        pooled = [
            torch.nn.functional.adaptive_avg_pool2d(maps[None].float().cpu(), self.side)[0]
            for maps in activations
        ]
        self._ids.append(ids.clone())
        # (image, unit, side, side) -> (image, unit, cell)
        self._values.append(torch.stack(pooled).flatten(2))
