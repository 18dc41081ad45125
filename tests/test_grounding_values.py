"""Tests of metrics of activations against scikit-learn and scipy, pair by pair."""

import numpy as np
import pytest
from scipy.spatial.distance import cosine
from scipy.stats import pearsonr, spearmanr
from sklearn import metrics as sk

from leaderboard.grounding import functional
from leaderboard.grounding.metrics import ACTIVATION_METRICS, get
from milannotations import InputError

N, TEXTS, UNITS = 120, 5, 4


def drawn(graded, seed=0):
    """Return presence and activations with many ties, as those of rectified units have."""
    draw = np.random.default_rng(seed)
    presence = draw.random((TEXTS, N)).round(1)
    activations = np.maximum(draw.normal(size=(N, UNITS)), 0).round(1)
    activations[:, 1] += 2 * (presence[1] > 0.6)
    return (presence if graded else (presence > 0.6).astype(float)), activations


def doubled(presence, activations):
    """Return each sample twice: with the concept, weighted by presence, and without it."""
    labels = np.concatenate([np.ones(N), np.zeros(N)])
    weights = np.concatenate([presence, 1 - presence])
    return labels, np.concatenate([activations, activations]), weights


def pairs(function, presence, activations):
    return np.array([[function(p, a) for a in activations.T] for p in presence])


@pytest.mark.parametrize("graded", [False, True])
@pytest.mark.parametrize(
    ("name", "theirs"),
    [
        ("pearson", lambda p, a: pearsonr(p, a).statistic),
        ("spearman", lambda p, a: spearmanr(p, a).statistic),
        ("cosine", lambda p, a: 1 - cosine(p, a)),
        ("auprc", lambda p, a: _weighted(sk.average_precision_score, p, a)),
        ("auroc-invert", lambda p, a: _weighted(sk.roc_auc_score, p, a)),
    ],
)
def test_without_a_threshold(name, theirs, graded):
    presence, activations = drawn(graded)
    ours = get(name).value(presence, activations)
    np.testing.assert_allclose(ours, pairs(theirs, presence, activations), atol=1e-12)


def _weighted(score, presence, activations):
    labels, scores, weights = doubled(presence, activations)
    return score(labels, scores, sample_weight=weights)


SHARE = 0.2


@pytest.mark.parametrize(
    ("name", "theirs"),
    [
        ("recall", lambda p, on: sk.recall_score(on, p)),
        ("precision", lambda p, on: sk.precision_score(on, p)),
        ("accuracy", lambda p, on: sk.accuracy_score(on, p)),
        ("balanced-accuracy", lambda p, on: sk.balanced_accuracy_score(on, p)),
        ("auroc", lambda p, on: sk.roc_auc_score(on, p)),
        ("auprc-predictor", lambda p, on: sk.average_precision_score(on, p)),
    ],
)
def test_the_concept_as_predictor_of_an_active_unit(name, theirs):
    presence, activations = drawn(graded=False)
    active = functional.active_samples(activations, SHARE)
    ours = get(name).at(SHARE)(presence, activations)
    np.testing.assert_allclose(ours, pairs(theirs, presence, active), atol=1e-12)


@pytest.mark.parametrize("graded", [False, True])
@pytest.mark.parametrize(("name", "theirs"), [("f1", sk.f1_score), ("iou", sk.jaccard_score)])
def test_thresholds_of_f1_and_iou_are_fixed_on_the_other_half(name, theirs, graded):
    """A plain loop: choose the level on one half with scikit-learn's F1, count on the other."""
    presence, activations = drawn(graded)
    order = np.random.default_rng([0, N]).permutation(N)
    halves = order[: N // 2], order[N // 2 :]

    def pair(p, a):
        active = np.empty(N)
        for fixed, counted in (halves, halves[::-1]):
            found = []
            for level in functional.ACTIVE_SHARES:
                above = np.quantile(a[fixed], 1 - level, method="lower")
                labels, on, weights = _both(p[fixed], a[fixed] > above)
                f1 = sk.f1_score(labels, on, sample_weight=weights, zero_division=0)
                apart = abs(np.log(level) - np.log(max(p.mean(), functional.ACTIVE_SHARES[-1])))
                found.append((f1 - 1e-9 * apart, -level, above))
            active[counted] = a[counted] > max(found, key=lambda one: one[0])[2]
        labels, on, weights = _both(p, active)
        return theirs(labels, on, sample_weight=weights)

    ours = get(name).value(presence, activations)
    np.testing.assert_allclose(ours, pairs(pair, presence, activations), atol=1e-9)


def _both(presence, active):
    weights = np.concatenate([presence, 1 - presence])
    labels = np.repeat([True, False], len(presence))
    return labels, np.concatenate([active, active]).astype(bool), weights


def test_by_hand():
    presence = np.array([[1, 1, 0, 0.0]])
    activations = np.array([[3.0], [1.0], [2.0], [0.0]])
    assert functional.mad(presence, activations)[0, 0] == pytest.approx(1 / activations.std())
    assert functional.top_recall(presence, activations, k=2)[0, 0] == 0.5
    assert functional.auprc(presence, activations)[0, 0] == pytest.approx((1 + 2 / 3) / 2)
    assert functional.auprc_above_prevalence(presence, activations)[0, 0] == pytest.approx(
        2 * 5 / 6 - 1
    )
    assert functional.prevalence(presence, activations)[0, 0] == 0.5
    # with four samples and a share of a half: which half a sample is in decides
    active = functional.active_samples(activations, 0.5)[:, 0]
    given = np.log(np.maximum(presence[0], functional.MIN_PRESENCE)) @ active / active.sum()
    assert functional.wpmi(presence, activations, 0.5)[0, 0] == pytest.approx(
        given - 0.1 * np.log(0.5)
    )


def test_top_and_random_is_the_correlation_of_what_it_draws():
    presence, activations = drawn(graded=True)
    all_of_it = functional.pearson_top_random(presence, activations, k=N, share=1.0)
    np.testing.assert_allclose(all_of_it, functional.pearson(presence, activations), atol=1e-12)


@pytest.mark.parametrize("kind", ACTIVATION_METRICS, ids=lambda kind: kind.name)
def test_properties(kind):
    """Constants have chance values; the order of samples is irrelevant; values are in range."""
    presence, activations = drawn(graded=True)
    found = kind.at(SHARE)(presence, activations)
    assert found.shape == (TEXTS, UNITS)
    assert np.isfinite(found).all()
    assert kind.low is None or found.min() >= kind.low
    assert kind.high is None or found.max() <= kind.high + 1e-12
    np.testing.assert_allclose(
        kind.at(SHARE)(presence[::-1], activations[:, ::-1]),
        found[::-1, ::-1] if kind.name != "pearson-top-random" else
        kind.at(SHARE)(presence, activations[:, ::-1])[::-1],
        atol=1e-12,
    )  # fmt: skip
    for constant in (0.0, 1.0):
        nothing = kind.at(SHARE)(np.full((1, N), constant), activations)
        assert np.isfinite(nothing).all()
        if kind.chance is not None and kind.name not in ("cosine",):
            np.testing.assert_allclose(nothing, kind.chance, atol=1e-9)


def test_a_perfect_unit_has_the_best_value():
    presence, _ = drawn(graded=False)
    for name in ("pearson", "auprc", "auprc-above", "f1", "iou", "cosine", "auroc-invert"):
        assert get(name).value(presence, presence.T).diagonal() == pytest.approx(1.0), name


def test_a_third_party_metric(write_file):
    path = write_file(
        "mine.py", "def metric(presence, activations):\n return presence @ activations"
    )
    presence, activations = drawn(graded=True)
    kind = get(str(path))
    assert kind.name == "mine"
    np.testing.assert_allclose(kind.value(presence, activations), presence @ activations)


@pytest.mark.parametrize(
    ("code", "says"),
    [
        ("x = 1", "no function 'metric'"),
        ("def metric(p, a): return p", r"returned \(5, 120\)"),
        ("def metric(p, a): raise ValueError('no')", r"ValueError: no"),
        ("import nowhere_at_all", "No module named"),
    ],
)
def test_a_third_party_metric_that_is_invalid(write_file, code, says):
    path = write_file("mine.py", code)
    with pytest.raises(InputError, match=says):
        get(str(path)).value(*drawn(graded=True))


def test_an_unknown_metric():
    with pytest.raises(InputError, match=r"No metric of activations 'pearsn'. Did you mean"):
        get("pearsn")
    with pytest.raises(InputError, match="No file"):
        get("nowhere.py")
