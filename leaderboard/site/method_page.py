"""Data of a method's page: description, commands, scores, slices and cost."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from leaderboard.ranking.standings import TrackRuns
from leaderboard.record_format.score_record import HUMAN, Estimate, Record
from leaderboard.site.cells import bar, domain_of, interval_text, metric_label, three
from leaderboard.site.load_records import ApplicationRun
from leaderboard.site.safe_text import method_file

SEEN_SLICES = ("seen", "unseen")
"""Slices by whether a unit's formula occurs in training; only synthetic editions have them."""


@dataclass(frozen=True)
class MethodPage:
    """Records of a method, from which its page is made.

    Attributes:
        name, version: of the method.
        records: records with their tables, in the order of the tables.
        applications: records of applications.
    """

    name: str
    version: str | None
    records: tuple[tuple[TrackRuns, Record], ...]
    applications: tuple[ApplicationRun, ...] = ()

    @property
    def file(self) -> str:
        """File name of the page."""
        return method_file(self.name, self.version)


def pages(tables: Sequence[TrackRuns], applications: Sequence[ApplicationRun]) -> list[MethodPage]:
    """Return one page per method and version, by name."""
    scored: dict[tuple[str, str], list[tuple[TrackRuns, Record]]] = {}
    applied: dict[tuple[str, str], list[ApplicationRun]] = {}
    for table in tables:
        for run in table.runs:
            key = run.record.method, run.record.version or ""
            scored.setdefault(key, []).append((table, run.record))
    for application in applications:
        key = application.record.method, application.record.version or ""
        applied.setdefault(key, []).append(application)
    return [
        MethodPage(name, version or None, tuple(scored.get(key, ())), tuple(applied.get(key, ())))
        for key in sorted({*scored, *applied})
        for name, version in [key]
    ]


def facts(page: MethodPage) -> list[tuple[str, list[str]]]:
    """Return the description of a method as (term, lines); unknown terms are left out."""
    lines: dict[str, list[str]] = {}

    def add(term: str, value: object) -> None:
        line = "" if value is None else str(value).strip()
        if line and line not in lines.setdefault(term, []):
            lines[term].append(line)

    for _, record in page.records:
        about = record.about
        if about is None:
            continue
        add("Description", about.title)
        for author in about.authors:
            add("Authors", author)
        add("Paper", about.paper)
        add("Code", about.code)
        add("Commit", about.commit)
        add("Licence", about.licence)
        for requirement in about.requires:
            add("Requires, beyond exemplars", requirement)
        for source in about.trained_on:
            add("Trained on", source)
        if about.saw_test_units is not None:
            add("Saw test units", "yes" if about.saw_test_units else "no")
        for dataset in about.external_data:
            add("External data", dataset)
        for model in about.external_models:
            add("External models", model)
    return [(term, values) for term, values in lines.items() if values]


def commands(page: MethodPage) -> list[tuple[str, list[str]]]:
    """Return the commands to reproduce a method, as stated, by track."""
    by_track: dict[str, list[str]] = {}
    for table, record in page.records:
        lines = by_track.setdefault(table.track.key, [])
        if record.about is not None and record.about.command and record.about.command not in lines:
            lines.append(record.about.command)
    return [(key, lines) for key, lines in by_track.items() if lines]


def costs(page: MethodPage) -> list[dict[str, Any]]:
    """Return the cost of each record: as stated, and as measured by the accounts."""
    rows = []
    for table, record in page.records:
        about = record.about
        describing = sum(float(account.get("seconds") or 0.0) for account in record.accounts)
        rows.append(
            {
                "track": table.track,
                "seed": None if about is None else about.seed,
                "hardware": "" if about is None else about.hardware,
                "cost": "" if about is None else about.cost,
                "describing": three(describing) if describing else "",
                "scoring": three(record.seconds.get("total")),
                "commit": (record.ran.get("commit") or "")[:10],
                "dirty": record.ran.get("dirty"),
                "version": record.ran.get("milannotations"),
                "id": record.id,
            }
        )
    return rows


def scores(record: Record) -> list[dict[str, Any]]:
    """Return the table of a record: one row per metric, with its floors and the human."""
    rows = []
    for name in sorted(record.scores):
        estimate, entry = record.scores[name], record.metrics[name]
        versus = record.versus_person.get(name)
        rows.append(
            {
                "name": metric_label(name),
                "title": entry.title,
                "better": entry.direction or "",
                "mean": three(estimate.mean),
                "interval": interval_text(estimate.low, estimate.high),
                "all": three(estimate.mean_all),
                "lift": three(estimate.lift, signed=True),
                "shuffled": _floor(record, "shuffled", name),
                "constant": _floor(record, "constant", name),
                "most_common": _floor(record, "most-common-of-layer", name),
                "human": _floor(record, HUMAN, name),
                "versus": three(versus.difference, signed=True) if versus else "-",
                "p": three(versus.p_holm) if versus else "-",
                "n": f"{estimate.n_scored:,} of {estimate.n_units:,}",
            }
        )
    return rows


def slices(record: Record, names: Sequence[str]) -> dict[str, Any] | None:
    """Return slices by network and layer, with bars, under the metrics that order the table.

    Args:
        record: the record.
        names: the metric that ranks, whose score is shown, and the one that breaks ties, whose
            lift is shown; for grounded scores they are the same metric.
    """
    known = [name for name in names if name in record.scores]
    cuts = [cut for cut in record.slices if cut not in SEEN_SLICES]
    cuts += [cut for cut in SEEN_SLICES if cut in record.slices and record.edition.synthetic]
    if not known or not cuts:
        return None
    columns = []
    for position, name in enumerate(known):
        is_lift = position > 0
        intervals = [_interval(record.slices[cut].get(name), is_lift) for cut in cuts]
        mark = 0.0 if is_lift else record.metrics[name].chance
        domain = domain_of([*(end for interval in intervals for end in interval), mark])
        columns.append(
            {
                "name": f"{metric_label(name)} lift" if is_lift else metric_label(name),
                "cells": [
                    {
                        "text": three(interval[1], signed=is_lift),
                        "bar": bar(*interval, domain, mark),
                    }
                    for interval in intervals
                ],
            }
        )
    first = known[0]
    return {
        "rows": [
            {
                "name": cut,
                "whole": "/" not in cut,
                "n": record.slices[cut][first].n_scored if first in record.slices[cut] else 0,
            }
            for cut in cuts
        ],
        "columns": columns,
    }


def _interval(
    estimate: Estimate | None, is_lift: bool
) -> tuple[float | None, float | None, float | None]:
    """Return (low, mean, high) of an estimate or of its lift."""
    if estimate is None:
        return None, None, None
    if is_lift:
        return estimate.lift_low, estimate.lift, estimate.lift_high
    return estimate.low, estimate.mean, estimate.high


def _floor(record: Record, floor: str, name: str) -> str:
    estimate = record.floors.get(floor, {}).get(name)
    return three(None if estimate is None else estimate.mean)
