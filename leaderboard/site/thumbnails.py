"""Sprite sheets: thumbnails of an edition's exemplars, many to an image, drawn once per edition.

A sheet has `ROWS` units, one per row, with their exemplars from left to right, strongest first,
dimmed outside their masks. Sheets are cached by the content of the images, so that a site that is
built again only copies them.
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
from itertools import chain
from pathlib import Path
from typing import Any

from milannotations.editions.configs import list_files
from milannotations.errors import InputError
from milannotations.schema import Unit
from milannotations.utils.cache import DEFAULT_FOLDER, Cache, content_key
from milannotations.utils.contact_sheet import PAPER, draw_mask
from milannotations.utils.files import sha256
from milannotations.utils.progress import progress_bar

COLUMNS = 15
"""Exemplars of a unit on a sheet."""

ROWS = 10
"""Units on a sheet."""

SIDE = 96
"""Largest side of a thumbnail, in pixels."""

QUALITY = 80
"""JPEG quality. Compared with WebP of quality 78 and method 0, on a sheet of photographs: written
in an eighth of the time, a tenth larger, 1 dB less similar to the original."""

MAX_KEPT = 2048
"""Most shrunk images kept in memory: at most 55 MB."""

VERSION = 3
"""Version of the sheets; increase it if sheets of the same images would look different."""

UnitImages = tuple[list[bytes], list[bytes]]
"""Encoded exemplars of a unit, and their encoded masks."""


@dataclass(frozen=True)
class ThumbnailSheets:
    """Sheets of a config, and the row of each unit.

    Attributes:
        digest: digest of the images and of the format of the sheets.
        folder: folder with `0000.jpg`, ...; see `path`.
        side: side of a thumbnail, in pixels.
        image_counts: number of exemplars of each unit, in the order of the rows.
    """

    digest: str
    folder: Path
    side: int
    image_counts: dict[Unit, int]

    @property
    def count(self) -> int:
        """Number of sheets."""
        return -(-len(self.image_counts) // ROWS)

    def path(self, number: int) -> Path:
        """Return the path of a sheet, numbered from 0."""
        return self.folder / _sheet_name(number)


def make_sheets(
    edition: str | os.PathLike[str],
    config: str,
    *,
    cache: str | os.PathLike[str] = DEFAULT_FOLDER,
    tell: Callable[[str], Any] = lambda line: None,
    progress: bool = False,
) -> ThumbnailSheets | None:
    """Draw the sheets of a config, or take them from the cache.

    Args:
        edition, config: as for `milannotations.load`.
        cache: cache folder.
        tell: called with a line before sheets are drawn.
        progress: show a progress bar.

    Returns:
        The sheets; None for a config without images.

    Raises:
        InputError: a file of the edition, or an image in it, is damaged.
    """
    paths = [path for split in list_files(edition, config).values() for path in split]
    digest = _digest(paths)
    entry = Cache(cache).entry("thumbnails", digest)
    folder = entry.path
    assert folder is not None
    if (index := entry.read(_read_index)) is None:
        tell(f"{config}: drawing thumbnails (once)")
        entry.write(lambda temporary: _write_sheets(paths, temporary, progress))
        index = _read_index(folder)
    if not index["units"]:
        return None
    image_counts = {Unit(*key): count for *key, count in index["units"]}
    return ThumbnailSheets(digest, folder, index["side"], image_counts)


def _read_index(folder: Path) -> dict[str, Any]:
    index: dict[str, Any] = json.loads((folder / "sheets.json").read_text(encoding="utf-8"))
    return index


def _sheet_name(number: int) -> str:
    return f"{number:04d}.jpg"


def _digest(paths: list[Path]) -> str:
    """Return the digest of the files' content and of the format of the sheets."""
    contents = []
    for folder in dict.fromkeys(path.parent for path in paths):
        # Converted editions store the checksums of their shards, tens of gigabytes: use those.
        checksums = folder / "checksums.json"
        known = json.loads(checksums.read_text(encoding="utf-8")) if checksums.is_file() else {}
        shards = [path for path in paths if path.parent == folder]
        contents += [known.get(path.name) or sha256(path) for path in shards]
    return content_key(VERSION, COLUMNS, ROWS, SIDE, QUALITY, contents)


def _write_sheets(paths: list[Path], folder: Path, progress: bool) -> None:
    """Write all sheets and `sheets.json` to a new folder; threads draw while rows are read."""
    import pyarrow.parquet as parquet

    folder.mkdir()
    total = sum(parquet.ParquetFile(path).metadata.num_rows for path in paths)
    rows = _rows(paths)
    first = next(rows, None)
    # Small images are not enlarged: the first unit's images set the side.
    side = SIDE if first is None else min(SIDE, _longest_side(first[1][0]))
    units: list[list[Any]] = []
    shrunk = _ShrunkImages()
    n_threads = os.cpu_count() or 1
    # Pillow and the JPEG encoder release the interpreter lock, so threads draw in parallel.
    with ThreadPoolExecutor(n_threads) as pool:
        pending: deque[Future[None]] = deque()
        sheet: list[UnitImages] = []
        all_rows = rows if first is None else chain([first], rows)
        for unit, images in progress_bar(all_rows, total, "thumbnails", progress, unit="unit"):
            units.append([*unit, min(len(images[0]), COLUMNS)])
            sheet.append(images)
            if len(sheet) == ROWS or len(units) == total:
                path = folder / _sheet_name((len(units) - 1) // ROWS)
                if any(exemplars for exemplars, _ in sheet):  # text-only units need no sheet
                    pending.append(pool.submit(_draw_sheet, sheet, side, path, shrunk))
                sheet = []
            if len(pending) > 2 * n_threads:  # bounds the images read ahead
                pending.popleft().result()
        for future in pending:
            future.result()
    if not any(count for *_, count in units):
        units = []
    (folder / "sheets.json").write_text(json.dumps({"side": side, "units": units}), "utf-8")


def _rows(paths: list[Path]) -> Iterator[tuple[Unit, UnitImages]]:
    """Yield unit, exemplars and masks of every row, in order; other columns are not read."""
    import pyarrow as pa
    import pyarrow.parquet as parquet

    for path in paths:
        try:
            with parquet.ParquetFile(path, pre_buffer=False) as file:
                columns = ["network", "layer", "unit", "images", "masks"]
                for batch in file.iter_batches(batch_size=ROWS, columns=columns):
                    for row in batch.to_pylist():
                        unit = Unit(row["network"], row["layer"], row["unit"])
                        images, masks = (
                            [cell["bytes"] for cell in (row[name] or ())[:COLUMNS]]
                            for name in ("images", "masks")
                        )
                        yield unit, (images, masks)
        except (pa.ArrowException, OSError, KeyError, TypeError) as error:
            raise InputError(f"{path} is damaged: {str(error).splitlines()[0]}") from None


def _longest_side(images: list[bytes]) -> int:
    return max((max(_open(encoded).size) for encoded in images), default=SIDE)


def _draw_sheet(sheet: list[UnitImages], side: int, path: Path, shrunk: _ShrunkImages) -> None:
    """Draw a sheet with one row per unit, and write it."""
    from PIL import Image

    canvas = Image.new("RGB", (COLUMNS * side, len(sheet) * side), PAPER)
    for row, (images, masks) in enumerate(sheet):
        for column, encoded in enumerate(images):
            mask = masks[column] if column < len(masks) else None
            try:
                thumbnail = _thumbnail(encoded, mask, side, shrunk)
                canvas.paste(thumbnail, (column * side, row * side))
            except (OSError, SyntaxError) as error:  # Pillow's errors for damaged files
                raise InputError(f"An image of the edition is damaged: {error}") from None
    canvas.save(path, "JPEG", quality=QUALITY)


def _thumbnail(encoded: bytes, encoded_mask: bytes | None, side: int, shrunk: _ShrunkImages) -> Any:
    """Return an image of at most `side` pixels per side, dimmed outside its mask."""
    from PIL import Image

    image, size = shrunk.get(encoded, side)
    if encoded_mask is None:
        return image
    with _open(encoded_mask) as mask_image:
        mask = mask_image.convert("1")
    if mask.size != size:
        raise InputError(
            f"An image of {size} pixels has a mask of {mask.size}; expected the same size."
        )
    if mask.size != image.size:  # masks are coarse, so nearest-neighbour sampling is enough
        mask = mask.resize(image.size, Image.Resampling.NEAREST)
    return Image.fromarray(draw_mask(image, mask))


def _open(encoded: bytes) -> Any:
    from PIL import Image

    return Image.open(io.BytesIO(encoded), formats=_formats())


@cache
def _formats() -> tuple[str, ...]:
    """Return Pillow's formats, starting with WebP, the format of editions, so it is tried first."""
    from PIL import Image

    Image.init()
    return "WEBP", *Image.ID


class _ShrunkImages:
    """Cache of shrunk images, up to `MAX_KEPT`: many units share their exemplars."""

    def __init__(self) -> None:
        self._kept: dict[bytes, tuple[Any, tuple[int, int]]] = {}

    def get(self, encoded: bytes, side: int) -> tuple[Any, tuple[int, int]]:
        """Return an image of at most `side` pixels per side, and its original size."""
        from PIL import Image

        key = hashlib.sha256(encoded).digest()
        entry = self._kept.get(key)
        if entry is None:
            with _open(encoded) as opened:
                size = opened.size
                image = opened if opened.mode == "RGB" else opened.convert("RGB")
                image.load()  # threads share the image, and Pillow decodes it on first use
                image.thumbnail((side, side), Image.Resampling.BOX, reducing_gap=None)
            entry = image, size
            if len(self._kept) >= MAX_KEPT:
                self._kept.clear()
            self._kept[key] = entry
        return entry
