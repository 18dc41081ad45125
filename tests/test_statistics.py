"""Lift, retrieval, intervals and tests, against slow implementations of their definitions."""

from fractions import Fraction
from itertools import combinations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import rankdata

from leaderboard import statistics


def squares(low=2, high=12):
    return st.integers(low, high).flatmap(
        lambda n: st.lists(st.integers(0, 9), min_size=n * n, max_size=n * n).map(
            lambda flat: np.array(flat, float).reshape(n, n) / 9
        )
    )


@given(squares())
def test_mean_lift_is_own_mean_minus_mean_of_all_others(scores):
    off = scores[~np.eye(len(scores), dtype=bool)]
    assert statistics.lift(scores).mean() == pytest.approx(
        np.diagonal(scores).mean() - off.mean(), abs=1e-12
    )


@given(squares())
def test_lift_follows_the_written_definition(scores):
    n = len(scores)
    for i, value in enumerate(statistics.lift(scores)):
        expected = scores[i, i] - scores[i].mean() - scores[:, i].mean() + scores.mean()
        assert value == pytest.approx(n / (n - 1) * expected, abs=1e-12)


@given(st.lists(st.floats(0, 1), min_size=2, max_size=30))
def test_every_unit_of_a_constant_has_lift_zero(row):
    assert np.abs(statistics.lift(np.tile(row, (len(row), 1)))).max() <= 1e-12


@given(squares(low=3), st.integers(0, 5))
def test_sampled_lift_with_all_pairs_is_lift(scores, seed):
    """A cycle of order n and its powers visit every pair once."""
    n = len(scores)
    step = (np.arange(n) + np.arange(1, n)[:, None]) % n
    forward = np.stack(
        [half for power in range(n - 1) for half in (step[power], step[n - 2 - power])]
    )
    own = np.diagonal(scores)
    shuffled = scores[np.arange(n), forward]
    assert statistics.lift_sampled(own, shuffled, forward) == pytest.approx(
        statistics.lift(scores), abs=1e-12
    )


@given(st.lists(st.floats(0, 1), min_size=10, max_size=30), st.integers(0, 99))
def test_sampled_lift_of_a_constant_is_zero_for_every_unit(row, seed):
    scores = np.tile(row, (len(row), 1))
    drawn = statistics.derangements(len(row), 20, seed)
    result = statistics.lift_sampled(np.diagonal(scores), scores[np.arange(len(row)), drawn], drawn)
    assert np.abs(result).max() <= 1e-12


def test_sampled_lift_is_near_the_exact_one():
    scores = np.random.default_rng(3).random((400, 400)) + 0.3 * np.eye(400)
    drawn = statistics.derangements(400, 20, 0)
    sampled = statistics.lift_sampled(
        np.diagonal(scores), scores[np.arange(400), drawn], drawn
    ).mean()
    assert sampled == pytest.approx(statistics.lift(scores).mean(), abs=0.02)


@given(st.integers(2, 40), st.integers(0, 1000))
def test_derangements_move_everything_and_come_with_their_inverse(n, seed):
    drawn = statistics.derangements(n, 4, seed)
    assert (np.sort(drawn, axis=1) == np.arange(n)).all()
    assert (drawn != np.arange(n)).all()
    assert (drawn[0][drawn[1]] == np.arange(n)).all()
    assert (drawn == statistics.derangements(n, 4, seed)).all()


@pytest.mark.parametrize(("n", "count"), [(1, 2), (5, 3)])
def test_derangements_refuse_what_cannot_be(n, count):
    with pytest.raises(ValueError, match="even count"):
        statistics.derangements(n, count, 0)


def slow_auc(row, j, groups):
    others = [k for k in range(len(row)) if k != j and (groups is None or groups[k] != groups[j])]
    return np.mean([(row[k] < row[j]) + 0.5 * (row[k] == row[j]) for k in others])


@given(squares(low=3), st.booleans(), st.randoms(use_true_random=False))
def test_retrieval_auc_counts_pairs(scores, with_duplicates, random):
    n = len(scores)
    groups = [random.randrange(n) for _ in range(n)] if with_duplicates else None
    if groups and len(set(groups)) == 1:
        groups[0] = n
    result = statistics.retrieval_auc(scores, groups)
    for i in range(n):
        for j in range(n):
            if groups is None or any(g != groups[j] for g in groups):
                assert result[i, j] == pytest.approx(slow_auc(scores[i], j, groups))


def test_retrieval_auc_is_the_normalised_rank():
    scores = np.random.default_rng(0).random((20, 20)).round(1)
    assert statistics.retrieval_auc(scores) == pytest.approx((rankdata(scores, axis=1) - 1) / 19)


def test_ties_in_the_last_bit_are_ties():
    assert statistics.retrieval_auc(np.array([[0.1 + 0.2, 0.3, 0.3]]))[0, 0] == 0.5


def test_top1_is_the_exact_chance_over_all_draws(monkeypatch):
    """With pools of 4, every draw of 3 distractors can be written out."""
    monkeypatch.setattr(statistics, "RETRIEVAL_POOL", 4)
    scores = np.random.default_rng(1).integers(0, 3, (1, 8)).astype(float)
    result = statistics.retrieval_top1(scores)[0]
    for j in range(8):
        others = np.delete(scores[0], j)
        chances = []
        for drawn in combinations(others, 3):
            better = any(other > scores[0, j] for other in drawn)
            ties = sum(other == scores[0, j] for other in drawn)
            chances.append(Fraction(0) if better else Fraction(1, ties + 1))
        assert result[j] == pytest.approx(float(sum(chances) / len(chances)))


def test_top1_of_a_constant_is_one_in_a_hundred_and_null_in_small_layers():
    assert statistics.retrieval_top1(np.zeros((2, 150))) == pytest.approx(0.01)
    assert np.isnan(statistics.retrieval_top1(np.zeros((2, 99)))).all()
    assert not np.isnan(statistics.retrieval_top1(np.zeros((2, 100)))).any()


def test_duplicates_are_no_distractors():
    scores = np.array([[0.5, 0.9, 0.1]])
    assert statistics.retrieval_auc(scores)[0, 0] == 0.5
    assert statistics.retrieval_auc(scores, [0, 0, 1])[0, 0] == 1.0


def test_interval_covers_the_truth_about_as_often_as_it_says():
    generator = np.random.default_rng(5)
    hits = 0
    for trial in range(200):
        values = generator.exponential(size=100)
        weights = statistics.bootstrap_weights(100, 300, trial)
        low, high = statistics.interval(statistics.resampled_means(values, weights))
        hits += low <= 1.0 <= high
    assert 0.88 <= hits / 200 <= 0.98


def test_bootstrap_weights_draw_n_units_and_follow_the_seed():
    weights = statistics.bootstrap_weights(30, 50, 7)
    assert (weights.sum(axis=1) == 30).all()
    assert (weights == statistics.bootstrap_weights(30, 50, 7)).all()
    assert (weights != statistics.bootstrap_weights(30, 50, 8)).any()


def test_holm_agrees_with_its_definition_and_keeps_order():
    assert statistics.holm([0.04, 0.01, 0.02]) == [0.04, 0.03, 0.04]
    assert statistics.holm([0.9, 0.8]) == [1.0, 1.0]
    result = statistics.holm([0.01, float("nan")])
    assert result[0] == 0.01
    assert np.isnan(result[1])


def test_p_is_never_zero_and_never_above_one():
    assert statistics.two_sided_p(np.full(999, 1.0)) == pytest.approx(2 / 1000)
    assert statistics.two_sided_p(np.zeros(10)) == 1.0


def test_risk_coverage_rises_for_a_confidence_that_knows():
    values = np.linspace(0, 1, 100)
    knows = statistics.risk_coverage(values, values)
    constant = statistics.risk_coverage(values, np.ones(100))
    assert knows["mean"][0] == pytest.approx(values[-10:].mean())
    assert knows["mean"][-1] == pytest.approx(values.mean()) == constant["mean"][-1]
    assert knows["area"] > constant["area"] == pytest.approx(values.mean())
    assert knows["coverage"] == [pytest.approx(i / 10) for i in range(1, 11)]


def test_risk_coverage_does_not_depend_on_the_order_of_ties():
    values, confidence = np.array([1.0, 0.0, 0.5, 0.25]), np.array([2.0, 2.0, 1.0, np.nan])
    forward = statistics.risk_coverage(values, confidence, steps=3)
    backward = statistics.risk_coverage(values[[1, 0, 2]], confidence[[1, 0, 2]], steps=3)
    assert forward == backward
    assert forward["n"] == 3
