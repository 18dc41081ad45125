"""Image files of a folder."""

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
    """The pictures of a folder.

    Raises:
        InputError: there is none.
    """

    def __init__(self, folder: str | os.PathLike[str]) -> None:
        self.folder = Path(folder)
        self.name = os.path.basename(os.path.abspath(folder))
        try:
            self.paths = list_images(folder)
        except InputError:
            self.paths = []
        self.paths += sorted(
            entry.name
            for entry in os.scandir(folder)
            if entry.name.lower().endswith(EXTENSIONS) and entry.is_file()
        )
        if not self.paths:
            raise InputError(
                f"{folder} has no pictures ({', '.join(EXTENSIONS)}): {_what_is_in(self.folder)}."
            )

    def __len__(self) -> int:
        return len(self.paths)

    def load(self, place: int) -> Image.Image:
        with (
            explain_read_errors(self.source_id(place)),
            open(self.folder / self.paths[place], "rb") as stream,
        ):
            return decode_rgb(stream)

    def source_id(self, place: int) -> str:
        return _plain(self.paths[place])

    def describe(self, places: Sequence[int]) -> dict[str, Any]:
        return {
            "name": self.name,
            "kind": "folder",
            "sha256": listing_digest(self.folder, (self.paths[i] for i in places)),
        }


def listing_digest(folder: Path, paths: Iterable[str]) -> str:
    """Return the sha256 of the paths in a folder and the files' sizes, sorted; no byte is read."""
    lines = sorted(
        (_plain(path), os.stat(folder / path).st_size if (folder / path).exists() else -1)
        for path in paths
    )
    text = "".join(f"{path}\t{size}\n" for path, size in lines)
    return hashlib.sha256(text.encode()).hexdigest()


def _plain(path: str) -> str:
    """Return a path with / and without bytes that are no text."""
    return path.replace(os.sep, "/").encode("utf-8", "surrogateescape").decode("utf-8", "replace")


def _what_is_in(folder: Path) -> str:
    """Say what a folder without pictures holds."""
    found = Counter(
        os.path.splitext(file)[1].lower() or file
        for _, _, files in os.walk(folder, followlinks=True)
        for file in files
    )
    if not found:
        return "it is empty"
    return "it holds " + some([f"{count:,} {end}" for end, count in found.most_common()])
