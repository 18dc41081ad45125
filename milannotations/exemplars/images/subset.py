"""Choice of evenly spaced items of a dataset."""

from __future__ import annotations

from collections.abc import Sequence


def evenly_spaced(count: int, limit: int | None) -> Sequence[int]:
    """Return the indices of `limit` of `count` items, spaced evenly; of all without a limit.

    Example:
        >>> evenly_spaced(10, 4), evenly_spaced(3, None)
        ([0, 2, 5, 7], range(0, 3))
    """
    if limit is None or limit >= count:
        return range(count)
    return [i * count // limit for i in range(limit)]
