"""Masks: the positions at which a unit's upsampled activations are above its threshold."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as nnf

from milannotations.errors import InputError
from milannotations.exemplars.tallies.validation import blocks

HOWS = ("clamped", "2022")
"""Ways to extend a map beyond the centres of its outermost pixels; see `upsample`."""


def upsample(maps: Tensor, size: tuple[int, int], how: str = "clamped") -> Tensor:
    """Resize maps: bilinear, between the centres of pixels (half-pixel).

    `clamped` repeats the outermost values beyond the outermost centres. It is
    `torch.nn.functional.interpolate(..., align_corners=False)` up to rounding (including torch's
    rounding of positions to float32), but computed in steps that give the same bits on every
    device and in every batch, and so that no value leaves the range of those it lies between: a
    map that is nowhere above a threshold stays so.

    `2022` continues with zeros, as the code of Hernandez et al. 2022 does: at the corners of a map
    of ones it gives .56 where a pixel becomes two by two, less where it becomes more. A side of
    one pixel is repeated. No value is rounded above the largest of its map (or above the zeros
    around it).

    Args:
        maps: float32 (n, h, w), finite.
        size: (height, width), up to a million each.
        how: `clamped` or `2022`.

    Returns:
        float32 (n, height, width).

    Example:
        >>> upsample(torch.tensor([[[0.0, 4.0]]]), (1, 4))
        tensor([[[0., 1., 3., 4.]]])
        >>> upsample(torch.tensor([[[0.0, 4.0]]]), (1, 4), "2022")
        tensor([[[0., 1., 3., 3.]]])
    """
    _check(maps, size, how)
    if not len(maps):
        return maps.new_zeros(0, *size)
    if how == "2022":
        return _zero_padded(maps, size)
    # across first: there are fewer rows then, and whole rows are faster to copy
    return _between(_between(maps, 2, size[1]), 1, size[0])


def masks(maps: Tensor, thresholds: Tensor, size: tuple[int, int], how: str = "clamped") -> Tensor:
    """Return the positions at which upsampled maps are above, not at, their thresholds.

    Hernandez et al. 2022, section 3. The mask of a map without any value above the threshold is
    empty (also with `2022`, unless the threshold is below 0: the zeros around the map are above
    it).

    Args:
        maps: float32 (n, h, w), finite.
        thresholds: float32 (n,), one per map.
        size: (height, width) of the masks.
        how: `clamped` or `2022`; see `upsample`.

    Returns:
        bool (n, height, width).

    Example:
        >>> masks(torch.tensor([[[0.0, 4.0]]]), torch.tensor([1.0]), (1, 4))
        tensor([[[False, False,  True,  True]]])
    """
    _check(maps, size, how)
    if thresholds.shape != maps.shape[:1]:
        raise InputError(
            f"{tuple(thresholds.shape)} thresholds came with {len(maps):,} maps; expected one each."
        )
    above = torch.empty(len(maps), *size, dtype=torch.bool, device=maps.device)
    thresholds = thresholds.to(maps.device)[:, None, None]
    for part in blocks(len(maps), size[0] * size[1], maps.device):
        torch.gt(upsample(maps[part], size, how), thresholds[part], out=above[part])
    return above


def _check(maps: Tensor, size: tuple[int, int], how: str) -> None:
    if how not in HOWS:
        raise InputError(f"No masks '{how}' (masks: {', '.join(HOWS)}).")
    if maps.dim() != 3 or 0 in maps.shape[1:] or maps.dtype != torch.float32:
        raise InputError(f"Maps are {maps.dtype} {tuple(maps.shape)}; expected float32 (n, h, w).")
    if not all(1 <= side <= 1_000_000 for side in size):
        raise InputError(f"Size is {size[0]} x {size[1]}; expected sides from 1 to a million.")


def _between(maps: Tensor, axis: int, side: int) -> Tensor:
    """Resize one side of maps, sampled at the centres of its new pixels."""
    old = maps.shape[axis]
    if old == side:
        return maps
    if old == 1:
        return maps.repeat_interleave(side, dim=axis)
    # 1. The centre t + .5 of a new pixel lies at (t + .5) * old / side - .5 among the centres of
    # the old ones. In units of 1 / (2 side) that is a whole number, free of rounding.
    positions = ((2 * torch.arange(side) + 1) * old - side).clamp(0, 2 * side * (old - 1))
    below = (positions // (2 * side)).to(maps.device)
    shares = ((positions % (2 * side)).double() / (2 * side)).float().to(maps.device)
    # 2. low + (high - low) * share, in three operations that are each rounded: a single one that
    # did all might round as the device likes.
    low = maps.index_select(axis, below)
    steps = maps.index_select(axis, (below + 1).clamp(max=old - 1))
    steps -= low
    steps.clamp_(torch.finfo().min, torch.finfo().max)  # overflows between 2e38 and -2e38
    steps *= shares if axis == 2 else shares[:, None]
    return steps.add_(low)


def _zero_padded(maps: Tensor, size: tuple[int, int]) -> Tensor:
    """Resize maps, with zeros around them."""
    coordinates = [_coordinates(old, side) for old, side in zip(maps.shape[1:], size, strict=True)]
    down, across = (values.to(maps.device) for values in coordinates)
    grid = torch.stack([across.expand(size), down[:, None].expand(size)], dim=2)  # (h, w, xy)
    resized = nnf.grid_sample(
        maps[None], grid[None], mode="bilinear", padding_mode="zeros", align_corners=True
    )[0]
    return torch.minimum(resized, maps.amax((1, 2), keepdim=True).clamp(min=0))


def _coordinates(old: int, side: int) -> Tensor:
    """Return the centres of new pixels, where -1 and 1 are those of the first and last old ones.

    The operations are in the order of the 2022 code, for the same bits.
    """
    if old == 1:
        return torch.zeros(side)
    scale = side / old
    return (torch.arange(side, dtype=torch.float32) - (0.5 * scale - 0.5)) * (
        2 / (scale * (old - 1))
    ) - 1
