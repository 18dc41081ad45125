"""Masks: where a unit's activations, upsampled to a picture's size, are above its threshold."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as nnf

from milannotations.errors import InputError
from milannotations.exemplars.tallies.validation import blocks

HOWS = ("clamped", "2022")


def upsample(maps: Tensor, size: tuple[int, int], how: str = "clamped") -> Tensor:
    """Return maps at another size: bilinear, between the centres of pixels (half-pixel).

    `clamped` goes on beyond the outermost centres with the outermost values. It is
    `torch.nn.functional.interpolate(..., align_corners=False)` up to rounding (torch's of places
    to float32 among it), but done in steps that give the same bits on every device and in every
    batch, and so that no value leaves the range of those it lies between: what is nowhere above
    a threshold stays so.

    `2022` goes on with zeros, as the code of Hernandez et al. 2022 does: at the corners of a map
    of ones it gives .56 where a pixel becomes two by two, less where it becomes more. A side of
    one pixel is repeated. Rounding is kept from raising a value above the largest of its map (or
    above the zeros around it).

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
    # across first: there are fewer rows then, and whole rows are quicker to copy
    return _between(_between(maps, 2, size[1]), 1, size[0])


def masks(maps: Tensor, thresholds: Tensor, size: tuple[int, int], how: str = "clamped") -> Tensor:
    """Return where upsampled maps are above, not at, their thresholds.

    Hernandez et al. 2022, section 3. Nothing is above a threshold that no value of the map is
    above (nor is in 2022's masks, but for a threshold below 0: zeros around the map are).

    Args:
        maps: float32 (n, h, w), finite.
        thresholds: float32 (n,), one for each map.
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
    found = torch.empty(len(maps), *size, dtype=torch.bool, device=maps.device)
    thresholds = thresholds.to(maps.device)[:, None, None]
    for some in blocks(len(maps), size[0] * size[1], maps.device):
        torch.gt(upsample(maps[some], size, how), thresholds[some], out=found[some])
    return found


def _check(maps: Tensor, size: tuple[int, int], how: str) -> None:
    if how not in HOWS:
        raise InputError(f"No masks '{how}' (masks: {', '.join(HOWS)}).")
    if maps.dim() != 3 or 0 in maps.shape[1:] or maps.dtype != torch.float32:
        raise InputError(
            f"Maps of {maps.dtype} {tuple(maps.shape)} came; expected float32 (n, h, w)."
        )
    if not all(1 <= side <= 1_000_000 for side in size):
        raise InputError(f"A size of {size[0]} x {size[1]} was asked for; expected 1 to a million.")


def _between(maps: Tensor, axis: int, side: int) -> Tensor:
    """Return maps with one side at another size, sampled at the centres of its new pixels."""
    old = maps.shape[axis]
    if old == side:
        return maps
    if old == 1:
        return maps.repeat_interleave(side, dim=axis)
    # the centre t + .5 of new pixels lies at (t + .5) * old / side - .5, here in 1 / (2 side)
    places = ((2 * torch.arange(side) + 1) * old - side).clamp(0, 2 * side * (old - 1))
    below = (places // (2 * side)).to(maps.device)
    shares = ((places % (2 * side)).double() / (2 * side)).float().to(maps.device)
    low = maps.index_select(axis, below)
    steps = maps.index_select(axis, (below + 1).clamp(max=old - 1))
    steps -= low
    steps.clamp_(torch.finfo().min, torch.finfo().max)  # between values of 2e38 of either sign
    # three steps, each rounded: one that did all might round as the device likes
    steps *= shares if axis == 2 else shares[:, None]
    return steps.add_(low)


def _zero_padded(maps: Tensor, size: tuple[int, int]) -> Tensor:
    grid = [_coordinates(old, side) for old, side in zip(maps.shape[1:], size, strict=True)]
    down, across = (each.to(maps.device) for each in grid)
    where = torch.stack([across.expand(size), down[:, None].expand(size)], dim=2)
    found = nnf.grid_sample(
        maps[None], where[None], mode="bilinear", padding_mode="zeros", align_corners=True
    )[0]
    return torch.minimum(found, maps.amax((1, 2), keepdim=True).clamp(min=0))


def _coordinates(old: int, side: int) -> Tensor:
    """Return the centres of new pixels, with -1 and 1 for the first and last old ones.

    The order of the operations is that of the 2022 code, for the same bits.
    """
    if old == 1:
        return torch.zeros(side)
    scale = side / old
    return (torch.arange(side, dtype=torch.float32) - (0.5 * scale - 0.5)) * (
        2 / (scale * (old - 1))
    ) - 1
