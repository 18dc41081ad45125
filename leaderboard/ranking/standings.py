"""Standings of a track: the order of its entries, with shared ranks for ties.

Entries are ordered by `mean_all` of the track's `ranked_by` metric, in which failed and abstained
units have the metric's worst value. Among equal scores, the higher lift of `ties_by` comes first.
Neighbours that do not differ significantly (`leaderboard.ranking.pairwise`) share a rank.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from leaderboard import statistics
from leaderboard.ranking import tracks
from leaderboard.ranking.pairwise import EntryValues, PairComparison, compare_neighbours
from leaderboard.ranking.tracks import Track
from leaderboard.record_format.score_record import HUMAN, MetricEntry, Record
from milannotations.errors import InputError

if TYPE_CHECKING:
    import pandas as pd

DRAWS = 1000
"""Default number of bootstrap resamples."""

EntryKind = Literal["method", "floor", "reference", "human"]

_OWN_FLOORS = ("shuffled", "blind")
"""Floors that are made from one method's own descriptions."""


@dataclass(frozen=True)
class EntryRun:
    """A record with the values of its units under the metrics that order tables.

    Attributes:
        record: the record as it was written.
        units: DataFrame with the columns network, layer, unit, metric, value and lift.
        folder: folder of the record, or None.
    """

    record: Record
    units: pd.DataFrame
    folder: Path | None = None


@dataclass(frozen=True)
class TrackRuns:
    """A track and its runs.

    Attributes:
        track: the track.
        runs: records of the track.
        newest: version that replaced this one, if any.
    """

    track: Track
    runs: tuple[EntryRun, ...]
    newest: Track | None = None


@dataclass(frozen=True)
class Standing:
    """One row of a track's table.

    Attributes:
        rank: from 1; tied entries share one. None for floors, references and humans.
        name, version: of the entry.
        kind: "method", "floor", "reference" or "human".
        score: mean over seeds of `mean_all` of the track's `ranked_by` metric.
        low, high: its 95 % bootstrap interval over units, and over seeds if there are several.
        spread: standard deviation of the score over seeds; None for a single seed.
        lift: mean over seeds of the lift of the track's `ties_by` metric.
        coverage: share of the units that are described; the lowest of the seeds.
        below: comparison with the next method below; None for the last one and for all rows
            without a rank.
        records: one record per seed; for floors and humans, the record that holds them.
    """

    rank: int | None
    name: str
    version: str | None
    kind: EntryKind
    score: float | None
    low: float | None
    high: float | None
    spread: float | None
    lift: float | None
    coverage: float
    below: PairComparison | None = None
    records: tuple[Record, ...] = field(default=(), repr=False)


def standings(
    runs: Sequence[EntryRun], track: Track, *, seed: int = 0, draws: int = DRAWS
) -> list[Standing]:
    """Return the rows of a track's table, best first.

    Floors, references and humans have no rank; they are listed at the position of their score.

    Args:
        runs: runs of this version of the track; several seeds of one method are several runs.
        track: the track.
        seed: random seed of the bootstrap.
        draws: number of resamples.

    Raises:
        InputError: a run of another track, version, edition or signature of the metric.
    """
    if not runs:
        return []
    _check_comparable(runs, track)
    entries = _entries(runs, track)
    n_units = entries[0][1].by_seed.shape[1]
    weights = statistics.bootstrap_weights(n_units, draws, seed)
    methods = [i for i, (row, _) in enumerate(entries) if row.kind == "method"]
    below: dict[int, PairComparison] = {}
    if methods:
        comparisons = compare_neighbours([entries[i][1] for i in methods], weights, seed)
        below = dict(zip(methods, comparisons, strict=False))  # the last method has none below
    # A method that is tied with the one above has its rank; the next rank skips the ties (1, 1, 3).
    rank, ranks = 0, {}
    for position, i in enumerate(methods):
        if position == 0 or not below[methods[position - 1]].tied:
            rank = position + 1
        ranks[i] = rank
    rows = []
    for i, (row, values) in enumerate(entries):
        low, high = map(float, statistics.interval(values.means(weights, seed)))
        rows.append(replace(row, rank=ranks.get(i), low=low, high=high, below=below.get(i)))
    return sorted([*rows, *_floors(runs, track)], key=_sort_key)


def _check_comparable(runs: Sequence[EntryRun], track: Track) -> None:
    """Raise if runs are of another track, have the same seed twice, or are not comparable."""
    addresses: set[tuple[str, ...]] = set()
    first = runs[0].record
    for run in runs:
        record = run.record
        title = f"{record.method}@{record.version or '-'}"
        if reason := tracks.mismatch(record, track):
            raise InputError(f"The record of {title} does not belong to {track.key}: {reason}.")
        if record.address in addresses:
            raise InputError(
                f"{title} has two records with one seed on {track.key}. Give each seed a record "
                "of its own, or leave one out."
            )
        addresses.add(record.address)
        signatures = [r.metrics[track.ranked_by].signature for r in (first, record)]
        if record.edition.digest != first.edition.digest or signatures[0] != signatures[1]:
            raise InputError(
                f"{title} and {first.method}@{first.version or '-'} on {track.key} were scored "
                "against other references or by another state of the metric. Score them again."
            )


def _entries(runs: Sequence[EntryRun], track: Track) -> list[tuple[Standing, EntryValues]]:
    """Return entries, best first: rows without rank and interval, and values by unit."""
    import pandas as pd

    # 1. One column of values per run, aligned by unit.
    keys = ["network", "layer", "unit"]
    columns: list[pd.Series] = []
    for run in runs:
        part = run.units[run.units.metric == track.ranked_by]
        columns.append(part.set_index(keys).value.rename(len(columns)))
    table = pd.concat(columns, axis=1, sort=True)
    # 2. Units that no run describes have no row anywhere, but count: append them as nan.
    n_missing = max(_n_expected(run.record, track.ranked_by) for run in runs) - len(table)
    known = table.to_numpy(dtype=np.float64).T
    values = np.pad(known, ((0, 0), (0, max(0, n_missing))), constant_values=np.nan)
    # 3. The runs of one method and version, its seeds, become one entry.
    by_method: dict[tuple[str, str | None], list[int]] = {}
    for i in sorted(range(len(runs)), key=lambda i: runs[i].record.address):
        by_method.setdefault((runs[i].record.method, runs[i].record.version), []).append(i)
    entries = []
    for (name, version), members in by_method.items():
        records = tuple(runs[i].record for i in members)
        scores = [record.scores[track.ranked_by].mean_all or 0.0 for record in records]
        row = Standing(
            rank=None,
            name=name,
            version=version,
            kind="method" if records[0].about is None else records[0].about.kind,
            score=_mean(scores),
            low=None,
            high=None,
            spread=float(np.std(scores, ddof=1)) if len(records) > 1 else None,
            lift=_mean([_lift(record.scores, track) for record in records]),
            coverage=min(r.predictions.n_ok / r.edition.n_units for r in records),
            records=records,
        )
        worst = _worst(records[0].metrics[track.ranked_by])
        entries.append((row, EntryValues(f"{name}@{version}", values[members], worst)))
    return sorted(entries, key=lambda entry: _sort_key(entry[0]))


def _n_expected(record: Record, name: str) -> int:
    """Return the number of units in `mean_all`: those that the metric can score.

    It is recovered from `mean_all = (n_scored * mean + (n - n_scored) * worst) / n`.
    """
    estimate, worst = record.scores[name], _worst(record.metrics[name])
    if estimate.mean is None or estimate.mean_all is None:
        return estimate.n_units
    if abs(estimate.mean_all - worst) < 1e-9:
        return estimate.n_units
    return round(estimate.n_scored * (estimate.mean - worst) / (estimate.mean_all - worst))


def _worst(entry: MetricEntry) -> float:
    """Return the value of a failed unit: chance, or else the worst end of the range."""
    worst = {"higher": entry.low, "lower": entry.high}.get(entry.direction or "")
    return entry.chance if entry.chance is not None else worst or 0.0


def _floors(runs: Sequence[EntryRun], track: Track) -> list[Standing]:
    """Return floors and the leave-one-out human, from the record that describes most units."""
    record = min((run.record for run in runs), key=lambda r: (-r.predictions.n_ok, r.address))
    rows = []
    for name, estimates in record.floors.items():
        if name in _OWN_FLOORS or track.ranked_by not in estimates:
            continue
        estimate, is_human = estimates[track.ranked_by], name == HUMAN
        human = "simulated annotator" if record.edition.synthetic else "leave-one-out human"
        rows.append(
            Standing(
                rank=None,
                name=human if is_human else name,
                version=None,
                kind="human" if is_human else "floor",
                score=estimate.mean,
                low=estimate.low,
                high=estimate.high,
                spread=None,
                lift=_lift(estimates, track),
                coverage=estimate.n_scored / estimate.n_units,
                records=(record,),
            )
        )
    return rows


def _lift(estimates: dict[str, Any], track: Track) -> float | None:
    estimate = estimates.get(track.ties_by)
    return None if estimate is None else estimate.lift


def _mean(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return float(np.mean(known)) if known else None


def _sort_key(row: Standing) -> tuple[float, float, str, str]:
    """Return the sort key of a row: score and lift, both descending; then name and version."""
    score = float("inf") if row.score is None else -round(row.score, 9)
    return score, -(row.lift or 0.0), row.name, row.version or ""
