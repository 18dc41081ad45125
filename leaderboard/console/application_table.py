"""Outcomes as a table that a person reads: a method a row, its number beside the control."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from leaderboard.console.cells import digits
from leaderboard.record_format.application_record import SYNTHETIC_FOOTNOTE

if TYPE_CHECKING:
    from leaderboard.record_format.application_record import ApplicationRecord


def render(outcomes: Sequence[ApplicationRecord], width: int = 200) -> Any:
    """Return a rich renderable: a table a task, and what to know about it.

    Args:
        outcomes: of any tasks and methods.
        width: of the screen, in characters.
    """
    from rich.console import Group
    from rich.table import Table
    from rich.text import Text

    parts: list[Any] = []
    for kind in dict.fromkeys(made.kind for made in outcomes):
        own = [made for made in outcomes if made.kind == kind]
        table = Table(box=None, pad_edge=False, header_style="bold", padding=(0, 1))
        for title in ("method", "number", "95 %", "control", "p", "of what"):
            right = title in ("number", "95 %", "control", "p")
            table.add_column(title, justify="right" if right else "left", no_wrap=right)
        for made in own:
            number = made.number
            ends = (
                "-"
                if number.low is None or number.high is None
                else f"{digits(number.low)}..{digits(number.high)}"
            )
            table.add_row(
                made.method,
                digits(number.value, signed=True),
                ends,
                digits(number.control),
                "-" if number.p is None else f"{number.p:.3g}",
                f"{number.name}; interval over {number.n} {number.over}",
            )
        networks = list(own[0].networks)
        listed = ", ".join(networks) if len(networks) < 4 else f"{len(networks)} networks"
        head = f"{kind}   on {own[0].data + ': ' if own[0].data else ''}{listed}"
        parts += [Text(head, style="bold"), table]
        if len(own) == 1:
            parts += [Text(own[0].number.says)]
            parts += [Text(f"Note: {warning}", style="dim") for warning in own[0].warnings]
        parts += [Text(own[0].footnote.replace(SYNTHETIC_FOOTNOTE, "").strip(), style="dim")]
        parts += [Text("")]
    if any(made.synthetic for made in outcomes):
        parts.append(Text(SYNTHETIC_FOOTNOTE, style="bold reverse"))
    return Group(*parts)
