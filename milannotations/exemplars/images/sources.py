"""Pictures as a network wants them: of a folder, of a `datasets` data set, or of any `Dataset`."""

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
from milannotations.exemplars.networks.preprocessing import Preprocessing

if TYPE_CHECKING:
    from PIL import Image
    from torch import Tensor


class DatasetSource(Protocol):
    """Where pictures come from: `load(place)` gives one in RGB, or a network's input."""

    def __len__(self) -> int: ...
    def load(self, place: int) -> Image.Image | Tensor: ...
    def source_id(self, place: int) -> str: ...
    def describe(self, places: Sequence[int]) -> dict[str, Any]: ...


class ImageDataset(Dataset[Any]):
    """Some pictures, each as a network wants it and as the network saw it.

    Made by `open_images`. Pickles, so that processes may load from it.

    Args:
        source: where they come from.
        prepare: makes the network's input; None where the source gives that itself, with
            values from 0 to 1.
        places: which pictures of the source; their order is that of the ids, from 0.
        threads: whether `source` may be read by several threads at once.
    """

    def __init__(
        self,
        source: DatasetSource,
        transform: Preprocessing | None,
        places: Sequence[int],
        *,
        threads: bool = True,
    ) -> None:
        self.origin, self.transform, self.places, self.threads = source, transform, places, threads

    def __len__(self) -> int:
        return len(self.places)

    def __getitem__(self, i: int) -> Tensor:
        """Return a picture as the network wants it: float32 (3, height, width).

        Raises:
            UnreadableImageError: it cannot be read.
            InputError: the preprocessing gives something else, or there is none and this is a
                picture rather than a tensor.
        """
        import torch

        found = self.origin.load(self.places[i])
        if isinstance(found, torch.Tensor):
            return found
        if self.transform is None:
            raise InputError(
                "The data set gives pictures, and no preprocessing was said. Say it: "
                "open_images(dataset, Preprocessing.imagenet()), or --preprocess imagenet."
            )
        return self.transform(found)

    def source_id(self, i: int) -> str:
        """Return where a picture came from: its path in the folder, with /, or its place."""
        return self.origin.source_id(self.places[i])

    def pixels(self, i: int) -> Pixels:
        """Return what the network saw of a picture: uint8 (height, width, 3).

        Raises:
            UnreadableImageError: see above.
            InputError: tensors beyond 0 to 1, and no preprocessing said.
        """
        seen = self[i]
        if self.transform is not None:
            return self.transform.undo(seen)
        low, high = float(seen.min()), float(seen.max())
        if low < -1e-5 or high > 1 + 1e-5:
            raise InputError(
                f"The data set's tensors have values from {low:.3g} to {high:.3g}. Say the "
                "preprocessing that made them: open_images(dataset, Preprocessing.imagenet())."
            )
        return Preprocessing(_nothing, (0, 0, 0), (1, 1, 1)).undo(seen)

    def iter_pixels(self, ids: Sequence[int], workers: int | None = None) -> Iterator[Pixels]:
        """Yield what the network saw of some pictures, in order, each read once.

        Args:
            ids: places in these pictures.
            workers: threads that read ahead; None takes one a core.

        Yields:
            (height, width, 3), uint8.

        Raises:
            UnreadableImageError: when a picture that cannot be read is reached.
        """
        workers = (workers or os.cpu_count() or 1) if self.threads else 1
        if workers == 1:
            yield from (self.pixels(int(i)) for i in ids)
            return
        ahead: deque[Future[Pixels]] = deque()
        pool = ThreadPoolExecutor(workers)
        try:
            for i in ids:
                ahead.append(pool.submit(self.pixels, int(i)))
                if len(ahead) > 2 * workers:
                    yield ahead.popleft().result()
            while ahead:
                yield ahead.popleft().result()
        finally:
            pool.shutdown(cancel_futures=True)

    @cached_property
    def source(self) -> dict[str, Any]:
        """What the pictures are, for a record: name, kind, how many, a digest of the listing."""
        made = {**self.origin.describe(self.places), "images": len(self)}
        return made if len(self) == len(self.origin) else {**made, "of": len(self.origin)}

    @property
    def preprocessing(self) -> dict[str, Any]:
        """What was done to the pictures, for a record."""
        return (
            self.transform.describe() if self.transform else {"transform": "none: tensors as given"}
        )


def open_images(
    source: Any,
    preprocessing: Preprocessing | Callable[[Any], Tensor] | None = None,
    *,
    limit: int | None = None,
    split: str | None = None,
    column: str | None = None,
    config: str | None = None,
) -> ImageDataset:
    """Return pictures, each as a network wants it.

    - A folder: pictures in class folders come first, as torchvision's `ImageFolder` orders them
      (classes by name, files by name in each; folders in them too), then those that lie side by
      side in it, by name. Orientation tags are passed over, as there.
    - A `datasets` data set: a folder of `save_to_disk` or of parquet files, a parquet file, or a
      name on the hub.
    - A Python object with `len()` and items by place: PIL pictures; uint8 arrays or tensors,
      which are pictures too; float tensors, which are taken for a network's input; tuples that
      begin with one of these; dicts with `image`. A `datasets.Dataset` too.

    Args:
        source: see above.
        preprocessing: of the network. For float tensors, the one that made them.
        limit: so many pictures, spaced evenly over all of them.
        split, column, config: of a `datasets` data set, where it has several.

    Raises:
        InputError: nothing there, or no picture in it; several splits or columns of pictures,
            and none said; pictures, and no preprocessing.

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
            f"How are the pictures of {source} to be prepared for the network? Say so: "
            "open_images(folder, Preprocessing.imagenet()), or --preprocess imagenet."
        )
    if limit is not None and limit < 1:
        raise InputError(f"{limit} pictures were asked for; expected at least 1.")
    count = len(origin)
    places: Sequence[int] = range(count)
    if limit is not None and limit < count:
        places = [i * count // limit for i in range(limit)]
    return ImageDataset(
        origin, preprocessing, places, threads=not isinstance(origin, SequenceSource)
    )


class SequenceSource:
    """The pictures of a Python object with a length and items by place."""

    def __init__(self, items: Any) -> None:
        if not (hasattr(items, "__len__") and hasattr(items, "__getitem__")):
            raise InputError(
                f"A {type(items).__name__} was given; expected a folder, the name of a data set, "
                "or a data set with len() and items by place."
            )
        if not len(items):
            raise InputError("The data set is empty; expected at least one picture.")
        self.items = items

    def __len__(self) -> int:
        return len(self.items)

    def load(self, place: int) -> Image.Image | Tensor:
        import torch
        from PIL import Image

        # what else a data set raises is a bug in it
        name, damaged = self.source_id(place), (OSError, SyntaxError, Image.DecompressionBombError)
        with explain_read_errors(name, damaged):
            found = item = self.items[place]
            if isinstance(item, Mapping):
                found = next((item[key] for key in IMAGE_KEYS if key in item), None)
            elif isinstance(item, (tuple, list)) and item:
                found = item[0]
        if isinstance(found, Image.Image):
            with explain_read_errors(name):
                return found.convert("RGB")
        if isinstance(found, torch.Tensor) and found.is_floating_point() and found.ndim == 3:
            return found.float()
        pixels = found.numpy() if isinstance(found, torch.Tensor) else found
        if isinstance(pixels, np.ndarray) and pixels.dtype == np.uint8 and pixels.ndim == 3:
            if pixels.shape[0] in (1, 3):
                pixels = pixels.transpose(1, 2, 0)
            if pixels.shape[2] in (1, 3):
                grey = np.broadcast_to(pixels, (*pixels.shape[:2], 3))
                return Image.fromarray(np.ascontiguousarray(grey))
        shape = f" of {found.dtype}, {tuple(found.shape)}" if hasattr(found, "shape") else ""
        raise InputError(
            f"Item {place} of the data set is a {type(item).__name__}"
            + (f" with a {type(found).__name__}" if found is not item else "")
            + f"{shape}; expected a PIL picture, uint8 pixels or a float tensor (3, height, "
            f"width): alone, first in a tuple, or in a dict as one of {', '.join(IMAGE_KEYS)}."
        )

    def source_id(self, place: int) -> str:
        name = getattr(self.items, "source_id", None)
        return str(name(place)) if callable(name) else str(place)

    def describe(self, places: Sequence[int]) -> dict[str, Any]:
        return {"name": type(self.items).__name__, "kind": "python", "sha256": None}


def _nothing(picture: Any) -> Any:
    return cast(Any, picture)
