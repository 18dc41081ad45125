"""What is made of the values of units: lift, retrieval, intervals, tests. Pure functions.

Notation: S is (n, n), the score of unit i's prediction with unit j's references,
within one layer of one network.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Ints = NDArray[np.intp]

RETRIEVAL_POOL = 100
"""Candidates in top-1 retrieval: the unit itself and 99 others."""

MIN_LAYER = 10
"""Layers with fewer scored units are left out of lift, and named."""

TIE_DECIMALS = 12
"""Similarities that agree to this many decimals are ties: sums in another order differ."""


def lift(scores: Floats) -> Floats:
    """Return each unit's score above shuffle, from all pairs (n, n).

    lift_i = n/(n-1) (S_ii - mean_j S_ij - mean_j S_ji + mean_jk S_jk). Its mean is
    the mean of S_ii minus the mean of S_ij over i != j. It is 0 for every unit when
    all predictions are the same string.

    Example:
        >>> lift(np.array([[1.0, 0.0], [0.0, 1.0]]))
        array([1., 1.])
        >>> lift(np.array([[0.7, 0.2], [0.7, 0.2]]))
        array([0., 0.])
    """
    n = len(scores)
    # what is the same for all predictions drops out; taken off first, equal rows leave exact zeros
    scores = scores - scores[0]
    rows, columns = scores.mean(axis=1), scores.mean(axis=0)
    centred = (np.diagonal(scores) - columns) - (rows - scores.mean())
    return centred * (n / (n - 1))


def derangements(n: int, count: int, seed: int | Sequence[int]) -> Ints:
    """Return `count` seeded permutations (count, n) without a fixed point, closed under inverse.

    Each is a cycle through all units in a random order; every second one is the
    inverse of the one before, so that S_ij and S_ji are sampled together.

    Raises:
        ValueError: `count` is odd, or `n` is less than 2.
    """
    if count % 2 or n < 2:
        raise ValueError(f"an even count and two units or more are needed; got {count} and {n}")
    generator = np.random.default_rng(seed)
    drawn = np.empty((count, n), dtype=np.intp)
    for index in range(0, count, 2):
        order = generator.permutation(n)
        drawn[index, order] = np.roll(order, -1)
        drawn[index + 1, order] = np.roll(order, 1)
    return drawn


def lift_sampled(own: Floats, shuffled: Floats, drawn: Ints) -> Floats:
    """Return each unit's score above shuffle, from derangements instead of all pairs.

    With all pairs this is `lift`: both are the linear form of the U-statistic with
    kernel (S_ii + S_jj - S_ij - S_ji)/2. So here too every unit of a constant has 0.

    Args:
        own: S_ii (n,).
        shuffled: S_i,d(i) (count, n).
        drawn: the derangements d (count, n), as `derangements` makes them.
    """
    inverse = shuffled.reshape(-1, 2, len(own))[:, ::-1].reshape(shuffled.shape)
    reverse = np.take_along_axis(inverse, drawn, axis=1)  # S_d(i),i
    kernel = (own + own[drawn] - shuffled - reverse) / 2
    per_unit = kernel.mean(axis=0)
    return 2 * per_unit - per_unit.mean()


def _below_and_ties(scores: Floats, groups: Sequence[int] | None) -> tuple[Floats, Floats, Floats]:
    """Return for every target j of every row: candidates below, tied with it, and in all.

    Candidates for j are all columns but j itself and its duplicates.
    """
    scores = np.round(scores, TIE_DECIMALS)
    n = scores.shape[1]
    order = np.argsort(scores, axis=1)
    ranked = np.take_along_axis(scores, order, axis=1)
    place = np.arange(n)
    new = np.ones_like(ranked, dtype=bool)  # where a run of equal values begins
    new[:, 1:] = ranked[:, 1:] != ranked[:, :-1]
    first = np.maximum.accumulate(np.where(new, place, 0), axis=1)
    ends = np.ones_like(new)
    ends[:, :-1] = new[:, 1:]
    last = np.minimum.accumulate(np.where(ends, place, n)[:, ::-1], axis=1)[:, ::-1]
    below, ties = np.empty_like(scores), np.empty_like(scores)
    np.put_along_axis(below, order, first, axis=1)
    np.put_along_axis(ties, order, last - first, axis=1)
    candidates = np.full(n, n - 1.0)
    if groups is not None:
        members: dict[int, list[int]] = {}
        for column, group in enumerate(groups):
            members.setdefault(group, []).append(column)
        for columns in members.values():
            for j in columns:
                for other in columns:
                    if j != other:
                        below[:, j] -= scores[:, other] < scores[:, j]
                        ties[:, j] -= scores[:, other] == scores[:, j]
                        candidates[j] -= 1
    return below, ties, candidates


def retrieval_auc(scores: Floats, groups: Sequence[int] | None = None) -> Floats:
    """Return the share of other candidates that fit worse than target j, ties half.

    Args:
        scores: (prediction, candidate).
        groups: candidates of one group are duplicates and not each other's distractors.

    Returns:
        (prediction, target); nan where a target has no candidate beside it.

    Example:
        >>> retrieval_auc(np.array([[0.9, 0.1, 0.1]]))
        array([[1.  , 0.25, 0.25]])
    """
    below, ties, candidates = _below_and_ties(scores, groups)
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.where(candidates > 0, (below + ties / 2) / candidates, np.nan)


def retrieval_top1(scores: Floats, groups: Sequence[int] | None = None) -> Floats:
    """Return the exact chance that target j wins against 99 drawn candidates, ties split.

    With b candidates above and t tied of N, the chance that a given one of the
    tied is first is the mean over m = 0..t of the chance that none of b + m
    candidates is drawn.

    Returns:
        (prediction, target); nan where there are fewer than 99 candidates.
    """
    below, ties, candidates = _below_and_ties(scores, groups)
    result = np.full(scores.shape, np.nan)
    drawn = RETRIEVAL_POOL - 1
    for n in np.unique(candidates[candidates >= drawn]).astype(int):
        columns = candidates == n
        # chance that none of b given candidates is among those drawn: C(n-b, 99)/C(n, 99)
        b = np.arange(n)
        none = np.cumprod(np.concatenate([[1.0], np.maximum(n - b - drawn, 0) / (n - b)]))
        sums = np.concatenate([[0.0], np.cumsum(none)])
        tied = ties[:, columns].astype(int)
        above = n - below[:, columns].astype(int) - tied
        result[:, columns] = (sums[above + tied + 1] - sums[above]) / (tied + 1)
    return result


def best_of_all(scores: Floats) -> Floats:
    """Return whether target j fits best of all candidates; a tie is split among the tied.

    Returns:
        (prediction, target); nan where a target has no candidate beside it.

    Example:
        >>> best_of_all(np.array([[0.9, 0.1, 0.9]]))
        array([[0.5, 0. , 0.5]])
    """
    below, ties, candidates = _below_and_ties(scores, None)
    best = np.where(below + ties == candidates, 1 / (ties + 1), 0.0)
    return np.where(candidates > 0, best, np.nan)


def bootstrap_weights(n: int, draws: int, seed: int | Sequence[int]) -> Floats:
    """Return how often each of n units is drawn in each resample (draws, n)."""
    generator = np.random.default_rng(seed)
    return generator.multinomial(n, np.full(n, 1 / n), size=draws).astype(np.float64)


def resampled_means(values: Floats, weights: Floats) -> Floats:
    """Return the mean of `values` (n,) in each resample (draws, n); nan where it drew none.

    Example:
        >>> resampled_means(np.array([1.0, 3.0]), np.array([[1.0, 1.0], [0.0, 2.0]]))
        array([2., 3.])
    """
    with np.errstate(invalid="ignore", divide="ignore"):
        return (weights @ values) / weights.sum(axis=1)


def interval(resampled: Floats, level: float = 0.95) -> tuple[Floats, Floats]:
    """Return the ends of the percentile interval of resampled values (draws, ...)."""
    tail = 50 * (1 - level)
    with np.errstate(invalid="ignore"):
        low, high = np.nanpercentile(resampled, [tail, 100 - tail], axis=0)
    return low, high


def two_sided_p(resampled: Floats) -> float:
    """Return the bootstrap p of a difference being 0: twice the smaller tail, never 0."""
    known = resampled[~np.isnan(resampled)]
    if len(known) == 0:
        return float("nan")
    tail = min((known <= 0).sum(), (known >= 0).sum())
    return float(min(1.0, 2 * (tail + 1) / (len(known) + 1)))


def holm(p_values: Sequence[float]) -> list[float]:
    """Return Holm's adjusted p-values, in the order given; nan stays nan and counts not.

    Example:
        >>> holm([0.01, 0.04, 0.03])
        [0.03, 0.06, 0.06]
    """
    p = np.asarray(p_values, dtype=np.float64)
    adjusted = np.full(len(p), np.nan)
    known = np.flatnonzero(~np.isnan(p))
    order = known[np.argsort(p[known], kind="stable")]
    running = 0.0
    for rank, index in enumerate(order):
        running = max(running, min(1.0, float(p[index]) * (len(order) - rank)))
        adjusted[index] = running
    return [float(value) for value in adjusted.round(12)]


def risk_coverage(values: Floats, confidence: Floats, steps: int = 10) -> dict[str, Any]:
    """Return the mean value of the most confident share of units, at equal steps of coverage.

    Units of equal confidence count with their mean value, so their order is
    irrelevant. Units without a value or a confidence are left out and counted.

    Returns:
        `coverage` and `mean` (lists of length `steps`), `area` (mean of the curve
        over every number of units) and `n`.
    """
    known = ~(np.isnan(values) | np.isnan(confidence))
    values, confidence = values[known], confidence[known]
    if len(values) == 0:
        return {"coverage": [], "mean": [], "area": None, "n": 0}
    _, group = np.unique(-confidence, return_inverse=True)
    means = np.bincount(group, values) / np.bincount(group)
    ordered = means[np.sort(group)]
    curve = np.cumsum(ordered) / np.arange(1, len(ordered) + 1)
    at = [-(-step * len(curve) // steps) - 1 for step in range(1, steps + 1)]  # rounded up
    return {
        "coverage": [round((i + 1) / len(curve), 6) for i in at],
        "mean": [float(curve[i]) for i in at],
        "area": float(curve.mean()),
        "n": len(curve),
    }


def mean_interval(values: Sequence[float] | Floats, level: float = 0.95) -> tuple[float, float]:
    """Return the ends of Student's t interval of a mean; nan of fewer than two values.

    Example:
        >>> [round(end, 3) for end in mean_interval([1.0, 2.0, 3.0])]
        [-0.484, 4.484]
    """
    from scipy.stats import t

    found = np.asarray(values, dtype=np.float64)
    if len(found) < 2:
        return float("nan"), float("nan")
    half = t.ppf((1 + level) / 2, len(found) - 1) * found.std(ddof=1) / np.sqrt(len(found))
    return float(found.mean() - half), float(found.mean() + half)


def share_interval(count: int, n: int, level: float = 0.95) -> tuple[float, float]:
    """Return the ends of Wilson's interval of a share; nan of none.

    Example:
        >>> [round(end, 3) for end in share_interval(5, 10)]
        [0.237, 0.763]
    """
    from scipy.stats import binomtest

    if n == 0:
        return float("nan"), float("nan")
    found = binomtest(count, n).proportion_ci(level, method="wilson")
    return float(found.low), float(found.high)


def sign_flip_p(differences: Sequence[float], *, one_sided: bool = True) -> float:
    """Return the exact p of pairs differing by chance alone: over all flips of signs.

    Under the null, which of a pair is which means nothing, so that each difference is as likely
    with either sign. Of n pairs the smallest one-sided p is 2 to the power of -n.

    Args:
        differences: of each pair, up to 20 of them.
        one_sided: against a positive mean; else against any.

    Returns:
        The share of the flips whose sum is at least as large; 1 of no pairs.

    Example:
        >>> sign_flip_p([3, 1, 2, 5, 4]), sign_flip_p([3, 1, 2, 5, 4], one_sided=False)
        (0.03125, 0.0625)
    """
    found = np.asarray(differences, dtype=np.float64)
    if len(found) > 20:
        raise ValueError(f"{len(found)} pairs have too many flips to go through; 20 are the most.")
    sums = np.zeros(1)
    for each in found:
        sums = np.concatenate([sums + each, sums - each])
    observed = found.sum()
    if not one_sided:
        sums, observed = np.abs(sums), abs(observed)
    return float((sums >= observed - 1e-9).mean())


def label_permutation_p(counts: Sequence[tuple[int, int, int, int]]) -> float:
    """Return the exact two-sided p of two groups having the same share of marked members.

    Over all ways to deal the marks of each stratum anew among the members of both groups: the
    probability of a total for the first group at least as far from what is expected of it.

    Args:
        counts: of each stratum, (marked in the first, first, marked in the second, second).

    Example:
        >>> round(label_permutation_p([(4, 4, 0, 4)]), 4)  # 2 of the 70 ways
        0.0286
    """
    from scipy.stats import hypergeom

    chances = np.ones(1)
    expected = observed = 0.0
    for marked, size, other_marked, other_size in counts:
        total, both = marked + other_marked, size + other_size
        if both == 0:
            continue
        chances = np.convolve(chances, hypergeom.pmf(np.arange(total + 1), both, total, size))
        expected += total * size / both
        observed += marked
    far = np.abs(np.arange(len(chances)) - expected) >= abs(observed - expected) - 1e-9
    return float(min(1.0, chances[far].sum()))
