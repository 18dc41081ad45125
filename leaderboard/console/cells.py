"""Cells of tables: numbers as people read them."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from leaderboard.record_format.score_record import Estimate

WIDE = 150
"""Characters that the whole table needs."""


def value_of(estimate: Estimate | None, what: str) -> float | None:
    """Return a part of an estimate, None where there is none."""
    return None if estimate is None else getattr(estimate, what)


def digits(value: float | None, signed: bool = False) -> str:
    """Return a number as tables show it: four decimals, no leading zero, "-" for unknown."""
    if value is None:
        return "-"
    if value == 0:
        return "0"
    if abs(value) < 5e-5:
        return "~0"
    sign = "+" if signed else ""
    if abs(value) >= 10:
        return f"{value:{sign}.1f}"
    if abs(value) >= 2:
        return f"{value:{sign}.2f}"
    return f"{value:{sign}.4f}".replace("0.", ".", 1)


def short(value: float | None, places: int, signed: bool = False) -> str:
    """Return a number from -1 to 1 with few decimals."""
    if value is None:
        return "-"
    if value == 0:
        return "0"
    if abs(value) < 0.5 * 10**-places:
        return "~0"
    made = f"{value:{'+' if signed else ''}.{places}f}"
    return made.replace("0.", ".", 1) if abs(value) < 1 else made
