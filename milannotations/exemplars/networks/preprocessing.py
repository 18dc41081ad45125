"""Preprocessing of images for a network, and recovery of the pixels that the network saw."""

from __future__ import annotations

import importlib
import json
import pickle
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from milannotations.errors import InputError
from milannotations.exemplars.networks import normalization
from milannotations.published.imagenet import shorter_side
from milannotations.utils import python_file

if TYPE_CHECKING:
    from PIL import Image
    from torch import Tensor

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
"""Mean and standard deviation of ImageNet's red, green and blue, for values from 0 to 1."""

_RANDOM = re.compile(r"Random\w+|ColorJitter|AutoAugment|TrivialAugmentWide|AugMix|MixUp|CutMix")
"""Names of classes of torchvision's random transforms."""


@dataclass(frozen=True)
class Preprocessing:
    """Map of an image to a network's input: resize, crop, and scale each value to (v - mean) / std.

    The constructors below find `mean` and `std`; if given by hand they are not checked.

    Args:
        transform: RGB image -> float32 (3, height, width). The same image must always give the
            same tensor.
        mean: of the three channels, for values from 0 to 1.
        std: likewise.
        order: index of the colour (red, green, blue) in each channel of the tensor; (2, 1, 0) for
            networks that take BGR.

    Raises:
        InputError: not three numbers, or a standard deviation of 0; no order of three channels.

    Example:
        >>> from PIL import Image
        >>> preprocessing = Preprocessing.imagenet(32)
        >>> tensor = preprocessing(Image.new("RGB", (300, 200), (255, 128, 0)))
        >>> tuple(tensor.shape), preprocessing.undo(tensor)[16, 16].tolist()
        ((3, 32, 32), [255, 128, 0])
    """

    transform: Callable[[Image.Image], Tensor]
    mean: tuple[float, ...]
    std: tuple[float, ...]
    order: tuple[int, ...] = normalization.RGB

    def __post_init__(self) -> None:
        object.__setattr__(self, "order", tuple(self.order))
        if sorted(self.order) != list(normalization.RGB):
            raise InputError(f"An order of {self.order} was given; expected one of 0, 1 and 2.")
        for name in ("mean", "std"):
            values = tuple(float(value) for value in getattr(self, name))
            if len(values) != 3 or (name == "std" and 0 in values):
                raise InputError(f"A {name} of {values} was given; expected three numbers.")
            object.__setattr__(self, name, values)

    def __call__(self, image: Image.Image) -> Tensor:
        """Return an RGB image as the network takes it: float32 (3, height, width).

        Raises:
            InputError: the transform returns anything else.
        """
        import torch

        tensor = self.transform(image)
        if not isinstance(tensor, torch.Tensor):
            raise InputError(
                f"The preprocessing returns a {type(tensor).__name__}; expected a tensor "
                "(3, height, width). End it with ToTensor()."
            )
        if not tensor.is_floating_point():
            raise InputError(
                f"The preprocessing returns {tensor.dtype}; expected float32. With "
                "torchvision.transforms.v2: ToDtype(torch.float32, scale=True)."
            )
        if tensor.ndim != 3 or tensor.shape[0] != 3:
            raise InputError(
                f"The preprocessing returns {tuple(tensor.shape)} for an image; expected "
                "(3, height, width)."
            )
        return tensor.float()

    def undo(self, tensor: Tensor) -> NDArray[np.uint8]:
        """Recover the pixels of a network's input: uint8 (height, width, 3).

        Values are rounded and clipped, so that bytes which were only scaled come back exactly.

        Args:
            tensor: float (3, height, width); (1, height, width) gives grey.
        """
        import torch

        mean, std = (
            torch.tensor(values, dtype=torch.float32)[:, None, None]
            for values in (self.mean, self.std)
        )
        values = tensor.detach().to("cpu", torch.float32) * std + mean
        if len(values) == 3:  # channel i holds the colour order[i]
            values = values[list(np.argsort(self.order))]
        pixels = (values * 255).round().clamp(0, 255).to(torch.uint8)
        return np.ascontiguousarray(pixels.permute(1, 2, 0).numpy())

    def blank(self, side: int = 256) -> Tensor:
        """Return the network's input for a square grey image: float32 (3, height, width)."""
        from PIL import Image

        return self(Image.new("RGB", (side, side), (128, 128, 128)))

    def describe(self) -> dict[str, Any]:
        """Return a record of the preprocessing: mean, std and the transform in words.

        Example:
            >>> Preprocessing.imagenet().describe()["mean"]
            [0.485, 0.456, 0.406]
        """
        record: dict[str, Any] = {
            "mean": [*self.mean],
            "std": [*self.std],
            "transform": describe_transform(self.transform),
        }
        if self.order != normalization.RGB:
            record["channels"] = "".join("rgb"[colour] for colour in self.order)
        return record

    def __reduce__(self) -> tuple[Any, ...]:
        # A transform may be an object of a user's file, which is not importable by name. So its
        # pickle is nested: the process that loads it imports the user's files first.
        state = pickle.dumps((self.transform, self.mean, self.std, self.order))
        return _unpickle, (python_file.loaded_files(), state)

    # ---- where preprocessing comes from

    @classmethod
    def imagenet(cls, side: int | None = 224) -> Preprocessing:
        """Return the usual preprocessing for networks trained on ImageNet.

        All networks of 2022 used it, with 224 pixels.

        Args:
            side: side of the square cropped from the centre, after the shorter side was resized
                (bilinear) to 256/224 of it. None keeps the size of the images, which must then be
                the same for all (`imagenet:as-is`, for CIFAR and the like).

        Raises:
            InputError: a side below 1.
        """
        from torchvision import transforms

        if side is not None and side < 1:
            raise InputError(f"A side of {side} pixels was asked for; expected at least 1.")
        crop: list[Any] = []
        if side is not None:
            crop = [transforms.Resize(shorter_side(side)), transforms.CenterCrop(side)]
        steps = [*crop, transforms.ToTensor(), transforms.Normalize(MEAN, STD)]
        return cls(transforms.Compose(steps), MEAN, STD)

    @classmethod
    def from_transform(
        cls,
        transform: Callable[[Image.Image], Tensor],
        mean: Sequence[float] | None = None,
        std: Sequence[float] | None = None,
    ) -> Preprocessing:
        """Return the preprocessing of a callable: a torchvision `Compose`, or any other.

        Mean and standard deviation are measured with grey images, the order of the channels with
        red, green and blue ones. If a `Normalize` step declares values that agree, those are
        taken, since they are exact.

        Args:
            transform: RGB image -> float (3, height, width): of torchvision's v1 or v2, or a
                function.
            mean: of the three channels, if it cannot be measured.
            std: likewise.

        Raises:
            InputError: the transform draws at random, fails, returns anything but such a tensor,
                or maps values in a way other than (v - mean) / std.
        """
        if isinstance(transform, cls):
            return transform
        if not callable(transform):
            raise InputError(
                f"A preprocessing of {type(transform).__name__} was given; expected a callable: "
                "PIL image -> tensor (3, height, width)."
            )
        for step in normalization.iter_steps(transform):
            if _RANDOM.fullmatch(type(step).__name__):
                raise InputError(
                    f"The preprocessing draws at random ({type(step).__name__}), as in training. "
                    "Give the preprocessing for testing: an image must look the same each time."
                )
        plain = cls(transform, (0, 0, 0), (1, 1, 1))
        order = normalization.measure_order(plain)
        if mean is not None and std is not None:
            return cls(transform, tuple(mean), tuple(std), order)
        measured = normalization.measure_scale(plain)
        # The declared values are exact, but may be only part of the map: another step may scale
        # the values before or after.
        declared = normalization.read_declared_scale(transform)
        if declared is not None and np.allclose(declared, measured, rtol=1e-3, atol=1e-3):
            return cls(transform, *declared, order)
        return cls(transform, *measured, order)

    @classmethod
    def from_torchvision(cls, weights: Any) -> Preprocessing:
        """Return the preprocessing of torchvision weights (`ResNet18_Weights.IMAGENET1K_V1`)."""
        return cls.from_transform(weights.transforms())

    @classmethod
    def from_timm(cls, model: Any) -> Preprocessing:
        """Return the preprocessing of a timm model, or of its pretrained config (a dict)."""
        data = importlib.import_module("timm.data")
        is_config = isinstance(model, dict)
        settings = data.resolve_data_config(
            {},
            pretrained_cfg=model if is_config else model.pretrained_cfg,
            model=None if is_config else model,
        )
        return cls.from_transform(data.create_transform(**settings, is_training=False))

    @classmethod
    def from_hf(cls, processor: Any) -> Preprocessing:
        """Return the preprocessing of a transformers image processor."""
        return cls.from_transform(_ProcessorTransform(processor))


def _unpickle(files: tuple[str, ...], state: bytes) -> Preprocessing:
    for file in files:
        python_file.load_module(file)
    return Preprocessing(*pickle.loads(state))  # noqa: S301  # made by __reduce__


class _ProcessorTransform:
    """Transform of one image by a transformers image processor."""

    def __init__(self, processor: Any) -> None:
        self.processor = processor

    def __call__(self, image: Image.Image) -> Any:
        return self.processor(images=image, return_tensors="pt")["pixel_values"][0]

    def __repr__(self) -> str:
        settings = {
            key: value
            for key, value in sorted(self.processor.to_dict().items())
            if value is not None and key not in ("_processor_class", "processor_class")
        }
        return f"{type(self.processor).__name__}({json.dumps(settings, default=str)})"

    @property
    def mean(self) -> Any:
        return getattr(self.processor, "image_mean", None)

    @property
    def std(self) -> Any:
        return getattr(self.processor, "image_std", None)


def describe_transform(transform: Any) -> str:
    """Return a transform in words, on one line and without addresses in memory, for a record."""
    if hasattr(transform, "__qualname__"):
        return str(transform.__qualname__)
    text = re.sub(r" at 0x[0-9a-fA-F]+", "", repr(transform))
    # modules of users' files carry a digest in their name; see `python_file.load_module`
    text = re.sub(r"_(\w+)_[0-9a-f]{16}\b", r"\1", text)
    return re.sub(r"\s*\n\s*", " ", text).replace("( ", "(").replace(" )", ")")
