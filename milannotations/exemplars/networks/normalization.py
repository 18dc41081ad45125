"""Mean and standard deviation of a preprocessing transform, declared or measured."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

from milannotations.errors import InputError

if TYPE_CHECKING:
    from PIL import Image
    from torch import Tensor

Scale = tuple[tuple[float, ...], tuple[float, ...]]
"""Mean and standard deviation of the three channels."""


def iter_steps(transform: Any) -> Iterator[Any]:
    """Yield the steps of a transform: those in a `Compose` or `Sequential`, nested too."""
    inside = getattr(transform, "transforms", None)
    if inside is None and type(transform).__name__ == "Sequential":
        inside = transform
    try:
        inner = list(inside)  # type: ignore[arg-type]
    except TypeError:
        yield transform
        return
    for step in inner:
        yield from iter_steps(step)


def read_declared_scale(transform: Any) -> Scale | None:
    """Return the mean and std that the one `Normalize` of a transform declares."""
    found = []
    for step in iter_steps(transform):
        mean, std = getattr(step, "mean", None), getattr(step, "std", None)
        try:
            values = [
                [round(float(v), 9) for v in each] for each in (mean, std) if each is not None
            ]
        except TypeError:
            continue
        if [len(v) for v in values] == [3, 3]:
            found.append((tuple(values[0]), tuple(values[1])))
    return found[0] if len(found) == 1 else None


def measure_scale(plain: Callable[[Image.Image], Tensor]) -> Scale:
    """Return mean and std, found with grey pictures of 0, 100 and 255."""
    from PIL import Image

    seen = []
    for value in (0, 100, 255):
        picture = Image.new("RGB", (224, 224), (value,) * 3)
        try:
            made = plain(picture)
        except InputError:
            raise
        except Exception as error:
            raise InputError(
                "The preprocessing fails on a picture of 224 x 224 pixels: "
                f"{type(error).__name__}: {error}"
            ) from error
        seen.append(made[:, made.shape[1] // 2, made.shape[2] // 2].double())
    low, middle, high = seen
    width = high - low
    if not bool((width.abs() > 1e-6).all()) or bool(
        ((middle - low) / width - 100 / 255).abs().max() > 1 / 255
    ):
        raise InputError(
            "The preprocessing does not map values to (v - mean) / std, so the pixels that the "
            "network saw cannot be had back from it. Say what mean and std undo it: "
            "Preprocessing(transform, mean, std)."
        )
    # measured in float32: the seventh digit is noise
    mean, std = (-low / width).tolist(), (1 / width).tolist()
    return tuple(round(v, 6) + 0.0 for v in mean), tuple(round(v, 6) for v in std)
