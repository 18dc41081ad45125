"""Scoring of made-up texts with known scores, of constants and of shuffled descriptions."""

import json
from collections import Counter

import numpy as np
import pandas as pd
import pytest
import sample
from rouge_score.rouge_scorer import RougeScorer

import leaderboard
from leaderboard import metrics, statistics
from leaderboard.console import score_table
from leaderboard.evaluation import predictions, references
from leaderboard.evaluation.references import References
from leaderboard.evaluation.score_config import ScoreConfig
from leaderboard.metrics import text_models
from leaderboard.metrics.text import normalise
from leaderboard.record_format import base, score_record
from milannotations import InputError, Unit

FEW = ScoreConfig(draws=50)
NEURAL = ("bertscore", "embedding") if text_models.offline_folder() is not None else ()


@pytest.fixture(scope="module")
def known():
    return references.from_csv(sample.ANNOTATIONS, sample.NETWORK)


@pytest.fixture(scope="module")
def scored(known):
    return leaderboard.score(
        sample.PREDICTIONS, known, ["lexical", "rouge-1-f-2022", "bleu-2022"], settings=FEW
    )


def describe(known, text):
    """Return predictions made by `text(unit)`."""
    return predictions.from_texts(known.units, [text(unit) for unit in known.units])


def small(n=12, layers=("a", "b"), k=3, network="net"):
    """Return made-up references: unit i of a layer has the word `word<i>` in each of k texts."""
    units = tuple(Unit(network, layer, i) for layer in layers for i in range(n))
    texts = tuple(
        tuple(f"word{u.unit} of layer {u.layer} said {x}" for x in range(k)) for u in units
    )
    sides = tuple("test" if u.unit % 4 == 0 else "train" for u in units)
    return References(units, texts, sides, (None,) * len(units), "made-up", network)


def test_rouge_and_lift_are_those_of_a_plain_loop(known, scored):
    described = {row.unit: normalise(row.description) for row in scored.predictions.rows}
    scorer = RougeScorer(["rougeL"])

    def s(text, members):
        return np.mean([scorer.score(r, text)["rougeL"].fmeasure for r in members])

    units = scored.units[scored.units.metric == "rouge-l-allref"].set_index("unit")
    layer = [(u, t) for u, t in zip(known.units, known.texts, strict=True) if u.layer == "layer1"]
    table = np.array([[s(described[u], t) for _, t in layer] for u, _ in layer])
    n = len(layer)
    for i, (unit, _) in enumerate(layer):
        row = units[units.layer == "layer1"].loc[unit.unit]
        lift = n / (n - 1) * (table[i, i] - table[i].mean() - table[:, i].mean() + table.mean())
        assert row.value == pytest.approx(table[i, i], abs=1e-12)
        assert row.lift == pytest.approx(lift, abs=1e-12)


def test_human_and_matched_scores_leave_the_same_reference_out(known, scored):
    scorer = RougeScorer(["rougeL"])
    described = {row.unit: normalise(row.description) for row in scored.predictions.rows}

    def best(text, members):
        return max(scorer.score(r, text)["rougeL"].fmeasure for r in members)

    human, matched = [], []
    for unit, texts in zip(known.units, known.texts, strict=True):
        rest = [[t for j, t in enumerate(texts) if j != k] for k in range(len(texts))]
        human.append(np.mean([best(texts[k], rest[k]) for k in range(len(texts))]))
        matched.append(np.mean([best(described[unit], members) for members in rest]))
    record = scored.record
    assert record.floors["one-person"]["rouge-l-max"].mean == pytest.approx(np.mean(human))
    assert record.scores["rouge-l-max"].mean == pytest.approx(np.mean(matched))
    assert record.versus_person["rouge-l-max"].difference == pytest.approx(
        np.mean(matched) - np.mean(human)
    )
    assert record.scores["rouge-l-max-allref"].mean > record.scores["rouge-l-max"].mean
    assert "rouge-l-max-allref" not in record.floors["one-person"]


def test_corpus_bleu_of_the_record_is_sacrebleus(known, scored):
    import sacrebleu

    described = {row.unit: normalise(row.description) for row in scored.predictions.rows}
    texts = [described[unit] for unit in known.units]
    theirs = sacrebleu.corpus_bleu(
        texts, [list(column) for column in zip(*known.texts, strict=True)]
    )
    assert scored.record.scores["bleu-4-allref"].mean == pytest.approx(theirs.score)
    assert scored.record.scores["bleu-2022"].mean <= theirs.score + 1e-9  # two matched references


@pytest.mark.parametrize("floor", ["constant", "constant: animals and objects"])
def test_constants_have_lift_zero_in_every_metric(scored, floor):
    for name, estimate in scored.record.floors[floor].items():
        if estimate.lift is not None:
            assert estimate.lift == pytest.approx(0, abs=1e-12), name


@pytest.mark.parametrize("metric", ["rouge-l", "bleu-4-unit", "tfidf", *NEURAL])
def test_every_unit_of_a_per_layer_constant_has_lift_zero(known, metric):
    result = leaderboard.score(
        describe(known, lambda u: f"red things in {u.layer}"), known, [metric], settings=FEW
    )
    assert len(result.units) == len(known.units)
    assert result.units.lift.abs().max() <= 1e-12


def test_the_most_common_of_a_layer_is_its_commonest_text(known, scored):
    texts = Counter(t for u, ts in zip(known.units, known.texts, strict=True) for t in ts)
    commonest = max(texts.values())
    assert texts["round objects"] <= commonest
    tie = small(n=10, layers=("a",), k=2)
    tied = References(tie.units, (("bb", "a a"),) * 10, tie.splits, tie.duplicate_of, "tie", "net")
    result = leaderboard.score(
        describe(tied, lambda u: "x"), tied, ["rouge-l-allref"], settings=FEW
    )
    # "bb" and "a a" are equally common: the shorter one is taken, so half of the references match
    assert result.record.floors["constant"]["rouge-l-allref"].mean == pytest.approx(0.5)


def test_answers_dealt_to_the_wrong_units_have_no_lift_and_chance_retrieval():
    known = small(n=60, layers=("a",))
    wrong = leaderboard.score(
        describe(known, lambda u: f"word{(u.unit + 1) % 60}"),
        known,
        ["rouge-l", "retrieval-tfidf-auc"],
        settings=FEW,
    ).record
    right = leaderboard.score(
        describe(known, lambda u: f"word{u.unit}"),
        known,
        ["rouge-l", "retrieval-tfidf-auc"],
        settings=FEW,
    ).record
    assert right.scores["rouge-l"].lift > 0.1
    assert right.scores["retrieval-tfidf-auc"].mean == 1.0
    assert wrong.scores["rouge-l"].lift < 0  # worse than shuffled: never right by luck
    assert wrong.scores["retrieval-tfidf-auc"].mean < 0.5
    # and the check that looks at the next unit sees what happened
    assert wrong.neighbours["rouge-l"]["index"] > 0.1 > right.neighbours["rouge-l"]["index"]


def test_shuffled_floor_is_the_mean_over_other_units(scored):
    for name, estimate in scored.record.scores.items():
        if estimate.lift is not None:
            floor = scored.record.floors["shuffled"][name].mean
            assert estimate.mean - estimate.lift == pytest.approx(floor, abs=1e-9), name


def test_failures_are_counted_at_the_worst_value_and_never_scored(known):
    answer = lambda u: "" if u.unit % 2 else "red objects"  # noqa: E731
    result = leaderboard.score(
        describe(known, answer),
        known,
        ["rouge-l", "retrieval-tfidf-auc", "bleu-1", "length"],
        settings=FEW,
    ).record
    assert result.predictions.n_failed == result.predictions.n_ok == 16
    for name, estimate in result.scores.items():
        assert (estimate.n_scored, estimate.n_units) == (16, 32), name
    rouge, retrieval = result.scores["rouge-l"], result.scores["retrieval-tfidf-auc"]
    assert rouge.mean_all == pytest.approx(rouge.mean / 2)
    assert retrieval.mean_all == pytest.approx((retrieval.mean + 0.5) / 2)
    assert result.scores["bleu-1"].mean_all < result.scores["bleu-1"].mean
    assert result.scores["length"].mean_all is None  # no worst value


def test_abstentions_are_told_from_failures(known):
    rows = [
        predictions.Prediction(u, "" if u.unit < 2 else "red", status=s)
        for u in known.units
        for s in [{0: "abstained", 1: "failed"}.get(u.unit, "ok")]
    ]
    result = leaderboard.score(
        predictions.Predictions(tuple(rows)), known, ["rouge-l"], settings=FEW
    )
    described = result.record.predictions
    assert (described.n_ok, described.n_abstained, described.n_failed, described.n_missing) == (
        28,
        2,
        2,
        0,
    )


def test_missing_units_stop_the_run_unless_allowed(known):
    few = predictions.from_texts(known.units[:20], ["red"] * 20)
    with pytest.raises(InputError, match=r"20 of 32 units; missing sample/layer.*--allow-missing"):
        leaderboard.score(few, known, ["rouge-l"], settings=FEW)
    result = leaderboard.score(few, known, ["rouge-l"], settings=FEW, allow_missing=True).record
    assert result.predictions.n_missing == 12
    assert result.scores["rouge-l"].mean_all == pytest.approx(
        result.scores["rouge-l"].mean * 20 / 32
    )
    # the floor is shown on the units that were answered, so that the two can be compared
    assert result.floors["constant"]["rouge-l"].n_scored == 20


def test_small_layers_are_left_out_of_lift_and_named():
    known = small(n=9)
    result = leaderboard.score(
        describe(known, lambda u: f"word{u.unit}"), known, ["rouge-l"], settings=FEW
    )
    assert result.record.left_out_of_lift == ["net/a", "net/b"]
    assert result.record.scores["rouge-l"].lift is None
    assert result.record.scores["rouge-l"].mean > 0
    assert result.units.lift.isna().all()


def test_a_split_is_scored_alone_among_candidates_of_all_splits():
    known = small(n=120, layers=("a",))
    described = describe(known, lambda u: f"word{u.unit}")
    result = leaderboard.score(
        described, known, ["retrieval-tfidf-top1"], split="test", settings=FEW
    ).record
    # 30 test units: top-1 of 100 exists only because train units are candidates too
    assert result.scores["retrieval-tfidf-top1"].n_scored == result.edition.n_units == 30
    assert result.edition.split == "test"


def test_duplicates_are_not_each_others_distractors():
    known = small(n=12, layers=("a",))
    texts = (known.texts[0], known.texts[0], *known.texts[2:])
    copies = (None, "net/a/0", *(None,) * 10)
    twins = References(known.units, texts, known.splits, copies, "made-up", "net")
    plain = References(known.units, texts, known.splits, (None,) * 12, "made-up", "net")
    described = describe(known, lambda u: f"word{0 if u.unit == 1 else u.unit}")
    name = "retrieval-tfidf-auc-allref"
    apart = leaderboard.score(described, twins, [name], settings=FEW).units
    together = leaderboard.score(described, plain, [name], settings=FEW).units
    assert apart.value.tolist() == [1.0] * 12
    assert together.value.tolist() == [pytest.approx(1 - 0.5 / 11)] * 2 + [1.0] * 10


def test_one_reference_a_unit_leaves_no_matched_score_but_an_allref_one():
    known = small(n=12, k=1)
    result = leaderboard.score(
        describe(known, lambda u: f"word{u.unit}"),
        known,
        ["rouge-l", "rouge-l-allref", "bleu-1"],
        settings=FEW,
    ).record
    assert result.scores["rouge-l"].mean is None
    assert result.scores["bleu-1"].mean is None
    assert result.scores["rouge-l-allref"].mean > 0
    assert "one-person" not in result.floors
    assert any("no leave-one-out human" in warning for warning in result.warnings)


def test_slices_by_layer_and_network_add_up(scored):
    slices, whole = scored.record.slices, scored.record.scores["rouge-l"]
    layers = [slices["sample/layer1"]["rouge-l"], slices["sample/layer2"]["rouge-l"]]
    assert sum(s.n_scored for s in layers) == whole.n_scored
    assert np.mean([s.mean for s in layers]) == pytest.approx(whole.mean)
    assert slices["sample"]["rouge-l"] == whole


def test_risk_coverage_is_there_where_predictions_carry_a_score(scored):
    curve = scored.record.risk_coverage["rouge-l"]
    assert curve.n == 32
    assert curve.mean[-1] == pytest.approx(scored.record.scores["rouge-l"].mean)
    assert curve.mean[0] > curve.mean[-1]  # the sample's confidences mean something
    assert "bleu-4" not in scored.record.risk_coverage


def test_order_of_predictions_and_a_second_run_change_nothing(known, scored):
    rows = scored.predictions.rows
    again = leaderboard.score(
        predictions.Predictions(rows[::-1]), known, ["lexical"], settings=FEW
    ).record
    for name, estimate in again.scores.items():
        assert estimate == scored.record.scores[name], name


def test_another_seed_moves_intervals_and_not_means(known):
    name = "rouge-l"
    one, two = (
        leaderboard.score(
            sample.PREDICTIONS, known, [name], settings=ScoreConfig(seed=seed, draws=50)
        ).record.scores[name]
        for seed in (0, 1)
    )
    assert one.mean == two.mean
    assert one.lift == two.lift
    assert (one.low, one.high) != (two.low, two.high)


def test_sampled_floors_agree_with_exact_ones_within_their_noise():
    """BERTScore is shuffled by derangements; a metric that can do both shows that they agree."""

    class ByRows(metrics.RowMetric):
        spec = metrics.get("rouge-l").spec

        def rows(self, described, sets):
            return metrics.get("rouge-l").rows(described, sets)

    from leaderboard.evaluation.evaluator import Evaluator

    known = references.from_csv(sample.ANNOTATIONS, sample.NETWORK)
    described = predictions.read(sample.PREDICTIONS)
    answers = [normalise(described.first(unit).description) for unit in known.units]
    every = np.ones(len(known.units), dtype=bool)
    evaluator = Evaluator(known, every, every, ScoreConfig(derangements=400))
    exact = evaluator.evaluate(metrics.get("rouge-l"), answers, allref=True)
    drawn = evaluator.evaluate(ByRows(), answers, allref=True)
    assert drawn.values == pytest.approx(exact.values, abs=1e-12)
    assert drawn.lifts.mean() == pytest.approx(exact.lifts.mean(), abs=0.01)


def test_python_takes_paths_frames_and_data_sets_alike(tmp_path, known):
    import datasets

    from milannotations.published import annotations

    annotations.build_edition(sample.ANNOTATIONS, "sample", tmp_path / "edition")
    frame = pd.read_csv(sample.PREDICTIONS)
    loaded = datasets.load_dataset(str(tmp_path / "edition"), "sample")
    results = [
        leaderboard.score(described, refs, ["rouge-l"], network="sample", settings=FEW).record
        for described, refs in [
            (sample.PREDICTIONS, sample.ANNOTATIONS),
            ([sample.PREDICTIONS], str(tmp_path / "edition")),
            (frame[::-1], loaded),
            (frame.drop(columns="network"), known),
        ]
    ]
    assert len({json.dumps(r.scores["rouge-l"].model_dump()) for r in results}) == 1
    assert len({r.edition.digest for r in results}) == 1


def test_the_table_shows_floors_and_the_human_beside_the_score(scored):
    table = scored.to_pandas()
    assert table.index.name == "metric"
    assert {"mean", "lift", "shuffled", "constant", "most-common-of-layer", "one_person"} <= set(
        table.columns
    )
    assert table.loc["rouge-l", "mean"] == scored.record.scores["rouge-l"].mean
    shown = score_table.to_text(scored.record)
    assert "one\n" not in shown
    assert all(word in shown for word in ("shuffled", "constant", "human", "95 %", "rouge-l-max"))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"references": "no/such"}, "No references at 'no/such'"),
        ({"metrics": ["rouge-x"]}, "No metric 'rouge-x'"),
        ({"split": "dev"}, "No split 'dev'"),
        ({"layers": ["layer9"]}, r"Layer 'layer9' is not in sample \(layers: "),
        ({"references": 3}, "given as int"),
    ],
)
def test_what_cannot_be_scored_is_said(known, change, message):
    arguments = {"references": known, "metrics": ["rouge-l"], "settings": FEW, **change}
    with pytest.raises(InputError, match=message):
        leaderboard.score(sample.PREDICTIONS, **arguments)


def test_units_and_networks_that_the_references_lack_are_named(known):
    beyond = predictions.from_texts([*known.units, Unit("sample", "layer1", 99)], ["red"] * 33)
    with pytest.raises(InputError, match="Not in the references: sample/layer1/99"):
        leaderboard.score(beyond, known, ["rouge-l"])
    other = predictions.from_texts([Unit("another", "layer1", 0)], ["red"])
    with pytest.raises(InputError, match="of network 'another'; the references are of sample"):
        leaderboard.score(other, known, ["rouge-l"])


def test_nothing_described_is_nothing_to_score(known):
    """A method without any description gets a score, so that a run goes on to the next one."""
    result = leaderboard.score(describe(known, lambda u: "..."), known, ["rouge-l"]).record
    assert result.predictions.n_failed == 32
    assert result.scores["rouge-l"].mean is None
    assert result.scores["rouge-l"].mean_all == 0


def test_two_methods_are_compared_on_the_units_both_describe(known):
    right = leaderboard.score(sample.PREDICTIONS, known, ["rouge-l", "bleu-4"], settings=FEW)
    half = [u for u in known.units if u.unit < 12]
    wrong = leaderboard.score(
        predictions.from_texts(half, ["zebra"] * len(half)),
        known,
        ["rouge-l", "bleu-4"],
        settings=FEW,
        allow_missing=True,
    )
    result = leaderboard.compare(right, wrong)
    values = right.units.merge(wrong.units, on=["layer", "unit", "metric"])
    assert list(result.index) == ["rouge-l"]  # corpus BLEU has no value per unit
    row = result.loc["rouge-l"]
    assert row.n == 24
    assert row.difference == pytest.approx((values.value_x - values.value_y).mean())
    assert 0 < row.low < row.difference < row.high
    assert row.p == pytest.approx(row.p_holm)
    assert row.p < 0.01
    assert leaderboard.compare(wrong, right).loc["rouge-l"].difference == -row.difference


def test_methods_scored_against_other_references_are_not_compared(known):
    other = small(n=12)
    one = leaderboard.score(sample.PREDICTIONS, known, "rouge-l", settings=FEW)
    two = leaderboard.score(describe(other, lambda u: "x"), other, "rouge-l", settings=FEW)
    with pytest.raises(InputError, match="other references"):
        leaderboard.compare(one, two)


def mixed(counts, failed=(), duplicates=None, layer_of=lambda i: "l"):
    """Return references with `counts[i]` texts of unit i, and descriptions except for `failed`."""
    units = tuple(Unit("n", layer_of(i), i) for i in range(len(counts)))
    texts = tuple(
        tuple(f"thing{i} seen {x} {'again ' * x}by somebody here" for x in range(count))
        for i, count in enumerate(counts)
    )
    copies = tuple((duplicates or {}).get(i) for i in range(len(counts)))
    known = References(units, texts, ("train",) * len(units), copies, "mixed", "n")
    described = [
        "" if i in failed else f"thing{i} seen 0 by somebody here" for i in range(len(counts))
    ]
    return predictions.from_texts(units, described), known


def test_mean_all_is_the_mean_where_everything_is_answered_and_references_vary():
    described, known = mixed([2] * 12 + [3] * 12, layer_of=lambda i: "ab"[i // 12])
    result = leaderboard.score(
        described, known, ["bleu-4", "rouge-l", "rouge-l-f-2022", "bleu-2022"], settings=FEW
    ).record
    for cut in ("n", "n/a", "n/b"):
        for name, estimate in result.slices[cut].items():
            assert estimate.mean_all == pytest.approx(estimate.mean), (cut, name)


def test_a_layer_in_which_everything_failed_has_the_worst_mean_all():
    described, known = mixed([2] * 24, failed=range(12), layer_of=lambda i: "ab"[i // 12])
    names = ["rouge-l", "retrieval-tfidf-auc", "bleu-4"]
    cut = leaderboard.score(described, known, names, settings=FEW).record.slices["n/a"]
    assert [cut[name].mean_all for name in names] == [0, 0.5, 0]
    assert [cut[name].mean for name in names] == [None, None, None]


def test_units_without_a_matched_reference_are_candidates_all_the_same():
    described, known = mixed([1] * 25 + [3] * 95)
    result = leaderboard.score(
        described, known, ["retrieval-tfidf-top1", "retrieval-tfidf-auc"], settings=FEW
    ).record
    assert result.scores["retrieval-tfidf-top1"].n_scored == 95
    described, known = mixed([5] * 2 + [3] * 38)  # two units have views of their own
    values = leaderboard.score(described, known, ["retrieval-tfidf-auc"], settings=FEW).units
    assert set(np.round(values.value * 39 * 5 * 2) % 1) == {0}  # of 39 candidates in every view


def test_a_unit_without_a_top1_does_not_void_the_lift_of_its_layer():
    described, known = mixed([3] * 101, duplicates={1: "n/l/0", 2: "n/l/1"})
    assert known.duplicate_groups[:4] == [0, 0, 0, 1]  # a duplicate of a duplicate
    result = leaderboard.score(described, known, ["retrieval-tfidf-top1"], settings=FEW).record
    assert result.scores["retrieval-tfidf-top1"].n_scored == 98
    assert result.scores["retrieval-tfidf-top1"].lift > 0.5


def test_layers_left_out_of_a_metrics_lift_are_named():
    described, known = mixed([2] * 9 + [1] * 9)
    result = leaderboard.score(described, known, ["rouge-l", "rouge-l-allref"], settings=FEW).record
    assert result.scores["rouge-l"].lift is None
    assert result.scores["rouge-l-allref"].lift is not None
    assert result.left_out_of_lift == ["n/l"]


def test_units_out_of_scope_do_not_change_the_references_of_2022():
    described, known = mixed([3] * 12 + [1], failed=(0, 1))
    sides = ("test",) * 12 + ("train",)
    result = []
    for n in (12, 13):  # without and with a train unit that has a single reference
        refs = References(
            known.units[:n], known.texts[:n], sides[:n], known.duplicate_of[:n], "m", "n"
        )
        some = predictions.Predictions(described.rows[:n])
        scored = leaderboard.score(some, refs, ["bleu-2022-allref"], split="test", settings=FEW)
        result.append(scored.record.scores["bleu-2022-allref"])
    assert result[0] == result[1]
    assert result[0].mean_all < result[0].mean == pytest.approx(100)


def test_a_shuffled_corpus_floor_leaves_failed_answers_empty(known):
    answer = lambda u: "red objects in the picture" if u.unit % 4 else ""  # noqa: E731
    result = leaderboard.score(
        describe(known, answer), known, ["bleu-1-allref"], settings=FEW
    ).record
    floor, own = result.floors["shuffled"]["bleu-1-allref"], result.scores["bleu-1-allref"]
    assert floor.mean == pytest.approx(own.mean)  # a constant is its own shuffle
    assert floor.mean_all == pytest.approx(own.mean_all)
    assert floor.mean_all != pytest.approx(floor.mean * 3 / 4)  # BLEU is not linear


def test_diversity_of_a_slice_is_the_slices_own(known, scored):
    for layer in ("layer1", "layer2"):
        texts = [
            normalise(row.description) for row in scored.predictions.rows if row.unit.layer == layer
        ]
        cut = scored.record.slices[f"sample/{layer}"]
        assert cut["distinct"].mean == pytest.approx(len(set(texts)) / len(texts))


def test_the_neighbour_check_looks_at_the_next_unit_answered_or_not():
    known = small(n=40, layers=("a",))
    described = predictions.from_texts(
        known.units, [f"word{u.unit + 1}" if u.unit % 2 == 0 else "" for u in known.units]
    )
    result = leaderboard.score(described, known, ["rouge-l"], settings=FEW).record
    assert result.neighbours["rouge-l"]["index"] > 0.1


@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("seed", -1),
        ("draws", 5),
        ("draws", 10**9),
        ("derangements", 3),
        ("level", 95),
        ("constants", "a"),
    ],
)
def test_settings_that_cannot_be_are_refused(option, value):
    with pytest.raises(InputError):
        ScoreConfig(**{option: value})


def test_the_network_is_taken_from_predictions_that_name_it():
    result = leaderboard.score(sample.PREDICTIONS, sample.ANNOTATIONS, "rouge-l", settings=FEW)
    assert result.record.edition.config == "sample"


# --- records ----------------------------------------------------------------------------------


def test_a_record_is_written_whole_and_read_back(tmp_path, scored):
    folder = scored.save(tmp_path / "deep" / "record")
    assert sorted(path.name for path in folder.iterdir()) == [
        "predictions.csv",
        "record.json",
        "units.parquet",
    ]
    assert [path.name for path in folder.parent.iterdir()] == ["record"]
    assert score_record.load(folder) == scored.record
    units = pd.read_parquet(folder / "units.parquet")
    assert list(units.columns) == ["network", "layer", "unit", "metric", "value", "lift"]
    assert not units.value.isna().any()
    means = units.groupby("metric").value.mean()
    for name, estimate in scored.record.scores.items():
        if name in means:
            assert means[name] == pytest.approx(estimate.mean), name
    assert predictions.read(folder / "predictions.csv").rows == scored.predictions.rows


def test_record_json_is_strict_sorted_and_holds_every_score(tmp_path, scored):
    raw = (scored.save(tmp_path / "r") / "record.json").read_text()
    assert "NaN" not in raw
    assert "Infinity" not in raw
    result = json.loads(raw)
    assert list(result) == sorted(result)
    assert result["created"].endswith("+00:00")
    for estimate in result["scores"].values():
        assert set(estimate) >= {"mean", "mean_all", "low", "high", "lift", "n_scored", "n_units"}
    for floor in ("constant", "shuffled", "most-common-of-layer", "one-person"):
        assert set(result["floors"][floor]) <= set(result["scores"])
    assert result["settings"]["seed"] == 0
    assert all(entry["signature"] for entry in result["metrics"].values())


def test_two_runs_differ_in_id_and_times_alone(known):
    one, two = (
        leaderboard.score(sample.PREDICTIONS, known, ["default"], settings=FEW).record.model_dump()
        for _ in range(2)
    )
    assert {key for key in one if one[key] != two[key]} <= {"id", "created", "seconds"}
    assert one["id"] != two["id"]


def test_a_record_replaces_its_own_kind_and_nothing_else(tmp_path, known, scored):
    folder = scored.save(tmp_path / "r")
    scored.save(folder)  # the same method again
    other = leaderboard.score(
        sample.PREDICTIONS, known, ["rouge-l"], settings=FEW, method="another@1.2"
    )
    with pytest.raises(InputError, match="holds the record of"):
        other.save(folder)
    assert score_record.load(folder).method == scored.record.method
    other.save(folder, overwrite=True)
    assert score_record.load(folder).address[3:5] == ("another", "1.2")
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("years of work")
    with pytest.raises(InputError, match="holds no record"):
        other.save(tmp_path / "mine", overwrite=True)
    assert (tmp_path / "mine" / "thesis.txt").read_text() == "years of work"


def test_a_failed_save_leaves_the_old_record(tmp_path, scored, monkeypatch):
    folder = scored.save(tmp_path / "r")
    before = (folder / "record.json").read_bytes()

    def full(record):
        raise OSError("No space left on device")

    monkeypatch.setattr(base, "dumps", full)
    with pytest.raises(OSError, match="No space"):
        scored.save(folder)
    assert (folder / "record.json").read_bytes() == before
    assert [path.name for path in tmp_path.iterdir()] == ["r"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "not strict JSON"),
        ('{"schema_version": NaN}', "NaN is not JSON"),
        ('{"schema_version": 1, "schema_version": 1}', "the same key twice"),
        ('{"schema_version": 99}', "schema version 99"),
        ("[]", "schema version None"),
        ('{"schema_version": 1}', "id: Field required"),
    ],
)
def test_what_is_no_record_is_refused(tmp_path, text, message):
    (tmp_path / "record.json").write_text(text)
    with pytest.raises(InputError, match=message):
        score_record.load(tmp_path)


def test_the_first_schema_still_loads():
    """A record written by the first version loads forever."""
    from pathlib import Path

    old = score_record.load(Path(__file__).parent / "records" / "v1")
    assert old.method == "sample-method"
    assert old.scores["rouge-l"].n_units == 32


def test_the_commit_is_of_this_package_not_of_the_current_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    base._commit.cache_clear()
    ran = base.what_ran()
    assert ran["commit"] is None or len(ran["commit"]) == 40
    assert statistics.RETRIEVAL_POOL == 100
    base._commit.cache_clear()
