"""Metrics of activations, as pure functions of two matrices.

Every function takes `presence`, float64 (description, sample) from 0 to 1, and `activations`,
float64 (sample, unit), and returns float64 (description, unit): all pairs at once. A sample is an
image or a region of an image.

Presence is treated as a probability. An image with presence .3 counts as .3 of an image with the
concept and .7 of an image without it, so no threshold is applied to presence. Where presence is
0 or 1, the values are those of scikit-learn and scipy.

Where a quotient is undefined, because the concept is in no sample or in all of them, the
description carries no information about when the unit fires, and the value is that of chance.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from leaderboard.metrics.base import Floats

MetricFunction = Callable[[Floats, Floats], Floats]

ACTIVE_SHARES = (0.5, 0.3, 0.2, 0.1, 0.05, 0.02, 0.01, 0.005, 0.002, 0.001)
"""Candidate shares of samples in which a unit is active; F1 and IoU choose the best one."""

MIN_PRESENCE = 1e-8
"""Lower bound of presence inside a logarithm (WPMI), as in the code of Oikarinen et al. 2025."""


def pearson(presence: Floats, activations: Floats) -> Floats:
    """Return Pearson's correlation (scipy.stats.pearsonr); 0 for constant presence.

    Example:
        >>> pearson(np.array([[0, 0, 1.0]]), np.array([[1.0], [1.0], [3.0]])).round(6)
        array([[1.]])
    """
    return cosine(
        presence - presence.mean(1, keepdims=True), activations - activations.mean(0, keepdims=True)
    )


def cosine(presence: Floats, activations: Floats) -> Floats:
    """Return the cosine similarity (1 - scipy.spatial.distance.cosine); 0 for a zero vector."""
    row_norms, column_norms = np.linalg.norm(presence, axis=1), np.linalg.norm(activations, axis=0)
    # A constant minus its mean (see `pearson`) leaves rounding errors, which have no direction.
    tolerance = np.sqrt(presence.shape[1]) * 1e-12
    row_norms = np.where(row_norms > tolerance, row_norms, np.inf)
    column_norms = np.where(column_norms > 0, column_norms, np.inf)
    return (presence @ activations) / (row_norms[:, None] * column_norms)


def spearman(presence: Floats, activations: Floats) -> Floats:
    """Return Spearman's rank correlation (scipy.stats.spearmanr); ties get their mean rank."""
    from scipy.stats import rankdata

    return pearson(rankdata(presence, axis=1), rankdata(activations, axis=0))


def auprc(presence: Floats, activations: Floats) -> Floats:
    """Return the average precision with which activations retrieve the concept.

    The concept is the label and the activation is the score
    (sklearn.metrics.average_precision_score). 0 if the concept is in no sample.
    """
    return _areas(presence, activations, _average_precision)


def auprc_above_prevalence(presence: Floats, activations: Floats) -> Floats:
    """Return (AUPRC - prevalence) / (1 - prevalence), which is 0 for a random order of samples."""
    share = presence.mean(1)[:, None]
    above = auprc(presence, activations) - share
    return np.divide(above, 1 - share, out=np.zeros_like(above), where=share < 1)


def auroc_invert(presence: Floats, activations: Floats) -> Floats:
    """Return the probability that a unit is more active with the concept than without; ties half.

    AUROC with the activation as score (Bykov et al. 2023, INVERT; sklearn.metrics.roc_auc_score).
    """
    return _areas(presence, activations, _roc_area)


def auprc_predictor(presence: Floats, activations: Floats, share: float) -> Floats:
    """Return the average precision of the concept as predictor of an active unit."""
    active = active_samples(activations, share)
    # Here the roles are exchanged: active samples are the labels, presence is the score.
    return _areas(active.T, presence.T, _average_precision).T


def auroc(presence: Floats, activations: Floats, share: float) -> Floats:
    """Return the AUROC of the concept as predictor of an active unit; .5 if none is active."""
    active = active_samples(activations, share)
    return _areas(active.T, presence.T, _roc_area).T


def f1(presence: Floats, activations: Floats, seed: int = 0) -> Floats:
    """Return F1 of concept and active unit (sklearn.metrics.f1_score).

    The activation threshold is cross-fitted; see `count_coincidences`.
    """
    both, active, present = count_coincidences(presence, activations, seed)
    return 2 * both / np.maximum(active + present, MIN_PRESENCE)


def iou(presence: Floats, activations: Floats, seed: int = 0) -> Floats:
    """Return IoU of concept and active unit (sklearn.metrics.jaccard_score); see `f1`."""
    both, active, present = count_coincidences(presence, activations, seed)
    return both / np.maximum(active + present - both, MIN_PRESENCE)


def count_coincidences(
    presence: Floats, activations: Floats, seed: int = 0
) -> tuple[Floats, Floats, Floats]:
    """Count samples with concept and active unit, with active unit, and with the concept.

    The activation above which a unit is active is chosen per pair on one half of the samples, as
    the quantile among `ACTIVE_SHARES` with the highest F1, and counted on the other half; then
    the halves are exchanged. So every sample is counted once, and none where its threshold was
    chosen. Among levels of equal F1 (for example in a half without the concept), the level nearest
    to the concept's own share is chosen.

    Returns:
        Three arrays, float64 (description, unit): counts of both, of active, of present.
    """
    present = presence.sum(1)[:, None]
    log_share = np.log(np.maximum(present / presence.shape[1], ACTIVE_SHARES[-1]))
    total = np.zeros((2, len(presence), activations.shape[1]))
    for fitted, counted in _exchanged_halves(presence.shape[1], seed):
        best_score = np.full(total.shape[1:], -np.inf)
        best_counts = np.zeros_like(total)
        present_fitted = presence[:, fitted].sum(1)[:, None]
        for level in ACTIVE_SHARES:
            # 1. F1 of every pair on the fitted half, with one threshold per unit.
            threshold = activation_threshold(activations[fitted], level)
            active = (activations[fitted] > threshold).astype(np.float64)
            both = presence[:, fitted] @ active
            score = 2 * both / np.maximum(active.sum(0) + present_fitted, MIN_PRESENCE)
            # The penalty is far below any difference in F1: it only breaks ties.
            score -= 1e-9 * np.abs(np.log(level) - log_share)
            # 2. Where this level is the best so far, keep its counts on the other half.
            better = score > best_score
            if better.any():
                active = (activations[counted] > threshold).astype(np.float64)
                both = presence[:, counted] @ active
                best_counts[0] = np.where(better, both, best_counts[0])
                best_counts[1] = np.where(better, active.sum(0), best_counts[1])
                best_score = np.where(better, score, best_score)
        total += best_counts
    return total[0], total[1], np.broadcast_to(present, total.shape[1:])


def activation_threshold(activations: Floats, share: float) -> Floats:
    """Return the value that each unit exceeds in at most this share of the samples: (unit,)."""
    return np.quantile(activations, 1 - share, axis=0, method="lower")


def active_samples(activations: Floats, share: float, seed: int = 0) -> Floats:
    """Return in which samples units are active: 0 or 1, float64 (sample, unit).

    Each half of the samples is compared with the quantile of the other half, as in
    `count_coincidences`.
    """
    active = np.zeros(activations.shape)
    for fitted, counted in _exchanged_halves(len(activations), seed):
        # The threshold is a value of the fitted half: no sample helps to choose its own threshold.
        active[counted] = activations[counted] > activation_threshold(activations[fitted], share)
    return active


def recall(presence: Floats, activations: Floats, share: float) -> Floats:
    """Return the share of active samples that contain the concept."""
    active = active_samples(activations, share)
    return (presence @ active) / np.maximum(active.sum(0), MIN_PRESENCE)


def precision(presence: Floats, activations: Floats, share: float) -> Floats:
    """Return the share of samples with the concept in which the unit is active."""
    present = presence.sum(1)[:, None]
    return (presence @ active_samples(activations, share)) / np.maximum(present, MIN_PRESENCE)


def accuracy(presence: Floats, activations: Floats, share: float) -> Floats:
    """Return the share of samples in which concept and active unit agree."""
    active = active_samples(activations, share)
    return (presence @ active + (1 - presence) @ (1 - active)) / len(activations)


def balanced_accuracy(presence: Floats, activations: Floats, share: float) -> Floats:
    """Return the mean of recall over active samples and recall over inactive samples."""
    active = active_samples(activations, share)
    inactive = 1 - active
    on_active = (presence @ active) / np.maximum(active.sum(0), MIN_PRESENCE)
    on_inactive = ((1 - presence) @ inactive) / np.maximum(inactive.sum(0), MIN_PRESENCE)
    return (on_active + on_inactive) / 2


def mad(presence: Floats, activations: Floats) -> Floats:
    """Return the mean activation difference with and without the concept, in standard deviations.

    Kopf et al. 2024, CoSy.
    """
    # Weighted means over samples, with presence and absence as weights.
    absence = 1 - presence
    n_present, n_absent = presence.sum(1)[:, None], absence.sum(1)[:, None]
    defined = (n_present > 0) & (n_absent > 0)
    difference = (presence @ activations) / np.where(n_present > 0, n_present, 1)
    difference -= (absence @ activations) / np.where(n_absent > 0, n_absent, 1)
    # A constant unit has no deviation; its difference is 0 as well.
    deviation = activations.std(0)
    return np.where(defined, difference, 0) / np.where(deviation > 0, deviation, 1)


def wpmi(presence: Floats, activations: Floats, share: float, weight: float = 0.1) -> Floats:
    """Return log p(concept | active) - weight log p(concept).

    The first term is the mean log presence over the active samples; presence is at least
    `MIN_PRESENCE`.
    """
    active = active_samples(activations, share)
    # A sum of logs over the active samples of every unit, as a matrix product with 0/1 columns.
    log_given_active = np.log(np.maximum(presence, MIN_PRESENCE)) @ active
    log_prior = np.log(np.maximum(presence.mean(1), MIN_PRESENCE))[:, None]
    return log_given_active / np.maximum(active.sum(0), 1) - weight * log_prior


def top_recall(presence: Floats, activations: Floats, k: int = 10) -> Floats:
    """Return the mean presence in the k samples with the highest activation.

    Among equal activations, the sample with the lower index comes first.
    """
    top = np.argsort(-activations, axis=0, kind="stable")[:k]
    # Weight 1/k for each unit's top samples: the product with presence is their mean.
    weights = np.zeros(activations.shape)
    np.put_along_axis(weights, top, 1 / len(top), axis=0)
    return presence @ weights


def pearson_top_random(
    presence: Floats, activations: Floats, k: int = 25, share: float = 0.02, seed: int = 0
) -> Floats:
    """Return Pearson's correlation over k of a unit's strongest samples and k random ones.

    Bills et al. 2023. The strongest samples are drawn from the top `share` of all samples.
    """
    rng = np.random.default_rng([seed, len(activations)])
    n = len(activations)
    n_top = max(1, round(share * n))
    values = np.empty((len(presence), activations.shape[1]))
    for unit, column in enumerate(activations.T):
        top = np.argsort(-column, kind="stable")[:n_top]
        chosen = np.concatenate([rng.permutation(top)[:k], rng.permutation(n)[:k]])
        values[:, unit] = pearson(presence[:, chosen], column[chosen, None])[:, 0]
    return values


def prevalence(presence: Floats, activations: Floats) -> Floats:
    """Return the share of samples that contain the concept; the same for every unit."""
    return np.repeat(presence.mean(1)[:, None], activations.shape[1], axis=1)


def _exchanged_halves(n: int, seed: int) -> tuple[tuple[NDArray[np.int64], NDArray[np.int64]], ...]:
    """Return two pairs of index arrays: random halves of n samples, and the same exchanged."""
    shuffled = np.random.default_rng([seed, n]).permutation(n)
    first, second = shuffled[: n // 2], shuffled[n // 2 :]
    return (first, second), (second, first)


def _areas(labels: Floats, scores: Floats, area: Callable[[Floats, Floats], Floats]) -> Floats:
    """Return the area under a curve for all pairs of labels (a, sample) and scores (sample, b).

    Samples with equal scores form one step of the curve.

    Args:
        labels: from 0 to 1.
        scores: samples with a high score come first.
        area: function of two cumulative counts, of labels (a, step) and of samples (step,).
    """
    n = labels.shape[1]
    areas = np.empty((len(labels), scores.shape[1]))
    for column, values in enumerate(scores.T):
        order = np.argsort(-values, kind="stable")
        # A step ends at the last sample of a run of equal scores.
        step_ends = np.append(np.flatnonzero(np.diff(values[order])), n - 1)
        areas[:, column] = area(labels[:, order].cumsum(1)[:, step_ends], step_ends + 1.0)
    return areas


def _average_precision(positives: Floats, retrieved: Floats) -> Floats:
    """Return the sum over steps of precision times the increase of recall.

    Args:
        positives: cumulative true positives (a, step).
        retrieved: cumulative samples (step,).
    """
    n_positives = positives[:, -1:]
    # The increase of recall at a step is its new positives over all positives.
    terms = np.diff(positives, axis=1, prepend=0) * (positives / retrieved)
    return terms.sum(1) / np.where(n_positives > 0, n_positives, 1)[:, 0]


def _roc_area(positives: Floats, retrieved: Floats) -> Floats:
    """Return the area under the ROC curve; .5 if there are no positives or no negatives.

    Args:
        positives: cumulative true positives (a, step).
        retrieved: cumulative samples (step,).
    """
    negatives = retrieved - positives
    # Trapezoids: the width is the increase of false positives, the height is the mean of the true
    # positives before and after the step.
    widths = np.diff(negatives, axis=1, prepend=0)
    trapezoids = widths * (positives - np.diff(positives, axis=1, prepend=0) / 2)
    size = positives[:, -1] * negatives[:, -1]
    return np.divide(trapezoids.sum(1), size, out=np.full(len(positives), 0.5), where=size > 1e-9)
