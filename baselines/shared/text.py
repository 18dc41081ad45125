"""Choosing among descriptions by their words."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Sequence


def commonest(texts: Iterable[str], accepts: Callable[[str], bool] | None = None) -> str | None:
    """Return the most common text; of several, the shortest, then the first in the alphabet.

    Texts are counted, and returned, in lower case and without dots and spaces at the
    ends, as every metric sees them.

    Args:
        texts: texts to count.
        accepts: returns whether a text may be chosen; called from the most common text on.

    Returns:
        None if there is no text that may be chosen.

    Example:
        >>> commonest(["Red.", "red", "blue", "blue sky"])
        'red'
    """
    counts = Counter(text.lower().strip(". ") for text in texts)
    ordered = sorted(counts, key=lambda text: (-counts[text], len(text), text))
    return next(filter(accepts, ordered), None) if accepts else next(iter(ordered), None)


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
