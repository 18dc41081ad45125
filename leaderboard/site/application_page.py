"""Tables of applications: one number a method, with its interval and its control."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from leaderboard.applications import TASKS
from leaderboard.site.load_records import ApplicationRun
from leaderboard.site.safe_text import slug
from leaderboard.site.track_table import bar, page_of, three


def tables(findings: Sequence[ApplicationRun]) -> list[dict[str, Any]]:
    """Return a table for each task and set of networks; synthetic and real ones apart."""
    groups: dict[tuple[str, str, bool, str, str], list[ApplicationRun]] = {}
    for each in findings:
        made = each.outcome
        networks = "+".join(sorted(made.networks))
        # numbers of other names, or over other replicates, are not the same thing
        key = (made.kind, made.data, made.synthetic, networks, made.number.name)
        groups.setdefault(key, []).append(each)
    return [_table(*key, members) for key, members in sorted(groups.items(), key=_order)]


def _order(group: tuple[tuple[str, str, bool, str, str], list[ApplicationRun]]) -> tuple[Any, ...]:
    kind, data, synthetic, networks, name = group[0]
    return synthetic, list(TASKS).index(kind), data, networks, name


def _table(
    kind: str,
    data: str,
    synthetic: bool,
    networks: str,
    name: str,
    members: Sequence[ApplicationRun],
) -> dict[str, Any]:
    numbers = [each.outcome.number for each in members]
    known = [
        value
        for number in numbers
        for value in (number.low, number.value, number.high, number.control)
        if value is not None
    ]
    known = [*known, 0.0]
    room = 0.04 * (max(known) - min(known)) or 0.05
    domain = (min(known) - room, max(known) + room)
    ordered = sorted(
        members,
        key=lambda each: (
            each.outcome.number.value is None,
            -(each.outcome.number.value or 0.0),
            each.outcome.address,
        ),
    )
    rows = []
    for place, each in enumerate(ordered):
        made, number = each.outcome, each.outcome.number
        interval = (
            ""
            if number.low is None or number.high is None
            else f"{three(number.low, signed=True)} to {three(number.high, signed=True)}"
        )
        rows.append(
            {
                "place": place,
                "name": made.method,
                "version": made.version,
                "page": page_of(made.method, made.version),
                "value": number.value,
                "text": three(number.value, signed=True),
                "interval": interval,
                "bar": bar(number.low, number.value, number.high, domain, number.control),
                "control": three(number.control),
                "p": number.p,
                "p_text": three(number.p),
                "n": number.n,
                "over": number.over,
                "says": number.says,
                "figure": f"{slug(made.id)}.png" if "figure.png" in made.files else None,
                "folder": each.folder,
                "warnings": made.warnings,
            }
        )
    title = f"{kind}: {TASKS[kind].partition(':')[0]}"
    return {
        "kind": kind,
        "title": title,
        "says": TASKS[kind],
        "data": data,
        "networks": networks.split("+"),
        "synthetic": synthetic,
        "number": name,
        "file": f"{slug('-'.join((kind, data, networks, name)))}.html",
        "rows": rows,
        "footnotes": sorted({each.outcome.footnote for each in members}),
    }
