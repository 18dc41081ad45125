"""The one place where text is made comparable."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable, Sequence
from typing import Any, Generic, TypeVar


def normalise(text: str) -> str:
    """Return `text` in lower case, without dots and spaces at both ends.

    Predictions and references pass through here before any metric sees them.
    Source: the common normalisation of Hernandez et al. 2022.

    Example:
        >>> normalise(" The color Red. ")
        'the color red'
    """
    return text.lower().strip(". ")


def n_words(text: str) -> int:
    """Return the number of words, separated by white space."""
    return len(text.split())


Key = TypeVar("Key", bound=Hashable)


class RowCache(Generic[Key]):
    """Remembers what was made of each distinct string (or tuple of strings), as rows of a list.

    `rows` gives the row of every key asked for, and calls `make` once with those
    never seen before. So nothing is tokenised or embedded twice, however often it
    is asked for.

    Example:
        >>> cache = Cache(lambda new: [len(text) for text in new])
        >>> cache.rows(["a", "bb", "a"]), cache.values
        ([0, 1, 0], [1, 2])
    """

    def __init__(self, make: Callable[[list[Key]], Iterable[Any]]) -> None:
        self._make = make
        self._row: dict[Key, int] = {}
        self.values: list[Any] = []

    def rows(self, texts: Sequence[Key]) -> list[int]:
        new = [text for text in dict.fromkeys(texts) if text not in self._row]
        if new:
            made = list(self._make(new))
            self._row.update((text, len(self.values) + i) for i, text in enumerate(new))
            self.values.extend(made)
        return [self._row[text] for text in texts]

    def get(self, texts: Sequence[Key]) -> list[Any]:
        """Return what was made of each key."""
        return [self.values[row] for row in self.rows(texts)]
