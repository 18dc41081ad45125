"""Choice of one of several descriptions by their words."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Sequence


def most_common_text(
    texts: Iterable[str], accepts: Callable[[str], bool] | None = None
) -> str | None:
    """Return the most common text; of several, the shortest, then the first in the alphabet.

    Texts are counted and returned in lower case, without dots and spaces at the ends, as every
    metric sees them.

    Args:
        texts: texts to count.
        accepts: returns whether a text may be chosen; called from the most common text on.

    Returns:
        None if there is no text that may be chosen.

    Example:
        >>> most_common_text(["Red.", "red", "blue", "blue sky"])
        'red'
    """
    counts = Counter(text.lower().strip(". ") for text in texts)
    ordered = sorted(counts, key=lambda text: (-counts[text], len(text), text))
    return next(filter(accepts, ordered), None) if accepts else next(iter(ordered), None)


def medoid_text(texts: Sequence[str]) -> str:
    """Return the text that has most words in common with the others.

    The similarity of two texts is Dice's coefficient of their bags of words. Of equally good
    texts, the shortest is returned, then the first in the alphabet.

    Example:
        >>> medoid_text(["a red square", "text", "red square shapes", "the red square"])
        'a red square'
    """
    bags = [Counter(text.lower().strip(". ").split()) for text in texts]
    similarities = [sum(_dice(bag, other) for other in bags) for bag in bags]
    # rounded, so that sums that are equal except for the last bits are ties
    best = min(
        range(len(texts)),
        key=lambda i: (-round(similarities[i], 9), len(texts[i]), texts[i].lower()),
    )
    return texts[best]


def _dice(bag: Counter[str], other: Counter[str]) -> float:
    total = bag.total() + other.total()
    return 2 * (bag & other).total() / total if total else 0.0
