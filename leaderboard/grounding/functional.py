"""How well a concept's presence goes with a unit's activations: pure functions of two matrices.

Every function takes `presence` (description, sample), from 0 to 1, and `activations` (sample,
unit), and returns (description, unit), all pairs at once. A sample is a picture or a region of
one. Presence is a probability: a picture of which a concept is there by .3 counts as .3 of a
picture with it and .7 of one without, so that no threshold is put on it, and where presence is
0 or 1 the numbers are those of scikit-learn and scipy.

Where a quotient is not defined, because a concept is nowhere or everywhere, a description says
nothing of when a unit fires: it has what not knowing has.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
MetricFunction = Callable[[Floats, Floats], Floats]

ACTIVE_SHARES = (0.5, 0.3, 0.2, 0.1, 0.05, 0.02, 0.01, 0.005, 0.002, 0.001)
"""Shares of samples in which a unit may be called active: F1 and IoU choose among them."""

MIN_PRESENCE = 1e-8
"""The least presence whose logarithm WPMI takes, as in the code of Oikarinen et al. 2025."""


def pearson(presence: Floats, activations: Floats) -> Floats:
    """Return Pearson's correlation (scipy.stats.pearsonr); 0 of constant presence.

    Example:
        >>> pearson(np.array([[0, 0, 1.0]]), np.array([[1.0], [1.0], [3.0]])).round(6)
        array([[1.]])
    """
    return cosine(
        presence - presence.mean(1, keepdims=True), activations - activations.mean(0, keepdims=True)
    )


def cosine(presence: Floats, activations: Floats) -> Floats:
    """Return the cosine of both (1 - scipy.spatial.distance.cosine); 0 where one is zero."""
    rows, columns = np.linalg.norm(presence, axis=1), np.linalg.norm(activations, axis=0)
    # what is left of a constant after its mean was taken off is rounding, no direction
    size = np.sqrt(presence.shape[1]) * 1e-12
    lengths = np.where(rows > size, rows, np.inf)[:, None] * np.where(columns > 0, columns, np.inf)
    return (presence @ activations) / lengths


def spearman(presence: Floats, activations: Floats) -> Floats:
    """Return Spearman's rank correlation (scipy.stats.spearmanr), ties at their mean rank."""
    from scipy.stats import rankdata

    return pearson(rankdata(presence, axis=1), rankdata(activations, axis=0))


def auprc(presence: Floats, activations: Floats) -> Floats:
    """Return how well activations find the concept: average precision; 0 where it is nowhere.

    The concept is what is sought and the activation is the score
    (sklearn.metrics.average_precision_score).
    """
    return _ranked(presence, activations, _average_precision)


def auprc_above_prevalence(presence: Floats, activations: Floats) -> Floats:
    """Return `auprc` above what activations in random order have, as a share of what is left."""
    share = presence.mean(1)[:, None]
    above = auprc(presence, activations) - share
    return np.divide(above, 1 - share, out=np.zeros_like(above), where=share < 1)


def auroc_invert(presence: Floats, activations: Floats) -> Floats:
    """Return the chance that a unit is more active with the concept than without, ties half.

    AUROC with the activation as score (Bykov et al. 2023, INVERT; sklearn.metrics.roc_auc_score).
    """
    return _ranked(presence, activations, _roc_area)


def auprc_predictor(presence: Floats, activations: Floats, share: float) -> Floats:
    """Return average precision of the concept as predictor of an active unit."""
    active = active_samples(activations, share)
    return _ranked(active.T, presence.T, _average_precision).T


def auroc(presence: Floats, activations: Floats, share: float) -> Floats:
    """Return AUROC of the concept as predictor of an active unit; .5 where none is active."""
    active = active_samples(activations, share)
    return _ranked(active.T, presence.T, _roc_area).T


def f1(presence: Floats, activations: Floats, seed: int = 0) -> Floats:
    """Return F1 of concept and active unit (sklearn.metrics.f1_score); see `count_coincidences`."""
    both, active, there = count_coincidences(presence, activations, seed)
    return 2 * both / np.maximum(active + there, MIN_PRESENCE)


def iou(presence: Floats, activations: Floats, seed: int = 0) -> Floats:
    """Return IoU of concept and active unit (sklearn.metrics.jaccard_score); see `f1`."""
    both, active, there = count_coincidences(presence, activations, seed)
    return both / np.maximum(active + there - both, MIN_PRESENCE)


def count_coincidences(
    presence: Floats, activations: Floats, seed: int = 0
) -> tuple[Floats, Floats, Floats]:
    """Return in how many samples concept and active unit are both, the unit is, the concept is.

    Above which activation a unit is active is fixed for each pair on one half of the samples,
    where F1 is highest among `ACTIVE_SHARES`, and counted on the other half; and the other way
    round, so that every sample is counted once and none where its threshold was fixed. Of equal
    levels the one nearest to the concept's own share is taken, as in a half that the concept is
    absent from.

    Returns:
        Three float64 (description, unit).
    """
    n = presence.shape[1]
    shuffled = np.random.default_rng([seed, n]).permutation(n)
    halves = shuffled[: n // 2], shuffled[n // 2 :]
    there = presence.sum(1)[:, None]
    own = np.log(np.maximum(there / n, ACTIVE_SHARES[-1]))
    total = np.zeros((2, len(presence), activations.shape[1]))
    for fixed, counted in (halves, halves[::-1]):
        best = np.full(total.shape[1:], -np.inf)
        found = np.zeros_like(total)
        inside = presence[:, fixed].sum(1)[:, None]
        for level in ACTIVE_SHARES:
            above = activation_threshold(activations[fixed], level)
            active = (activations[fixed] > above).astype(np.float64)
            reached = presence[:, fixed] @ active
            score = 2 * reached / np.maximum(active.sum(0) + inside, MIN_PRESENCE)
            score -= 1e-9 * np.abs(np.log(level) - own)
            better = score > best
            if better.any():
                other = (activations[counted] > above).astype(np.float64)
                both = presence[:, counted] @ other
                found[0] = np.where(better, both, found[0])
                found[1] = np.where(better, other.sum(0), found[1])
                best = np.where(better, score, best)
        total += found
    return total[0], total[1], np.broadcast_to(there, total.shape[1:])


def activation_threshold(activations: Floats, share: float) -> Floats:
    """Return above what each unit is in at most this share of the samples: (unit,)."""
    return np.quantile(activations, 1 - share, axis=0, method="lower")


def active_samples(activations: Floats, share: float, seed: int = 0) -> Floats:
    """Return where units are active, 0 or 1 (sample, unit): above a quantile of the other half.

    Each half of the samples is held against the quantile of the other, as in `count_coincidences`.
    """
    n = len(activations)
    shuffled = np.random.default_rng([seed, n]).permutation(n)
    halves = shuffled[: n // 2], shuffled[n // 2 :]
    active = np.zeros(activations.shape)
    for fixed, counted in (halves, halves[::-1]):
        active[counted] = activations[counted] > activation_threshold(activations[fixed], share)
    return active


def recall(presence: Floats, activations: Floats, share: float) -> Floats:
    """Return the share of samples with an active unit that have the concept."""
    active = active_samples(activations, share)
    return (presence @ active) / np.maximum(active.sum(0), MIN_PRESENCE)


def precision(presence: Floats, activations: Floats, share: float) -> Floats:
    """Return the share of samples with the concept in which the unit is active."""
    there = presence.sum(1)[:, None]
    return (presence @ active_samples(activations, share)) / np.maximum(there, MIN_PRESENCE)


def accuracy(presence: Floats, activations: Floats, share: float) -> Floats:
    """Return the share of samples in which concept and active unit agree."""
    active = active_samples(activations, share)
    return (presence @ active + (1 - presence) @ (1 - active)) / len(activations)


def balanced_accuracy(presence: Floats, activations: Floats, share: float) -> Floats:
    """Return the mean of the two shares in which the concept is as an active, idle unit has it."""
    active = active_samples(activations, share)
    idle = 1 - active
    right = (presence @ active) / np.maximum(active.sum(0), MIN_PRESENCE)
    return (right + ((1 - presence) @ idle) / np.maximum(idle.sum(0), MIN_PRESENCE)) / 2


def mad(presence: Floats, activations: Floats) -> Floats:
    """Return the mean activation with the concept less that without, in deviations of the unit."""
    absent = 1 - presence
    there, none = presence.sum(1)[:, None], absent.sum(1)[:, None]
    both = (there > 0) & (none > 0)
    difference = (presence @ activations) / np.where(there > 0, there, 1)
    difference -= (absent @ activations) / np.where(none > 0, none, 1)
    deviation = activations.std(0)
    return np.where(both, difference, 0) / np.where(deviation > 0, deviation, 1)


def wpmi(presence: Floats, activations: Floats, share: float, weight: float = 0.1) -> Floats:
    """Return log p(concept | active) - weight log p(concept).

    Of the samples with an active unit, the mean logarithm of presence, at least `MIN_PRESENCE`.
    """
    active = active_samples(activations, share)
    given = np.log(np.maximum(presence, MIN_PRESENCE)) @ active
    found = np.log(np.maximum(presence.mean(1), MIN_PRESENCE))[:, None]
    return given / np.maximum(active.sum(0), 1) - weight * found


def top_recall(presence: Floats, activations: Floats, k: int = 10) -> Floats:
    """Return the mean presence in the k samples that excite a unit most; the first of equals."""
    first = np.argsort(-activations, axis=0, kind="stable")[:k]
    top = np.zeros(activations.shape)
    np.put_along_axis(top, first, 1 / len(first), axis=0)
    return presence @ top


def pearson_top_random(
    presence: Floats, activations: Floats, k: int = 25, share: float = 0.02, seed: int = 0
) -> Floats:
    """Return Pearson's correlation over k of a unit's strongest samples and k random ones."""
    draw = np.random.default_rng([seed, len(activations)])
    n = len(activations)
    strong = max(1, round(share * n))
    found = np.empty((len(presence), activations.shape[1]))
    for unit, own in enumerate(activations.T):
        top = np.argsort(-own, kind="stable")[:strong]
        chosen = np.concatenate([draw.permutation(top)[:k], draw.permutation(n)[:k]])
        found[:, unit] = pearson(presence[:, chosen], own[chosen, None])[:, 0]
    return found


def prevalence(presence: Floats, activations: Floats) -> Floats:
    """Return the share of samples that have the concept, for every unit alike."""
    return np.repeat(presence.mean(1)[:, None], activations.shape[1], axis=1)


def _ranked(labels: Floats, scores: Floats, area: Callable[[Floats, Floats], Floats]) -> Floats:
    """Return an area under a curve for all pairs of labels (a, sample) and scores (sample, b).

    Samples of equal scores are one step of the curve.
    """
    n = labels.shape[1]
    found = np.empty((len(labels), scores.shape[1]))
    for column, own in enumerate(scores.T):
        order = np.argsort(-own, kind="stable")
        ends = np.append(np.flatnonzero(np.diff(own[order])), n - 1)
        found[:, column] = area(labels[:, order].cumsum(1)[:, ends], ends + 1.0)
    return found


def _average_precision(true: Floats, seen: Floats) -> Floats:
    """Return the sum of precision times the growth of recall, of counts (a, step), (step,)."""
    all_true = true[:, -1:]
    steps = np.diff(true, axis=1, prepend=0) * (true / seen)
    return steps.sum(1) / np.where(all_true > 0, all_true, 1)[:, 0]


def _roc_area(true: Floats, seen: Floats) -> Floats:
    """Return the area under the ROC curve, of counts (a, step), (step,); .5 if it has no width."""
    false = seen - true
    between = np.diff(false, axis=1, prepend=0) * (true - np.diff(true, axis=1, prepend=0) / 2)
    size = true[:, -1] * false[:, -1]
    return np.divide(between.sum(1), size, out=np.full(len(true), 0.5), where=size > 1e-9)
