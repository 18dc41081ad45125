"""Pseudo-random samples of the positions of an image, the same on every machine and device."""

from __future__ import annotations

import torch
from torch import Tensor

_BITS = 64
_FIRST = -(1 << (_BITS - 1))  # the bit that is the sign of an int64


def _signed(number: int) -> int:
    """Return the int64 with the same lowest 64 bits; torch has no unsigned arithmetic."""
    return ((number - _FIRST) & (1 << _BITS) - 1) + _FIRST


_STEP = _signed(0x9E3779B97F4A7C15)
_FACTORS = _signed(0xBF58476D1CE4E5B9), _signed(0x94D049BB133111EB)


def sample_positions(ids: Tensor, positions: int, count: int, seed: int) -> Tensor:
    """Return the positions of each image that have the smallest hashes, ascending.

    The hashes of an image are the stream of splitmix64 (Steele, Lea and Flood 2014) from a state
    that is itself a hash of the seed and the image's id: whole numbers, the same on any machine
    and device.

    Args:
        ids: int64 (image,).
        positions: number of positions of an image.
        count: how many to return, at most `positions`.
        seed: any whole number; its lowest 64 bits count.

    Returns:
        int64 (image, count), on the device of `ids`.

    Example:
        >>> sample_positions(torch.tensor([0, 1]), positions=100, count=4, seed=0)
        tensor([[16, 19, 40, 76],
                [36, 51, 95, 96]])
    """
    # 1. One state per image: (image,)
    start = _mix(torch.tensor([_signed(seed)], device=ids.device) + _STEP)
    starts = _mix(start + (ids + 1) * _STEP)
    # 2. The n-th output of a stream is the hash of its state plus n steps: (image, position)
    hashes = _mix(starts[:, None] + torch.arange(1, positions + 1, device=ids.device) * _STEP)
    # 3. Flipping the sign bit orders int64 as unsigned numbers are ordered.
    hashes ^= _FIRST
    return hashes.topk(count, dim=1, largest=False, sorted=False).indices.sort(dim=1).values


def _mix(numbers: Tensor) -> Tensor:
    """Return the output function of splitmix64, a bijection; `numbers` is overwritten."""
    for shift, factor in zip((30, 27), _FACTORS, strict=True):
        numbers ^= _shift_right(numbers, shift)
        numbers *= factor  # modulo 2^64: int64 wraps around
    numbers ^= _shift_right(numbers, 31)
    return numbers


def _shift_right(numbers: Tensor, by: int) -> Tensor:
    """Return int64 shifted to the right as unsigned numbers are: zeros enter, not the sign."""
    return (numbers >> by).bitwise_and_((1 << (_BITS - by)) - 1)
