"""Parquet shards of a config, and the encoding of their images and masks.

Images are stored as lossless WebP. On 120 photographs (224 px crops of ImageNet and COCO) that
takes 61 KB and 10 ms to write each; PNG takes 86 KB and 26 ms. Slower WebP settings save another
4 % and take six times as long. Reading takes about as long for both.
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
"""Units per row group: the least that a reader of one unit reads, and what a writer holds."""

SHARD_BYTES = 100_000_000
"""Approximate bytes of images and masks per shard; `datasets` holds one in memory on first use."""

WEBP_METHOD = 1
"""Effort of the lossless encoder, 0 (fast) to 6 (small)."""

_IMAGE_BYTES = "images.list.element.bytes"


def encode_webp(pixels: NDArray[np.uint8], quality: int | None) -> bytes:
    """Encode an image (height, width, 3) as WebP, lossless if `quality` is None."""
    from PIL import Image

    stream = io.BytesIO()
    image = Image.fromarray(np.ascontiguousarray(pixels))
    if quality is None:
        image.save(stream, "WEBP", lossless=True, quality=0, method=WEBP_METHOD)
    else:
        image.save(stream, "WEBP", quality=quality, method=4)
    return stream.getvalue()


def encode_png(mask: NDArray[Any]) -> bytes:
    """Encode a mask (height, width), bool or 0 and 1, as a 1-bit PNG."""
    from PIL import Image

    stream = io.BytesIO()
    Image.fromarray(mask.astype(bool)).save(stream, "PNG", compress_level=9)
    return stream.getvalue()


def check_quality(quality: int | None) -> None:
    """Raise InputError unless `encode_webp` takes this quality."""
    if quality is not None and not 1 <= quality <= 100:
        raise InputError(f"The quality {quality} is out of range. Expected 1 to 100.")


def quality_label(quality: int | None) -> str:
    """Return the name of an image format and quality, for cards."""
    return "lossless WebP" if quality is None else f"WebP of quality {quality} (lossy)"


class ShardWriter:
    """Writer of the rows of one layer and split into shards.

    `images` and `masks` of a row are lists of bytes, lists of futures of bytes, or None.

    Args:
        folder: of the config.
        split, layer: part of the shards' names.
        rows: number of rows per row group.
        shard_bytes: a shard ends with the row group that reaches this size.
        once: store an image that several rows of a row group share once, in parquet's
            dictionary, without compressing it again (which would save nothing).

    Attributes:
        names: file names of the shards so far.
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
        self._group_rows, self._shard_bytes = rows, shard_bytes
        self._rows: list[dict[str, Any]] = []
        self._bytes = 0
        self._writer: Any = None
        self._options: dict[str, Any] = {
            "compression": "zstd",
            "use_dictionary": ["network", "layer", "unit_kind", "polarity"],
            "write_statistics": ["network", "layer", "unit"],
        }
        if once:
            others = [name for name in _leaves() if name != _IMAGE_BYTES]
            self._options["compression"] = {_IMAGE_BYTES: "none", **dict.fromkeys(others, "zstd")}
            self._options["use_dictionary"].append(_IMAGE_BYTES)
            self._options["dictionary_pagesize_limit"] = DICTIONARY_PAGE

    def add(self, row: dict[str, Any]) -> None:
        """Add a row; write a row group when there are enough."""
        self._rows.append(row)
        if len(self._rows) == self._group_rows:
            self._flush()

    def finish(self) -> None:
        """Write the rows that are left and close the last shard."""
        if self._rows:
            self._flush()
        self.close()

    def close(self) -> None:
        """Close the current shard without writing the rows that are left."""
        writer, self._writer = self._writer, None
        if writer is not None:
            writer.close()

    def _flush(self) -> None:
        import pyarrow as pa
        import pyarrow.parquet as parquet

        rows, self._rows = self._rows, []
        for row in rows:
            for column in ("images", "masks"):
                row[column] = row[column] and [self._cell(part) for part in row[column]]
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

    def _cell(self, part: Future[bytes] | bytes) -> dict[str, Any]:
        content = part if isinstance(part, bytes) else part.result()
        self._bytes += len(content)
        return {"bytes": content, "path": None}


def write_statistics(folder: Path, checksums: Mapping[str, str]) -> dict[str, Any]:
    """Write the checksums and statistics of a config beside its shards; return the statistics.

    Args:
        folder: of the config.
        checksums: sha256 of every shard, in order.
    """
    import pyarrow.parquet as parquet

    from milannotations.editions import statistics

    def rows() -> Iterator[tuple[str, Any]]:
        for name in checksums:
            table = parquet.read_table(folder / name, columns=list(statistics.COLUMNS))
            yield from ((name.split("-", 1)[0], row) for row in table.to_pylist())

    counts = statistics.row_statistics(rows())
    write_json(folder / CHECKSUMS, dict(checksums))
    write_json(folder / STATISTICS, counts)
    return counts


def _leaves() -> list[str]:
    """Return the leaf columns of an edition in parquet's notation: `images.list.element.bytes`."""
    import pyarrow as pa

    def leaves(path: str, kind: Any) -> list[str]:
        if pa.types.is_list(kind):
            return leaves(f"{path}.list.element", kind.value_type)
        if pa.types.is_struct(kind):
            return [name for part in kind for name in leaves(f"{path}.{part.name}", part.type)]
        return [path]

    return [
        name for field in schema.features().arrow_schema for name in leaves(field.name, field.type)
    ]
