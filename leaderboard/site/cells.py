"""Cells of the page tables: numbers, intervals, and the positions of interval bars."""

from __future__ import annotations

from collections.abc import Iterable

from leaderboard.console.cells import short as round_short

Domain = tuple[float, float]
"""Ends of the scale of a column of bars."""


def three(value: float | None, signed: bool = False) -> str:
    """Return a number with three decimals and without a leading zero; "-" for None."""
    return round_short(value, 3, signed)


def interval_text(low: float | None, high: float | None, signed: bool = False) -> str:
    """Return an interval in words, or "" where an end is unknown.

    Example:
        >>> interval_text(-0.1, 0.25, signed=True)
        '-.100 to +.250'
    """
    return "" if low is None or high is None else f"{three(low, signed)} to {three(high, signed)}"


def domain_of(values: Iterable[float | None]) -> Domain:
    """Return the ends of a scale that holds all known values, with a margin of 4 %.

    Example:
        >>> domain_of([0.0, None, 0.5])
        (-0.02, 0.52)
    """
    known = [value for value in values if value is not None]
    low, high = (min(known), max(known)) if known else (0.0, 1.0)
    margin = 0.04 * (high - low) or 0.05
    return low - margin, high + margin


def bar(
    low: float | None,
    middle: float | None,
    high: float | None,
    domain: Domain,
    mark: float | None = None,
) -> dict[str, float] | None:
    """Return the position of an interval on a scale from 0 to 100.

    Args:
        low, middle, high: interval and its estimate; an unknown end is drawn at `middle`.
        domain: values at 0 and at 100.
        mark: value of a reference line, such as chance.

    Returns:
        `low`, `middle`, `high` and, if given, `mark`; None if `middle` is None.

    Example:
        >>> bar(0.2, 0.5, 0.7, (0.0, 1.0))
        {'low': 20.0, 'middle': 50.0, 'high': 70.0}
    """
    if middle is None:
        return None

    def position(value: float) -> float:
        return round(100 * (value - domain[0]) / (domain[1] - domain[0]), 2)

    positions = {
        "low": position(middle if low is None else low),
        "middle": position(middle),
        "high": position(middle if high is None else high),
    }
    return positions if mark is None else {**positions, "mark": position(mark)}


def metric_label(name: str) -> str:
    """Return a metric's name without its model, which the page names once.

    Example:
        >>> metric_label("retrieval-embedding-auc@all-MiniLM-L6-v2")
        'retrieval-embedding-auc'
    """
    return name.partition("@")[0]
