"""On-disk buffer of encoded exemplar images: each is read and encoded once."""

from __future__ import annotations

import errno
import os
import tempfile
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Protocol, Self

import numpy as np
from numpy.typing import NDArray

from milannotations.errors import InputError
from milannotations.exemplars.images.decode import UnreadableImageError

PixelArray = NDArray[np.uint8]
"""Pixels of an image: uint8 (height, width, 3)."""

_FULL = (errno.ENOSPC, errno.EDQUOT)


class ImageSource(Protocol):
    """Images that exemplars were computed on, such as `ImageDataset` and `GeneratedImages`."""

    def iter_pixels(self, ids: Sequence[int]) -> Iterator[PixelArray]:
        """Yield uint8 (height, width, 3), all of one size, for every id, in order."""

    def source_id(self, i: int) -> str:
        """Return where an image came from."""


def read_images(
    source: ImageSource, ids: Sequence[int], side: int | None = None
) -> Iterator[PixelArray]:
    """Yield the image of every id, in order.

    Args:
        source: where they come from.
        ids: ascending, each once.
        side: resize them to so many pixels square, nearest; None keeps their size.

    Yields:
        uint8 (height, width, 3), all of one size.

    Raises:
        InputError: an image cannot be read, is not an image, or is of another size.
    """
    images = iter(source.iter_pixels(ids))
    shape: tuple[int, ...] | None = None
    for id_ in ids:
        try:
            image = next(images, None)
        except (OSError, SyntaxError, InputError) as error:
            reason = error.reason if isinstance(error, UnreadableImageError) else None
            is_full = isinstance(error, OSError) and error.errno in _FULL
            if is_full or (reason is None and isinstance(error, InputError)):
                raise
            raise InputError(
                f"{source.source_id(id_)} was read before and cannot be read now: "
                f"{reason or error}. Put a good copy in its place and run the same command again."
            ) from error
        if image is None:
            raise InputError(f"There is no image of {source.source_id(id_)}; expected one.")
        if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3:
            raise InputError(
                f"The image of {source.source_id(id_)} is {image.dtype} {image.shape}; expected "
                "uint8 (height, width, 3)."
            )
        shape = shape or image.shape
        if side is None and image.shape != shape:
            raise InputError(
                f"The image of {source.source_id(id_)} is {image.shape[0]} x {image.shape[1]}, "
                f"others are {shape[0]} x {shape[1]}; expected one size. Resize all of them: "
                f"--side {shape[0]}"
            )
        yield image if side is None else resize_nearest(image, side)


def resize_nearest(image: PixelArray, side: int) -> PixelArray:
    """Resize an image to `side` pixels square: each is the nearest one above and to the left.

    As torch's `interpolate(mode="nearest")`, which the code of 2022 resized with.

    Example:
        >>> resize_nearest(np.arange(4, dtype=np.uint8).reshape(2, 2, 1), 4)[:, :, 0].tolist()
        [[0, 0, 1, 1], [0, 0, 1, 1], [2, 2, 3, 3], [2, 2, 3, 3]]
    """
    height, width = image.shape[:2]
    steps = np.arange(side)
    return image[steps[:, None] * height // side, steps[None] * width // side]


class ImageBuffer:
    """Encoded images by id, in an unnamed file: it is gone when the process ends.

    Args:
        folder: where the file lies.

    Attributes:
        size: (height, width) of the images.
    """

    def __init__(self, folder: Path) -> None:
        self.size = (0, 0)
        self._file = tempfile.TemporaryFile(dir=folder)  # noqa: SIM115
        self._spans: dict[int, tuple[int, int]] = {}  # (first byte, length) of each image

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()

    def fill(
        self,
        ids: Sequence[int],
        images: Iterator[PixelArray],
        encode: Callable[[PixelArray], bytes],
        pool: ThreadPoolExecutor,
    ) -> None:
        """Encode the images of some ids, a few at a time, and write their bytes."""
        # Threads encode while the next images are read. The queue bounds how many images are in
        # memory, and keeps the order of writing.
        pending: deque[tuple[int, Future[bytes]]] = deque()
        most = 4 * (os.cpu_count() or 1)
        end = 0

        def write_first() -> None:
            nonlocal end
            id_, future = pending.popleft()
            content = future.result()
            self._file.write(content)
            self._spans[id_] = (end, len(content))
            end += len(content)

        for id_, image in zip(ids, images, strict=True):
            self.size = (image.shape[0], image.shape[1])
            pending.append((id_, pool.submit(encode, image)))
            if len(pending) >= most:
                write_first()
        while pending:
            write_first()
        self._file.flush()

    def count_bytes(self, ids: Sequence[int]) -> int:
        """Return the number of bytes of the images of some ids, repeats counted."""
        return sum(self._spans[id_][1] for id_ in ids)

    def __getitem__(self, id_: int) -> bytes:
        begin, length = self._spans[id_]
        self._file.seek(begin)
        return self._file.read(length)
