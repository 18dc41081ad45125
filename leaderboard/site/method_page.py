"""A page per method: what it is, how to run it again, its scores, slices and cost."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from leaderboard.ranking.standings import TrackRuns
from leaderboard.record_format.score_record import Estimate, Record
from leaderboard.site.cells import bar, domain_of, interval_text, metric_label, three
from leaderboard.site.load_records import ApplicationRun
from leaderboard.site.safe_text import method_file

BY_FORMULA = ("seen", "unseen")
"""Slices by whether a unit's formula was seen in training; synthetic editions alone have them."""


@dataclass(frozen=True)
class MethodPage:
    """What the page of a method is made from.

    Attributes:
        name, version: of the method.
        records: with the table that each stands in, in the order of the tables.
        findings: of applications.
    """

    name: str
    version: str | None
    records: tuple[tuple[TrackRuns, Record], ...]
    findings: tuple[ApplicationRun, ...] = ()

    @property
    def file(self) -> str:
        return method_file(self.name, self.version)


def pages(tables: Sequence[TrackRuns], findings: Sequence[ApplicationRun]) -> list[MethodPage]:
    """Return a page for every method and version, by name."""
    found: dict[tuple[str, str], list[tuple[TrackRuns, Record]]] = {}
    applied: dict[tuple[str, str], list[ApplicationRun]] = {}
    for table in tables:
        for run in table.runs:
            key = run.record.method, run.record.version or ""
            found.setdefault(key, []).append((table, run.record))
    for each in findings:
        applied.setdefault((each.outcome.method, each.outcome.version or ""), []).append(each)
    return [
        MethodPage(name, version or None, tuple(found.get(key, ())), tuple(applied.get(key, ())))
        for key in sorted({*found, *applied})
        for name, version in [key]
    ]


def facts(page: MethodPage) -> list[tuple[str, list[str]]]:
    """Return what is said of a method: (what, lines); what nobody says is left out."""
    said: dict[str, list[str]] = {}

    def say(what: str, value: object) -> None:
        line = "" if value is None else str(value).strip()
        if line and line not in said.setdefault(what, []):
            said[what].append(line)

    for _, record in page.records:
        about = record.about
        if about is None:
            continue
        say("What it does", about.title)
        for author in about.authors:
            say("Authors", author)
        say("Described in", about.paper)
        say("Code", about.code)
        say("State of the code", about.commit)
        say("Licence", about.licence)
        for need in about.requires:
            say("Needs, beyond exemplars", need)
        for source in about.trained_on:
            say("Learned from", source)
        if about.saw_test_units is not None:
            say("Saw units of the test", "yes" if about.saw_test_units else "no")
        for other in about.external_data:
            say("Other data", other)
        for other in about.external_models:
            say("Other models", other)
    return [(what, lines) for what, lines in said.items() if lines]


def commands(page: MethodPage) -> list[tuple[str, list[str]]]:
    """Return how to run a method again: (track, commands), as its makers state them."""
    made: dict[str, list[str]] = {}
    for table, record in page.records:
        lines = made.setdefault(table.track.key, [])
        if record.about is not None and record.about.command and record.about.command not in lines:
            lines.append(record.about.command)
    return [(key, lines) for key, lines in made.items() if lines]


def costs(page: MethodPage) -> list[dict[str, Any]]:
    """Return what describing took, a row a record: as stated, and as accounts have it."""
    rows = []
    for table, record in page.records:
        about = record.about
        measured = sum(float(each.get("seconds") or 0.0) for each in record.accounts)
        rows.append(
            {
                "track": table.track,
                "seed": None if about is None else about.seed,
                "hardware": "" if about is None else about.hardware,
                "cost": "" if about is None else about.cost,
                "describing": three(measured) if measured else "",
                "scoring": three(record.seconds.get("total")),
                "commit": (record.ran.get("commit") or "")[:10],
                "dirty": record.ran.get("dirty"),
                "version": record.ran.get("milannotations"),
                "id": record.id,
            }
        )
    return rows


def scores(record: Record) -> list[dict[str, Any]]:
    """Return the table of a record: a metric a row, floors and one person beside it."""
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
                "commonest": _floor(record, "most-common-of-layer", name),
                "person": _floor(record, "one-person", name),
                "versus": three(versus.difference, signed=True) if versus else "-",
                "p": three(versus.p_holm) if versus else "-",
                "n": f"{estimate.n_scored:,} of {estimate.n_units:,}",
            }
        )
    return rows


def slices(record: Record, names: Sequence[str]) -> dict[str, Any] | None:
    """Return slices by network and layer, with bars, under the metrics that order the table."""
    known = [name for name in names if name in record.scores]
    cuts = [cut for cut in record.slices if cut not in BY_FORMULA]
    cuts += [cut for cut in BY_FORMULA if cut in record.slices and record.edition.synthetic]
    if not known or not cuts:
        return None
    columns = []
    for place, name in enumerate(known):  # the same metric twice, of scores in activations
        lifted = place > 0
        found = [_ends(record.slices[cut].get(name), lifted) for cut in cuts]
        mark = 0.0 if lifted else record.metrics[name].chance
        domain = domain_of([*(value for row in found for value in row), mark])
        columns.append(
            {
                "name": f"{metric_label(name)}{' above shuffle' if lifted else ''}",
                "cells": [
                    {"text": three(row[1], signed=lifted), "bar": bar(*row, domain, mark)}
                    for row in found
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


def _ends(
    estimate: Estimate | None, lifted: bool
) -> tuple[float | None, float | None, float | None]:
    if estimate is None:
        return None, None, None
    if lifted:
        return estimate.lift_low, estimate.lift, estimate.lift_high
    return estimate.low, estimate.mean, estimate.high


def _floor(record: Record, floor: str, name: str) -> str:
    estimate = record.floors.get(floor, {}).get(name)
    return three(None if estimate is None else estimate.mean)
