"""Neighbours of a table, compared: a paired bootstrap over units, and over seeds where there are
several, with Holm over all comparisons of the table.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from statistics import NormalDist

import numpy as np
from numpy.typing import NDArray

from leaderboard import statistics
from leaderboard.metrics.base import Floats

SIGNIFICANCE_LEVEL = 0.05
"""Below this, Holm-adjusted, two neighbours are told apart."""

Mask = NDArray[np.bool_]


@dataclass(frozen=True)
class PairComparison:
    """An entry less the next one below, paired by unit.

    Attributes:
        difference, low, high: of the means over the units that both describe (95 %).
        n: how many these are; 0 where there are none, and then the three are None.
        p, p_holm: bootstrap p, and Holm's over all comparisons of the table.
        difference_all, p_all_holm: the same over all units, failures at the metric's worst value;
            what the table is ordered by. Where both describe the same units, this is no further
            comparison and has the p of the first.
        detectable: smallest difference that would be significant, over the units both describe:
            the bootstrap's standard error times the normal quantile at the level that Holm asks
            of the smallest p of the table.
        tied: neither comparison tells the upper one from the lower one.
    """

    difference: float | None
    low: float | None
    high: float | None
    n: int
    p: float | None
    p_holm: float | None
    difference_all: float
    p_all_holm: float
    detectable: float | None
    tied: bool


@dataclass(frozen=True)
class EntryValues:
    """What an entry scores: (seed, unit), nan where a unit has no answer and counts as `worst`."""

    name: str
    by_seed: Floats
    worst: float

    @property
    def described(self) -> Mask:
        """Units (n,) that every seed describes."""
        return np.array(np.isfinite(self.by_seed).all(axis=0))

    @property
    def filled(self) -> Floats:
        return np.where(np.isnan(self.by_seed), self.worst, self.by_seed)

    def mean(self, units: Mask | None = None) -> float:
        """Return the mean over `units`, or over all with failures at the worst value."""
        return float((self.filled if units is None else self.filled[:, units]).mean())

    def means(self, weights: Floats, seed: int, units: Mask | None = None) -> Floats:
        """Return `mean` in each resample.

        Args:
            weights: how often each unit is drawn (draws, unit), of `stats.bootstrap_weights`.
            seed: of the draws of seeds, where there are several.
            units: as in `mean`.
        """
        values, among = self.filled, weights
        if units is not None and not units.all():  # else nothing is copied
            values, among = values[:, units], weights[:, units]
        by_seed = np.stack([statistics.resampled_means(each, among) for each in values], axis=1)
        n = len(values)
        if n == 1:
            return by_seed[:, 0]
        # by name and not by place: another entry in the table moves no interval of this one
        own = int.from_bytes(hashlib.sha256(self.name.encode()).digest()[:4], "big")
        return (by_seed * statistics.bootstrap_weights(n, len(weights), [seed, own])).sum(
            axis=1
        ) / n


def compare_neighbours(
    entries: Sequence[EntryValues], weights: Floats, seed: int = 0
) -> list[PairComparison]:
    """Return how each entry compares with the next, one pair less than there are entries.

    An entry is told from the next where it is significantly better on the units that both
    describe or, if they describe different ones, on all units with failures counted.

    Args:
        entries: in order of the table, their values over the same units.
        weights, seed: as in `EntryValues.means`.
    """
    drawn = [_Difference.of(upper, lower, weights, seed) for upper, lower in pairwise(entries)]
    p_values = [p for each in drawn for p in (each.p, each.p_all)]
    adjusted = statistics.holm(p_values)
    asked = 1 - SIGNIFICANCE_LEVEL / 2 / max(1, int(np.isfinite(p_values).sum()))
    return [
        each.pair(adjusted[2 * i], adjusted[2 * i + 1], NormalDist().inv_cdf(asked))
        for i, each in enumerate(drawn)
    ]


@dataclass(frozen=True)
class _Difference:
    """Two entries and their resampled difference: over what both describe, and over all.

    `p_all` is nan, no comparison, where both describe the same units; `p` where they share none.
    """

    both: Mask
    difference: float | None
    shared: Floats | None
    p: float
    difference_all: float
    p_all: float

    @classmethod
    def of(cls, upper: EntryValues, lower: EntryValues, weights: Floats, seed: int) -> _Difference:
        both = upper.described & lower.described
        same = bool((upper.described == lower.described).all()) and bool(both.any())
        difference, shared, p = None, None, float("nan")
        if both.any():
            difference = upper.mean(both) - lower.mean(both)
            shared = upper.means(weights, seed, both) - lower.means(weights, seed, both)
            p = statistics.two_sided_p(shared)
        p_all = float("nan")
        if not same:
            p_all = statistics.two_sided_p(upper.means(weights, seed) - lower.means(weights, seed))
        return cls(both, difference, shared, p, upper.mean() - lower.mean(), p_all)

    def pair(self, p_holm: float, p_all_holm: float, quantile: float) -> PairComparison:
        low = high = detectable = None
        if self.shared is not None:
            low, high = map(float, statistics.interval(self.shared))
            detectable = quantile * float(np.nanstd(self.shared))
        if np.isnan(p_all_holm):
            p_all_holm = p_holm
        better = p_holm < SIGNIFICANCE_LEVEL and (self.difference or 0.0) > 0
        better_all = p_all_holm < SIGNIFICANCE_LEVEL and self.difference_all > 0
        return PairComparison(
            difference=self.difference,
            low=low,
            high=high,
            n=int(self.both.sum()),
            p=None if self.shared is None else self.p,
            p_holm=None if self.shared is None else p_holm,
            difference_all=self.difference_all,
            p_all_holm=p_all_holm,
            detectable=detectable,
            tied=not (better or better_all),
        )
