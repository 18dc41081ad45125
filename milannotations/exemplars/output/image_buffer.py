"""Pictures of exemplars on their way to a file: each read once, encoded once, kept on disk."""

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

Picture = NDArray[np.uint8]

_FULL = (errno.ENOSPC, errno.EDQUOT)


class Images(Protocol):
    """What exemplars are pictures of; `Pictures` and `Generated` are."""

    def pictures(self, ids: Sequence[int]) -> Iterator[Picture]:
        """Yield (height, width, 3), uint8, all of one size, for every id, in order."""

    def source_id(self, i: int) -> str:
        """Return where a picture came from."""


def stream(images: Images, ids: Sequence[int], side: int | None = None) -> Iterator[Picture]:
    """Yield the picture of every id, in order.

    Args:
        images: where they come from.
        ids: ascending, each once.
        side: resize them to so many pixels square, nearest; None leaves them as they are.

    Yields:
        (height, width, 3), uint8, all of one size.

    Raises:
        InputError: one cannot be read, with its name; or is no picture, or of another size.
    """
    coming = iter(images.pictures(ids))
    size: tuple[int, ...] | None = None
    for id_ in ids:
        try:
            picture = next(coming, None)
        except (OSError, SyntaxError, InputError) as error:
            why = getattr(error, "why", None)  # of an InputError that is about the picture
            full = isinstance(error, OSError) and error.errno in _FULL
            if full or (why is None and isinstance(error, InputError)):
                raise
            raise InputError(
                f"{images.source_id(id_)} was read before and cannot be read now: "
                f"{why or error}. Put a good copy in its place and run the same command again."
            ) from error
        if picture is None:
            raise InputError(f"There is no picture of {images.source_id(id_)}; expected one.")
        if picture.dtype != np.uint8 or picture.ndim != 3 or picture.shape[2] != 3:
            raise InputError(
                f"The picture of {images.source_id(id_)} came as {picture.shape}, "
                f"{picture.dtype}; expected (height, width, 3), uint8."
            )
        size = size or picture.shape
        if side is None and picture.shape != size:
            raise InputError(
                f"The picture of {images.source_id(id_)} is {_by(picture.shape)}, others are "
                f"{_by(size)}; expected one size. Say one: --side {size[0]}"
            )
        yield picture if side is None else nearest(picture, side)


def nearest(picture: Picture, side: int) -> Picture:
    """Return a picture resized to `side` pixels square, each the nearest above and to the left.

    As torch's `interpolate(mode="nearest")`, which the code of 2022 resized with.

    Example:
        >>> nearest(np.arange(4, dtype=np.uint8).reshape(2, 2, 1), 4)[:, :, 0].tolist()
        [[0, 0, 1, 1], [0, 0, 1, 1], [2, 2, 3, 3], [2, 2, 3, 3]]
    """
    high, wide = picture.shape[:2]
    places = np.arange(side)
    return picture[places[:, None] * high // side, places[None] * wide // side]


def _by(shape: Sequence[int]) -> str:
    return f"{shape[0]} x {shape[1]}"


class Spool:
    """Encoded pictures by id, in a file without a name: it goes when the process ends.

    Args:
        folder: where the file lies.

    Attributes:
        size: (height, width) of the pictures.
    """

    def __init__(self, folder: Path) -> None:
        self.size = (0, 0)
        self._file = tempfile.TemporaryFile(dir=folder)  # noqa: SIM115
        self._places: dict[int, tuple[int, int]] = {}

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()

    def fill(
        self,
        ids: Sequence[int],
        pictures: Iterator[Picture],
        encode: Callable[[Picture], bytes],
        pool: ThreadPoolExecutor,
    ) -> None:
        """Encode the pictures of some ids, a few at a time, and keep their bytes."""
        ahead: deque[tuple[int, Future[bytes]]] = deque()
        most = 4 * (os.cpu_count() or 1)
        end = 0

        def keep() -> None:
            nonlocal end
            id_, made = ahead.popleft()
            content = made.result()
            self._file.write(content)
            self._places[id_] = (end, len(content))
            end += len(content)

        for id_, picture in zip(ids, pictures, strict=True):
            self.size = (picture.shape[0], picture.shape[1])
            ahead.append((id_, pool.submit(encode, picture)))
            if len(ahead) >= most:
                keep()
        while ahead:
            keep()
        self._file.flush()

    def bytes_of(self, ids: Sequence[int]) -> int:
        """Return how many bytes the pictures of some ids have, repeats counted."""
        return sum(self._places[id_][1] for id_ in ids)

    def __getitem__(self, id_: int) -> bytes:
        begin, length = self._places[id_]
        self._file.seek(begin)
        return self._file.read(length)
