"""Decoding of image files, and the error for one that cannot be read."""

from __future__ import annotations

import errno
from collections.abc import Iterator
from contextlib import contextmanager
from typing import IO, TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from milannotations.errors import InputError

if TYPE_CHECKING:
    from PIL import Image

Pixels = NDArray[np.uint8]

IMAGE_KEYS = ("image", "pixel_values", "img", "picture")
"""Under what a data set's item, if it is a dict, may hold its picture."""

_OURS = (errno.EMFILE, errno.ENFILE, errno.ENOMEM)
"""What the system says when it is the program, not a file, that is in trouble."""


class UnreadableImageError(InputError):
    """Says that a picture cannot be read: `source_id` is which, `why` the reason."""

    def __init__(self, source_id: str, why: str = "") -> None:
        self.source_id, self.reason = source_id, why
        super().__init__(
            f"{source_id} cannot be read: {why}. Put a good copy in its place, or leave such "
            "pictures out with --skip-bad."
            if why
            else source_id
        )

    def __reduce__(self) -> tuple[Any, ...]:
        return UnreadableImageError, (self.source_id, self.reason)


def decode_rgb(stream: IO[bytes]) -> Image.Image:
    """Return a picture in RGB, as torchvision's `ImageFolder` reads it: every pixel decoded."""
    from PIL import Image

    return Image.open(stream).convert("RGB")


@contextmanager
def explain_read_errors(
    source_id: str, errors: tuple[type[Exception], ...] = (Exception,)
) -> Iterator[None]:
    """Turn what Pillow and the system raise over a file into `UnreadableImageError`."""
    try:
        yield
    except (InputError, MemoryError):
        raise
    except errors as error:
        if isinstance(error, OSError) and error.errno in _OURS:
            raise
        why = (str(error).strip() or type(error).__name__).splitlines()[0]
        if isinstance(error, FileNotFoundError):
            why = "it is gone since the folder was read"
        elif "cannot identify image" in why:  # Pillow goes on with the stream's address
            why = "it is no picture that Pillow knows"
        raise UnreadableImageError(source_id, why) from error
