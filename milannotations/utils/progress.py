"""Progress bar of loops that may run without one."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TypeVar

T = TypeVar("T")


def progress_bar(
    iterable: Iterable[T],
    total: int | None = None,
    description: str = "",
    enabled: bool = True,
    *,
    unit: str = "it",
) -> Iterable[T]:
    """Return the items of an iterable, behind a progress bar on standard error.

    Args:
        iterable: items to loop over.
        total: number of items; None takes it from `iterable`, if that has a length.
        description: words before the bar.
        enabled: show the bar; otherwise `iterable` is returned as it is, and tqdm is not imported.
        unit: word for one item.
    """
    if not enabled:
        return iterable
    from tqdm import tqdm

    bar: Iterable[T] = tqdm(iterable, description, total=total, unit=unit, leave=False)
    return bar
