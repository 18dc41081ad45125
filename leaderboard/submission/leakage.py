"""Are answers copied from the references of the units that they describe?

Short answers agree by chance and long ones seldom do, between people as well. So answers of five
or more words that are, word for word, a reference of their unit are counted; less how many would
be if the layer's answers were dealt out anew; and held against what one person has, who is
counted alike. This can only ever warn: a good method may say what people say.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from leaderboard.evaluation.references import Mask, References
from leaderboard.metrics.base import Floats

MIN_WORDS = 5
"""Of an answer that is counted, at least."""

ERRORS = 3
"""Standard errors above one person's rate from which on there is a warning."""


@dataclass(frozen=True)
class Leakage:
    """What was counted; rates are shares of `n_units`.

    Attributes:
        n_units: units with an answer and with references.
        n_same: answers of five or more words that are a reference of their unit.
        n_shuffled: how many would be, on average, if the layer's answers were dealt out anew.
        rate: their difference as a share, on matched references: each of a unit's references is
            left out in turn, as one person's own must be, and the rates are averaged.
        person, error: one person's rate on the same units, each in turn against the others; and
            its standard error, of one unit at least.
    """

    n_units: int
    n_same: int
    n_shuffled: float
    rate: float
    person: float
    error: float

    @property
    def limit(self) -> float:
        return self.person + ERRORS * self.error

    @property
    def warns(self) -> bool:
        return self.n_units > 0 and self.rate > self.limit


def measure_leakage(answers: Sequence[str | None], known: References, scope: Mask) -> Leakage:
    """Return how many answers are references of their units, beside one person.

    Args:
        answers: normalised text of each unit of `known`, or None.
        known: references, normalised.
        scope: units in question (n,).
    """
    layers = list(known.layers.values())
    chosen = np.array(
        [bool(scope[i] and answers[i] and known.texts[i]) for i in range(len(answers))], dtype=bool
    )
    n = int(chosen.sum())
    if n == 0:
        return Leakage(0, 0, 0.0, 0.0, 0.0, 0.0)
    own, shuffled = _counts(answers, known.texts, layers, chosen)
    ours: list[Floats] = []
    theirs: list[Floats] = []
    for k in range(max(map(len, known.texts))):
        said = [texts[k] if len(texts) > k else None for texts in known.texts]
        rest = [(*texts[:k], *texts[k + 1 :]) for texts in known.texts]
        both = chosen & np.array(
            [bool(one and others) for one, others in zip(said, rest, strict=True)]
        )
        for texts, found in ((answers, ours), (said, theirs)):
            same, dealt = _counts(texts, rest, layers, both)
            found.append(np.where(both, same - dealt, np.nan)[chosen])
    matched, people = _over_persons(ours), _over_persons(theirs)
    if len(people) == 0:  # no unit has two references: there is nobody to compare with
        return Leakage(
            n, int(own.sum()), float(shuffled.sum()), float((own - shuffled).sum() / n), 0.0, 1 / n
        )
    error = float(people.std() / np.sqrt(len(people)))
    return Leakage(
        n_units=n,
        n_same=int(own.sum()),
        n_shuffled=float(shuffled.sum()),
        rate=float(matched.mean()),
        person=float(people.mean()),
        error=max(error, 1 / n),
    )


def _over_persons(found: Sequence[Floats]) -> Floats:
    """Return the mean over persons of each unit that has one, of arrays (n,) with nan."""
    stacked = np.array(found)
    known = ~np.isnan(stacked)
    counts = known.sum(axis=0)
    sums: Floats = np.where(known, stacked, 0.0).sum(axis=0)
    return sums[counts > 0] / counts[counts > 0]


def _counts(
    answers: Sequence[str | None],
    sets: Sequence[Sequence[str]],
    layers: Sequence[Sequence[int]],
    chosen: Mask,
) -> tuple[Floats, Floats]:
    """Return, by unit, whether a long answer is in the unit's set of references, and how often it
    is in that of another unit of its layer, as a share of these.
    """
    own, shuffled = np.zeros(len(answers)), np.zeros(len(answers))
    for members in layers:
        inside = [i for i in members if chosen[i]]
        held = Counter(text for i in inside for text in set(sets[i]))
        for i in inside:
            text = answers[i] or ""
            if len(text.split()) >= MIN_WORDS:
                own[i] = text in sets[i]
                shuffled[i] = (held[text] - own[i]) / max(1, len(inside) - 1)
    return own, shuffled
