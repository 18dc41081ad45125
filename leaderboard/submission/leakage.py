"""Leakage check: are descriptions copied from the references of the units that they describe?

Short descriptions agree by chance; long ones seldom do, between humans as well. So descriptions of
five or more words that are, word for word, a reference of their unit are counted, minus the number
expected if the layer's descriptions were shuffled, and compared with the same count for the
leave-one-out human. The result is only a warning: a good method may say what humans say.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from leaderboard.evaluation.references import Mask, References
from leaderboard.metrics.base import Floats

MIN_WORDS = 5
"""Fewest words of a description that is counted."""

STANDARD_ERRORS = 3
"""Distance of the warning limit from the human rate, in standard errors."""


@dataclass(frozen=True)
class Leakage:
    """Counts of copied descriptions; rates are shares of `n_units`.

    Attributes:
        n_units: units with a description and with references.
        n_same: descriptions of five or more words that are a reference of their unit.
        n_shuffled: expected number if the layer's descriptions were shuffled.
        rate: (n_same - n_shuffled) / n_units on matched references: each of a unit's references is
            left out in turn, as for the human, and the rates are averaged.
        human: leave-one-out human's rate on the same units.
        error: standard error of `human`; at least one unit.
    """

    n_units: int
    n_same: int
    n_shuffled: float
    rate: float
    human: float
    error: float

    @property
    def limit(self) -> float:
        """Rate above which there is a warning."""
        return self.human + STANDARD_ERRORS * self.error

    @property
    def warns(self) -> bool:
        """True if the rate is above the limit."""
        return self.n_units > 0 and self.rate > self.limit


def measure_leakage(descriptions: Sequence[str | None], known: References, scope: Mask) -> Leakage:
    """Count descriptions that are references of their units, beside the leave-one-out human.

    Args:
        descriptions: normalised description of each unit of `known`, or None.
        known: normalised references.
        scope: units to look at (n,).
    """
    layers = list(known.layers.values())
    chosen = np.array(
        [bool(scope[i] and descriptions[i] and known.texts[i]) for i in range(len(descriptions))],
        dtype=bool,
    )
    n = int(chosen.sum())
    if n == 0:
        return Leakage(0, 0, 0.0, 0.0, 0.0, 0.0)
    same, shuffled = _match(descriptions, known.texts, layers, chosen)
    # Leave out each unit's k-th reference in turn: the human is the reference left out, and both
    # the method and the human are matched with the remaining ones.
    method_rates: list[Floats] = []
    human_rates: list[Floats] = []
    for k in range(max(map(len, known.texts))):
        left_out = [texts[k] if len(texts) > k else None for texts in known.texts]
        remaining = [(*texts[:k], *texts[k + 1 :]) for texts in known.texts]
        comparable = chosen & np.array(
            [bool(text and others) for text, others in zip(left_out, remaining, strict=True)]
        )
        for texts, rates in ((descriptions, method_rates), (left_out, human_rates)):
            matches, expected = _match(texts, remaining, layers, comparable)
            rates.append(np.where(comparable, matches - expected, np.nan)[chosen])
    method, human = _mean_over_humans(method_rates), _mean_over_humans(human_rates)
    if len(human) == 0:  # no unit has two references, so there is no human to compare with
        rate = float((same - shuffled).sum() / n)
        return Leakage(n, int(same.sum()), float(shuffled.sum()), rate, 0.0, 1 / n)
    error = float(human.std() / np.sqrt(len(human)))
    return Leakage(
        n_units=n,
        n_same=int(same.sum()),
        n_shuffled=float(shuffled.sum()),
        rate=float(method.mean()),
        human=float(human.mean()),
        error=max(error, 1 / n),
    )


def _mean_over_humans(rates: Sequence[Floats]) -> Floats:
    """Return each unit's mean over the references left out; units with nan only are dropped."""
    stacked = np.array(rates)  # (reference left out, unit)
    known = ~np.isnan(stacked)
    counts = known.sum(axis=0)
    sums: Floats = np.where(known, stacked, 0.0).sum(axis=0)
    return sums[counts > 0] / counts[counts > 0]


def _match(
    texts: Sequence[str | None],
    reference_sets: Sequence[Sequence[str]],
    layers: Sequence[Sequence[int]],
    chosen: Mask,
) -> tuple[Floats, Floats]:
    """Match long texts with the references of their own unit and of the rest of the layer.

    Returns:
        Two arrays (unit,): 1 if the text is in the unit's own reference set, else 0; and the share
        of the layer's other units in whose set it is, which is the expectation under shuffling.
    """
    same, shuffled = np.zeros(len(texts)), np.zeros(len(texts))
    for members in layers:
        inside = [i for i in members if chosen[i]]
        # Number of units whose set holds a text: one look-up per unit instead of all pairs.
        n_sets = Counter(text for i in inside for text in set(reference_sets[i]))
        for i in inside:
            text = texts[i] or ""
            if len(text.split()) >= MIN_WORDS:
                same[i] = text in reference_sets[i]
                shuffled[i] = (n_sets[text] - same[i]) / max(1, len(inside) - 1)
    return same, shuffled
