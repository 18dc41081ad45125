"""Image files of a folder, and a digest of their listing."""

from __future__ import annotations

import hashlib
import os
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from milannotations.errors import InputError, some
from milannotations.exemplars.images.decode import decode_rgb, explain_read_errors
from milannotations.published.imagenet import EXTENSIONS, list_images

if TYPE_CHECKING:
    from PIL import Image


class FolderSource:
    """Image files of a folder: those in class folders, then those directly in it.

    Args:
        folder: the folder.

    Attributes:
        paths: relative to the folder, in the order of their ids.

    Raises:
        InputError: no image in the folder.
    """

    def __init__(self, folder: str | os.PathLike[str]) -> None:
        self.folder = Path(folder)
        self.name = os.path.basename(os.path.abspath(folder))
        try:
            self.paths = list_images(folder)
        except InputError:  # no class folders
            self.paths = []
        self.paths += sorted(
            entry.name
            for entry in os.scandir(folder)
            if entry.name.lower().endswith(EXTENSIONS) and entry.is_file()
        )
        if not self.paths:
            raise InputError(
                f"{folder} has no images ({', '.join(EXTENSIONS)}): {_count_files(self.folder)}."
            )

    def __len__(self) -> int:
        return len(self.paths)

    def load(self, index: int) -> Image.Image:
        with (
            explain_read_errors(self.source_id(index)),
            open(self.folder / self.paths[index], "rb") as stream,
        ):
            return decode_rgb(stream)

    def source_id(self, index: int) -> str:
        return _portable_path(self.paths[index])

    def describe(self, indices: Sequence[int]) -> dict[str, Any]:
        return {
            "name": self.name,
            "kind": "folder",
            "sha256": listing_digest(self.folder, (self.paths[i] for i in indices)),
        }


def listing_digest(folder: Path, paths: Iterable[str]) -> str:
    """Return the sha256 of the paths and sizes of files, sorted by path; the files are not read.

    Args:
        folder: folder that the paths are relative to.
        paths: the files. A link to a missing file counts with a size of -1.
    """
    lines = sorted(
        (_portable_path(path), os.stat(folder / path).st_size if (folder / path).exists() else -1)
        for path in paths
    )
    text = "".join(f"{path}\t{size}\n" for path, size in lines)
    return hashlib.sha256(text.encode()).hexdigest()


def _portable_path(path: str) -> str:
    """Return a path with `/` as separator, and with replacements for bytes that are not UTF-8."""
    return path.replace(os.sep, "/").encode("utf-8", "surrogateescape").decode("utf-8", "replace")


def _count_files(folder: Path) -> str:
    """Describe the content of a folder without images, for an error message."""
    counts = Counter(
        os.path.splitext(file)[1].lower() or file
        for _, _, files in os.walk(folder, followlinks=True)
        for file in files
    )
    if not counts:
        return "it is empty"
    return "it holds " + some([f"{count:,} {suffix}" for suffix, count in counts.most_common()])
