"""Everything that a board shows, to take away: one parquet and one JSON."""

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
"""Of the parquet: an estimate a row; `system` is "method" or a floor, `slice` "" or a layer."""


def write(
    folder: Path, runs: Sequence[EntryRun], findings: Sequence[ApplicationRun]
) -> list[tuple[str, str]]:
    """Write both files; return (name, what it holds)."""
    import pyarrow as pa
    import pyarrow.parquet as parquet

    records = [run.record for run in runs]
    named = {record.track for record in records}
    whole = {
        "tracks": [track.to_dict() for track in all_tracks() if track.key in named],
        "records": [record.model_dump() for record in records],
        "applications": [each.outcome.model_dump() for each in findings],
    }
    made = json.dumps(whole, indent=1, sort_keys=True, allow_nan=False) + "\n"
    (folder / "board.json").write_text(made, encoding="utf-8")
    rows = [row for record in records for row in _rows(record)]
    table = pa.Table.from_pylist(rows, schema=_schema())
    parquet.write_table(table, folder / "board.parquet", compression="zstd")
    return [
        (
            "board.json",
            f"{len(runs) + len(findings)} records as they were written, and their tracks",
        ),
        ("board.parquet", f"{len(rows):,} estimates, a row each, with floors and slices"),
    ]


def _schema() -> Any:
    import pyarrow as pa

    kinds = {
        "synthetic": pa.bool_(),
        "seed": pa.int64(),
        "n_scored": pa.int64(),
        "n_units": pa.int64(),
        **dict.fromkeys(COLUMNS[14:21], pa.float64()),
    }
    return pa.schema([(name, kinds.get(name, pa.string())) for name in COLUMNS])


def _rows(record: Record) -> Iterator[dict[str, Any]]:
    edition, about = record.edition, record.about
    same = {
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
    parts += [(floor, "", made) for floor, made in sorted(record.floors.items())]
    parts += [("method", cut, made) for cut, made in sorted(record.slices.items())]
    for system, cut, made in parts:
        for name, estimate in sorted(made.items()):
            yield {**same, "system": system, "slice": cut, "metric": name, **estimate.model_dump()}
