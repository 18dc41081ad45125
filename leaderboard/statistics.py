"""Statistics of unit values: lift, retrieval, intervals and tests, as pure functions.

Notation: S (n, n) holds the score of unit i's prediction with unit j's references, within one
layer of one network.
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
"""Fewest scored units of a layer for a lift; smaller layers are left out and named."""

TIE_DECIMALS = 12
"""Decimals to which similarities must agree to be ties: sums in another order differ."""


def lift(scores: Floats) -> Floats:
    """Return each unit's lift over shuffled predictions, from all pairs.

    lift_i = n/(n-1) (S_ii - mean_j S_ij - mean_j S_ji + mean_jk S_jk). Its mean is
    the mean of S_ii minus the mean of S_ij over i != j. It is 0 for every unit if
    all predictions are the same string.

    Args:
        scores: S (n, n).

    Returns:
        (n,).

    Example:
        >>> lift(np.array([[1.0, 0.0], [0.0, 1.0]]))
        array([1., 1.])
        >>> lift(np.array([[0.7, 0.2], [0.7, 0.2]]))
        array([0., 0.])
    """
    n = len(scores)
    # A vector that is added to every row cancels: it changes S_ii and mean_j S_ji alike, and
    # mean_j S_ij and the grand mean alike. With the first row subtracted, the equal rows of a
    # constant become exact zeros, and its lift is 0 without rounding errors.
    scores = scores - scores[0]
    rows, columns = scores.mean(axis=1), scores.mean(axis=0)
    centred = (np.diagonal(scores) - columns) - (rows - scores.mean())
    return centred * (n / (n - 1))


def derangements(n: int, count: int, seed: int | Sequence[int]) -> Ints:
    """Draw permutations without a fixed point, each followed by its inverse.

    Each is a cycle through all units in a random order. Every second one is the
    inverse of the one before, so that S_ij and S_ji are sampled together.

    Args:
        n: number of units.
        count: number of permutations, even.
        seed: random seed.

    Returns:
        (count, n).

    Raises:
        ValueError: `count` is odd, or `n` is less than 2.
    """
    if count % 2 or n < 2:
        raise ValueError(f"expected an even count and at least two units; got {count} and {n}")
    generator = np.random.default_rng(seed)
    drawn = np.empty((count, n), dtype=np.intp)
    for index in range(0, count, 2):
        # the unit at each position of the cycle goes to the unit at the next one, and back
        order = generator.permutation(n)
        drawn[index, order] = np.roll(order, -1)
        drawn[index + 1, order] = np.roll(order, 1)
    return drawn


def lift_sampled(own: Floats, shuffled: Floats, drawn: Ints) -> Floats:
    """Return each unit's lift over shuffled predictions, from derangements instead of all pairs.

    With all pairs this is `lift`: both are the linear form of the U-statistic with
    kernel (S_ii + S_jj - S_ij - S_ji)/2. So here too every unit of a constant has 0.

    Args:
        own: S_ii (n,).
        shuffled: S_i,d(i) (count, n).
        drawn: the derangements d (count, n), as `derangements` returns them.

    Returns:
        (n,).
    """
    # The kernel needs the reverse pair S_d(i),i. With e the inverse of d, which is its neighbour
    # in `drawn`, it is the shuffled score of unit d(i) under e: S_d(i),e(d(i)). So swap the rows
    # of each pair (d, e) and look up column d(i).
    inverse = shuffled.reshape(-1, 2, len(own))[:, ::-1].reshape(shuffled.shape)
    reverse = np.take_along_axis(inverse, drawn, axis=1)
    kernel = (own + own[drawn] - shuffled - reverse) / 2
    per_unit = kernel.mean(axis=0)
    return 2 * per_unit - per_unit.mean()


def _below_and_ties(scores: Floats, groups: Sequence[int] | None) -> tuple[Floats, Floats, Floats]:
    """Count, for every target j of every row, the candidates that fit worse or as well as j.

    Candidates for j are all columns except j itself and its duplicates.

    Args:
        scores: (prediction, candidate).
        groups: duplicates have the same number; None if there are none.

    Returns:
        Number of candidates below j (prediction, target), tied with j (prediction, target), and
        in all (target,).
    """
    scores = np.round(scores, TIE_DECIMALS)
    n = scores.shape[1]
    # 1. Sort each row. Equal values form runs; a value's rank within its run does not matter.
    order = np.argsort(scores, axis=1)
    ranked = np.take_along_axis(scores, order, axis=1)
    positions = np.arange(n)
    starts = np.ones_like(ranked, dtype=bool)
    starts[:, 1:] = ranked[:, 1:] != ranked[:, :-1]
    ends = np.ones_like(starts)
    ends[:, :-1] = starts[:, 1:]
    # 2. First and last position of the run at each position: a running maximum of run starts
    # from the left, and a running minimum of run ends from the right.
    first = np.maximum.accumulate(np.where(starts, positions, 0), axis=1)
    last = np.minimum.accumulate(np.where(ends, positions, n)[:, ::-1], axis=1)[:, ::-1]
    # 3. `first` values are smaller and `last - first` others are equal. Undo the sorting.
    below, ties = np.empty_like(scores), np.empty_like(scores)
    np.put_along_axis(below, order, first, axis=1)
    np.put_along_axis(ties, order, last - first, axis=1)
    # 4. Take back what duplicates contributed. They are few, so loops will do.
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
    """Return the share of other candidates that fit worse than target j; ties count half.

    Args:
        scores: (prediction, candidate).
        groups: group of each candidate; members of a group are duplicates, and no distractors of
            each other.

    Returns:
        (prediction, target); nan where a target has no other candidate.

    Example:
        >>> retrieval_auc(np.array([[0.9, 0.1, 0.1]]))
        array([[1.  , 0.25, 0.25]])
    """
    below, ties, candidates = _below_and_ties(scores, groups)
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.where(candidates > 0, (below + ties / 2) / candidates, np.nan)


def retrieval_top1(scores: Floats, groups: Sequence[int] | None = None) -> Floats:
    """Return the exact chance that target j wins against 99 drawn candidates, ties split.

    With b of N candidates above j and t tied with it, the chance that j is first is
    the mean over m = 0..t of the chance that none of b + m candidates is drawn: the
    tied are put into a random order, in which m of them come before j.

    Args:
        scores, groups: as for `retrieval_auc`.

    Returns:
        (prediction, target); nan where there are fewer than 99 candidates.
    """
    below, ties, candidates = _below_and_ties(scores, groups)
    result = np.full(scores.shape, np.nan)
    drawn = RETRIEVAL_POOL - 1
    for n in np.unique(candidates[candidates >= drawn]).astype(int):
        columns = candidates == n
        # none[b]: chance that none of b given candidates is drawn, C(n - b, 99) / C(n, 99),
        # as a running product of the ratios between b + 1 and b
        b = np.arange(n)
        none = np.cumprod(np.concatenate([[1.0], np.maximum(n - b - drawn, 0) / (n - b)]))
        # sums[b]: none[0] + ... + none[b - 1], so that the mean over m is a difference
        sums = np.concatenate([[0.0], np.cumsum(none)])
        tied = ties[:, columns].astype(int)
        above = n - below[:, columns].astype(int) - tied
        result[:, columns] = (sums[above + tied + 1] - sums[above]) / (tied + 1)
    return result


def best_of_all(scores: Floats) -> Floats:
    """Return 1 where target j fits best of all candidates, else 0; ties are split equally.

    Args:
        scores: (prediction, candidate).

    Returns:
        (prediction, target); nan where a target has no other candidate.

    Example:
        >>> best_of_all(np.array([[0.9, 0.1, 0.9]]))
        array([[0.5, 0. , 0.5]])
    """
    below, ties, candidates = _below_and_ties(scores, None)
    best = np.where(below + ties == candidates, 1 / (ties + 1), 0.0)
    return np.where(candidates > 0, best, np.nan)


def bootstrap_weights(n: int, draws: int, seed: int | Sequence[int]) -> Floats:
    """Draw bootstrap resamples: how often each of n units is in each of them, (draws, n)."""
    generator = np.random.default_rng(seed)
    return generator.multinomial(n, np.full(n, 1 / n), size=draws).astype(np.float64)


def resampled_means(values: Floats, weights: Floats) -> Floats:
    """Return the mean of `values` (n,) in each resample (draws,); nan where it has no unit.

    Args:
        values: (n,).
        weights: how often each unit is in each resample (draws, n).

    Example:
        >>> resampled_means(np.array([1.0, 3.0]), np.array([[1.0, 1.0], [0.0, 2.0]]))
        array([2., 3.])
    """
    with np.errstate(invalid="ignore", divide="ignore"):
        return (weights @ values) / weights.sum(axis=1)


def interval(resampled: Floats, level: float = 0.95) -> tuple[Floats, Floats]:
    """Return the bounds of the percentile interval of resampled values (draws, ...)."""
    tail = 50 * (1 - level)
    with np.errstate(invalid="ignore"):
        low, high = np.nanpercentile(resampled, [tail, 100 - tail], axis=0)
    return low, high


def two_sided_p(resampled: Floats) -> float:
    """Return the two-sided bootstrap p-value of a difference: twice the smaller tail, never 0."""
    known = resampled[~np.isnan(resampled)]
    if len(known) == 0:
        return float("nan")
    tail = min((known <= 0).sum(), (known >= 0).sum())
    return float(min(1.0, 2 * (tail + 1) / (len(known) + 1)))


def holm(p_values: Sequence[float]) -> list[float]:
    """Return Holm's adjusted p-values, in the order given; nan stays nan and does not count.

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
    irrelevant. Units without a value or a confidence are left out.

    Args:
        values: value of each unit (n,).
        confidence: confidence of each unit (n,).
        steps: number of steps of coverage.

    Returns:
        `coverage` and `mean` (lists of length `steps`), `area` (mean of the curve
        over every number of units) and `n`, the number of units used.
    """
    known = ~(np.isnan(values) | np.isnan(confidence))
    values, confidence = values[known], confidence[known]
    if len(values) == 0:
        return {"coverage": [], "mean": [], "area": None, "n": 0}
    # groups of equal confidence, the most confident first
    _, group = np.unique(-confidence, return_inverse=True)
    means = np.bincount(group, values) / np.bincount(group)
    ordered = means[np.sort(group)]
    curve = np.cumsum(ordered) / np.arange(1, len(ordered) + 1)
    indices = [-(-step * len(curve) // steps) - 1 for step in range(1, steps + 1)]  # rounded up
    return {
        "coverage": [round((i + 1) / len(curve), 6) for i in indices],
        "mean": [float(curve[i]) for i in indices],
        "area": float(curve.mean()),
        "n": len(curve),
    }


def mean_interval(values: Sequence[float] | Floats, level: float = 0.95) -> tuple[float, float]:
    """Return the bounds of Student's t interval of a mean; nan for fewer than two values.

    Example:
        >>> [round(bound, 3) for bound in mean_interval([1.0, 2.0, 3.0])]
        [-0.484, 4.484]
    """
    from scipy.stats import t

    sample = np.asarray(values, dtype=np.float64)
    if len(sample) < 2:
        return float("nan"), float("nan")
    half = t.ppf((1 + level) / 2, len(sample) - 1) * sample.std(ddof=1) / np.sqrt(len(sample))
    return float(sample.mean() - half), float(sample.mean() + half)


def share_interval(count: int, n: int, level: float = 0.95) -> tuple[float, float]:
    """Return the bounds of Wilson's interval of a share; nan for n = 0.

    Example:
        >>> [round(bound, 3) for bound in share_interval(5, 10)]
        [0.237, 0.763]
    """
    from scipy.stats import binomtest

    if n == 0:
        return float("nan"), float("nan")
    bounds = binomtest(count, n).proportion_ci(level, method="wilson")
    return float(bounds.low), float(bounds.high)


def sign_flip_p(differences: Sequence[float], *, one_sided: bool = True) -> float:
    """Return the exact p-value of the sign-flip test of paired differences.

    Under the null hypothesis the members of a pair are exchangeable, so each difference is
    equally likely with either sign. With n pairs the smallest one-sided p is 2^-n.

    Args:
        differences: difference of each pair, up to 20 of them.
        one_sided: test against a positive mean; otherwise against any difference.

    Returns:
        The share of sign flips whose sum is at least as large; 1 for no pairs.

    Raises:
        ValueError: more than 20 pairs.

    Example:
        >>> sign_flip_p([3, 1, 2, 5, 4]), sign_flip_p([3, 1, 2, 5, 4], one_sided=False)
        (0.03125, 0.0625)
    """
    sample = np.asarray(differences, dtype=np.float64)
    if len(sample) > 20:
        raise ValueError(f"{len(sample)} pairs have too many sign flips; 20 is the most.")
    sums = np.zeros(1)  # sum of every choice of signs of the differences so far
    for difference in sample:
        sums = np.concatenate([sums + difference, sums - difference])
    observed = sample.sum()
    if not one_sided:
        sums, observed = np.abs(sums), abs(observed)
    return float((sums >= observed - 1e-9).mean())


def label_permutation_p(counts: Sequence[tuple[int, int, int, int]]) -> float:
    """Return the exact two-sided p-value of two groups having the same share of marked members.

    It is the probability, over all permutations of the marks within each stratum, that the first
    group's total is at least as far from its expectation.

    Args:
        counts: for each stratum, (marked in the first group, size of the first group, marked in
            the second group, size of the second group).

    Example:
        >>> round(label_permutation_p([(4, 4, 0, 4)]), 4)  # 2 of the 70 permutations
        0.0286
    """
    from scipy.stats import hypergeom

    # probability of each total of the first group: strata are independent, so their
    # hypergeometric distributions are convolved
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
