"""Inputs of a generator, and the pictures that it makes of them."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from torch.utils.data import Dataset

from milannotations.errors import InputError, some
from milannotations.exemplars.images.decode import Pixels
from milannotations.exemplars.networks.preprocessing import describe_transform
from milannotations.exemplars.networks.weights import load_tensors
from milannotations.utils.files import sha256

if TYPE_CHECKING:
    from torch import Tensor, nn

SUFFIXES = (".pth", ".pt")
BATCH_SIZE = 32
"""Pictures that are made together: as many as in 2022."""


class Latents(Dataset[Any]):
    """Inputs of a generator in the published layouts: (z, y), noise and class, of each picture.

    One file with a tuple of tensors, or a file a tensor; in the folder given or in the one
    folder inside it. Floats come first, so that z stands before y whatever the files are called
    (Hernandez et al. 2022, code: `TensorDatasetOnDisk`).

    Args:
        path: the file, or the folder with the files.
        limit: so many, spaced evenly over all of them.

    Raises:
        InputError: no such file; none in the folder; no tensors in it, or of several lengths.
    """

    def __init__(self, path: str | os.PathLike[str], limit: int | None = None) -> None:
        self.files = _files(Path(path).expanduser())
        tensors = [tensor for file in self.files for tensor in _tensors(file)]
        tensors.sort(key=lambda tensor: not tensor.is_floating_point())
        lengths = [len(tensor) for tensor in tensors]
        if len(set(lengths)) != 1:
            raise InputError(
                f"{path} has tensors of {some(lengths)} rows; expected as many in each: "
                "a row is what one picture is made of."
            )
        if limit is not None and limit < 1:
            raise InputError(f"{limit} latents were asked for; expected at least 1.")
        if not lengths[0]:
            raise InputError(f"{path} has tensors without rows.")
        self.name = os.path.basename(os.path.abspath(Path(path).expanduser()))
        self.places: Sequence[int] = range(lengths[0])
        if limit is not None and limit < lengths[0]:
            self.places = [i * lengths[0] // limit for i in range(limit)]
        self.tensors = tuple(
            tensor.float() if tensor.is_floating_point() else tensor.long() for tensor in tensors
        )

    def __len__(self) -> int:
        return len(self.places)

    def __getitem__(self, i: int) -> tuple[Tensor, ...]:
        """Return what a picture is made of: a row of each tensor, z float32 and y int64."""
        return tuple(tensor[self.places[i]] for tensor in self.tensors)

    def source_id(self, i: int) -> str:
        """Return the row of a latent in its file."""
        return str(self.places[i])

    def arguments(self, item: Sequence[Tensor]) -> tuple[Tensor, ...]:
        """Return the generator's arguments of an item: all of it."""
        return tuple(item)

    @cached_property
    def source(self) -> dict[str, Any]:
        """What they are, for a record: name, kind, how many, the digest of the files."""
        made = {
            "name": self.name,
            "kind": "latents",
            "images": len(self),
            "files": [file.name for file in self.files],
            "sha256": sha256(*self.files),
        }
        whole = len(self.tensors[0])
        return made if len(self) == whole else {**made, "of": whole}


class GeneratedImages(Dataset[Any]):
    """The pictures that a generator makes of latents, made again when they are wanted.

    Items are the generator's arguments, so that it can be passed to `compute` itself; pictures
    come out of the model. They are made in batches of one size, filled up with repeats where
    fewer are wanted, as a network's last bits depend on the size of the batch.

    Args:
        model: the generator: `model(*item)` for a batch of items.
        latents: items by place: `Latents`, or any data set of tuples of tensors.
        transform_outputs: makes pictures of what the model gives: (batch, 3, height, width),
            values from `low` to `high`. None where it gives them itself.
        batch_size: pictures made together.
        low, high: the values of black and of full colour; -1 and 1 out of a tanh.

    Example:
        >>> import torch
        >>> grey = torch.nn.Unflatten(1, (3, 1, 1))
        >>> made = GeneratedImages(grey, [(torch.tensor([-1.0, 0.0, 1.0]),)])
        >>> made.pixels(0).tolist()
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
                f"A batch of {batch_size} and values from {low} to {high} were asked for; expected "
                "a batch of at least 1 and rising values."
            )
        self.model, self.latents, self.transform_outputs = model, latents, transform_outputs
        self.batch_size, self.low, self.high = batch_size, low, high

    def __len__(self) -> int:
        return len(self.latents)

    def __getitem__(self, i: int) -> tuple[Tensor, ...]:
        return tuple(self.latents[i])

    def arguments(self, item: Sequence[Tensor]) -> tuple[Tensor, ...]:
        """Return the generator's arguments of an item: all of it."""
        return tuple(item)

    def source_id(self, i: int) -> str:
        """Return the row that a picture is made of."""
        name = getattr(self.latents, "source_id", str)
        return str(name(i))

    def pixels(self, i: int) -> Pixels:
        """Return a picture: uint8 (height, width, 3)."""
        return next(self.iter_pixels([i]))

    def iter_pixels(self, ids: Sequence[int], workers: int | None = None) -> Iterator[Pixels]:
        """Yield some pictures in order, each made once.

        Batches are made of the ids in ascending order, whatever the order asked. Ascending ids
        need the memory of a batch; others that of the pictures which are made before their turn.

        Args:
            ids: places in the latents.
            workers: nothing to a generator.

        Yields:
            (height, width, 3), uint8.

        Raises:
            InputError: the model does not give pictures.
        """
        waiting: dict[int, Pixels] = {}
        wanted = [int(i) for i in ids]
        left = {i: wanted.count(i) for i in set(wanted)} if len(set(wanted)) < len(wanted) else {}
        ordered, size, begin = sorted(set(wanted)), self.batch_size, 0
        for i in wanted:
            while i not in waiting:
                batch = ordered[begin : begin + size]
                waiting.update(zip(batch, self._made(batch), strict=True))
                begin += size
            left[i] = left.get(i, 1) - 1
            yield waiting[i] if left[i] else waiting.pop(i)

    def _made(self, ids: Sequence[int]) -> NDArray[np.uint8]:
        import torch

        items = [self[i] for i in ids]
        items += items[-1:] * (self.batch_size - len(items))
        first = next(self.model.parameters(), None)
        device = first.device if first is not None else "cpu"
        batch = [torch.stack(part).to(device) for part in zip(*items, strict=True)]
        training = self.model.training
        self.model.eval()
        try:
            with torch.no_grad():
                given = self.model(*batch)
                made = self.transform_outputs(given) if self.transform_outputs else given
        finally:
            self.model.train(training)
        self._check(made)
        scaled = (made[: len(ids)].float() - self.low) / (self.high - self.low)
        pixels = (scaled * 255).round().clamp(0, 255).to(torch.uint8)
        return np.ascontiguousarray(pixels.permute(0, 2, 3, 1).cpu().numpy())

    def _check(self, made: Any) -> None:
        import torch

        if (
            isinstance(made, torch.Tensor)
            and made.ndim == 4
            and made.shape[:2] == (self.batch_size, 3)
        ):
            if not bool(made.isfinite().all()):
                raise InputError("The generator gives pictures with values that are no numbers.")
            return
        what = tuple(made.shape) if isinstance(made, torch.Tensor) else type(made).__name__
        raise InputError(
            f"The generator gives {what} for {self.batch_size} latents; expected pictures "
            f"({self.batch_size}, 3, height, width). Say what makes them of it: "
            "GeneratedImages(model, latents, transform_outputs=...)."
        )

    @property
    def source(self) -> dict[str, Any]:
        """What the pictures are made of, for a record."""
        known = getattr(self.latents, "source", None)
        return dict(known) if known else {
            "name": type(self.latents).__name__,
            "kind": "latents",
            "images": len(self),
            "sha256": None,
        }  # fmt: skip

    @property
    def preprocessing(self) -> dict[str, Any]:
        """How pictures are made of the generator's outputs, for a record."""
        return {
            "outputs": [self.low, self.high],
            "batch_size": self.batch_size,
            "transform": describe_transform(self.transform_outputs)
            if self.transform_outputs
            else "none",
        }


def _files(path: Path) -> list[Path]:
    if path.is_file():
        return [path]
    if not path.is_dir():
        raise InputError(f"No such file or folder of latents: {path}")
    for folder in (path, *(each for each in sorted(path.iterdir()) if each.is_dir())):
        found = sorted(each for each in folder.iterdir() if each.suffix in SUFFIXES)
        if found:
            return found
    raise InputError(
        f"{path} has no latents (.pth), nor has a folder in it; it holds "
        f"{some(sorted(each.name for each in path.iterdir())) or 'nothing'}."
    )


def _tensors(file: Path) -> list[Any]:
    """Return the tensors of a file: one, or those of a tuple or dict."""
    import torch

    content = load_tensors(file)
    if isinstance(content, dict):
        content = list(content.values())
    found = list(content) if isinstance(content, (tuple, list)) else [content]
    strange = [type(each).__name__ for each in found if not isinstance(each, torch.Tensor)]
    if strange or not found or any(each.ndim == 0 for each in found):
        raise InputError(
            f"{file} holds {some(strange) or 'no rows'}; expected a tensor, or a tuple of "
            "tensors: z (n, d) and y (n,)."
        )
    return found
