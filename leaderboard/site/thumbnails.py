"""Sprite sheets: thumbnails of an edition's exemplars, many to a picture, made once.

A sheet has `ROWS` units, a unit a row, its exemplars from left to right, strongest first, dimmed
outside their masks. Sheets lie in a cache under the digest of the pictures, so that a board that
is built again copies them.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from milannotations.editions.configs import list_files
from milannotations.errors import InputError
from milannotations.schema import Unit
from milannotations.utils.cache import DEFAULT_FOLDER, Cache, content_key
from milannotations.utils.contact_sheet import PAPER, draw_mask
from milannotations.utils.files import sha256
from milannotations.utils.progress import progress_bar

COLUMNS, ROWS, SIDE = 15, 10, 96
QUALITY = 80
"""Of JPEG. Against WebP of quality 78 and method 0, on a sheet of photographs: an eighth of the
time to write, a tenth larger, 1 dB further from the picture."""
KEPT = 2048
"""Small pictures in memory: 55 MB of them at most."""

VERSION = 3
"""Moves whenever sheets of the same pictures would look different."""


@dataclass(frozen=True)
class ThumbnailSheets:
    """Where the sheets of a config lie, and which unit is where.

    Attributes:
        digest: of the pictures and of how sheets are made.
        folder: holds `0000.jpg`, ...; see `path`.
        side: of a cell, in pixels.
        pictures: of each unit, how many it has, in the order of the rows.
    """

    digest: str
    folder: Path
    side: int
    pictures: dict[Unit, int]

    @property
    def count(self) -> int:
        return -(-len(self.pictures) // ROWS)

    def path(self, number: int) -> Path:
        """Return where a sheet lies, counted from 0."""
        return self.folder / _name(number)


def make_sheets(
    edition: str | os.PathLike[str],
    config: str,
    *,
    cache: str | os.PathLike[str] = DEFAULT_FOLDER,
    tell: Callable[[str], Any] = lambda line: None,
    progress: bool = False,
) -> ThumbnailSheets | None:
    """Return the sheets of a config, from the cache or made now; None where there is no picture.

    Args:
        edition, config: as `editions.load`.
        cache: folder of what can be made anew.
        tell: called with a line before sheets are made.
        progress: show a progress bar.

    Raises:
        InputError: a file of the edition, or a picture in it, is damaged.
    """
    paths = [path for part in list_files(edition, config).values() for path in part]
    digest = _digest(paths)
    entry = Cache(cache).entry("thumbnails", digest)
    folder = entry.path
    assert folder is not None
    if (told := entry.read(_read)) is None:
        tell(f"{config}: making thumbnails, once")
        entry.write(lambda temporary: _make(paths, temporary, progress))
        told = _read(folder)
    if not told["units"]:
        return None
    pictures = {Unit(*key): count for *key, count in told["units"]}
    return ThumbnailSheets(digest, folder, told["side"], pictures)


def _read(folder: Path) -> dict[str, Any]:
    sheets: dict[str, Any] = json.loads((folder / "sheets.json").read_text(encoding="utf-8"))
    return sheets


def _name(number: int) -> str:
    return f"{number:04d}.jpg"


def _digest(paths: list[Path]) -> str:
    """Return what names the sheets: the content of the files, and how sheets are made."""
    contents = []
    for folder in dict.fromkeys(path.parent for path in paths):
        # converted editions keep the checksums of their shards: tens of gigabytes need no reading
        sums = folder / "checksums.json"
        known = json.loads(sums.read_text(encoding="utf-8")) if sums.is_file() else {}
        shards = [path for path in paths if path.parent == folder]
        contents += [known.get(path.name) or sha256(path) for path in shards]
    return content_key(VERSION, COLUMNS, ROWS, SIDE, QUALITY, contents)


def _make(paths: list[Path], folder: Path, progress: bool) -> None:
    import pyarrow.parquet as parquet

    folder.mkdir()
    total = sum(parquet.ParquetFile(path).metadata.num_rows for path in paths)
    rows = _rows(paths)
    first = next(rows, None)
    side = SIDE if first is None else min(SIDE, _longest(first[1]))
    units: list[list[Any]] = []
    small = _Small()
    with ThreadPoolExecutor(os.cpu_count() or 1) as pool:
        waiting: deque[Future[None]] = deque()
        sheet: list[Any] = []
        bar = progress_bar(_chained(first, rows), total, "thumbnails", progress, unit="unit")
        for row in bar:
            key, images, masks = row
            units.append([*key, min(len(images), COLUMNS)])
            sheet.append((images, masks))
            if len(sheet) == ROWS or len(units) == total:
                at = folder / _name((len(units) - 1) // ROWS)
                if any(pictures for pictures, _ in sheet):  # text alone needs no sheet
                    waiting.append(pool.submit(_write, sheet, side, at, small))
                sheet = []
            if len(waiting) > 2 * (os.cpu_count() or 1):  # pictures read, and not yet drawn
                waiting.popleft().result()
        for each in waiting:
            each.result()
    if not any(count for *_, count in units):
        units = []
    (folder / "sheets.json").write_text(json.dumps({"side": side, "units": units}), "utf-8")


def _rows(paths: list[Path]) -> Iterator[tuple[Unit, list[bytes], list[bytes]]]:
    """Yield (unit, pictures, masks) of every row, in order; nothing else is read."""
    import pyarrow as pa
    import pyarrow.parquet as parquet

    for path in paths:
        try:
            with parquet.ParquetFile(path, pre_buffer=False) as file:
                columns = ["network", "layer", "unit", "images", "masks"]
                for batch in file.iter_batches(batch_size=ROWS, columns=columns):
                    for row in batch.to_pylist():
                        key = Unit(row["network"], row["layer"], row["unit"])
                        images, masks = (
                            [each["bytes"] for each in (row[name] or ())[:COLUMNS]]
                            for name in ("images", "masks")
                        )
                        yield key, images, masks
        except (pa.ArrowException, OSError, KeyError, TypeError) as error:
            raise InputError(f"{path} is damaged: {str(error).splitlines()[0]}") from None


def _longest(images: list[bytes]) -> int:
    return max((max(_open(each).size) for each in images), default=SIDE)


def _write(
    sheet: list[tuple[list[bytes], list[bytes]]], side: int, path: Path, small: _Small
) -> None:
    """Draw a sheet: a row a unit."""
    from PIL import Image

    drawn = Image.new("RGB", (COLUMNS * side, len(sheet) * side), PAPER)
    for row, (images, masks) in enumerate(sheet):
        for column, encoded in enumerate(images):
            cover = masks[column] if column < len(masks) else None
            try:
                drawn.paste(_thumbnail(encoded, cover, side, small), (column * side, row * side))
            except (OSError, SyntaxError) as error:  # as Pillow says it
                raise InputError(f"A picture of the edition is damaged: {error}") from None
    drawn.save(path, "JPEG", quality=QUALITY)


def _thumbnail(encoded: bytes, cover: bytes | None, side: int, small: _Small) -> Any:
    """Return a picture of at most `side` pixels, dimmed outside its mask."""
    from PIL import Image

    image, size = small.of(encoded, side)
    if cover is None:
        return image
    with _open(cover) as picture:
        mask = picture.convert("1")
    if mask.size != size:
        raise InputError(f"A picture of {size} pixels has a mask of {mask.size}.")
    if mask.size != image.size:  # masks are coarse: what lies in the middle of a pixel will do
        mask = mask.resize(image.size, Image.Resampling.NEAREST)
    return Image.fromarray(draw_mask(image, mask))


def _open(encoded: bytes) -> Any:
    from PIL import Image

    return Image.open(io.BytesIO(encoded), formats=_formats())


@cache
def _formats() -> tuple[str, ...]:
    """Return Pillow's formats, that of editions first: it begins to read some before WebP."""
    from PIL import Image

    Image.init()
    return "WEBP", *Image.ID


class _Small:
    """Pictures made smaller, the last `KEPT` of them: many units share their pictures."""

    def __init__(self) -> None:
        self._held: dict[bytes, tuple[Any, tuple[int, int]]] = {}

    def of(self, encoded: bytes, side: int) -> tuple[Any, tuple[int, int]]:
        """Return a picture of at most `side` pixels, and the size that it had."""
        from PIL import Image

        key = hashlib.sha256(encoded).digest()
        found = self._held.get(key)
        if found is None:
            with _open(encoded) as picture:
                size = picture.size
                image = picture if picture.mode == "RGB" else picture.convert("RGB")
                image.load()  # threads share the image, and Pillow decodes it on first use
                image.thumbnail((side, side), Image.Resampling.BOX, reducing_gap=None)
            found = image, size
            if len(self._held) >= KEPT:
                self._held.clear()
            self._held[key] = found
        return found


def _chained(first: Any, rows: Iterator[Any]) -> Iterator[Any]:
    if first is not None:
        yield first
        yield from rows
