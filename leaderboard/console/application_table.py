"""Tables of application records: one row per method, its headline number beside the control."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from leaderboard.console.cells import digits
from leaderboard.record_format.application_record import SYNTHETIC_FOOTNOTE

if TYPE_CHECKING:
    from leaderboard.record_format.application_record import ApplicationRecord, Number

NUMERIC = ("number", "95 % interval", "control", "p")
"""Headings of right-aligned columns."""


def render(records: Sequence[ApplicationRecord], width: int = 200) -> Any:
    """Return a rich renderable of records: one table per task, with notes.

    Args:
        records: records of any tasks and methods.
        width: width of the screen in characters.
    """
    from rich.console import Group
    from rich.text import Text

    parts: list[Any] = []
    for task in dict.fromkeys(record.kind for record in records):
        of_task = [record for record in records if record.kind == task]
        parts += [Text(_title(of_task[0]), style="bold"), _grid(of_task)]
        if len(of_task) == 1:
            parts += [Text(of_task[0].number.says)]
            parts += [Text(f"Note: {warning}", style="dim") for warning in of_task[0].warnings]
        footnote = of_task[0].footnote.replace(SYNTHETIC_FOOTNOTE, "").strip()
        parts += [Text(footnote, style="dim"), Text("")]
    if any(record.synthetic for record in records):
        parts.append(Text(SYNTHETIC_FOOTNOTE, style="bold reverse"))
    return Group(*parts)


def _title(record: ApplicationRecord) -> str:
    networks = list(record.networks)
    listed = ", ".join(networks) if len(networks) < 4 else f"{len(networks)} networks"
    data = f"{record.data}: " if record.data else ""
    return f"{record.kind}   on {data}{listed}"


def _grid(records: Sequence[ApplicationRecord]) -> Any:
    from rich.table import Table

    grid = Table(box=None, pad_edge=False, header_style="bold", padding=(0, 1))
    for heading in ("method", *NUMERIC, "quantity"):
        is_numeric = heading in NUMERIC
        grid.add_column(heading, justify="right" if is_numeric else "left", no_wrap=is_numeric)
    for record in records:
        number = record.number
        grid.add_row(
            record.method,
            digits(number.value, signed=True),
            _interval(number),
            digits(number.control),
            "-" if number.p is None else f"{number.p:.3g}",
            f"{number.name}; interval over {number.n} {number.over}",
        )
    return grid


def _interval(number: Number) -> str:
    if number.low is None or number.high is None:
        return "-"
    return f"{digits(number.low)} to {digits(number.high)}"
