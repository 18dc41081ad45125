"""From a picture to a network's input, and back to the pixels that the network saw."""

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
"""Of ImageNet's red, green and blue, with values from 0 to 1: what most networks expect."""

_RANDOM = re.compile(r"Random\w+|ColorJitter|AutoAugment|TrivialAugmentWide|AugMix|MixUp|CutMix")


@dataclass(frozen=True)
class Preprocessing:
    """Makes a network's input of a picture: resizes, cuts, and maps values v to (v - mean) / std.

    The constructors below find `mean` and `std` out; given by hand they are believed.

    Args:
        transform: PIL picture in RGB -> float32 (3, height, width). The same picture must
            always give the same tensor.
        mean, std: of the three channels, for values from 0 to 1.

    Example:
        >>> from PIL import Image
        >>> preprocessing = Preprocessing.imagenet(32)
        >>> seen = preprocessing(Image.new("RGB", (300, 200), (255, 128, 0)))
        >>> tuple(seen.shape), preprocessing.undo(seen)[16, 16].tolist()
        ((3, 32, 32), [255, 128, 0])
    """

    transform: Callable[[Image.Image], Tensor]
    mean: tuple[float, ...]
    std: tuple[float, ...]

    def __post_init__(self) -> None:
        for name in ("mean", "std"):
            values = tuple(float(value) for value in getattr(self, name))
            if len(values) != 3 or (name == "std" and 0 in values):
                raise InputError(f"A {name} of {values} was given; expected three numbers.")
            object.__setattr__(self, name, values)

    def __call__(self, picture: Image.Image) -> Tensor:
        """Return a picture in RGB as the network wants it: float32 (3, height, width).

        Raises:
            InputError: the transform gives anything else.
        """
        import torch

        made = self.transform(picture)
        if not isinstance(made, torch.Tensor):
            raise InputError(
                f"The preprocessing gives a {type(made).__name__}; expected a tensor "
                "(3, height, width). End it with ToTensor()."
            )
        if not made.is_floating_point():
            raise InputError(
                f"The preprocessing gives {made.dtype}; expected float32. With "
                "torchvision.transforms.v2: ToDtype(torch.float32, scale=True)."
            )
        if made.ndim != 3 or made.shape[0] != 3:
            raise InputError(
                f"The preprocessing gives {tuple(made.shape)} for a picture; expected "
                "(3, height, width)."
            )
        return made.float()

    def undo(self, seen: Tensor) -> NDArray[np.uint8]:
        """Return the pixels of a network's input: (height, width, 3), uint8.

        Values are rounded and clipped, so that bytes which were only scaled come back exactly.

        Args:
            seen: float (3, height, width); (1, height, width) gives grey.
        """
        import torch

        mean, std = (
            torch.tensor(v, dtype=torch.float32)[:, None, None] for v in (self.mean, self.std)
        )
        values = seen.detach().to("cpu", torch.float32) * std + mean
        pixels = (values * 255).round().clamp(0, 255).to(torch.uint8)
        return np.ascontiguousarray(pixels.permute(1, 2, 0).numpy())

    def blank(self, side: int = 256) -> Tensor:
        """Return the network's input for a grey picture: float32 (3, height, width)."""
        from PIL import Image

        return self(Image.new("RGB", (side, side), (128, 128, 128)))

    def describe(self) -> dict[str, Any]:
        """Return mean, std and the transform in words, for a record.

        Example:
            >>> Preprocessing.imagenet().describe()["mean"]
            [0.485, 0.456, 0.406]
        """
        return {
            "mean": [*self.mean],
            "std": [*self.std],
            "transform": describe_transform(self.transform),
        }

    def __reduce__(self) -> tuple[Any, ...]:
        # a process that loads pictures first imports the user's files that the transform is of
        state = pickle.dumps((self.transform, self.mean, self.std))
        return _unpickle, (python_file.loaded_files(), state)

    # ---- where preprocessing comes from

    @classmethod
    def imagenet(cls, side: int | None = 224) -> Preprocessing:
        """Return what networks of ImageNet usually get, and all got in 2022 (224 pixels).

        Args:
            side: of the square that is cut from the centre, once the shorter side is resized
                (bilinear) to 256/224 of it. None leaves pictures at their size, which then must
                be one for all: `imagenet:as-is`, for CIFAR and the like.
        """
        from torchvision import transforms

        if side is not None and side < 1:
            raise InputError(f"A side of {side} pixels was asked for; expected at least 1.")
        cut: list[Any] = []
        if side is not None:
            cut = [transforms.Resize(shorter_side(side)), transforms.CenterCrop(side)]
        whole = [*cut, transforms.ToTensor(), transforms.Normalize(MEAN, STD)]
        return cls(transforms.Compose(whole), MEAN, STD)

    @classmethod
    def from_transform(
        cls,
        transform: Callable[[Image.Image], Tensor],
        mean: Sequence[float] | None = None,
        std: Sequence[float] | None = None,
    ) -> Preprocessing:
        """Return the preprocessing that a callable does: a torchvision `Compose`, or any other.

        Mean and std are read off a `Normalize` in it, and checked, or else measured, with grey
        pictures.

        Args:
            transform: PIL picture in RGB -> float (3, height, width), torchvision's v1 or v2,
                or a function.
            mean, std: where they cannot be measured.

        Raises:
            InputError: it draws at random, fails, gives something else than such a tensor, or
                maps values in a way that is no (v - mean) / std.
        """
        if isinstance(transform, cls):
            return transform
        if not callable(transform):
            raise InputError(
                f"A preprocessing of {type(transform).__name__} was given; expected a callable: "
                "PIL picture -> tensor (3, height, width)."
            )
        for step in normalization.iter_steps(transform):
            if _RANDOM.fullmatch(type(step).__name__):
                raise InputError(
                    f"The preprocessing draws at random ({type(step).__name__}): it is that of "
                    "training. Give the one of testing; a picture must look the same each time."
                )
        if mean is not None and std is not None:
            return cls(transform, tuple(mean), tuple(std))
        measured = normalization.measure_scale(cls(transform, (0, 0, 0), (1, 1, 1)))
        declared = normalization.read_declared_scale(transform)
        if declared is not None and np.allclose(declared, measured, rtol=1e-3, atol=1e-3):
            return cls(transform, *declared)
        return cls(transform, *measured)

    @classmethod
    def from_torchvision(cls, weights: Any) -> Preprocessing:
        """Return the preprocessing of torchvision weights (`ResNet18_Weights.IMAGENET1K_V1`)."""
        return cls.from_transform(weights.transforms())

    @classmethod
    def from_timm(cls, model: Any) -> Preprocessing:
        """Return the preprocessing of a timm model, or of its pretrained config (a dict)."""
        data = importlib.import_module("timm.data")
        known = isinstance(model, dict)
        settings = data.resolve_data_config(
            {},
            pretrained_cfg=model if known else model.pretrained_cfg,
            model=None if known else model,
        )
        return cls.from_transform(data.create_transform(**settings, is_training=False))

    @classmethod
    def from_hf(cls, processor: Any) -> Preprocessing:
        """Return the preprocessing that a transformers image processor does."""
        return cls.from_transform(_ProcessorTransform(processor))


def _unpickle(files: tuple[str, ...], state: bytes) -> Preprocessing:
    for file in files:
        python_file.load_module(file)
    return Preprocessing(*pickle.loads(state))  # noqa: S301  # made by __reduce__


class _ProcessorTransform:
    """A transformers image processor as a function of one picture."""

    def __init__(self, processor: Any) -> None:
        self.processor = processor

    def __call__(self, picture: Image.Image) -> Any:
        return self.processor(images=picture, return_tensors="pt")["pixel_values"][0]

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
    """Return what a transform is, without addresses in memory, on one line."""
    if hasattr(transform, "__qualname__"):
        return str(transform.__qualname__)
    text = re.sub(r" at 0x[0-9a-fA-F]+", "", repr(transform))
    text = re.sub(r"_(\w+)_[0-9a-f]{16}\b", r"\1", text)  # names of modules of users' files
    return re.sub(r"\s*\n\s*", " ", text).replace("( ", "(").replace(" )", ")")
