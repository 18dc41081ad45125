"""Tables of applications: one number a method, with its interval and its control."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from leaderboard.applications import TASKS
from leaderboard.site.cells import bar, domain_of, interval_text, three
from leaderboard.site.load_records import ApplicationRun
from leaderboard.site.safe_text import method_file, slug


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
    ends = [end for n in numbers for end in (n.low, n.value, n.high, n.control)]
    domain = domain_of([*ends, 0.0])
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
        rows.append(
            {
                "place": place,
                "name": made.method,
                "version": made.version,
                "page": method_file(made.method, made.version),
                "value": number.value,
                "text": three(number.value, signed=True),
                "interval": interval_text(number.low, number.high, signed=True),
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
