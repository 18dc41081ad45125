"""Rows of a track's table, as the page shows them: numbers, and where their bars lie."""

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

HEADS = {RANKED_BY: "Retrieval AUC", FALLBACK_METRIC: "Retrieval AUC", TIES_BY: "ROUGE-L"}
"""What the columns that order a table are called, where the metric's name does not say it."""


def table_data(table: TrackRuns, grounded: Sequence[TrackRuns] = ()) -> dict[str, Any]:
    """Return what the page of a track shows: rows, columns, what the metrics are.

    Args:
        table: a track and its runs.
        grounded: scores in activations of the same units, whose columns stand beside.
    """
    track = table.track
    standings = ranking.standings(list(table.runs), track)
    entries = _entries(table)
    chance = entries[track.ranked_by].chance
    beside = [
        name
        for name in track.metrics
        if name in entries and name not in (track.ranked_by, track.ties_by)
    ]
    activations = _activations(grounded)
    ends = [end for row in standings for end in (row.low, row.score, row.high)]
    scores = domain_of([*ends, chance])
    lift_ends = [end for row in standings for end in _lift_of(row, track.ties_by)]
    lifts = domain_of([*lift_ends, 0.0])
    shared = [row.rank for row in standings if row.rank is not None]
    rows = []
    for place, row in enumerate(standings):
        lift = _lift_of(row, track.ties_by)
        rows.append(
            {
                "place": place,
                "rank": row.rank,
                "rank_text": _rank(row.rank, shared),
                "name": row.name,
                "version": row.version,
                "kind": row.kind,
                "page": method_file(row.name, row.version) if is_entry(row) else None,
                "score": row.score,
                "score_text": three(row.score),
                "interval": interval_text(row.low, row.high),
                "bar": bar(row.low, row.score, row.high, scores, chance),
                "spread": row.spread,
                "seeds": len(row.records),
                "lift": row.lift,
                "lift_text": three(row.lift, signed=True),
                "lift_interval": interval_text(lift[0], lift[2], signed=True),
                "lift_bar": bar(*lift, lifts, 0.0),
                "coverage": row.coverage,
                "coverage_text": f"{100 * row.coverage:.3g} %",
                "cells": [
                    *(_cell(_estimates(row, name)) for name in beside),
                    *(_cell(_elsewhere(row, other, name)) for other, name, *_ in activations),
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
        "newest": table.newest,
        "rows": rows,
        "heads": [head(track.ranked_by), head(track.ties_by)],
        "columns": [
            *({"name": metric_label(name), "title": entries[name].title} for name in beside),
            *(
                {"name": label, "title": f"{entry.title}, in activations"}
                for *_, label, entry in activations
            ),
        ],
        "metrics": [
            *(
                (name, entries[name])
                for name in dict.fromkeys((track.ranked_by, track.ties_by, *beside))
                if name in entries
            ),
            *((label, entry) for *_, label, entry in activations),
        ],
        "grounded": [
            {"file": track_file(other.track), "says": other.track.title} for other in grounded
        ],
        "scale": [three(end) for end in scores],
        "lift_scale": [three(end, signed=True) for end in lifts],
        "n_methods": len({(row.name, row.version) for row in standings if row.kind == "method"}),
        "n_units": max(run.record.edition.n_units for run in table.runs),
        "n_described": max(run.record.scores[track.ranked_by].n_units for run in table.runs),
        "digest": table.runs[0].record.edition.digest,
        "footnote": table.runs[0].record.footnote,
        "warnings": sorted(
            {
                (f"{run.record.method}@{run.record.version or '-'}", warning)
                for run in table.runs
                for warning in (*run.record.warnings, *_notes(run.record))
            }
        ),
    }


def is_entry(row: Standing) -> bool:
    """Say whether a row is somebody's record, as against a floor that every record has."""
    if row.kind in ("method", "reference") or row.version is not None:
        return True
    record = row.records[0]
    return row.kind != "human" and record.method == row.name and row.name not in record.floors


def head(name: str) -> str:
    """Return what the column of a metric that orders a table is called."""
    return HEADS.get(name, metric_label(name))


def _entries(table: TrackRuns) -> dict[str, MetricEntry]:
    return {name: entry for run in table.runs for name, entry in run.record.metrics.items()}


def _activations(grounded: Sequence[TrackRuns]) -> list[tuple[TrackRuns, str, str, MetricEntry]]:
    """Return (table, metric, what its column is called, entry) of scores in activations."""
    found = []
    for table in grounded:
        entries, grounding = _entries(table), table.runs[0].record.grounding
        assert grounding is not None
        found += [
            (table, name, f"{name} ({judge(grounding)})", entries[name])
            for name in HEADLINE
            if name in entries
        ]
    return found


def _notes(record: Record) -> list[str]:
    return [] if record.grounding is None else notes(record)


def _lift_of(row: Standing, name: str) -> tuple[float | None, float | None, float | None]:
    """Return (low, lift, high) of the metric beside; of several seeds the widest ends."""
    made = [each for each in _estimates(row, name) if each is not None and each.lift is not None]
    if not made:
        return None, row.lift, None
    lows = [each.lift_low for each in made if each.lift_low is not None]
    highs = [each.lift_high for each in made if each.lift_high is not None]
    return min(lows, default=None), row.lift, max(highs, default=None)


def _estimates(row: Standing, name: str) -> list[Estimate | None]:
    """Return what the records of a row say of a metric, for a seed each."""
    if is_entry(row):
        return [record.scores.get(name) for record in row.records]
    floor = HUMAN if row.kind == "human" else row.name
    return [record.floors.get(floor, {}).get(name) for record in row.records]


def _elsewhere(row: Standing, table: TrackRuns, name: str) -> list[Estimate | None]:
    """Return what the records of another table say of a row of this one."""
    records = [run.record for run in table.runs]
    if is_entry(row):
        own = [r for r in records if (r.method, r.version) == (row.name, row.version)]
        return [record.scores.get(name) for record in own]
    floor = HUMAN if row.kind == "human" else row.name
    return [records[0].floors.get(floor, {}).get(name)]


def _cell(estimates: Iterable[Estimate | None]) -> dict[str, Any]:
    """Return a metric's value in a row, all units counted where that is known, and its lift."""
    known = [each for each in estimates if each is not None]
    values = [each.mean if each.mean_all is None else each.mean_all for each in known]
    found = [value for value in values if value is not None]
    value = sum(found) / len(found) if found else None
    lifts = [each.lift for each in known if each.lift is not None]
    lift = sum(lifts) / len(lifts) if lifts else None
    return {
        "value": value,
        "text": three(value),
        "lift": lift,
        "lift_text": three(lift, signed=True),
    }


def _rank(rank: int | None, shared: Sequence[int]) -> str:
    if rank is None:
        return ""
    return f"{rank}=" if shared.count(rank) > 1 else str(rank)


def _below(row: Standing) -> dict[str, Any] | None:
    """Return how a row compares with the next method below, in words."""
    pair = row.below
    if pair is None:
        return None
    return {
        "tied": pair.tied,
        "difference": three(pair.difference, signed=True),
        "interval": interval_text(pair.low, pair.high, signed=True),
        "n": pair.n,
        "p": three(pair.p_holm),
        "all": three(pair.difference_all, signed=True),
        "p_all": three(pair.p_all_holm),
        "detectable": three(pair.detectable),
    }
