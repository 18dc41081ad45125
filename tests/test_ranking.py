"""Tests of standings: significant differences, shared ranks, several seeds."""

from dataclasses import replace
from itertools import pairwise

import numpy as np
import pandas as pd
import pytest
import sample

import leaderboard
from leaderboard.evaluation.score_config import ScoreConfig
from leaderboard.ranking import tracks
from leaderboard.ranking.pairwise import EntryValues, compare_neighbours
from leaderboard.ranking.standings import EntryRun, standings
from leaderboard.record_format.method_info import About
from leaderboard.statistics import bootstrap_weights, holm, two_sided_p
from milannotations import InputError

METRIC = "retrieval-tfidf-auc"
N = 200
TRACK = replace(
    tracks.get("mini"),
    name="sample",
    edition="annotations",
    config="sample",
    metrics=(METRIC, "rouge-l"),
    ranked_by=METRIC,
    synthetic=False,
    edition_digest=None,
)
WEIGHTS = bootstrap_weights(N, 400, 0)


@pytest.fixture(scope="module")
def scored():
    return leaderboard.score(
        sample.PREDICTIONS,
        sample.ANNOTATIONS,
        [METRIC, "rouge-l"],
        settings=ScoreConfig(draws=20),
        method="sample@1",
    )


@pytest.fixture(scope="module")
def entry(scored):
    """Return a function that makes a run of N units with given values, nan where it failed."""

    def make(name, values, *, kind="method", seed=None, lift=0.1, track=TRACK):
        values = np.asarray(values, dtype=float)
        known = ~np.isnan(values)
        estimate = scored.record.scores[METRIC].model_copy(
            update={
                "mean": float(values[known].mean()),
                "mean_all": float(np.where(known, values, 0.5).mean()),
                "n_scored": int(known.sum()),
                "n_units": N,
            }
        )
        rouge = scored.record.scores["rouge-l"].model_copy(update={"lift": lift})
        record = scored.record.model_copy(
            update={
                "method": name,
                "version": "1",
                "track": track.key,
                "about": About(kind=kind, title=name, seed=seed),
                "scores": {METRIC: estimate, "rouge-l": rouge},
                "edition": scored.record.edition.model_copy(update={"n_units": N}),
                "predictions": scored.record.predictions.model_copy(
                    update={"n_ok": int(known.sum())}
                ),
            }
        )
        units = pd.DataFrame(
            {
                "network": "sample",
                "layer": "layer1",
                "unit": np.flatnonzero(known),
                "metric": METRIC,
                "value": values[known],
                "lift": 0.0,
            }
        )
        return EntryRun(record, units)

    return make


def noise(seed, mean, spread=0.1):
    values = np.random.default_rng(seed).normal(0, spread, N)
    return values - values.mean() + mean


def first(rows):
    """Return the first row that has a rank."""
    return next(row for row in rows if row.rank == 1)


def ranked(rows):
    return [(row.name, row.rank) for row in rows if row.rank is not None]


def test_better_ones_come_first_and_equals_share_a_rank(entry):
    good = noise(0, 0.8)
    runs = [
        entry("far-below", noise(3, 0.55)),
        entry("as-good", good + noise(1, 0.0005, 0.05)),
        entry("good", good),
        entry("lowest", noise(4, 0.3)),
    ]
    rows = standings(runs, TRACK)
    assert ranked(rows) == [("as-good", 1), ("good", 1), ("far-below", 3), ("lowest", 4)]
    by_name = {row.name: row for row in rows}
    pair = by_name["as-good"].below
    assert pair.tied
    assert pair.low < 0 < pair.high
    assert pair.difference == pytest.approx(0.0005)
    assert by_name["good"].below.p_holm < 0.05
    assert by_name["lowest"].below is None
    assert by_name["good"].score == pytest.approx(0.8)
    assert by_name["good"].low < 0.8 < by_name["good"].high


def test_p_values_are_those_of_the_pairs_and_holm_is_over_all_of_them():
    values = [EntryValues(str(i), noise(i, 0.6 - i / 50)[None], 0.5) for i in range(4)]
    pairs = compare_neighbours(values, WEIGHTS)
    raw = []
    for upper, lower in pairwise(values):
        difference = (upper.by_seed - lower.by_seed)[0]
        raw.append(two_sided_p(WEIGHTS @ difference / N))
    assert [pair.p for pair in pairs] == pytest.approx(raw)
    assert [pair.p_holm for pair in pairs] == pytest.approx(holm(raw))
    assert [pair.tied for pair in pairs] == [p >= 0.05 for p in holm(raw)]


def test_the_smallest_significant_difference_is_one():
    """Shifted by a little more than it, a tied entry is separated; by a little less, not."""
    lower = noise(1, 0.5)
    above = noise(2, 0.0, 0.08)
    first = EntryValues("a", (lower + above)[None], 0.5)
    detectable = compare_neighbours([first, EntryValues("b", lower[None], 0.5)], WEIGHTS)[
        0
    ].detectable
    assert 0.005 < detectable < 0.05
    for factor, tied in ((0.7, True), (1.3, False)):
        shifted = EntryValues("a", (lower + above + factor * detectable)[None], 0.5)
        assert (
            compare_neighbours([shifted, EntryValues("b", lower[None], 0.5)], WEIGHTS)[0].tied
            is tied
        )


def test_failures_count_where_entries_describe_different_units(entry):
    """It describes its few units as well as the other entry, but too few of all units."""
    whole = noise(0, 0.7)
    few = np.where(np.arange(N) < 30, whole, np.nan)
    rows = standings([entry("few", few), entry("whole", whole)], TRACK)
    assert ranked(rows) == [("whole", 1), ("few", 2)]
    pair = next(row.below for row in rows if row.name == "whole")
    assert (pair.n, pair.difference) == (30, 0.0)
    assert pair.p_holm == 1.0
    assert pair.p_all_holm < 0.05
    assert pair.difference_all == pytest.approx((whole[30:] - 0.5).sum() / N)
    coverage = next(row.coverage for row in rows if row.name == "few")
    assert coverage == pytest.approx(30 / N)


def test_units_that_nobody_describes_are_counted(entry):
    half = np.where(np.arange(N) < 100, noise(0, 0.7), np.nan)
    row = first(standings([entry("half", half)], TRACK))
    assert row.score == pytest.approx(np.where(np.isnan(half), 0.5, half).mean())
    assert row.low < row.score < row.high


def test_nothing_in_common_is_said_as_such(entry):
    one = np.where(np.arange(N) < 100, 0.9, np.nan)
    other = np.where(np.arange(N) >= 100, 0.8, np.nan)
    pair = first(standings([entry("one", one), entry("other", other)], TRACK)).below
    assert (pair.n, pair.difference, pair.p, pair.detectable) == (0, None, None, None)


def test_several_seeds_are_one_row_with_a_spread(entry):
    seeds = [noise(i, mean) for i, mean in enumerate((0.6, 0.7, 0.8))]
    runs = [entry("seeded", values, seed=i) for i, values in enumerate(seeds)]
    rows = standings([*runs, entry("other", noise(9, 0.7))], TRACK)
    row = next(row for row in rows if row.name == "seeded")
    assert row.score == pytest.approx(0.7)
    assert row.spread == pytest.approx(0.1)
    assert [record.about.seed for record in row.records] == [0, 1, 2]
    alone = first(standings(runs[:1], TRACK))
    assert row.high - row.low > 2 * (alone.high - alone.low)  # seeds are drawn too
    assert alone.spread is None


def test_another_entry_moves_no_interval(entry):
    runs = [entry("seeded", noise(i, 0.6), seed=i) for i in range(3)]
    more = [*runs, entry("above", noise(8, 0.9)), entry("below", noise(9, 0.1))]
    alone = first(standings(runs, TRACK))
    beside = next(row for row in standings(more, TRACK) if row.name == "seeded")
    assert (alone.low, alone.high) == (beside.low, beside.high)


def test_equal_scores_are_ordered_by_lift_and_then_by_name(entry):
    same = noise(0, 0.7)
    runs = [entry("b", same), entry("a", same), entry("z", same, lift=0.2)]
    assert ranked(standings(runs, TRACK)) == [("z", 1), ("a", 1), ("b", 1)]


def test_floors_references_and_the_human_have_no_rank(entry):
    runs = [
        entry("method", noise(0, 0.6)),
        entry("truth", noise(1, 0.9), kind="reference"),
        entry("dull", noise(2, 0.5), kind="floor"),
    ]
    rows = standings(runs, TRACK)
    assert ranked(rows) == [("method", 1)]
    kinds = {row.name: row.kind for row in rows}
    assert kinds["truth"] == "reference"
    assert kinds["dull"] == kinds["constant"] == "floor"
    assert kinds["leave-one-out human"] == "human"
    assert "shuffled" not in kinds
    scores = [round(row.score, 9) for row in rows]
    assert scores == sorted(scores, reverse=True)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"track": "mini@1"}, "its track is mini@1"),
        ({"track": None}, "its track is none"),
        ({"kind": "edit"}, "it is a record of edit"),
        ({"scores": {}}, "it has no retrieval-tfidf-auc"),
    ],
)
def test_what_is_of_another_table_is_refused(entry, change, says):
    run = entry("method", noise(0, 0.6))
    run = replace(run, record=run.record.model_copy(update=change))
    with pytest.raises(InputError, match=says):
        standings([run], TRACK)


def test_other_references_states_of_the_metric_and_twins_are_refused(entry):
    run = entry("a", noise(0, 0.6))
    other = entry("b", noise(1, 0.6))
    edition = other.record.edition.model_copy(update={"digest": "0" * 64})
    moved = replace(other, record=other.record.model_copy(update={"edition": edition}))
    with pytest.raises(InputError, match="against other references"):
        standings([run, moved], TRACK)
    metric = other.record.metrics[METRIC].model_copy(update={"signature": "another"})
    metrics = {**other.record.metrics, METRIC: metric}
    moved = replace(other, record=other.record.model_copy(update={"metrics": metrics}))
    with pytest.raises(InputError, match="another state of the metric"):
        standings([run, moved], TRACK)
    with pytest.raises(InputError, match="two records with one seed"):
        standings([run, run], TRACK)
    assert standings([], TRACK) == []


def test_twenty_methods_on_twenty_thousand_units_are_ordered_in_seconds():
    import time

    n = 20_000
    rng = np.random.default_rng(0)
    values = [EntryValues(str(i), rng.random((1, n)), 0.5) for i in range(20)]
    begun = time.perf_counter()
    weights = bootstrap_weights(n, 1000, 0)
    assert len(compare_neighbours(values, weights)) == 19
    assert time.perf_counter() - begun < 30
