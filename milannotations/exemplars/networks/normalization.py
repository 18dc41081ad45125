"""Mean and standard deviation of a preprocessing transform, declared or measured."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from milannotations.errors import InputError

if TYPE_CHECKING:
    from PIL import Image
    from torch import Tensor

Scale = tuple[tuple[float, ...], tuple[float, ...]]
"""Mean and standard deviation of the three channels, for values from 0 to 1."""


RGB = (0, 1, 2)
"""Order of the channels of an image: red, green, blue."""


@dataclass(frozen=True)
class ChannelOrder:
    """Step of a transform: put the channels of an RGB tensor in another order."""

    order: tuple[int, ...]

    def __call__(self, tensor: Tensor) -> Tensor:
        return tensor[list(self.order)]


def iter_steps(transform: Any) -> Iterator[Any]:
    """Yield the steps of a transform: those of a `Compose` or `Sequential`, also if nested."""
    parts = getattr(transform, "transforms", None)
    if parts is None and type(transform).__name__ == "Sequential":
        parts = transform
    try:
        steps = list(parts)  # type: ignore[arg-type]
    except TypeError:
        yield transform
        return
    for step in steps:
        yield from iter_steps(step)


def read_declared_scale(transform: Any) -> Scale | None:
    """Return the mean and standard deviation of the only `Normalize` step of a transform.

    Returns:
        None if there is no such step, or more than one.
    """
    scales = []
    for step in iter_steps(transform):
        mean, std = getattr(step, "mean", None), getattr(step, "std", None)
        try:
            values = [
                [round(float(value), 9) for value in part]
                for part in (mean, std)
                if part is not None
            ]
        except TypeError:  # an attribute of the same name that is no list of numbers
            continue
        if [len(part) for part in values] == [3, 3]:
            scales.append((tuple(values[0]), tuple(values[1])))
    return scales[0] if len(scales) == 1 else None


def measure_scale(transform: Callable[[Image.Image], Tensor]) -> Scale:
    """Measure the mean and standard deviation of a transform with three grey images.

    A transform maps a value v from 0 to 1 to (v - mean) / std. Resizing and cropping leave a grey
    image grey, so the centre pixel of its result is that map of its value:

        f(0) = -mean / std    f(1) = (1 - mean) / std    f(1) - f(0) = 1 / std

    Args:
        transform: RGB image -> float (3, height, width).

    Raises:
        InputError: the transform fails, or is not such a map.
    """
    low, middle, high = (_centre(transform, (value,) * 3) for value in (0, 100, 255))
    span = high - low
    # The third image tells a linear map from a gamma correction, for instance; one grey level of
    # tolerance. A span of 0 would be a channel that does not depend on the image.
    if not bool((span.abs() > 1e-6).all()) or bool(
        ((middle - low) / span - 100 / 255).abs().max() > 1 / 255
    ):
        raise InputError(
            "The preprocessing does not map values to (v - mean) / std, so the pixels that the "
            "network saw cannot be recovered from it. State the mean and std that undo it: "
            "Preprocessing(transform, mean, std)."
        )
    mean, std = (-low / span).tolist(), (1 / span).tolist()
    return tuple(map(_round, mean)), tuple(map(_round, std))


def _round(value: float) -> float:
    """Return a value measured in float32 without its noise, which starts at the seventh digit.

    Digits count from the first one: the std of networks that take values up to 255 is .00392157.
    """
    return round(float(f"{value:.6g}"), 9) + 0.0  # adding 0.0 turns -0.0 into 0.0


def measure_order(transform: Callable[[Image.Image], Tensor]) -> tuple[int, ...]:
    """Measure which colour each channel of a transform's result holds, with three plain images.

    A channel holds the colour whose image moves it most, away from black. A grey image says
    nothing here: networks of Caffe, and processors with `do_flip_channel_order`, take blue, green,
    red, and look right in grey.

    Returns:
        Index of the colour (red, green, blue) of each channel; `RGB` for a transform that mixes
        colours, such as one to greyscale, whose channels are what the network saw.

    Raises:
        InputError: the transform fails.
    """
    black = _centre(transform, (0, 0, 0))
    moves = [
        (_centre(transform, tuple(255 * (index == colour) for index in RGB)) - black).abs()
        for colour in RGB
    ]
    order = tuple(max(RGB, key=lambda colour: float(moves[colour][channel])) for channel in RGB)
    return order if sorted(order) == list(RGB) else RGB


def _centre(transform: Callable[[Image.Image], Tensor], colour: tuple[int, ...]) -> Tensor:
    """Return the centre pixel of a transform's result for an image of one colour: (channel,)."""
    from PIL import Image

    try:
        result = transform(Image.new("RGB", (224, 224), colour))
    except InputError:
        raise
    except Exception as error:
        raise InputError(
            f"The preprocessing fails on an image of 224 x 224 pixels: "
            f"{type(error).__name__}: {error}"
        ) from error
    return result[:, result.shape[1] // 2, result.shape[2] // 2].double()
