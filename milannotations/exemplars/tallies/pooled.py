"""Tally of activations pooled over the positions of each image."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from milannotations.errors import InputError
from milannotations.exemplars.tallies.base import BaseTally
from milannotations.exemplars.tallies.validation import blocks, check_unique


@dataclass(frozen=True)
class PooledActivations:
    """Activations pooled per image and unit.

    Attributes:
        ids: int64 (image,), indices in the dataset, ascending.
        values: float32 (image, unit), or (image, unit, cell) of `GridPooled`.
    """

    ids: Tensor
    values: Tensor


class Pooled(BaseTally):
    """The mean or the maximum of each unit's activations on each image.

    The mean is a sum in float64, halves added to halves, so that its bits do not depend on the
    order in which a machine would sum. It holds 4 * images * units bytes (and 8 * images for ids),
    so that, unlike that of other tallies, its size grows with the images. An image that came twice
    is an error.

    Args:
        how: `mean` or `max`.

    Raises:
        InputError: no such pooling.

    Example:
        >>> tally = Pooled("mean")
        >>> tally.update(torch.tensor([4]), torch.arange(8.0).view(1, 2, 2, 2))
        >>> tally.result().values
        tensor([[1.5000, 5.5000]])
    """

    _ids: list[Tensor]  # int64 (image,) per batch
    _values: list[Tensor]  # float32 (image, unit) per batch

    def __init__(self, how: str = "mean") -> None:
        super().__init__()
        if how not in ("mean", "max"):
            raise InputError(f"No pooling '{how}'; expected mean or max.")
        self.how = how
        self.add_state("ids", [])
        self.add_state("values", [])

    def result(self) -> PooledActivations:
        """Return the pooled activations; see `Tally.result`."""
        if self._shape is None:
            raise InputError("No image was seen, so there are no activations.")
        ids, order = torch.cat(self._ids).sort()
        check_unique(ids)
        return PooledActivations(ids, torch.cat(self._values)[order])

    def estimate(self, units: int, h: int, w: int, images: int = 0, concepts: int = 0) -> int:
        """Return the bytes that it will hold, for that many images; see `Tally.estimate`."""
        return images * (4 * units + 8)

    @property
    def _settings(self) -> dict[str, Any]:
        return {"how": self.how}

    def _update(self, ids: Tensor, activations: Tensor, concepts: Tensor | None) -> None:
        if self.how == "max":
            values = (activations.amax((2, 3)) + 0.0).cpu()  # -0 becomes 0
        else:
            values = _means(activations.flatten(2))
        self._ids.append(ids.clone())
        self._values.append(values)

    def _export(self) -> dict[str, Any]:
        # in order of ids, because batches lie in the order of arrival
        return dict(vars(self.result()))


def _means(maps: Tensor) -> Tensor:
    """Return the means of maps (image, unit, position), on the CPU, float32 (image, unit)."""
    count, units, positions = maps.shape
    means = torch.empty(count, units)
    for part in blocks(units, count * positions, maps.device):
        sums = maps[:, part].double()
        # Add the second half of the positions to the first until one is left: elementwise sums,
        # whose order is fixed, where `sum` would choose one by device and number of threads.
        while sums.shape[2] > 1:
            half = sums.shape[2] // 2
            rest = sums[..., 2 * half :]  # the last of an odd number, or none
            sums = sums[..., :half] + sums[..., half : 2 * half]
            sums[..., : rest.shape[2]] += rest
        # divided on the CPU: a device may multiply by the inverse instead
        means[:, part] = (sums[..., 0].cpu() / positions).float()
    return means
