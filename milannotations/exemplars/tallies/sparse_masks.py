"""Active pixels of upsampled maps, computed only around values above the threshold."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as nnf

from milannotations.exemplars.tallies.validation import blocks

MANY = 8
"""Ratio of old pixels to those above the threshold below which a unit counts as dense: a whole
mask is faster then than the surroundings of each pixel."""


def sparse_and_dense(maps: Tensor, thresholds: Tensor) -> tuple[Tensor, Tensor]:
    """Split units by how many of their values are above the threshold.

    Args:
        maps: (unit, h, w).
        thresholds: (unit,).

    Returns:
        Indices of units with few such values, for `active_pixels`, and of units with many, for
        `masks.masks`: int64 both. Units with none are in neither: no value between others is
        above them, so that they are active nowhere.
    """
    above = (maps > thresholds[:, None, None]).flatten(1).sum(1)
    is_dense = above * MANY > maps.shape[1] * maps.shape[2]
    return ((above > 0) & ~is_dense).nonzero()[:, 0], is_dense.nonzero()[:, 0]


class Axis(NamedTuple):
    """Resampling of one side of a map, gap by gap.

    Gap g lies between the centres of old pixels g - 1 and g; the first and the last are the
    outer halves of the outermost pixels, where values are clamped.

    Attributes:
        start: int64 (gap,), the first new pixel whose centre lies in each gap.
        count: int64 (gap,), the number of new pixels in each gap.
        shares: float32 (gap, most), how far each new pixel is on the way to old pixel g; 0 beyond
            `count`.
        is_resized: whether the side changes. Where it does not, new pixels lie on old ones, and
            the value of old pixel g has no influence in gap g.
    """

    start: Tensor
    count: Tensor
    shares: Tensor
    is_resized: bool

    @classmethod
    def between(cls, old: int, side: int, device: torch.device) -> Axis:
        """Return the resampling of one side to another, with the positions of `masks.upsample`."""
        # position of each new pixel's centre among the old ones, in units of 1 / (2 side)
        positions = (2 * torch.arange(side) + 1) * old - side
        gaps = positions.div(2 * side, rounding_mode="floor") + 1
        count = torch.bincount(gaps, minlength=old + 1)
        start = count.cumsum(0) - count
        shares = torch.zeros(old + 1, int(count.max()))
        shares[gaps, torch.arange(side) - start[gaps]] = (
            (positions % (2 * side)).double() / (2 * side)
        ).float()
        return cls(start.to(device), count.to(device), shares.to(device), old != side)


def active_pixels(
    maps: Tensor, thresholds: Tensor, size: tuple[int, int]
) -> Iterator[tuple[Tensor, Tensor]]:
    """Yield the pixels at which upsampled maps are above, not at, their thresholds.

    The pixels are those of `masks.masks`, to the bit: values are computed by the same operations,
    but only in the tiles between four old pixels of which one at least is above the threshold. No
    interpolated value leaves the range of the four it lies between, so that no other tile can hold
    an active pixel.

    Args:
        maps: float32 (n, h, w), finite.
        thresholds: float32 (n,), one per map.
        size: (height, width) of the masks.

    Yields:
        int64 (k,) each: indices of maps, ascending, and pixels (y * width + x); each pixel once.

    Example:
        >>> maps = torch.tensor([[[0.0, 4.0]]])
        >>> [pixels.tolist() for _, pixels in active_pixels(maps, torch.tensor([1.0]), (1, 4))]
        [[2, 3]]
    """
    h, w = maps.shape[1:]
    high = maps > thresholds[:, None, None]
    if (h, w) == size:  # nothing to interpolate
        for part in blocks(len(maps), h * w, maps.device):
            rows, pixels = _true_indices(high[part].flatten(1))
            yield rows + part.start, pixels
        return
    down, across = Axis.between(h, size[0], maps.device), Axis.between(w, size[1], maps.device)
    # A tile is a gap down by a gap across; it holds at most `most` new pixels each way.
    most = down.shares.shape[1], across.shares.shape[1]
    step_y, step_x = (torch.arange(n, device=maps.device) for n in most)
    offsets = (step_y[:, None] * size[1] + step_x).view(-1)  # of a tile's pixels from its first
    values = maps.reshape(-1)
    for map_part in blocks(len(maps), (h + 1) * (w + 1), maps.device):
        # 1. The tiles that may hold active pixels: (tile,) each for map, gap down, gap across.
        owner, gap_y, gap_x = _gaps(_gaps(high[map_part], 1, down), 2, across).nonzero(
            as_tuple=True
        )
        owner += map_part.start
        for part in blocks(len(owner), most[0] * most[1], maps.device):
            index, y, x = owner[part], gap_y[part], gap_x[part]
            # 2. Flat indices of the four old pixels around each tile, clamped at the edges.
            above, below = ((row.clamp(0, h - 1) + index * h) * w for row in (y - 1, y))
            left, right = (column.clamp(0, w - 1) for column in (x - 1, x))
            # 3. Interpolate across first, then down, each in the three steps of `masks.upsample`,
            # for the same bits: (tile, most across), then (tile, most down, most across).
            shares = across.shares[x]
            first = _between(values[above + left, None], values[above + right, None], shares)
            last = _between(values[below + left, None], values[below + right, None], shares)
            between = _between(first[:, None], last[:, None], down.shares[y][:, :, None])
            # 4. Compare, and drop what pads the tiles that hold fewer pixels.
            active = between > thresholds[index][:, None, None]
            active &= (step_y < down.count[y, None])[:, :, None]
            active &= (step_x < across.count[x, None])[:, None]
            # 5. Pixels of the tiles -> pixels of the masks.
            tile, offset = _true_indices(active.flatten(1))
            first_pixels = down.start[y] * size[1] + across.start[x]
            yield index[tile], first_pixels[tile] + offsets[offset]


def _true_indices(flags: Tensor) -> tuple[Tensor, Tensor]:
    """Return the rows and columns of True in bool (row, column)."""
    flat = flags.view(-1).nonzero()[:, 0]
    row = flat // flags.shape[1]
    return row, flat - row * flags.shape[1]


def _between(low: Tensor, high: Tensor, shares: Tensor) -> Tensor:
    """Interpolate as `masks.upsample` does: three operations, each rounded."""
    steps = (high - low).clamp_(torch.finfo().min, torch.finfo().max)
    return (steps * shares).add_(low)


def _gaps(high: Tensor, dim: int, axis: Axis) -> Tensor:
    """Return which gaps hold new pixels and have a value above the threshold on either side.

    Args:
        high: bool (map, ...), with the old pixels of one side in `dim`.
        dim: 1 for rows, 2 for columns.
        axis: resampling of that side.

    Returns:
        bool, as `high` but with one more in `dim`: a gap before each old pixel, and one after all.
    """
    gaps = nnf.pad(high, (0, 0) * (2 - dim) + (1, 0))
    if axis.is_resized:
        gaps = gaps | nnf.pad(high, (0, 0) * (2 - dim) + (0, 1))
    return gaps & (axis.count > 0).view([-1 if i == dim else 1 for i in range(3)])
