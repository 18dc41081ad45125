"""Who is better, and who cannot be told apart: the order of a track's table.

Entries are ordered by `mean_all` of the track's `ranked_by` (failed and abstained units at the
metric's worst value); of equal ones, the higher lift of `ties_by` comes first. Neighbours that
cannot be told apart (`leaderboard.ranking.pairwise`) share a rank.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
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

EntryKind = Literal["method", "floor", "reference", "person"]

_OWN = ("shuffled", "blind")
"""Floors that are of one method, made from its own answers."""


@dataclass(frozen=True)
class EntryRun:
    """A record, and the values of its units under the metrics that order tables.

    Attributes:
        record: as it was written.
        units: DataFrame of network, layer, unit, metric, value, lift.
        folder: where it lies, or None.
    """

    record: Record
    units: pd.DataFrame
    folder: Path | None = None


@dataclass(frozen=True)
class TrackRuns:
    """A track and the runs that stand on it; `newest` is the version that replaced it, if any."""

    track: Track
    runs: tuple[EntryRun, ...]
    newest: Track | None = None


@dataclass(frozen=True)
class Standing:
    """A row of a table.

    Attributes:
        rank: from 1; those that are tied share one. None for floors, references and one person.
        name, version: of the entry.
        kind: "method", "floor", "reference" or "person".
        score, low, high: mean over seeds of `mean_all` of the track's `ranked_by`, and its 95 %
            bootstrap interval over units (and seeds, where there are several).
        spread: standard deviation of `score` over seeds; None where there is only one.
        lift: mean over seeds of the lift of the track's `ties_by`.
        coverage: share of the units in question that are described, the least of the seeds.
        below: how it compares with the next method below; None for the last, and for all that
            have no rank.
        records: of each seed, in order; of floors and one person the record that they stand in.
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

    Floors, references and one person have no rank; they stand where their score puts them.

    Args:
        runs: of this track and version, several seeds of one method as several runs.
        track: what they are compared on.
        seed: of the bootstrap.
        draws: resamples.

    Raises:
        InputError: a run of another track, version, edition or signature of the metric.
    """
    if not runs:
        return []
    _check(runs, track)
    entries = _entries(runs, track)
    weights = statistics.bootstrap_weights(entries[0][1].by_seed.shape[1], draws, seed)
    methods = [i for i, (row, _) in enumerate(entries) if row["kind"] == "method"]
    below: dict[int, PairComparison] = {}
    if methods:
        pairs = compare_neighbours([entries[i][1] for i in methods], weights, seed)
        below = dict(zip(methods, pairs, strict=False))
    rank, ranks = 0, {}
    for place, i in enumerate(methods):
        if place == 0 or not below[methods[place - 1]].tied:
            rank = place + 1
        ranks[i] = rank
    rows = []
    for i, (row, values) in enumerate(entries):
        low, high = map(float, statistics.interval(values.means(weights, seed)))
        rows.append(Standing(ranks.get(i), low=low, high=high, below=below.get(i), **row))
    return sorted([*rows, *_beside(runs, track)], key=_order)


def _check(runs: Sequence[EntryRun], track: Track) -> None:
    seen: set[tuple[str, ...]] = set()
    first = runs[0].record
    for run in runs:
        record = run.record
        title = f"{record.method}@{record.version or '-'}"
        if why := tracks.mismatch(record, track):
            raise InputError(f"The record of {title} may not stand on {track.key}: {why}.")
        if record.address in seen:
            raise InputError(
                f"{title} stands on {track.key} twice with one seed; give each seed a record of "
                "its own, or leave one out."
            )
        seen.add(record.address)
        signatures = [r.metrics[track.ranked_by].signature for r in (first, record)]
        if record.edition.digest != first.edition.digest or signatures[0] != signatures[1]:
            raise InputError(
                f"{title} and {first.method}@{first.version or '-'} were scored on {track.key} "
                "against other references or by another state of the metric: score them anew."
            )


def _entries(runs: Sequence[EntryRun], track: Track) -> list[tuple[dict[str, Any], EntryValues]]:
    """Return entries, best first: fields of their rows, and values over the same units."""
    import pandas as pd

    keys = ["network", "layer", "unit"]
    columns: list[pd.Series] = []
    for run in runs:
        part = run.units[run.units.metric == track.ranked_by]
        columns.append(part.set_index(keys).value.rename(len(columns)))
    table = pd.concat(columns, axis=1, sort=True)
    # units that nobody describes have no row anywhere, and are counted all the same
    missing = max(_expected(run.record, track.ranked_by) for run in runs) - len(table)
    known = table.to_numpy(dtype=np.float64).T
    values = np.pad(known, ((0, 0), (0, max(0, missing))), constant_values=np.nan)
    grouped: dict[tuple[str, str | None], list[int]] = {}
    for i in sorted(range(len(runs)), key=lambda i: runs[i].record.address):
        grouped.setdefault((runs[i].record.method, runs[i].record.version), []).append(i)
    made = []
    for (name, version), members in grouped.items():
        own = tuple(runs[i].record for i in members)
        scores = [record.scores[track.ranked_by].mean_all or 0.0 for record in own]
        row = {
            "name": name,
            "version": version,
            "kind": "method" if own[0].about is None else own[0].about.kind,
            "score": _mean(scores),
            "spread": float(np.std(scores, ddof=1)) if len(own) > 1 else None,
            "lift": _mean([_lift(record.scores, track) for record in own]),
            "coverage": min(r.predictions.n_ok / r.edition.n_units for r in own),
            "records": own,
        }
        worst = _worst(own[0].metrics[track.ranked_by])
        made.append((row, EntryValues(f"{name}@{version}", values[members], worst)))
    return sorted(made, key=lambda entry: _place(**entry[0]))


def _expected(record: Record, name: str) -> int:
    """Return how many units `mean_all` is over: those that the metric can score."""
    estimate, worst = record.scores[name], _worst(record.metrics[name])
    if estimate.mean is None or estimate.mean_all is None:
        return estimate.n_units
    if abs(estimate.mean_all - worst) < 1e-9:
        return estimate.n_units
    return round(estimate.n_scored * (estimate.mean - worst) / (estimate.mean_all - worst))


def _worst(entry: MetricEntry) -> float:
    worst = {"higher": entry.low, "lower": entry.high}.get(entry.direction or "")
    return entry.chance if entry.chance is not None else worst or 0.0


def _beside(runs: Sequence[EntryRun], track: Track) -> list[Standing]:
    """Return floors and one person, as the record that describes most units has them."""
    record = min((run.record for run in runs), key=lambda r: (-r.predictions.n_ok, r.address))
    rows = []
    for name, estimates in record.floors.items():
        if name in _OWN or track.ranked_by not in estimates:
            continue
        estimate, person = estimates[track.ranked_by], name == HUMAN
        who = "one simulated annotator" if record.edition.synthetic else "one person"
        rows.append(
            Standing(
                rank=None,
                name=who if person else name,
                version=None,
                kind="person" if person else "floor",
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


def _order(row: Standing) -> tuple[float, float, str, str]:
    return _place(row.score, row.lift, row.name, row.version)


def _place(
    score: float | None, lift: float | None, name: str, version: str | None, **_: Any
) -> tuple[float, float, str, str]:
    """Return what rows are sorted by: score, then lift, both falling; then the name."""
    first = float("inf") if score is None else -round(score, 9)
    return first, -(lift or 0.0), name, version or ""
