"""Data of a track's page: rows of its table, with numbers and positions of bars."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from leaderboard.console.grounding_table import judge, notes
from leaderboard.grounding.metrics import HEADLINE
from leaderboard.ranking import standings as ranking
from leaderboard.ranking.standings import Standing, TrackRuns
from leaderboard.ranking.tracks import FALLBACK_METRIC, RANKED_BY, TIES_BY
from leaderboard.record_format.score_record import HUMAN, Estimate, MetricEntry, Record
from leaderboard.site.cells import bar, domain_of, interval_text, metric_label, three
from leaderboard.site.safe_text import method_file, track_file

COLUMN_TITLES = {
    RANKED_BY: "Retrieval AUC",
    FALLBACK_METRIC: "Retrieval AUC",
    TIES_BY: "ROUGE-L",
}
"""Titles of the columns that order a table, for metrics whose name is not a title."""


def table_data(table: TrackRuns, grounded: Sequence[TrackRuns] = ()) -> dict[str, Any]:
    """Return the data of a track's page: rows, columns, and what the metrics mean.

    Args:
        table: a track and its runs.
        grounded: grounded scores of the same units, which are added as columns.
    """
    track = table.track
    standings = ranking.standings(list(table.runs), track)
    entries = _metric_entries(table)
    others = [
        name
        for name in track.metrics
        if name in entries and name not in (track.ranked_by, track.ties_by)
    ]
    grounded_columns = _grounded_columns(grounded)
    chance = entries[track.ranked_by].chance
    ends = [end for row in standings for end in (row.low, row.score, row.high)]
    domain = domain_of([*ends, chance])
    lift_ends = [end for row in standings for end in _lift_interval(row, track.ties_by)]
    lift_domain = domain_of([*lift_ends, 0.0])
    ranks = [row.rank for row in standings if row.rank is not None]
    rows = []
    for position, row in enumerate(standings):
        lift_low, lift, lift_high = _lift_interval(row, track.ties_by)
        rows.append(
            {
                "position": position,
                "rank": row.rank,
                "rank_text": _rank_text(row.rank, ranks),
                "name": row.name,
                "version": row.version,
                "kind": row.kind,
                "page": method_file(row.name, row.version) if _has_record(row) else None,
                "score": row.score,
                "score_text": three(row.score),
                "interval": interval_text(row.low, row.high),
                "bar": bar(row.low, row.score, row.high, domain, chance),
                "spread": row.spread,
                "seeds": len(row.records),
                "lift": row.lift,
                "lift_text": three(row.lift, signed=True),
                "lift_interval": interval_text(lift_low, lift_high, signed=True),
                "lift_bar": bar(lift_low, lift, lift_high, lift_domain, 0.0),
                "coverage": row.coverage,
                "coverage_text": f"{100 * row.coverage:.3g} %",
                "cells": [
                    *(_cell(_estimates(row, name)) for name in others),
                    *(
                        _cell(_estimates_in(other, row, name))
                        for other, name, *_ in grounded_columns
                    ),
                ],
                "below": _below(row),
            }
        )
    human = "simulated annotator" if track.synthetic else "leave-one-out human"
    return {
        "track": track,
        "kinds": [
            ("method", "methods"),
            ("floor", "floors"),
            ("reference", "references"),
            ("human", human),
        ],
        "human": human,
        "newest": table.newest,
        "rows": rows,
        "titles": [column_title(track.ranked_by), column_title(track.ties_by)],
        "columns": [
            *({"name": metric_label(name), "title": entries[name].title} for name in others),
            *(
                {"name": label, "title": f"{entry.title}, in activations"}
                for *_, label, entry in grounded_columns
            ),
        ],
        "metrics": [
            *(
                (name, entries[name])
                for name in dict.fromkeys((track.ranked_by, track.ties_by, *others))
                if name in entries
            ),
            *((label, entry) for *_, label, entry in grounded_columns),
        ],
        "grounded": [
            {"file": track_file(other.track), "title": other.track.title} for other in grounded
        ],
        "scale": [three(end) for end in domain],
        "lift_scale": [three(end, signed=True) for end in lift_domain],
        "n_methods": len({(row.name, row.version) for row in standings if row.kind == "method"}),
        "n_units": max(run.record.edition.n_units for run in table.runs),
        "n_described": max(run.record.scores[track.ranked_by].n_units for run in table.runs),
        "digest": table.runs[0].record.edition.digest,
        "footnote": table.runs[0].record.footnote,
        "warnings": sorted(
            {
                (f"{run.record.method}@{run.record.version or '-'}", warning)
                for run in table.runs
                for warning in (*run.record.warnings, *_grounding_notes(run.record))
            }
        ),
    }


def column_title(name: str) -> str:
    """Return the title of the column of a metric that orders a table."""
    return COLUMN_TITLES.get(name, metric_label(name))


def _has_record(row: Standing) -> bool:
    """Return True for the row of a record; False for a floor, which every record has."""
    if row.kind in ("method", "reference") or row.version is not None:
        return True
    record = row.records[0]
    return row.kind != "human" and record.method == row.name and row.name not in record.floors


def _metric_entries(table: TrackRuns) -> dict[str, MetricEntry]:
    return {name: entry for run in table.runs for name, entry in run.record.metrics.items()}


def _grounded_columns(
    grounded: Sequence[TrackRuns],
) -> list[tuple[TrackRuns, str, str, MetricEntry]]:
    """Return table, metric, column label and metric entry of each grounded score."""
    columns = []
    for table in grounded:
        entries, grounding = _metric_entries(table), table.runs[0].record.grounding
        assert grounding is not None
        columns += [
            (table, name, f"{name} ({judge(grounding)})", entries[name])
            for name in HEADLINE
            if name in entries
        ]
    return columns


def _grounding_notes(record: Record) -> list[str]:
    return [] if record.grounding is None else notes(record)


def _lift_interval(row: Standing, name: str) -> tuple[float | None, float | None, float | None]:
    """Return (low, lift, high) of a metric's lift; with several seeds, the widest ends."""
    estimates = [e for e in _estimates(row, name) if e is not None and e.lift is not None]
    if not estimates:
        return None, row.lift, None
    lows = [e.lift_low for e in estimates if e.lift_low is not None]
    highs = [e.lift_high for e in estimates if e.lift_high is not None]
    return min(lows, default=None), row.lift, max(highs, default=None)


def _estimates(row: Standing, name: str) -> list[Estimate | None]:
    """Return a row's estimates of a metric, one per seed."""
    if _has_record(row):
        return [record.scores.get(name) for record in row.records]
    floor = HUMAN if row.kind == "human" else row.name
    return [record.floors.get(floor, {}).get(name) for record in row.records]


def _estimates_in(table: TrackRuns, row: Standing, name: str) -> list[Estimate | None]:
    """Return the estimates of a metric in another table, for the entry of a row of this one."""
    records = [run.record for run in table.runs]
    if _has_record(row):
        matching = [r for r in records if (r.method, r.version) == (row.name, row.version)]
        return [record.scores.get(name) for record in matching]
    floor = HUMAN if row.kind == "human" else row.name
    return [records[0].floors.get(floor, {}).get(name)]


def _cell(estimates: Iterable[Estimate | None]) -> dict[str, Any]:
    """Return value and lift of a metric, as means over seeds.

    The value is `mean_all` where it is known, else `mean`.
    """
    known = [e for e in estimates if e is not None]
    candidates = [e.mean if e.mean_all is None else e.mean_all for e in known]
    value = _mean([candidate for candidate in candidates if candidate is not None])
    lift = _mean([e.lift for e in known if e.lift is not None])
    return {
        "value": value,
        "text": three(value),
        "lift": lift,
        "lift_text": three(lift, signed=True),
    }


def _mean(values: Sequence[float]) -> float | None:
    return sum(values) / len(values) if values else None


def _rank_text(rank: int | None, ranks: Sequence[int]) -> str:
    """Return a rank in words; a shared one as "1="."""
    if rank is None:
        return ""
    return f"{rank}=" if ranks.count(rank) > 1 else str(rank)


def _below(row: Standing) -> dict[str, Any] | None:
    """Return the comparison with the next method below, in words."""
    comparison = row.below
    if comparison is None:
        return None
    return {
        "tied": comparison.tied,
        "difference": three(comparison.difference, signed=True),
        "interval": interval_text(comparison.low, comparison.high, signed=True),
        "n": comparison.n,
        "p": three(comparison.p_holm),
        "all": three(comparison.difference_all, signed=True),
        "p_all": three(comparison.p_all_holm),
        "detectable": three(comparison.detectable),
    }
