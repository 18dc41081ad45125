"""Content-addressed cache on disk, in which entries are named by what they were made from.

The name of an entry is a digest of everything that decides its content: settings, digests of
files and networks, a version. A change of any of them is another name, so no entry is ever stale
and none needs to be invalidated.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from milannotations.utils.files import replacing

DEFAULT_FOLDER = "~/.cache/milannotations"
"""Default folder of the commands for what can be made or downloaded again."""

KEY_DIGITS = 24
"""Hexadecimal digits of the sha256 that stand in an entry's name (96 bits)."""

T = TypeVar("T")


def content_key(*parts: Any) -> str:
    """Return the sha256 (hex) of values that JSON can write; the order of dict keys is ignored.

    Example:
        >>> content_key("a", {"x": 1, "y": 2}) == content_key("a", {"y": 2, "x": 1})
        True
        >>> content_key("ab", "c") == content_key("a", "bc")
        False
    """
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()


class Cache:
    """Folder of cache entries.

    Args:
        folder: created with the first entry; `~` is expanded. None keeps nothing on disk: no
            entry is ever found, and writing one does nothing.

    Example:
        >>> import tempfile
        >>> entry = Cache(tempfile.mkdtemp()).entry("lengths", ["red", "green"], suffix=".json")
        >>> entry.get_json(lambda: [3, 5]), entry.get_json(lambda: 1 / 0)
        ([3, 5], [3, 5])
    """

    def __init__(self, folder: str | os.PathLike[str] | None) -> None:
        self.folder = None if folder is None else Path(folder).expanduser()

    def entry(self, kind: str, *parts: Any, suffix: str = "") -> CacheEntry:
        """Return the entry of a key, whether or not it has been written.

        Args:
            kind: beginning of its name, for people who look into the folder.
            parts: everything that decides its content; see `content_key`.
            suffix: end of its name, such as `.json`; without one, an entry may be a folder.
        """
        if self.folder is None:
            return CacheEntry(None)
        return CacheEntry(self.folder / f"{kind}-{content_key(*parts)[:KEY_DIGITS]}{suffix}")

    def paths(self, kind: str, suffix: str = "") -> list[Path]:
        """Return the paths of all entries of a kind, sorted."""
        return [] if self.folder is None else sorted(self.folder.glob(f"{kind}-*{suffix}"))


@dataclass(frozen=True)
class CacheEntry:
    """File or folder of a cache.

    Attributes:
        path: where it is, or will be; None if nothing is kept on disk.
    """

    path: Path | None

    def read(self, load: Callable[[Path], T]) -> T | None:
        """Return what `load` makes of the path; None if the entry is absent or damaged.

        Raises:
            OSError: the entry is there and may not be read.
        """
        if self.path is None:
            return None
        try:
            return load(self.path)
        except FileNotFoundError:
            return None
        except (OSError, MemoryError):
            raise
        except Exception:
            # Every file format raises classes of its own for a damaged file. Whatever was
            # raised, the entry is of no use, and it can be made again.
            return None

    def write(self, save: Callable[[Path], object]) -> None:
        """Let `save` write the entry at a temporary path, then move it to its name.

        An interrupted or failed `save` leaves no entry behind. Of two processes that write the
        same entry, the last one wins; both wrote the same content.
        """
        if self.path is not None:
            with replacing(self.path) as temporary:
                save(temporary)

    def read_json(self) -> Any:
        """Return the entry's JSON value; None if the entry is absent or damaged."""
        return self.read(lambda path: json.loads(path.read_text(encoding="utf-8")))

    def write_json(self, value: Any) -> None:
        """Write a value as JSON."""
        text = json.dumps(value) + "\n"
        self.write(lambda path: path.write_text(text, encoding="utf-8"))

    def get_json(self, make: Callable[[], Any]) -> Any:
        """Return the entry's JSON value, made and written first if it is absent or damaged."""
        value = self.read_json()
        if value is None:
            # through JSON, so that tuples are lists the first time too
            value = json.loads(json.dumps(make()))
            self.write_json(value)
        return value
