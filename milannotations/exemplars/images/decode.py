"""Decoding of image files, and the error for an image that cannot be read."""

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
"""Pixels of an RGB image, (height, width, 3)."""

IMAGE_KEYS = ("image", "pixel_values", "img", "picture")
"""Names of the entry that holds the image, in a dataset whose items are dicts, by priority."""

_EXHAUSTED = (errno.EMFILE, errno.ENFILE, errno.ENOMEM)
"""System errors because the program ran out of file handles or memory; no fault of the file."""


class UnreadableImageError(InputError):
    """Error for an image that cannot be read.

    Attributes:
        source_id: which image.
        reason: why, in words; "" if only the image is named.
    """

    def __init__(self, source_id: str, reason: str = "") -> None:
        self.source_id, self.reason = source_id, reason
        super().__init__(
            f"{source_id} cannot be read: {reason}. Replace it with a good copy, or leave such "
            "images out with --skip-bad."
            if reason
            else source_id
        )

    def __reduce__(self) -> tuple[Any, ...]:
        # exceptions are pickled by their message alone, and this one comes from other processes
        return UnreadableImageError, (self.source_id, self.reason)


def decode_rgb(stream: IO[bytes]) -> Image.Image:
    """Decode an image to RGB, as torchvision's `ImageFolder` does: all pixels, at once."""
    from PIL import Image

    return Image.open(stream).convert("RGB")


@contextmanager
def explain_read_errors(
    source_id: str, errors: tuple[type[Exception], ...] = (Exception,)
) -> Iterator[None]:
    """Turn errors of Pillow and the file system into `UnreadableImageError`.

    Args:
        source_id: image that is being read.
        errors: types of errors that mean that the image is damaged; others pass.

    Raises:
        UnreadableImageError: the image cannot be read.
    """
    try:
        yield
    except (InputError, MemoryError):
        raise
    except errors as error:
        if isinstance(error, OSError) and error.errno in _EXHAUSTED:
            raise
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        if isinstance(error, FileNotFoundError):
            reason = "it has disappeared since the folder was listed"
        elif "cannot identify image" in reason:  # Pillow adds the address of the stream
            reason = "Pillow does not recognise it as an image"
        raise UnreadableImageError(source_id, reason) from error
