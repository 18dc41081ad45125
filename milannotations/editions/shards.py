"""Parquet shards of an edition's config, and the bytes of the pictures and masks in them.

Pictures are lossless WebP. On 120 photographs (224 px crops of ImageNet and COCO): 61 KB and
10 ms to write; PNG takes 86 KB and 26 ms. Slower WebP saves another 4 % and takes six times
as long. Reading takes about as long for both.
"""

from __future__ import annotations

import io
from collections.abc import Iterator, Mapping
from concurrent.futures import Future
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from milannotations import schema
from milannotations.editions.contents import CHECKSUMS, STATISTICS, shard_name
from milannotations.editions.writing import DICTIONARY_PAGE
from milannotations.errors import InputError
from milannotations.utils.files import write_json

ROWS = 4
"""Units in a row group: what a reader of one unit must read, and what is held in memory."""

SHARD_BYTES = 100_000_000
"""Pictures and masks in a shard, about: `datasets` holds one whole when it first opens a config."""

WEBP_METHOD = 1
_PICTURES = "images.list.element.bytes"


def encode_webp(picture: NDArray[np.uint8], quality: int | None) -> bytes:
    """Return a picture (height, width, 3) as WebP, lossless where `quality` is None."""
    from PIL import Image

    stream = io.BytesIO()
    image = Image.fromarray(np.ascontiguousarray(picture))
    if quality is None:
        image.save(stream, "WEBP", lossless=True, quality=0, method=WEBP_METHOD)
    else:
        image.save(stream, "WEBP", quality=quality, method=4)
    return stream.getvalue()


def encode_png(mask: NDArray[Any]) -> bytes:
    """Return a mask (height, width), 0 or 1 or bool, as a 1-bit PNG."""
    from PIL import Image

    stream = io.BytesIO()
    Image.fromarray(mask.astype(bool)).save(stream, "PNG", compress_level=9)
    return stream.getvalue()


def check_quality(quality: int | None) -> None:
    """Raise InputError unless `encode_webp` knows a quality."""
    if quality is not None and not 1 <= quality <= 100:
        raise InputError(f"A quality of {quality} was asked for; expected 1 to 100.")


def quality_label(quality: int | None) -> str:
    """Return how the card calls pictures of a quality."""
    return "lossless WebP" if quality is None else f"WebP of quality {quality} (lossy)"


class ShardWriter:
    """Writes the rows of one layer and split into shards.

    `images` and `masks` of a row are lists of bytes, or of futures of them, or None.

    Args:
        folder: of the config.
        split, layer: stand in the names of the shards.
        rows: in a row group.
        shard_bytes: a shard ends with the row group that reaches this.
        once: a picture that several rows of a row group show costs its bytes once there,
            through parquet's dictionary, and is not compressed again (which spares nothing).

    Attributes:
        names: of the shards so far.
    """

    def __init__(
        self,
        folder: Path,
        split: str,
        layer: str,
        *,
        rows: int = ROWS,
        shard_bytes: int = SHARD_BYTES,
        once: bool = False,
    ) -> None:
        self.names: list[str] = []
        self._folder, self._split, self._layer = folder, split, layer
        self._most, self._shard_bytes = rows, shard_bytes
        self._rows: list[dict[str, Any]] = []
        self._bytes = 0
        self._writer: Any = None
        self._options: dict[str, Any] = {
            "compression": "zstd",
            "use_dictionary": ["network", "layer", "unit_kind", "polarity"],
            "write_statistics": ["network", "layer", "unit"],
        }
        if once:
            others = [name for name in _leaves() if name != _PICTURES]
            self._options["compression"] = {_PICTURES: "none", **dict.fromkeys(others, "zstd")}
            self._options["use_dictionary"].append(_PICTURES)
            self._options["dictionary_pagesize_limit"] = DICTIONARY_PAGE

    def add(self, row: dict[str, Any]) -> None:
        self._rows.append(row)
        if len(self._rows) == self._most:
            self._flush()

    def finish(self) -> None:
        if self._rows:
            self._flush()
        self.close()

    def close(self) -> None:
        writer, self._writer = self._writer, None
        if writer is not None:
            writer.close()

    def _flush(self) -> None:
        import pyarrow as pa
        import pyarrow.parquet as parquet

        rows, self._rows = self._rows, []
        for row in rows:
            for column in ("images", "masks"):
                row[column] = row[column] and [self._encoded(part) for part in row[column]]
        arrow_schema = schema.features().arrow_schema
        if self._writer is None:
            self.names.append(shard_name(self._split, self._layer, len(self.names)))
            self._writer = parquet.ParquetWriter(
                self._folder / self.names[-1], arrow_schema, **self._options
            )
        self._writer.write_table(pa.Table.from_pylist(rows, schema=arrow_schema))
        if self._bytes >= self._shard_bytes:
            self.close()
            self._bytes = 0

    def _encoded(self, part: Future[bytes] | bytes) -> dict[str, Any]:
        content = part if isinstance(part, bytes) else part.result()
        self._bytes += len(content)
        return {"bytes": content, "path": None}


def write_statistics(folder: Path, sums: Mapping[str, str]) -> dict[str, Any]:
    """Write checksums and statistics beside shards, and return the statistics.

    Args:
        folder: of the config.
        sums: the sha256 of every shard in it, in order.
    """
    import pyarrow.parquet as parquet

    from milannotations.editions import statistics

    def rows() -> Iterator[tuple[str, Any]]:
        for name in sums:
            table = parquet.read_table(folder / name, columns=list(statistics.COLUMNS))
            yield from ((name.split("-", 1)[0], row) for row in table.to_pylist())

    counted = statistics.row_statistics(rows())
    write_json(folder / CHECKSUMS, dict(sums))
    write_json(folder / STATISTICS, counted)
    return counted


def _leaves() -> list[str]:
    """Return the columns of an edition as parquet calls them: `images.list.element.bytes`."""
    import pyarrow as pa

    def below(path: str, kind: Any) -> list[str]:
        if pa.types.is_list(kind):
            return below(f"{path}.list.element", kind.value_type)
        if pa.types.is_struct(kind):
            return [name for part in kind for name in below(f"{path}.{part.name}", part.type)]
        return [path]

    return [
        name for field in schema.features().arrow_schema for name in below(field.name, field.type)
    ]
