"""Datasets of images as a network takes them, from a folder, `datasets` or any Python object."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, cast

import numpy as np
from torch.utils.data import Dataset

from milannotations.errors import InputError
from milannotations.exemplars.images import hf_datasets
from milannotations.exemplars.images.decode import IMAGE_KEYS, Pixels, explain_read_errors
from milannotations.exemplars.images.folder import FolderSource
from milannotations.exemplars.images.subset import evenly_spaced
from milannotations.exemplars.networks.preprocessing import Preprocessing

if TYPE_CHECKING:
    from PIL import Image
    from torch import Tensor


class DatasetSource(Protocol):
    """Interface of what an `ImageDataset` reads.

    `load` returns an RGB image, or the network's input; `source_id` where it came from;
    `describe` the images of some indices, for a record.
    """

    def __len__(self) -> int: ...
    def load(self, index: int) -> Image.Image | Tensor: ...
    def source_id(self, index: int) -> str: ...
    def describe(self, indices: Sequence[int]) -> dict[str, Any]: ...


class ImageDataset(Dataset[Any]):
    """Dataset of images: each as a network takes it, and as the pixels that the network saw.

    `open_images` makes one. It can be pickled, so that other processes can load from it.

    Args:
        origin: what the images are read from.
        transform: preprocessing of the network; None if `origin` returns the network's input
            itself, with values from 0 to 1.
        indices: images of `origin` to use; ids are indices into this list.
        thread_safe: several threads may read from `origin` at once.
    """

    def __init__(
        self,
        origin: DatasetSource,
        transform: Preprocessing | None,
        indices: Sequence[int],
        *,
        thread_safe: bool = True,
    ) -> None:
        self.origin, self.transform, self.indices = origin, transform, indices
        self.thread_safe = thread_safe

    def __len__(self) -> int:
        return len(self.indices)

    def __getitem__(self, i: int) -> Tensor:
        """Return an image as the network takes it: float32 (3, height, width).

        Raises:
            UnreadableImageError: the image cannot be read.
            InputError: the preprocessing returns something else, or there is none and this is an
                image rather than a tensor.
        """
        import torch

        image = self.origin.load(self.indices[i])
        if isinstance(image, torch.Tensor):
            return image
        if self.transform is None:
            raise InputError(
                "The dataset holds images, and no preprocessing was given: add --preprocess "
                "imagenet (in Python: open_images(dataset, Preprocessing.imagenet()))."
            )
        return self.transform(image)

    def source_id(self, i: int) -> str:
        """Return where an image came from: its path in the folder, with `/`, or its index."""
        return self.origin.source_id(self.indices[i])

    def pixels(self, i: int) -> Pixels:
        """Return the pixels of an image that the network saw: uint8 (height, width, 3).

        Raises:
            UnreadableImageError: the image cannot be read.
            InputError: tensors with values outside 0 to 1, and no preprocessing to undo.
        """
        tensor = self[i]
        if self.transform is not None:
            return self.transform.undo(tensor)
        low, high = float(tensor.min()), float(tensor.max())
        if low < -1e-5 or high > 1 + 1e-5:
            raise InputError(
                f"The dataset's tensors have values from {low:.3g} to {high:.3g}; expected 0 to 1. "
                "Give the preprocessing that made them: open_images(dataset, "
                "Preprocessing.imagenet())."
            )
        return Preprocessing(_identity, (0, 0, 0), (1, 1, 1)).undo(tensor)

    def iter_pixels(self, ids: Sequence[int], workers: int | None = None) -> Iterator[Pixels]:
        """Yield the pixels of some images that the network saw, in order, each read once.

        Args:
            ids: indices of the images.
            workers: threads that read ahead; None for one per core.

        Yields:
            uint8 (height, width, 3).

        Raises:
            UnreadableImageError: at the first image that cannot be read.
        """
        workers = (workers or os.cpu_count() or 1) if self.thread_safe else 1
        if workers == 1:
            yield from (self.pixels(int(i)) for i in ids)
            return
        # read ahead by a bounded number of images, so that memory does not grow with `ids`
        pending: deque[Future[Pixels]] = deque()
        pool = ThreadPoolExecutor(workers)
        try:
            for i in ids:
                pending.append(pool.submit(self.pixels, int(i)))
                if len(pending) > 2 * workers:
                    yield pending.popleft().result()
            while pending:
                yield pending.popleft().result()
        finally:
            pool.shutdown(cancel_futures=True)

    @cached_property
    def source(self) -> dict[str, Any]:
        """Record of the images: name, kind, number, digest of the listing."""
        record = {**self.origin.describe(self.indices), "images": len(self)}
        return record if len(self) == len(self.origin) else {**record, "of": len(self.origin)}

    @property
    def preprocessing(self) -> dict[str, Any]:
        """Record of the preprocessing."""
        if self.transform is None:
            return {"transform": "none: tensors as given"}
        return self.transform.describe()


def open_images(
    source: Any,
    preprocessing: Preprocessing | Callable[[Any], Tensor] | None = None,
    *,
    limit: int | None = None,
    split: str | None = None,
    column: str | None = None,
    config: str | None = None,
) -> ImageDataset:
    """Open images as a network takes them.

    - A folder: images in class folders come first, as torchvision's `ImageFolder` orders them
      (classes by name, files by name within each, also those in folders inside), then images
      directly in the folder, by name. Orientation tags are ignored, as in `ImageFolder`.
    - A dataset of `datasets`: a folder that `save_to_disk` wrote or of parquet files, a parquet
      file, a name on the hub, or an open `datasets.Dataset`.
    - A Python object with `len()` and items by index: PIL images; uint8 arrays or tensors, which
      are images too; float tensors, which are taken as the network's input; tuples that begin
      with one of these; dicts with `image`.

    Args:
        source: see above.
        preprocessing: preprocessing of the network. For float tensors, the one that made them.
        limit: number of images, spaced evenly over all of them.
        split: split of a `datasets` dataset that has several, or several joined by `+`.
        column: column of images of a `datasets` dataset that has several.
        config: config of a `datasets` dataset on the hub.

    Raises:
        InputError: nothing there, or no image in it; several splits or columns of images, and
            none chosen; images, and no preprocessing.

    Example:
        >>> import tempfile
        >>> from PIL import Image
        >>> folder = tempfile.mkdtemp()
        >>> Image.new("RGB", (40, 30), "red").save(f"{folder}/a.png")
        >>> images = open_images(folder, Preprocessing.imagenet(16))
        >>> images.source_id(0), tuple(images[0].shape), images.pixels(0)[0, 0].tolist()
        ('a.png', (3, 16, 16), [255, 0, 0])
    """
    if preprocessing is not None and not isinstance(preprocessing, Preprocessing):
        preprocessing = Preprocessing.from_transform(preprocessing)
    origin: DatasetSource
    if isinstance(source, (str, os.PathLike)):
        path = Path(source).expanduser()
        if path.is_dir() and not hf_datasets.is_dataset_folder(path):
            origin = FolderSource(path)
        else:
            origin = hf_datasets.open_dataset(
                str(source), split=split, column=column, config=config
            )
    elif hf_datasets.is_dataset_object(source):
        origin = hf_datasets.from_dataset(source, split=split, column=column)
    else:
        origin = SequenceSource(source)
    if preprocessing is None and not isinstance(origin, SequenceSource):
        raise InputError(
            f"The preprocessing of the images of {source} is not known: add --preprocess imagenet "
            "(in Python: open_images(folder, Preprocessing.imagenet()))."
        )
    if limit is not None and limit < 1:
        raise InputError(f"{limit} images were asked for; expected at least 1.")
    indices = evenly_spaced(len(origin), limit)
    thread_safe = not isinstance(origin, SequenceSource)
    return ImageDataset(origin, preprocessing, indices, thread_safe=thread_safe)


class SequenceSource:
    """Images of a Python object that has a length and items by index.

    Args:
        items: the object; see `open_images`.

    Raises:
        InputError: an object without length or items by index, or an empty one.
    """

    def __init__(self, items: Any) -> None:
        if not (hasattr(items, "__len__") and hasattr(items, "__getitem__")):
            raise InputError(
                f"A {type(items).__name__} was given; expected a folder, the name of a dataset, "
                "or a dataset with len() and items by index."
            )
        if not len(items):
            raise InputError("The dataset is empty; expected at least one image.")
        self.items = items

    def __len__(self) -> int:
        return len(self.items)

    def load(self, index: int) -> Image.Image | Tensor:
        import torch
        from PIL import Image

        # these types of errors mean a damaged image; any other is a bug in the dataset
        damaged = (OSError, SyntaxError, Image.DecompressionBombError)
        source_id = self.source_id(index)
        with explain_read_errors(source_id, damaged):
            image = item = self.items[index]
            if isinstance(item, Mapping):
                image = next((item[key] for key in IMAGE_KEYS if key in item), None)
            elif isinstance(item, (tuple, list)) and item:
                image = item[0]
        if isinstance(image, Image.Image):
            with explain_read_errors(source_id):
                return image.convert("RGB")
        if isinstance(image, torch.Tensor) and image.is_floating_point() and image.ndim == 3:
            return image.float()
        pixels = image.numpy() if isinstance(image, torch.Tensor) else image
        if isinstance(pixels, np.ndarray) and pixels.dtype == np.uint8 and pixels.ndim == 3:
            # torch puts channels first, numpy and PIL last; one channel is grey
            if pixels.shape[0] in (1, 3):
                pixels = pixels.transpose(1, 2, 0)
            if pixels.shape[2] in (1, 3):
                rgb = np.broadcast_to(pixels, (*pixels.shape[:2], 3))
                return Image.fromarray(np.ascontiguousarray(rgb))
        shape = f" of {image.dtype}, {tuple(image.shape)}" if hasattr(image, "shape") else ""
        raise InputError(
            f"Item {index} of the dataset is a {type(item).__name__}"
            + (f" with a {type(image).__name__}" if image is not item else "")
            + f"{shape}; expected a PIL image, uint8 pixels or a float tensor (3, height, "
            f"width): alone, first in a tuple, or in a dict as one of {', '.join(IMAGE_KEYS)}."
        )

    def source_id(self, index: int) -> str:
        source_id = getattr(self.items, "source_id", None)
        return str(source_id(index)) if callable(source_id) else str(index)

    def describe(self, indices: Sequence[int]) -> dict[str, Any]:
        return {"name": type(self.items).__name__, "kind": "python", "sha256": None}


def _identity(image: Any) -> Any:
    return cast(Any, image)
