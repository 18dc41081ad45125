"""Formatting of numbers in tables."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from leaderboard.record_format.score_record import Estimate

WIDE = 150
"""Width of a terminal, in characters, from which on tables show all columns."""


def value_of(estimate: Estimate | None, field: str) -> float | None:
    """Return a field of an estimate, or None if there is no estimate."""
    return None if estimate is None else getattr(estimate, field)


def digits(value: float | None, signed: bool = False) -> str:
    """Format a number with four decimals and without a leading zero; "-" if it is unknown."""
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
    """Format a number between -1 and 1 with few decimals."""
    if value is None:
        return "-"
    if value == 0:
        return "0"
    if abs(value) < 0.5 * 10**-places:
        return "~0"
    sign = "+" if signed else ""
    text = f"{value:{sign}.{places}f}"
    return text.replace("0.", ".", 1) if abs(value) < 1 else text


def interval(low: float | None, high: float | None) -> str:
    """Format an interval as "low to high"; "-" if it is unknown."""
    return "-" if low is None or high is None else f"{digits(low)} to {digits(high)}"
