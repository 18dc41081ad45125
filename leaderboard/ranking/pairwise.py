"""Paired comparison of neighbouring entries of a table.

A paired bootstrap over units, and over seeds if an entry has several, with Holm's correction over
all comparisons of the table.
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
"""Holm-adjusted p-value below which two neighbours differ significantly."""

Mask = NDArray[np.bool_]


@dataclass(frozen=True)
class PairComparison:
    """Difference between an entry and the next one below, paired by unit.

    Attributes:
        difference, low, high: difference of the means over the units that both describe, with its
            95 % interval; None if they share no unit.
        n: number of units that both describe.
        p, p_holm: bootstrap p-value, and Holm-adjusted over all comparisons of the table.
        difference_all, p_all_holm: difference over all units, with failures at the metric's worst
            value, and its Holm-adjusted p-value. The table is ordered by it. If both entries
            describe the same units, it is no further comparison and has `p_holm`.
        detectable: smallest difference on the shared units that would be significant: the
            bootstrap's standard error times the normal quantile at the level that Holm requires
            of the smallest p-value of the table.
        tied: True if neither comparison separates the upper entry from the lower one.
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
    """Values of an entry under the metric that orders the table.

    Attributes:
        name: unique name of the entry.
        by_seed: values (seed, unit); nan for a unit without a description.
        worst: value that such a unit counts as.
    """

    name: str
    by_seed: Floats
    worst: float

    @property
    def described(self) -> Mask:
        """Units (n,) that every seed describes."""
        return np.array(np.isfinite(self.by_seed).all(axis=0))

    @property
    def filled(self) -> Floats:
        """Values (seed, unit) with failures at the worst value."""
        return np.where(np.isnan(self.by_seed), self.worst, self.by_seed)

    def mean(self, units: Mask | None = None) -> float:
        """Return the mean over `units`, or over all units with failures at the worst value."""
        return float((self.filled if units is None else self.filled[:, units]).mean())

    def means(self, weights: Floats, seed: int, units: Mask | None = None) -> Floats:
        """Return `mean` in each bootstrap resample.

        Args:
            weights: number of draws of each unit (resample, unit), from
                `statistics.bootstrap_weights`.
            seed: random seed of the draws of seeds, if the entry has several.
            units: as in `mean`.
        """
        values, unit_weights = self.filled, weights
        if units is not None and not units.all():  # avoid copies if all units are used
            values, unit_weights = values[:, units], weights[:, units]
        by_seed = np.stack(
            [statistics.resampled_means(row, unit_weights) for row in values], axis=1
        )
        n_seeds = len(values)
        if n_seeds == 1:
            return by_seed[:, 0]
        # The draws of seeds depend on the entry's name, not on its index in the table, so that
        # another entry does not change this one's interval.
        key = int.from_bytes(hashlib.sha256(self.name.encode()).digest()[:4], "big")
        seed_weights = statistics.bootstrap_weights(n_seeds, len(weights), [seed, key])
        return (by_seed * seed_weights).sum(axis=1) / n_seeds


def compare_neighbours(
    entries: Sequence[EntryValues], weights: Floats, seed: int = 0
) -> list[PairComparison]:
    """Compare each entry with the next one.

    An entry is separated from the next if it is significantly better on the units that both
    describe or, if they describe different units, on all units with failures counted.

    Args:
        entries: in the order of the table, with values over the same units.
        weights, seed: as in `EntryValues.means`.

    Returns:
        One comparison less than there are entries.
    """
    differences = [
        _Difference.of(upper, lower, weights, seed) for upper, lower in pairwise(entries)
    ]
    # Two p-values per pair, nan where there is no comparison; Holm leaves nan out.
    p_values = [p for difference in differences for p in (difference.p, difference.p_all)]
    adjusted = statistics.holm(p_values)
    n_comparisons = max(1, int(np.isfinite(p_values).sum()))
    quantile = NormalDist().inv_cdf(1 - SIGNIFICANCE_LEVEL / 2 / n_comparisons)
    return [
        difference.comparison(adjusted[2 * i], adjusted[2 * i + 1], quantile)
        for i, difference in enumerate(differences)
    ]


@dataclass(frozen=True)
class _Difference:
    """Observed and resampled difference of two entries, on shared units and on all units.

    `p` is nan if they share no unit. `p_all` is nan, no comparison, if they describe the same
    units.
    """

    both: Mask
    difference: float | None
    resampled: Floats | None
    p: float
    difference_all: float
    p_all: float

    @classmethod
    def of(cls, upper: EntryValues, lower: EntryValues, weights: Floats, seed: int) -> _Difference:
        # The primary comparison is paired on shared units: failures do not enter it.
        both = upper.described & lower.described
        same_units = bool((upper.described == lower.described).all()) and bool(both.any())
        difference, resampled, p = None, None, float("nan")
        if both.any():
            difference = upper.mean(both) - lower.mean(both)
            resampled = upper.means(weights, seed, both) - lower.means(weights, seed, both)
            p = statistics.two_sided_p(resampled)
        # If coverage differs, the entries are compared on all units as well.
        p_all = float("nan")
        if not same_units:
            p_all = statistics.two_sided_p(upper.means(weights, seed) - lower.means(weights, seed))
        return cls(both, difference, resampled, p, upper.mean() - lower.mean(), p_all)

    def comparison(self, p_holm: float, p_all_holm: float, quantile: float) -> PairComparison:
        """Return the comparison, given the adjusted p-values and the quantile of `detectable`."""
        low = high = detectable = None
        if self.resampled is not None:
            low, high = map(float, statistics.interval(self.resampled))
            # The resamples' spread is the standard error of the difference.
            detectable = quantile * float(np.nanstd(self.resampled))
        if np.isnan(p_all_holm):
            p_all_holm = p_holm
        better = p_holm < SIGNIFICANCE_LEVEL and (self.difference or 0.0) > 0
        better_all = p_all_holm < SIGNIFICANCE_LEVEL and self.difference_all > 0
        return PairComparison(
            difference=self.difference,
            low=low,
            high=high,
            n=int(self.both.sum()),
            p=None if self.resampled is None else self.p,
            p_holm=None if self.resampled is None else p_holm,
            difference_all=self.difference_all,
            p_all_holm=p_all_holm,
            detectable=detectable,
            tied=not (better or better_all),
        )
