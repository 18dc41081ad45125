"""Latents of a generator, and the images that it generates from them."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from torch.utils.data import Dataset

from milannotations.errors import InputError, some
from milannotations.exemplars.images.decode import Pixels
from milannotations.exemplars.images.subset import evenly_spaced
from milannotations.exemplars.networks.preprocessing import describe_transform
from milannotations.exemplars.networks.weights import load_tensors
from milannotations.utils.files import sha256

if TYPE_CHECKING:
    from torch import Tensor, nn

SUFFIXES = (".pth", ".pt")
"""Suffixes of files of latents."""

BATCH_SIZE = 32
"""Default number of images that are generated together, as in 2022."""


class Latents(Dataset[Any]):
    """Latents in the published layouts: for each image (z, y), its noise vector and class.

    They are in one file that holds a tuple of tensors, or in one file per tensor; in the given
    folder or in a folder inside it. Floats come first, so that z precedes y whatever the names of
    the files (Hernandez et al. 2022, code: `TensorDatasetOnDisk`).

    Args:
        path: the file, or the folder of the files.
        limit: number of latents, spaced evenly over all of them; None for all.

    Raises:
        InputError: no such file; none in the folder; no tensors in it, or of several lengths.
    """

    def __init__(self, path: str | os.PathLike[str], limit: int | None = None) -> None:
        self.files = _latent_files(Path(path).expanduser())
        tensors = [tensor for file in self.files for tensor in _read_tensors(file)]
        tensors.sort(key=lambda tensor: not tensor.is_floating_point())
        lengths = [len(tensor) for tensor in tensors]
        if len(set(lengths)) != 1:
            raise InputError(
                f"{path} has tensors of {some(lengths)} rows; expected the same number in each: "
                "an image is generated from one row of each."
            )
        if limit is not None and limit < 1:
            raise InputError(f"{limit} latents were asked for; expected at least 1.")
        if not lengths[0]:
            raise InputError(f"{path} has tensors without rows; expected a row for each image.")
        self.name = os.path.basename(os.path.abspath(Path(path).expanduser()))
        self.rows = evenly_spaced(lengths[0], limit)
        self.tensors = tuple(
            tensor.float() if tensor.is_floating_point() else tensor.long() for tensor in tensors
        )

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, i: int) -> tuple[Tensor, ...]:
        """Return the latents of an image: a row of each tensor, z as float32 and y as int64."""
        return tuple(tensor[self.rows[i]] for tensor in self.tensors)

    def source_id(self, i: int) -> str:
        """Return the row of an image's latents in their file."""
        return str(self.rows[i])

    def arguments(self, item: Sequence[Tensor]) -> tuple[Tensor, ...]:
        """Return the generator's arguments for an item: all of it."""
        return tuple(item)

    @cached_property
    def source(self) -> dict[str, Any]:
        """Record of the latents: name, kind, number, digest of the files."""
        record = {
            "name": self.name,
            "kind": "latents",
            "images": len(self),
            "files": [file.name for file in self.files],
            "sha256": sha256(*self.files),
        }
        total = len(self.tensors[0])
        return record if len(self) == total else {**record, "of": total}


class GeneratedImages(Dataset[Any]):
    """Images that a generator makes from latents, generated whenever they are needed.

    Items are the generator's arguments, so that `compute` can run the generator on them; the
    images are the generator's outputs. They are generated in batches of one size, padded with
    repeats where fewer are needed, because the last bits of a network's outputs depend on the
    size of the batch.

    Args:
        model: the generator: `model(*item)` for a batch of items.
        latents: items by index: `Latents`, or any dataset of tuples of tensors.
        transform_outputs: function that turns the generator's outputs into images (batch, 3,
            height, width) with values from `low` to `high`; None if the outputs are such images.
        batch_size: images generated together.
        low: value of black; -1 after a tanh.
        high: value of full colour; 1 after a tanh.

    Raises:
        InputError: a batch size below 1, or `high` not above `low`.

    Example:
        >>> import torch
        >>> generator = torch.nn.Unflatten(1, (3, 1, 1))
        >>> images = GeneratedImages(generator, [(torch.tensor([-1.0, 0.0, 1.0]),)])
        >>> images.pixels(0).tolist()
        [[[0, 128, 255]]]
    """

    def __init__(
        self,
        model: nn.Module,
        latents: Any,
        transform_outputs: Callable[[Any], Tensor] | None = None,
        *,
        batch_size: int = BATCH_SIZE,
        low: float = -1.0,
        high: float = 1.0,
    ) -> None:
        if batch_size < 1 or high <= low:
            raise InputError(
                f"A batch size of {batch_size} and values from {low} to {high} were given; "
                "expected at least 1, and rising values."
            )
        self.model, self.latents, self.transform_outputs = model, latents, transform_outputs
        self.batch_size, self.low, self.high = batch_size, low, high

    def __len__(self) -> int:
        return len(self.latents)

    def __getitem__(self, i: int) -> tuple[Tensor, ...]:
        return tuple(self.latents[i])

    def arguments(self, item: Sequence[Tensor]) -> tuple[Tensor, ...]:
        """Return the generator's arguments for an item: all of it."""
        return tuple(item)

    def source_id(self, i: int) -> str:
        """Return the row of the latents that an image is generated from."""
        source_id = getattr(self.latents, "source_id", str)
        return str(source_id(i))

    def pixels(self, i: int) -> Pixels:
        """Return an image: uint8 (height, width, 3)."""
        return next(self.iter_pixels([i]))

    def iter_pixels(self, ids: Sequence[int], workers: int | None = None) -> Iterator[Pixels]:
        """Yield some images in order, each generated once.

        Batches are made of the ids in ascending order, whatever the order asked for, so that an
        image is the same in every order. With ascending ids, one batch is held in memory; with
        others, also the images that are generated before their turn.

        Args:
            ids: indices of the latents.
            workers: ignored; a generator runs in this process.

        Yields:
            uint8 (height, width, 3).

        Raises:
            InputError: the model does not return images.
        """
        waiting: dict[int, Pixels] = {}
        requested = [int(i) for i in ids]
        # an image is dropped once it has been yielded as often as it was asked for
        remaining = Counter(requested)
        ordered, start = sorted(remaining), 0
        for i in requested:
            while i not in waiting:
                batch = ordered[start : start + self.batch_size]
                waiting.update(zip(batch, self._generate(batch), strict=True))
                start += self.batch_size
            remaining[i] -= 1
            yield waiting[i] if remaining[i] else waiting.pop(i)

    def _generate(self, ids: Sequence[int]) -> NDArray[np.uint8]:
        """Return the images of up to `batch_size` latents: uint8 (image, height, width, 3)."""
        import torch

        items = [self[i] for i in ids]
        items += items[-1:] * (self.batch_size - len(items))
        parameter = next(self.model.parameters(), None)
        device = parameter.device if parameter is not None else "cpu"
        batch = [torch.stack(part).to(device) for part in zip(*items, strict=True)]
        was_training = self.model.training
        self.model.eval()
        try:
            with torch.no_grad():
                outputs = self.model(*batch)
                images = self.transform_outputs(outputs) if self.transform_outputs else outputs
        finally:
            self.model.train(was_training)
        self._check_images(images)
        scaled = (images[: len(ids)].float() - self.low) / (self.high - self.low)
        pixels = (scaled * 255).round().clamp(0, 255).to(torch.uint8)
        return np.ascontiguousarray(pixels.permute(0, 2, 3, 1).cpu().numpy())

    def _check_images(self, images: Any) -> None:
        import torch

        is_tensor = isinstance(images, torch.Tensor)
        if is_tensor and images.ndim == 4 and images.shape[:2] == (self.batch_size, 3):
            if not bool(images.isfinite().all()):
                raise InputError(
                    "The generator returns images with values that are not finite (NaN or "
                    "infinite)."
                )
            return
        returned = tuple(images.shape) if is_tensor else type(images).__name__
        raise InputError(
            f"The generator returns {returned} for {self.batch_size} latents; expected images "
            f"({self.batch_size}, 3, height, width). Give a function that turns the outputs into "
            "images: GeneratedImages(model, latents, transform_outputs=...)."
        )

    @property
    def source(self) -> dict[str, Any]:
        """Record of the latents."""
        record = getattr(self.latents, "source", None)
        return dict(record) if record else {
            "name": type(self.latents).__name__,
            "kind": "latents",
            "images": len(self),
            "sha256": None,
        }  # fmt: skip

    @property
    def preprocessing(self) -> dict[str, Any]:
        """Record of how images are made from the generator's outputs."""
        transform = self.transform_outputs
        return {
            "outputs": [self.low, self.high],
            "batch_size": self.batch_size,
            "transform": describe_transform(transform) if transform else "none",
        }


def _latent_files(path: Path) -> list[Path]:
    """Return a file of latents, or the files in a folder or in the first folder inside it."""
    if path.is_file():
        return [path]
    if not path.is_dir():
        raise InputError(f"No such file or folder of latents: {path}")
    for folder in (path, *(entry for entry in sorted(path.iterdir()) if entry.is_dir())):
        files = sorted(entry for entry in folder.iterdir() if entry.suffix in SUFFIXES)
        if files:
            return files
    raise InputError(
        f"{path} has no latents (.pth), nor has a folder in it; it holds "
        f"{some(sorted(entry.name for entry in path.iterdir())) or 'nothing'}."
    )


def _read_tensors(file: Path) -> list[Any]:
    """Return the tensors of a file: one, or those of a tuple or dict."""
    import torch

    content = load_tensors(file)
    if isinstance(content, dict):
        content = list(content.values())
    tensors = list(content) if isinstance(content, (tuple, list)) else [content]
    others = [type(entry).__name__ for entry in tensors if not isinstance(entry, torch.Tensor)]
    if others or not tensors or any(tensor.ndim == 0 for tensor in tensors):
        raise InputError(
            f"{file} holds {some(others) or 'no rows'}; expected a tensor, or a tuple of "
            "tensors: z (n, d) and y (n,)."
        )
    return tensors
