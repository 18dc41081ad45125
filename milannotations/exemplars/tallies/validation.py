"""What every tally asks of a batch of activations, and how it is cut to need little memory."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import Tensor

from milannotations.errors import InputError

BLOCK = 1 << 20
"""Values that a tally looks at in one go: 4 MB of float32, which a processor's cache holds."""

WIDE = 16
"""Blocks in one on a CUDA device, where starting work costs more than what is done."""

MAX_ID = (1 << 32) - 2
"""The largest place of an image in a data set: places are kept in 32 bits."""

Shape = tuple[int, int, int]
"""Of a layer: units, height and width of its maps."""


class Nonfinite(InputError):  # noqa: N818 (it says what is wrong, as ZeroDivision does)
    """An activation is NaN or infinite.

    Attributes:
        unit: index of the first unit that has one.
    """

    def __init__(self, unit: int, value: float) -> None:
        self.unit = unit
        super().__init__(
            f"Unit {unit}: an activation is {value}; expected finite numbers. Look for a division "
            "by zero or an overflow before this layer."
        )


def received(ids: Tensor, activations: Tensor, shape: Shape | None) -> tuple[Tensor, Tensor]:
    """Return a batch as every tally takes it: ids int64 on the CPU, activations float32.

    Activations stay where they are, on the CPU or a CUDA device; those of other devices, which
    lack some of the arithmetic, are brought to the CPU.

    Args:
        ids: integers (image,), places in the data set, each once.
        activations: floats (image, unit, h, w).
        shape: what earlier batches had; None for the first.

    Raises:
        InputError: other shapes or types; an image twice in the batch.
        Nonfinite: NaN or an infinity, also what overflows float32.
    """
    if activations.dim() != 4 or not activations.is_floating_point():
        raise InputError(
            f"Activations of {activations.dtype} {tuple(activations.shape)} came; expected floats "
            "(image, unit, h, w)."
        )
    if 0 in activations.shape[1:]:
        raise InputError(
            f"Activations {tuple(activations.shape)} hold no unit or no position; expected at "
            "least one of each."
        )
    check_shape(shape, shape_of(activations))
    ids = ids.detach().to("cpu", torch.int64)
    if ids.shape != activations.shape[:1]:
        raise InputError(f"{tuple(ids.shape)} ids came with {len(activations):,} maps of images.")
    if len(ids) and not 0 <= int(ids.min()) <= int(ids.max()) <= MAX_ID:
        raise InputError(
            f"Ids from {int(ids.min()):,} to {int(ids.max()):,} came; expected places in a data "
            f"set, from 0 to {MAX_ID:,}."
        )
    check_once(ids.sort().values)
    activations = activations.detach()
    if activations.device.type not in ("cpu", "cuda"):
        activations = activations.cpu()
    activations = activations.float()
    _check_finite(activations)
    return ids, activations


def _check_finite(activations: Tensor) -> None:
    # NaN and infinities spread to the sum; it may overflow without them, so they are looked for
    if bool(activations.sum().isfinite()):
        return
    wrong = ~activations.isfinite()
    units = wrong.sum((0, 2, 3)).nonzero()
    if len(units):
        unit = int(units[0])
        raise Nonfinite(unit, float(activations[:, unit][wrong[:, unit]][0]))


def shape_of(activations: Tensor) -> Shape:
    """Return (units, h, w) of activations (image, unit, h, w)."""
    units, h, w = activations.shape[1:]
    return int(units), int(h), int(w)


def check_shape(known: Shape | None, shape: Shape) -> None:
    """Raise InputError unless maps are of the shape (units, h, w) that earlier ones had."""
    if known is not None and known != shape:
        raise InputError(
            f"{shape[0]:,} units with maps of {shape[1]} x {shape[2]} came after {known[0]:,} with "
            f"maps of {known[1]} x {known[2]}. Give all images the same size."
        )


def check_once(ascending: Tensor) -> None:
    """Raise InputError if neighbours among ids (..., image), sorted, are the same image."""
    twice = ascending[..., 1:] == ascending[..., :-1]
    if bool(twice.any()):
        image = int(ascending[..., 1:][twice][0])
        raise InputError(f"Image {image:,} came twice; a tally is to see every image once.")


def check_settings(mine: Mapping[str, Any], other: Mapping[str, Any]) -> None:
    """Raise InputError unless two tallies were asked for the same."""
    for name in mine:
        if mine[name] != other.get(name):
            said = [str(each.get(name)) for each in (mine, other)]
            differ = "" if max(map(len, said)) > 40 else f" ({said[0]} and {said[1]})"
            raise InputError(
                f"These tallies differ in '{name}'{differ}; only equal ones can be merged, or go "
                "on from one another's state."
            )


def blocks(count: int, each: int, device: torch.device) -> Iterator[slice]:
    """Yield slices of `count` things that hold about BLOCK values, where one holds `each`.

    Example:
        >>> list(blocks(5, BLOCK // 2, torch.device("cpu")))
        [slice(0, 2, None), slice(2, 4, None), slice(4, 5, None)]
    """
    most = BLOCK * (WIDE if device.type == "cuda" else 1)
    step = max(most // max(each, 1), 1)
    for start in range(0, count, step):
        yield slice(start, min(start + step, count))
