"""Validation of batches of activations, and their split into memory-bounded blocks."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import Tensor

from milannotations.errors import InputError

BLOCK = 1 << 20
"""Values that a tally processes at once: 4 MB of float32, which fits a processor's cache."""

CUDA_BLOCKS = 16
"""Blocks that are processed at once on CUDA, where launching a kernel costs more than its work."""

MAX_ID = (1 << 32) - 2
"""Largest index of an image in a dataset: indices are kept in 32 bits."""

Shape = tuple[int, int, int]
"""Shape of a layer: units, height and width of its maps."""


class NonFiniteError(InputError):
    """Error of an activation that is NaN or infinite.

    Attributes:
        unit: index of the first unit that has one.
    """

    def __init__(self, unit: int, value: float) -> None:
        self.unit = unit
        super().__init__(
            f"Unit {unit}: an activation is {value}; expected finite numbers. Look for a division "
            "by zero or an overflow before this layer."
        )


def validate_batch(ids: Tensor, activations: Tensor, shape: Shape | None) -> tuple[Tensor, Tensor]:
    """Return a batch in the form that tallies count: ids int64 on the CPU, activations float32.

    Activations stay on the CPU or a CUDA device; those of other devices, which lack some of the
    arithmetic, are moved to the CPU.

    Args:
        ids: integers (image,), indices in the dataset, each once.
        activations: floats (image, unit, h, w).
        shape: shape of earlier batches; None for the first.

    Raises:
        InputError: other shapes or types; an image twice in the batch.
        NonFiniteError: NaN or an infinity, also where a value overflows float32.
    """
    if activations.dim() != 4 or not activations.is_floating_point():
        raise InputError(
            f"Activations are {activations.dtype} {tuple(activations.shape)}; expected floats "
            "(image, unit, h, w)."
        )
    if 0 in activations.shape[1:]:
        raise InputError(
            f"Activations {tuple(activations.shape)} hold no unit or no position; expected at "
            "least one of each."
        )
    check_shape(shape, layer_shape(activations))
    ids = ids.detach().to("cpu", torch.int64)
    if ids.shape != activations.shape[:1]:
        raise InputError(f"{tuple(ids.shape)} ids came with {len(activations):,} maps of images.")
    if len(ids) and not 0 <= int(ids.min()) <= int(ids.max()) <= MAX_ID:
        raise InputError(
            f"Ids range from {int(ids.min()):,} to {int(ids.max()):,}; expected indices in a "
            f"dataset, from 0 to {MAX_ID:,}."
        )
    check_unique(ids.sort().values)
    activations = activations.detach()
    if activations.device.type not in ("cpu", "cuda"):
        activations = activations.cpu()
    activations = activations.float()
    _check_finite(activations)
    return ids, activations


def _check_finite(activations: Tensor) -> None:
    # NaN and infinities spread to the sum, which is one cheap pass. The sum may also overflow
    # without any of them, so that only then every value is looked at.
    if bool(activations.sum().isfinite()):
        return
    invalid = ~activations.isfinite()
    units = invalid.sum((0, 2, 3)).nonzero()
    if len(units):
        unit = int(units[0])
        raise NonFiniteError(unit, float(activations[:, unit][invalid[:, unit]][0]))


def layer_shape(activations: Tensor) -> Shape:
    """Return (units, h, w) of activations (image, unit, h, w)."""
    units, h, w = activations.shape[1:]
    return int(units), int(h), int(w)


def check_shape(known: Shape | None, shape: Shape) -> None:
    """Raise InputError unless maps have the shape (units, h, w) of earlier ones."""
    if known is not None and known != shape:
        raise InputError(
            f"{shape[0]:,} units with maps of {shape[1]} x {shape[2]} came after {known[0]:,} with "
            f"maps of {known[1]} x {known[2]}. Give all images the same size."
        )


def check_unique(ascending: Tensor) -> None:
    """Raise InputError if neighbours among sorted ids (..., image) are the same image."""
    repeated = ascending[..., 1:] == ascending[..., :-1]
    if bool(repeated.any()):
        image = int(ascending[..., 1:][repeated][0])
        raise InputError(f"Image {image:,} came twice; a tally must see every image once.")


def check_settings(settings: Mapping[str, Any], other: Mapping[str, Any]) -> None:
    """Raise InputError unless two tallies have the same settings."""
    for name in settings:
        if settings[name] != other.get(name):
            values = [str(settings[name]), str(other.get(name))]
            difference = f" ({values[0]} and {values[1]})" if max(map(len, values)) <= 40 else ""
            raise InputError(
                f"These tallies differ in '{name}'{difference}; only tallies with equal settings "
                "can be merged, or loaded from one another's state."
            )


def blocks(count: int, each: int, device: torch.device) -> Iterator[slice]:
    """Yield slices of `count` items that hold about BLOCK values, where one holds `each`.

    Example:
        >>> list(blocks(5, BLOCK // 2, torch.device("cpu")))
        [slice(0, 2, None), slice(2, 4, None), slice(4, 5, None)]
    """
    most = BLOCK * (CUDA_BLOCKS if device.type == "cuda" else 1)
    step = max(most // max(each, 1), 1)
    for start in range(0, count, step):
        yield slice(start, min(start + step, count))
