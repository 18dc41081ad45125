"""Tables of applications: one score per method, with its interval and its control."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from leaderboard.applications import TASKS
from leaderboard.site.cells import bar, domain_of, interval_text, three
from leaderboard.site.load_records import ApplicationRun
from leaderboard.site.safe_text import method_file, slug

TableKey = tuple[str, str, bool, str, str]
"""Task, dataset, whether it is synthetic, networks, and name of the number."""


def application_tables(runs: Sequence[ApplicationRun]) -> list[dict[str, Any]]:
    """Return one table per task and set of networks; real tables first."""
    groups: dict[TableKey, list[ApplicationRun]] = {}
    for run in runs:
        record = run.record
        networks = "+".join(sorted(record.networks))
        # Numbers with other names, or over other replicates, are not comparable.
        key = (record.kind, record.data, record.synthetic, networks, record.number.name)
        groups.setdefault(key, []).append(run)
    return [_table(key, groups[key]) for key in sorted(groups, key=_sort_key)]


def _sort_key(key: TableKey) -> tuple[Any, ...]:
    kind, data, synthetic, networks, name = key
    return synthetic, list(TASKS).index(kind), data, networks, name


def _table(key: TableKey, runs: Sequence[ApplicationRun]) -> dict[str, Any]:
    """Return the data of a table's page; rows are in descending order of the number."""
    kind, data, synthetic, networks, name = key
    numbers = [run.record.number for run in runs]
    ends = [end for n in numbers for end in (n.low, n.value, n.high, n.control)]
    domain = domain_of([*ends, 0.0])
    ordered = sorted(
        runs,
        key=lambda run: (
            run.record.number.value is None,
            -(run.record.number.value or 0.0),
            run.record.address,
        ),
    )
    rows = []
    for position, run in enumerate(ordered):
        record, number = run.record, run.record.number
        rows.append(
            {
                "position": position,
                "name": record.method,
                "version": record.version,
                "page": method_file(record.method, record.version),
                "value": number.value,
                "text": three(number.value, signed=True),
                "interval": interval_text(number.low, number.high, signed=True),
                "bar": bar(number.low, number.value, number.high, domain, number.control),
                "control": three(number.control),
                "p": number.p,
                "p_text": three(number.p),
                "n": number.n,
                "over": number.over,
                "summary": number.says,
                "figure": f"{slug(record.id)}.png" if "figure.png" in record.files else None,
                "folder": run.folder,
                "warnings": record.warnings,
            }
        )
    return {
        "kind": kind,
        "heading": TASKS[kind],
        "data": data,
        "networks": networks.split("+"),
        "synthetic": synthetic,
        "number": name,
        "file": f"{slug('-'.join((kind, data, networks, name)))}.html",
        "rows": rows,
        "footnotes": sorted({run.record.footnote for run in runs}),
    }
