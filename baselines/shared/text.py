"""Choosing among descriptions by their words."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence


def commonest(texts: Iterable[str]) -> str | None:
    """Return the commonest text; the shortest, then the first in the alphabet, among several.

    Texts are counted, and returned, in lower case and without dots and spaces at the
    ends, as every metric sees them.

    Example:
        >>> commonest(["Red.", "red", "blue", "blue sky"])
        'red'
    """
    counts = Counter(text.lower().strip(". ") for text in texts)
    return min(counts, key=lambda text: (-counts[text], len(text), text)) if counts else None


def medoid(texts: Sequence[str]) -> str:
    """Return the text that shares most words with the others; ties as in `commonest`.

    Words shared are counted by Dice's coefficient of the two bags of words.

    Example:
        >>> medoid(["a red square", "text", "red square shapes", "the red square"])
        'a red square'
    """
    bags = [Counter(text.lower().strip(". ").split()) for text in texts]
    shared = [sum(_dice(bag, other) for other in bags) for bag in bags]
    best = min(
        range(len(texts)), key=lambda i: (-round(shared[i], 9), len(texts[i]), texts[i].lower())
    )
    return texts[best]


def _dice(one: Counter[str], other: Counter[str]) -> float:
    total = one.total() + other.total()
    return 2 * (one & other).total() / total if total else 0.0
