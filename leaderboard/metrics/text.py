"""Normalisation of text, and a cache of what is computed from texts."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable, Sequence
from typing import Any, Generic, TypeVar


def normalise(text: str) -> str:
    """Return `text` in lower case, without dots and spaces at both ends.

    All predictions and references are normalised before any metric sees them.
    Source: the common normalisation of Hernandez et al. 2022.

    Example:
        >>> normalise(" The color Red. ")
        'the color red'
    """
    return text.lower().strip(". ")


def n_words(text: str) -> int:
    """Return the number of words, separated by whitespace."""
    return len(text.split())


Key = TypeVar("Key", bound=Hashable)


class RowCache(Generic[Key]):
    """Cache with one computed value per distinct string (or tuple of strings), as rows of a list.

    `rows` returns the row of every key, and calls `compute` once with all keys that are new. So
    nothing is tokenised or embedded twice.

    Example:
        >>> cache = RowCache(lambda new: [len(text) for text in new])
        >>> cache.rows(["a", "bb", "a"]), cache.values
        ([0, 1, 0], [1, 2])
    """

    def __init__(self, compute: Callable[[list[Key]], Iterable[Any]]) -> None:
        self._compute = compute
        self._row: dict[Key, int] = {}
        self.values: list[Any] = []

    def rows(self, keys: Sequence[Key]) -> list[int]:
        """Return the row in `values` of each key."""
        new = [key for key in dict.fromkeys(keys) if key not in self._row]
        if new:
            computed = list(self._compute(new))
            self._row.update((key, len(self.values) + i) for i, key in enumerate(new))
            self.values.extend(computed)
        return [self._row[key] for key in keys]

    def get(self, keys: Sequence[Key]) -> list[Any]:
        """Return the value of each key."""
        return [self.values[row] for row in self.rows(keys)]
