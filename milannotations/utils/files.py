"""Atomic writing of files, digests, JSON objects and strict CSV tables."""

from __future__ import annotations

import csv
import hashlib
import json
import os
import shutil
import tempfile
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from milannotations.errors import InputError

MAX_CELL = 131_072
"""Most characters of a CSV cell. A longer one is a broken quote or an attack, not text."""


@contextmanager
def replacing(target: str | os.PathLike[str]) -> Iterator[Path]:
    """Yield a temporary path beside `target`; rename it over `target` on success.

    The caller writes a file or a folder at the temporary path. After an error or a kill `target`
    is as before. An existing folder is moved aside first and removed last, so that readers never
    see half of either; a kill between the two renames leaves both in a hidden folder beside
    `target`.

    Raises:
        InputError: `target` is a folder and the caller wrote a file.

    Example:
        >>> import tempfile
        >>> folder = Path(tempfile.mkdtemp())
        >>> with replacing(folder / "a.txt") as temporary:
        ...     _ = temporary.write_text("whole")
        >>> [path.name for path in folder.iterdir()]
        ['a.txt']
    """
    target = Path(target)
    target.parent.mkdir(parents=True, exist_ok=True)
    scratch = Path(tempfile.mkdtemp(prefix=f".{target.name}.", dir=target.parent))
    temporary = scratch / target.name
    try:
        yield temporary
        if target.is_dir() and temporary.is_file():
            raise InputError(f"{target} is a folder. Expected the path of a file.")
        if target.is_dir():
            target.rename(scratch / "before")
        temporary.replace(target)
    finally:
        if (scratch / "before").exists() and not target.exists():
            (scratch / "before").rename(target)
        shutil.rmtree(scratch, ignore_errors=True)


def check_writable(target: str | os.PathLike[str]) -> None:
    """Raise InputError or OSError unless a file can be written at `target`.

    Long computations call this first. Missing parent folders are created.
    """
    target = Path(target)
    if target.is_dir():
        raise InputError(f"{target} is a folder. Expected the path of a file.")
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.NamedTemporaryFile(prefix=f".{target.name}.", dir=target.parent):
        pass


def sha256(*paths: str | os.PathLike[str]) -> str:
    """Return the sha256 (hexadecimal) of the concatenated bytes of files."""
    digest = hashlib.sha256()
    for path in paths:
        with open(path, "rb") as stream:
            while chunk := stream.read(1 << 20):
                digest.update(chunk)
    return digest.hexdigest()


def read_json(path: Path) -> dict[str, Any]:
    """Return the object in a JSON file; {} if the file does not exist.

    Raises:
        InputError: the file is no JSON, or holds something other than an object.
    """
    if not path.is_file():
        return {}
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        if not isinstance(content, dict):
            raise ValueError("expected an object")
    except (ValueError, RecursionError) as error:
        raise InputError(f"{path} is damaged: {error}") from None
    return content


def write_json(path: Path, content: dict[str, Any]) -> None:
    """Write an object as JSON, whole or not at all, its keys in their order."""
    with replacing(path) as temporary:
        temporary.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")


def check_is_file(path: str | os.PathLike[str]) -> Path:
    """Return `path` as a Path; raise InputError unless it is a file."""
    path = Path(path)
    if path.is_dir():
        raise InputError(f"{path} is a directory. Expected a file.")
    if not path.exists():
        raise InputError(f"No such file: {path}")
    return path


def begins_with(path: str | os.PathLike[str], magic: bytes) -> bool:
    """Return whether a file begins with these bytes."""
    with open(path, "rb") as stream:
        return stream.read(len(magic)) == magic


class TextTable:
    """UTF-8 CSV file, read strictly: a header, then rows as dicts with their line numbers.

    Attributes:
        path: of the file.
        columns: names in the header, in order.

    Raises:
        InputError: a folder, bytes that are not UTF-8, an empty file, a repeated column, a row
            that is too long or too short, an open quote or a cell of more than `MAX_CELL`
            characters; names file and line.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = check_is_file(path)
        self.columns = next(self._lines())[1]
        repeated = sorted(name for name, times in Counter(self.columns).items() if times > 1)
        if repeated:
            raise InputError(f"{self.path} has column '{repeated[0]}' twice.")

    def __iter__(self) -> Iterator[tuple[int, dict[str, str]]]:
        """Yield (line number, row) for every row that is not blank."""
        rows = self._lines()
        next(rows)
        for line, cells in rows:
            if len(cells) != len(self.columns):
                raise InputError(
                    f"{self.path}, line {line}: {len(cells)} cells under {len(self.columns)} "
                    f"columns ({', '.join(self.columns)}). A text with a comma needs quotes."
                )
            yield line, dict(zip(self.columns, cells, strict=True))

    def _lines(self) -> Iterator[tuple[int, list[str]]]:
        if begins_with(self.path, b"\x1f\x8b"):
            raise InputError(f"{self.path} is compressed; unpack it first.")
        # utf-8-sig: spreadsheets write a byte order mark before the first column name.
        # newline="": the csv module must see CRLF and line breaks inside quotes unchanged.
        header_seen = False
        with open(self.path, encoding="utf-8-sig", newline="") as stream:
            reader = csv.reader(stream, strict=True)
            try:
                for cells in reader:
                    if not any(cell.strip() for cell in cells):
                        continue
                    if not header_seen:
                        cells = [cell.strip() for cell in cells]
                        header_seen = True
                    yield reader.line_num, cells
            except UnicodeDecodeError as error:
                raise InputError(
                    f"{self.path} is not UTF-8 (byte {error.start} of the part read: "
                    f"{error.object[error.start : error.start + 1]!r}). "
                    "Save it as UTF-8 and run the command again."
                ) from None
            except csv.Error as error:
                hint = (
                    f"a cell may hold {MAX_CELL:,} characters; is a quote left open?"
                    if "field larger" in str(error)
                    else "is a quote left open?"
                )
                raise InputError(
                    f"{self.path}, line {reader.line_num}: not a CSV row ({error}); {hint}"
                ) from None
        if not header_seen:
            raise InputError(f"{self.path} is empty. Expected a header line.")


def parse_whole_number(text: str, where: str, what: str = "unit") -> int:
    """Return a whole number from 0, such as a unit's index; raise InputError otherwise.

    Args:
        text: of the number.
        where: file and line, for the message.
        what: name of the number, for the message.

    Example:
        >>> parse_whole_number("12", "a.csv, line 3")
        12
    """
    cleaned = text.strip()
    if not (cleaned.isascii() and cleaned.isdigit()) or len(cleaned) > 9:
        raise InputError(f"{where}: {what} {text[:40]!r} is not a whole number from 0.")
    return int(cleaned)
