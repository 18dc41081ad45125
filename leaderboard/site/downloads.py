"""Downloads of the site: everything that it shows, as one parquet and one JSON file."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from leaderboard.ranking.standings import EntryRun
from leaderboard.ranking.tracks import all_tracks
from leaderboard.record_format.score_record import Estimate, Record
from leaderboard.site.load_records import ApplicationRun

COLUMNS = (
    "track", "edition", "config", "split", "digest", "synthetic", "method", "version", "kind",
    "seed", "record", "system", "slice", "metric", "mean", "mean_all", "low", "high", "lift",
    "lift_low", "lift_high", "n_scored", "n_units",
)  # fmt: skip
"""Columns of the parquet file, one row per estimate.

`system` is "method" or the name of a floor; `slice` is "" or a network or layer.
"""


def write(
    folder: Path, runs: Sequence[EntryRun], applications: Sequence[ApplicationRun]
) -> list[tuple[str, str]]:
    """Write both files; return the name and the content, in words, of each."""
    import pyarrow as pa
    import pyarrow.parquet as parquet

    records = [run.record for run in runs]
    used_tracks = {record.track for record in records}
    content = {
        "tracks": [track.to_dict() for track in all_tracks() if track.key in used_tracks],
        "records": [record.model_dump() for record in records],
        "applications": [run.record.model_dump() for run in applications],
    }
    text = json.dumps(content, indent=1, sort_keys=True, allow_nan=False) + "\n"
    (folder / "board.json").write_text(text, encoding="utf-8")
    rows = [row for record in records for row in _rows(record)]
    table = pa.Table.from_pylist(rows, schema=_schema())
    parquet.write_table(table, folder / "board.parquet", compression="zstd")
    n_records = len(runs) + len(applications)
    return [
        ("board.json", f"{n_records} records, unchanged, with their tracks"),
        ("board.parquet", f"{len(rows):,} estimates, one per row, with floors and slices"),
    ]


def _schema() -> Any:
    import pyarrow as pa

    types = {
        "synthetic": pa.bool_(),
        "seed": pa.int64(),
        "n_scored": pa.int64(),
        "n_units": pa.int64(),
        **dict.fromkeys(COLUMNS[14:21], pa.float64()),
    }
    return pa.schema([(name, types.get(name, pa.string())) for name in COLUMNS])


def _rows(record: Record) -> Iterator[dict[str, Any]]:
    """Yield one row per estimate: of the method, of each floor, and of each slice."""
    edition, about = record.edition, record.about
    shared = {
        "track": record.track,
        "edition": edition.edition,
        "config": edition.config,
        "split": edition.split,
        "digest": edition.digest,
        "synthetic": edition.synthetic,
        "method": record.method,
        "version": record.version,
        "kind": "method" if about is None else about.kind,
        "seed": None if about is None else about.seed,
        "record": record.id,
    }
    parts: list[tuple[str, str, dict[str, Estimate]]] = [("method", "", record.scores)]
    parts += [(floor, "", estimates) for floor, estimates in sorted(record.floors.items())]
    parts += [("method", cut, estimates) for cut, estimates in sorted(record.slices.items())]
    for system, cut, estimates in parts:
        for name, estimate in sorted(estimates.items()):
            values = estimate.model_dump()
            yield {**shared, "system": system, "slice": cut, "metric": name, **values}
