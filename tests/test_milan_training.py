"""Training: what is minimised, what is held out, when it stops, and going on after an end."""

import json
import os
import signal
import subprocess
import sys
import types
from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

import leaderboard.reproduction.lambda_choice
import leaderboard.reproduction.training
from leaderboard.cli import main
from milan import Milan, objectives, training, training_loop
from milan import encoder as encoders
from milan.config import SIZES, Config, TrainingConfig
from milan.features import Features, features_of
from milan.model import Candidate
from milan.objectives import Corpus, doubly_stochastic
from milan.training import TrainingUnits, held_out, learn
from milannotations import InputError
from milannotations.editions import loading
from milannotations.editions.writing import write_config

TINY = TrainingConfig(epochs=2, batch=16, rate=3e-3, patience=9)
WORDS = {"embedding_size": 8, "hidden_size": 16, "attention_size": 8, "lm_hidden_size": 16}
ROOT = Path(__file__).resolve().parent.parent


@pytest.fixture(autouse=True)
def _small(monkeypatch):
    """Make models small, and accelerate forget the precision of the test before."""
    from accelerate.state import AcceleratorState

    monkeypatch.setitem(SIZES, "small", {**SIZES["small"], **WORDS})
    AcceleratorState._reset_state(reset_partial_state=True)
    yield
    AcceleratorState._reset_state(reset_partial_state=True)


@pytest.fixture(scope="module")
def encoder():
    return encoders.build()


@pytest.fixture(scope="module")
def mini():
    return loading.load("mini", split="train").select(range(24))


@pytest.fixture(scope="module")
def features(mini, encoder):
    return features_of(mini, encoder)


@pytest.fixture(scope="module")
def sides(mini, features):
    """Return features and texts of 18 units to learn from, and of 6 that are held out."""
    rows = range(18), range(18, 24)
    texts = mini["descriptions"]
    return [features.of(own) for own in rows], [[texts[i] for i in own] for own in rows]


@pytest.fixture
def fit(sides, encoder, tmp_path):
    def run(settings=TINY, work=None, texts=None, features=None, sizes="small"):
        work = work or tmp_path / f"work-{len(list(tmp_path.iterdir()))}"
        known, said = sides
        return learn(features or known, texts or said, encoder, work, sizes, settings)

    return run


def weights(model):
    """Return those of both models, copied; the encoder's are not trained."""
    own = model.state_dict().items()
    return {name: value.clone() for name, value in own if not name.startswith("encoder.")}


def same(one, other):
    one, other = weights(one), weights(other)
    return one.keys() == other.keys() and all(torch.equal(one[n], other[n]) for n in one)


def validations(monkeypatch, values):
    """Make held-out units say these values of the decoder, an epoch each; return its weights."""
    seen, given = [], iter(values)

    def judge(run, model, corpus):
        seen.append(weights(model))
        return {"loss": 1.0, "bleu": 1.0, "value": float(next(given))}

    monkeypatch.setattr(training, "validate_decoder", judge)
    return seen


def without(rows, column, value):
    """Return units with one column's values replaced."""
    return rows.map(lambda row: {column: value}, load_from_cache_file=False, keep_in_memory=True)


# ---- what is minimised


def random_model(encoder, texts):
    torch.manual_seed(0)
    vocabulary = training.Vocabulary.of(text for own in texts for text in own)
    config = Config(vocabulary.words, encoder.config, **SIZES["small"])
    return Milan(config, encoder).eval(), vocabulary


def test_the_loss_of_words_is_that_of_each_word_and_the_end(sides, encoder):
    (known, _), (texts, _) = sides
    model, vocabulary = random_model(encoder, texts)
    corpus = Corpus.of(known, texts, vocabulary)
    rows = torch.tensor([3, 0, 17, 30])
    total, count = 0.0, 0
    for row in rows.tolist():
        text = [text for own in texts for text in own][row]
        ids = vocabulary.encode([text])
        log_probs = model.language_model(ids[:, :-1])[0]
        for place, word in enumerate(ids[0, 1:]):
            total -= log_probs[place, word].item()
            count += 1
    found = objectives.LanguageModelLoss(model, corpus)(rows)
    assert found.item() == pytest.approx(total / count, rel=1e-5)


def test_the_loss_of_exemplars_and_the_penalty_in_training_alone(sides, encoder):
    (known, _), (texts, _) = sides
    model, vocabulary = random_model(encoder, texts)
    corpus = Corpus.of(known, texts, vocabulary)
    rows = torch.tensor([3, 0, 17, 30])
    total, count, attentions = 0.0, 0, []
    longest = max(int((corpus.ids[row] != vocabulary.pad).sum()) for row in rows)
    for row in rows.tolist():
        text = [text for own in texts for text in own][row]
        unit = [i for i, own in enumerate(texts) for _ in own][row]
        values, present = known.tensors([unit])
        ids = vocabulary.encode([text])
        seen = model.decoder.exemplars(values, present)
        log_probs = model.decoder(seen, ids[:, :-1])[0][0]
        for place, word in enumerate(ids[0, 1:]):
            total -= log_probs[place, word].item()
            count += 1
        padded = torch.nn.functional.pad(ids, (0, longest - ids.shape[1]), value=vocabulary.pad)
        attentions.append(model.decoder(seen, padded[:, :-1])[1][0])
    settings = replace(TINY, penalty=0.7)
    objective = objectives.DecoderLoss(model, corpus, settings).eval()
    assert objective(rows).item() == pytest.approx(total / count, rel=1e-5)
    penalty = torch.stack([(1 - paid.sum(0)) ** 2 for paid in attentions]).mean()
    objective.train()
    model.decoder.dropout.eval()
    assert objective(rows).item() == pytest.approx(total / count + 0.7 * penalty.item(), rel=1e-5)


def test_the_penalty_by_a_loop_over_exemplars_that_are_there():
    draw = torch.Generator().manual_seed(0)
    attention = torch.rand(3, 5, 4, generator=draw)
    present = torch.tensor([[True] * 4, [True, False, False, False], [True, True, True, False]])
    squares = [
        (1 - sum(float(attention[row, time, k]) for time in range(5))) ** 2
        for row in range(3)
        for k in range(4)
        if present[row, k]
    ]
    assert float(doubly_stochastic(attention, present)) == pytest.approx(np.mean(squares), rel=1e-5)
    even = torch.full((2, 4, 4), 0.25)
    assert float(doubly_stochastic(even, torch.ones(2, 4, dtype=torch.bool))) == 0


def test_some_exemplars_are_drawn_at_least_so_many_and_only_of_those_present():
    torch.manual_seed(0)
    present = torch.tensor([[True] * 10, [True] * 6 + [False] * 4, [True] * 2 + [False] * 8])
    assert objectives.sample_present(present, None) is present
    drawn = [objectives.sample_present(present, 4) for _ in range(300)]
    assert not any((each & ~present).any() for each in drawn)
    counts = [{int(each[row].sum()) for each in drawn} for row in range(3)]
    assert counts == [set(range(4, 11)), {4, 5, 6}, {2}]
    assert all(any(each[0, k] for each in drawn) for k in range(10))


def test_words_are_of_the_training_units_alone_and_others_become_unk(fit, sides):
    texts = [sides[1][0], [["a zyzzyva, quite"], *sides[1][1][1:]]]
    model, curves = fit(texts=texts)
    assert "zyzzyva" not in model.config.vocabulary
    assert model.vocabulary.unk in model.vocabulary.encode(["a zyzzyva"])
    assert all(np.isfinite(entry["loss"]) for curve in curves.values() for entry in curve)


def test_the_encoder_stays_as_it_is(fit, encoder):
    before = {name: value.clone() for name, value in encoder.state_dict().items()}
    fit()
    assert all(torch.equal(value, before[name]) for name, value in encoder.state_dict().items())


def test_it_learns(fit):
    """Losses of training units fall by a tenth at least; else nothing was learned."""
    _, curves = fit(replace(TINY, epochs=8, rate=1e-2))
    for curve in curves.values():
        assert curve[-1]["train_loss"] < 0.9 * curve[0]["train_loss"]


# ---- what is held out


def test_held_out_units_are_drawn_by_the_seed(mini):
    def keys(units):
        return [tuple(row.values()) for row in units.select_columns(["network", "layer", "unit"])]

    units = held_out(mini, None, 0.25, 0)
    learned, other = keys(units.train), keys(units.validation)
    assert len(other) == 6
    assert sorted(learned + other) == sorted(keys(mini))
    assert learned == sorted(learned, key=keys(mini).index)
    assert keys(held_out(mini, None, 0.25, 0).validation) == other
    assert keys(held_out(mini, None, 0.25, 1).validation) != other
    assert len(held_out(mini, None, 0.001, 0).validation) == 1
    given = held_out(mini.select(range(20)), mini.select(range(20, 24)), 0.25, 0)
    assert (keys(given.train), keys(given.validation)) == (keys(mini)[:20], keys(mini)[20:])


def test_units_without_words_are_neither_learned_from_nor_held_out(mini):
    kept = mini.select(range(8)).map(
        lambda row, i: {
            "descriptions": (row["descriptions"], [], row["descriptions"], [" "])[i % 4]
        },
        with_indices=True,
        load_from_cache_file=False,
        keep_in_memory=True,
    )
    units = held_out(kept, None, 0.25, 0)
    assert (len(units.train), len(units.validation)) == (3, 1)
    none = kept.select([1, 3, 5])
    assert len(held_out(kept, none, 0.25, 0).validation) == 1  # as if there were none


def test_both_models_hold_the_same_units_out(fit, monkeypatch):
    learned, judged = {}, {}
    run_fit, loss = training_loop.TrainingLoop.fit, training.validation_loss

    def fitting(self, name, objective, validate):
        learned[name] = objective.corpus
        return run_fit(self, name, objective, validate)

    def losing(run, objective):
        judged[type(objective).__name__] = objective.corpus
        return loss(run, objective)

    monkeypatch.setattr(training_loop.TrainingLoop, "fit", fitting)
    monkeypatch.setattr(training, "validation_loss", losing)
    fit()
    assert learned["language_model"] is learned["decoder"]
    assert judged["LanguageModelLoss"] is judged["DecoderLoss"]
    rows = [set(each["decoder"].features.rows.tolist()) for each in (learned,)]
    assert rows[0].isdisjoint(judged["LanguageModelLoss"].features.rows.tolist())


def test_loss_of_held_out_descriptions_and_bleu_of_their_units(fit, sides, encoder):
    model, curves = fit(replace(TINY, epochs=1))
    corpus = Corpus.of(sides[0][1], sides[1][1], model.vocabulary)
    last = curves["decoder"][-1]
    values, present = sides[0][1].tensors()
    said = model.describe_features(values, present, strategy="greedy").text
    assert last["bleu"] == pytest.approx(objectives.bleu(said, sides[1][1]))
    log_p = model.score(
        [text for own in sides[1][1] for text in own],
        values[corpus.unit],
        present[corpus.unit],
    ).log_p_given_exemplars
    words = (corpus.ids[:, 1:] != model.vocabulary.pad).sum(1)
    batches = [slice(i, i + TINY.batch) for i in range(0, len(words), TINY.batch)]
    means = [float(-log_p[b].sum() / words[b].sum()) for b in batches]
    mean = np.average(means, weights=[len(words[b]) for b in batches])
    assert last["loss"] == pytest.approx(mean, rel=1e-4)


def test_bleu_is_sacrebleu_s_whatever_the_number_of_references():
    import sacrebleu

    said = ["a red ball on grass", "two dogs run"]
    two = [["a red ball on the grass", "red balls"], ["two dogs run fast", "dogs that run"]]
    wanted = sacrebleu.corpus_bleu(said, [list(each) for each in zip(*two, strict=True)]).score
    assert objectives.bleu(said, two) == pytest.approx(wanted)
    uneven = [two[0], two[1][:1]]
    wanted = sacrebleu.corpus_bleu(said, [[two[0][0], two[1][0]], [two[0][1], None]]).score
    assert objectives.bleu(said, uneven) == pytest.approx(wanted)
    capitalised = ["A red ball on grass.", "Two dogs run."]
    assert objectives.bleu(capitalised, two) == objectives.bleu(said, two)


# ---- when it stops, and with what


def test_the_best_epoch_s_weights_are_kept(fit, monkeypatch):
    seen = validations(monkeypatch, [1, 5, 2, 3])
    model, curves = fit(replace(TINY, epochs=4))
    assert len(curves["decoder"]) == len(seen) == 4
    kept = weights(model)
    own = [name for name in kept if name.startswith("decoder.")]
    assert all(torch.equal(kept[name], seen[1][name]) for name in own)
    assert not all(torch.equal(kept[name], seen[3][name]) for name in own)
    assert not all(torch.equal(kept[name], seen[0][name]) for name in own)


def test_the_language_model_keeps_its_best_epoch_too(fit, monkeypatch):
    seen, losses = [], iter([3.0, 1.0, 2.0, 2.5])
    real = training.validation_loss

    def loss(run, objective):
        if not isinstance(objective, objectives.LanguageModelLoss):
            return real(run, objective)
        seen.append({n: v.clone() for n, v in objective.language_model.state_dict().items()})
        value = next(losses)
        return {"loss": value, "value": -value}

    monkeypatch.setattr(training, "validation_loss", loss)
    model, _ = fit(replace(TINY, epochs=4))
    kept = model.language_model.state_dict()
    assert all(torch.equal(kept[name], seen[1][name]) for name in kept)
    assert not all(torch.equal(kept[name], seen[3][name]) for name in kept)


@pytest.mark.parametrize(
    ("patience", "values", "epochs"),
    [
        (0, [2, 1, 9, 9], 2),
        (1, [2, 1, 1, 9, 9], 3),
        (1, [2, 1, 3, 1, 1, 9], 5),
        (2, [2, 2, 2, 2, 9], 4),
    ],
)
def test_patience(fit, monkeypatch, patience, values, epochs):
    """So many epochs may be no better than the best; the next one that is ends it."""
    validations(monkeypatch, [*values, *[0] * 9])
    model, curves = fit(replace(TINY, epochs=9, patience=patience))
    assert len(curves["decoder"]) == epochs
    del model


@pytest.mark.parametrize("stop_on", ["bleu", "loss"])
def test_what_it_stops_by(fit, stop_on):
    _, curves = fit(replace(TINY, stop_on=stop_on))
    for entry in curves["decoder"]:
        assert entry["value"] == (entry["bleu"] if stop_on == "bleu" else -entry["loss"])
    assert all(entry["value"] == -entry["loss"] for entry in curves["language_model"])


def test_one_seed_gives_the_same_weights_and_another_gives_others(fit):
    settings = replace(TINY, least=4, noise=0.1)
    first, curves = fit(settings)
    torch.manual_seed(99)  # what came before is of no account
    again, curves_again = fit(settings)
    other, _ = fit(replace(settings, seed=1))
    assert curves == curves_again
    assert same(first, again)
    assert not same(first, other)


# ---- going on


class StopError(Exception):
    """What interrupts a training here."""


def stopping(monkeypatch, where, count):
    """Make the training stop in the middle of an epoch: at the nth call of a method."""
    real, left = getattr(training_loop.TrainingLoop, where), [count]

    def call(self, *given):
        left[0] -= 1
        if not left[0]:
            raise StopError
        return real(self, *given)

    monkeypatch.setattr(training_loop.TrainingLoop, where, call)
    return lambda: monkeypatch.setattr(training_loop.TrainingLoop, where, real)


STEPS = 4  # of an epoch: 54 descriptions


@pytest.mark.parametrize("at", [2, STEPS + 2, 3 * STEPS + 1, 4 * STEPS, 5 * STEPS + 3])
def test_interrupted_and_run_again_the_weights_are_the_same(fit, tmp_path, monkeypatch, at):
    settings = replace(TINY, epochs=3, least=4, noise=0.1, batch=16)
    whole, curves = fit(settings)
    go_on = stopping(monkeypatch, "_step", at)
    with pytest.raises(StopError):
        fit(settings, work=tmp_path / "w")
    go_on()
    epochs = []
    seed = training_loop.TrainingLoop._seed
    monkeypatch.setattr(
        training_loop.TrainingLoop, "_seed", lambda run, *at: (epochs.append(at), seed(run, *at))[1]
    )
    model, found = fit(settings, work=tmp_path / "w")
    done = (at - 1) // STEPS
    assert len(epochs) == 6 - done  # what was done is not done again
    assert same(model, whole)
    assert found == curves


def test_interrupted_after_the_best_epoch_it_is_still_that_which_is_kept(
    fit, tmp_path, monkeypatch
):
    settings = replace(TINY, epochs=4)
    seen = validations(monkeypatch, [5, 1, 2, 3])
    go_on = stopping(monkeypatch, "_step", 4 * STEPS + 2 * STEPS + 2)
    with pytest.raises(StopError):
        fit(settings, work=tmp_path / "w")
    go_on()
    model, curves = fit(settings, work=tmp_path / "w")
    assert [entry["value"] for entry in curves["decoder"]] == [5, 1, 2, 3]
    kept = weights(model)
    assert all(torch.equal(kept[n], seen[0][n]) for n in kept if n.startswith("decoder."))


def changed(what, sides, features):
    """Return settings, texts, features and sizes that differ in one respect."""
    settings, (known, texts), sizes = replace(TINY), sides, "small"
    if what == "settings":
        settings = replace(TINY, rate=1e-4)
    elif what == "words":  # the same count of all: nothing fails, and all is wrong
        texts = [[[t.replace("red", "mauve") for t in own] for own in side] for side in texts]
    elif what == "order":
        texts = [texts[0][::-1], texts[1]]
    elif what == "held out":
        texts = [texts[0], texts[1][::-1]]
    elif what == "more words":
        texts = [[["seventeen new words"], *texts[0][1:]], texts[1]]
    elif what == "features":
        known = [Features(each.values + 1, each.rows) for each in known]
    elif what == "sizes":
        sizes = "2022"
    return settings, texts, known, sizes


@pytest.mark.parametrize(
    "what", ["settings", "words", "order", "held out", "more words", "features", "sizes"]
)
def test_a_state_of_something_else_is_not_taken_up(
    fit, sides, features, tmp_path, monkeypatch, what
):
    monkeypatch.setitem(SIZES, "2022", {**WORDS, "hidden_size": 24})
    fit(work=tmp_path / "w")
    settings, texts, known, sizes = changed(what, sides, features)
    epochs = []
    seed = training_loop.TrainingLoop._seed
    monkeypatch.setattr(
        training_loop.TrainingLoop, "_seed", lambda run, *at: (epochs.append(at), seed(run, *at))[1]
    )
    model, _ = fit(settings, tmp_path / "w", texts, known, sizes)
    assert len(epochs) == 4
    fresh, _ = fit(settings, tmp_path / "x", texts, known, sizes)
    assert same(model, fresh)


def test_a_state_that_is_damaged_is_named(fit, tmp_path):
    fit(work=tmp_path / "w")
    file = tmp_path / "w" / "decoder.pt"
    file.write_bytes(file.read_bytes()[:1000])
    with pytest.raises(InputError, match=r"decoder\.pt is damaged.* Remove it"):
        fit(work=tmp_path / "w")


# ---- the folder


def test_train_writes_a_model_and_its_curves(mini, encoder, tmp_path):
    units = held_out(mini, None, 0.25, 0)
    out = tmp_path / "deep" / "model"
    made = training.train(
        units, encoder, out, sizes="small", settings=TINY, made_from={"editions": ["mini"]}
    )
    assert {"config.json", "curves.json", "model.safetensors"} <= {
        path.name for path in out.iterdir()
    }
    assert not any(path.name.startswith(".") for path in out.iterdir())  # nor a state

    def refuse(name):
        raise AssertionError(f"{name} is no JSON")

    curves = json.loads((out / "curves.json").read_text(), parse_constant=refuse)
    assert [[e["epoch"] for e in curves[name]] for name in ("language_model", "decoder")] == [
        [0, 1],
        [0, 1],
    ]
    assert {"train_loss", "loss", "bleu", "value"} <= set(curves["decoder"][0])
    loaded = Milan.from_pretrained(out)
    assert same(loaded, made)
    assert loaded.config.made["units"] == {"train": 18, "validation": 6}
    assert loaded.config.made["settings"]["epochs"] == 2
    best = loaded.config.made["best_epoch"]["decoder"]
    values = [entry["value"] for entry in curves["decoder"]]
    assert best == values.index(max(values))
    features, present = features_of(mini.select(range(2)), loaded.encoder).tensors()
    said = loaded.describe_features(features, present, beam=3)
    assert len(said.text) == 2
    assert said.text == made.describe_features(features, present, beam=3).text


def test_interrupted_before_the_model_is_written_features_are_not_made_again(
    mini, encoder, tmp_path, monkeypatch
):
    units, out = held_out(mini, None, 0.25, 0), tmp_path / "model"

    def finish(model, features):
        raise StopError

    with pytest.raises(StopError):
        training.train(units, encoder, out, sizes="small", settings=TINY, finish=finish)
    assert [path.name for path in out.iterdir()] == [".training"]
    monkeypatch.setattr(encoder, "maps", None)
    monkeypatch.setattr(training_loop.TrainingLoop, "_step", None)
    seen = []

    def choose(model, features):
        seen.append(len(features))
        return replace(model.config, lam=0.35)

    training.train(units, encoder, out, sizes="small", settings=TINY, finish=choose)
    assert seen == [6]
    assert Milan.from_pretrained(out).config.lam == 0.35
    assert not (out / ".training").exists()


def test_half_precision_on_a_processor(mini, encoder, tmp_path):
    units = held_out(mini, None, 0.25, 0)
    settings = replace(TINY, precision="bf16", epochs=1)
    made = training.train(units, encoder, tmp_path / "m", sizes="small", settings=settings)
    assert {value.dtype for value in weights(made).values()} == {torch.float32}
    curves = json.loads((tmp_path / "m" / "curves.json").read_text())
    assert all(np.isfinite(entry["loss"]) for curve in curves.values() for entry in curve)
    plain, _ = learn_plain(units, encoder, tmp_path)
    assert not same(made, plain)


def learn_plain(units, encoder, tmp_path):
    from accelerate.state import AcceleratorState

    AcceleratorState._reset_state(reset_partial_state=True)
    known = [features_of(rows, encoder) for rows in units]
    texts = [rows["descriptions"] for rows in units]
    return learn(known, texts, encoder, tmp_path / "p", "small", replace(TINY, epochs=1))


@pytest.mark.parametrize("k", [1, 2])
def test_one_exemplar_or_not_as_many_a_unit(mini, encoder, tmp_path, k):
    few = mini.map(
        lambda row, i: {name: row[name][: 1 + i % k] for name in ("images", "masks")},
        with_indices=True,
        load_from_cache_file=False,
        keep_in_memory=True,
    )
    settings = replace(TINY, least=8, noise=0.1)
    training.train(
        held_out(few, None, 0.25, 0), encoder, tmp_path / "m", sizes="small", settings=settings
    )
    curves = json.loads((tmp_path / "m" / "curves.json").read_text())
    assert all(np.isfinite(entry["loss"]) for entry in curves["decoder"])


def test_two_units_of_one_exemplar_are_the_least(mini, encoder, tmp_path):
    two = mini.select(range(2)).map(
        lambda row: {
            "images": row["images"][:1],
            "masks": row["masks"][:1],
            "descriptions": row["descriptions"][:1],
        },
        load_from_cache_file=False,
        keep_in_memory=True,
    )
    settings = replace(TINY, noise=0.1)
    made = training.train(
        held_out(two, None, 0.1, 0), encoder, tmp_path / "m", sizes="small", settings=settings
    )
    assert all(value.isfinite().all() for value in weights(made).values())


# ---- what cannot be


def test_data_without_descriptions_fails_before_anything_is_computed(
    mini, encoder, tmp_path, monkeypatch
):
    monkeypatch.setattr(encoder, "maps", None)
    out = tmp_path / "model"
    blank = without(mini, "descriptions", [" "])
    for units, says in [
        (TrainingUnits(blank, mini), "to learn from"),
        (TrainingUnits(mini, blank), "to hold out"),
        (TrainingUnits(mini.select([]), mini), "to learn from"),
        (held_out(mini.select([]), None, 0.1, 0), "to learn from"),
        (held_out(mini.select([0]), None, 0.1, 0), "to learn from"),
    ]:
        with pytest.raises(InputError, match=f"no descriptions {says}"):
            training.train(units, encoder, out, sizes="small", settings=TINY)
    assert not out.exists()


def test_text_without_images_cannot_be_learned_from(mini, encoder, tmp_path):
    text = mini.remove_columns(["images", "masks"])
    for name in ("images", "masks"):
        text = text.add_column(name, [None] * len(text))
    text = text.cast(mini.features.copy()) if text.column_names == mini.column_names else text
    with pytest.raises(InputError, match="holds text alone"):
        training.train(held_out(text, None, 0.1, 0), encoder, tmp_path / "m", settings=TINY)
    assert not (tmp_path / "m" / "config.json").exists()


@pytest.mark.parametrize(
    ("field", "value", "says"),
    [
        ("stop_on", "rouge", "expected one of bleu, loss"),
        ("precision", "int8", "expected one of no, bf16, fp16"),
        ("epochs", 0, "at least 1"),
        ("batch", 0, "at least 1"),
        ("hold_out", 1.0, "between 0 and 1"),
    ],
)
def test_settings_that_make_no_sense(field, value, says):
    with pytest.raises(InputError, match=says):
        replace(TINY, **{field: value})


@pytest.mark.skipif(torch.cuda.is_available(), reason="needs a machine without CUDA")
def test_a_precision_that_processors_lack(fit):
    """Accelerate would say nothing and compute in full precision."""
    with pytest.raises(InputError, match="fp16' needs a GPU"):
        fit(replace(TINY, precision="fp16"))


def test_a_precision_that_is_not_to_be_had(fit):
    """A process has one precision, says accelerate."""
    fit(replace(TINY, epochs=1))
    with pytest.raises(InputError, match="precision 'bf16' is not available"):
        fit(replace(TINY, epochs=1, precision="bf16"))


@pytest.mark.parametrize(("track", "says"), [("trackio", "pip install trackio"), ("tb", "wandb")])
def test_trackers_that_are_not_to_be_had(mini, encoder, tmp_path, monkeypatch, track, says):
    monkeypatch.setattr(training, "find_spec", lambda name: None)
    with pytest.raises(InputError, match=says):
        training.train(held_out(mini, None, 0.25, 0), encoder, tmp_path, settings=TINY, track=track)


@pytest.mark.filterwarnings("ignore::RuntimeWarning")
def test_a_rate_at_which_losses_explode_is_said(fit):
    with pytest.raises(InputError, match="lower learning rate"):
        fit(replace(TINY, rate=1e30))


# ---- several processes


@pytest.mark.parametrize(("count", "world"), [(33, 2), (33, 4), (32, 3), (5, 4), (1, 3)])
def test_every_process_takes_part_in_every_batch(count, world, tmp_path):
    def shares(rank):
        process = types.SimpleNamespace(process_index=rank, num_processes=world)
        run = training_loop.TrainingLoop(process, TINY, "", tmp_path, False)
        return [rows.tolist() for rows in run._batches(count, 1)]

    per = [shares(rank) for rank in range(world)]
    assert {len(own) for own in per} == {-(-count // TINY.batch)}
    assert all(rows for own in per for rows in own)
    together = [sorted(i for own in per for i in own[at]) for at in range(len(per[0]))]
    seen = Counter(i for rows in together for i in rows)
    assert set(seen) == set(range(count))
    assert all(len(rows) == max(world, len(set(rows))) for rows in together)


def environment(**more):
    """Return that of a process that trains: the folder of the code, a thread, and no GPU."""
    return {
        **os.environ,
        "PYTHONPATH": str(ROOT),
        "OMP_NUM_THREADS": "1",
        "CUDA_VISIBLE_DEVICES": "",
        **more,
    }


@pytest.fixture
def edition(mini, tmp_path):
    """Return an edition on disk with few units, of which none are held out."""
    rows = mini.to_list()
    return str(write_config(tmp_path / "edition", "few", {"train": rows}).parent)


@pytest.mark.slow
@pytest.mark.parametrize("data", ["few", "mini"])
def test_two_processes_make_one_model(tmp_path, edition, data):
    accelerate = Path(sys.executable).with_name("accelerate")
    if not accelerate.exists():
        pytest.skip("needs the command accelerate beside python")
    out = tmp_path / "model"
    words = ["--data", edition if data == "few" else "mini", "--out", str(out)]
    # 21 units with 63 descriptions: batches of 31 leave one row over for two processes
    words += ["--epochs", "1", "--batch-size", "31", "--lam", "0.3"]
    launch = ["launch", "--cpu", "--num_processes", "2", "-m", "leaderboard.cli", "train"]
    ran = subprocess.run(
        [accelerate, *launch, *words],
        cwd=tmp_path,
        env=environment(),
        capture_output=True,
        text=True,
        timeout=500,
    )
    assert ran.returncode == 0, ran.stderr[-3000:]
    assert ran.stdout.count("Use it:") == 1
    assert {"config.json", "curves.json", "model.safetensors"} <= {
        path.name for path in out.iterdir()
    }
    assert not any(path.name.startswith(".") for path in out.iterdir())  # nor a state
    assert Milan.from_pretrained(out).config.lam == 0.3


KILLED = """
import os, signal, sys
from milan import training_loop
save, left = training_loop.TrainingLoop._save, [int(sys.argv.pop(1))]
def die(self, *given):
    save(self, *given)
    left[0] -= 1
    if not left[0]:
        os.kill(os.getpid(), signal.SIGKILL)
training_loop.TrainingLoop._save = die
from leaderboard.cli.main import main
main(sys.argv[1:])
"""


@pytest.mark.slow
def test_killed_at_the_end_of_an_epoch_the_same_command_ends_the_same(tmp_path, edition):
    def run(out, saves):
        words = ["train", "--data", edition, "--out", str(out), "--epochs", "3", "--lam", "0.3"]
        return subprocess.run(
            [sys.executable, "-c", KILLED, str(saves), *words],
            env=environment(),
            capture_output=True,
            text=True,
            timeout=300,
        )

    whole, broken = tmp_path / "whole", tmp_path / "broken"
    ran = run(whole, 99)
    assert ran.returncode == 0, ran.stderr[-3000:]
    for saves in (2, 3):  # in the language model, then in the decoder
        assert run(broken, saves).returncode == -signal.SIGKILL
        assert [path.name for path in broken.iterdir()] == [".training"]
    assert run(broken, 99).returncode == 0
    names = sorted(path.name for path in whole.iterdir())
    assert sorted(path.name for path in broken.iterdir()) == names
    for name in names:
        assert (whole / name).read_bytes() == (broken / name).read_bytes()


# ---- lambda


def candidate(text, given, log_p):
    return Candidate(text, given, given, log_p, (0,))


def test_the_best_of_a_beam_at_a_lambda():
    beam = [
        [candidate("a", -1.0, -1.0), candidate("b", -2.0, -5.0)],
        [candidate("c", -1.0, None), candidate("d", -2.0, None)],
    ]
    # -1 + lambda against -2 + 5 lambda: b from a quarter on
    assert leaderboard.reproduction.lambda_choice.best_of_beam(beam, 0.2) == ["a", "c"]
    assert leaderboard.reproduction.lambda_choice.best_of_beam(beam, 0.3) == ["b", "c"]


def beams(units, right_from, wrong_from):
    """Return beams whose best is people's own from one lambda on, and another from the next."""
    words = [own[0] for own in units["descriptions"]]
    return [
        [
            candidate("something", -1.0, -1.0),
            candidate(text, -2.0, -1.0 - 1 / right_from),
            candidate("otherwise", -9.0, -1.0 - 1 / right_from - 7 / wrong_from),
        ]
        for text in words
    ]


@pytest.mark.parametrize(
    ("right", "wrong", "chosen"), [(0.25, 0.45, 0.3), (0.01, 0.09, 0.05), (0.55, 5, 0.6)]
)
def test_lambda_is_the_one_with_the_largest_lift(mini, right, wrong, chosen):
    assert (
        leaderboard.reproduction.lambda_choice.choose_lambda([(mini, beams(mini, right, wrong))])
        == chosen
    )


def test_lambda_over_several_parts_is_that_of_their_mean(mini):
    own = mini.select(range(12))
    early, late = beams(own, 0.15, 0.35), beams(own, 0.25, 5)
    # right at .2 and .3, and from .3 on: at .3 both are
    assert leaderboard.reproduction.lambda_choice.choose_lambda([(own, early)]) == 0.2
    assert leaderboard.reproduction.lambda_choice.choose_lambda([(own, early), (own, late)]) == 0.3


def test_lambda_of_layers_too_small_for_a_lift_is_the_paper_s(mini):
    few = mini.select(range(3))
    assert leaderboard.reproduction.lambda_choice.choose_lambda([(few, beams(few, 0.55, 5))]) == 0.2
    assert leaderboard.reproduction.lambda_choice.choose_lambda([]) == 0.2


# ---- the command


@pytest.fixture
def command(capsys):
    def run(*words):
        try:
            main.main(words)
            status = 0
        except SystemExit as stop:
            status = stop.code or 0
        made = capsys.readouterr()
        return status, made.out, made.err

    return run


def test_train_on_an_edition_by_the_command(command, edition, tmp_path):
    out = str(tmp_path / "model")
    words = ("train", "--data", f"{edition}:few", "--out", out, "--epochs", "1")
    status, said, err = command(*words)
    assert status == 0, err
    assert "22 units to train on, 2 held out" in said
    assert "lambda 0.2" in said
    model = Milan.from_pretrained(out)
    assert model.config.made["data"] == {"editions": [f"{edition}:few"], "condition": None}
    units = loading.load(edition, split="train").select(range(2))
    values, present = features_of(units, model.encoder).tensors()
    assert len(model.describe_features(values, present).text) == 2
    before = Path(out, "model.safetensors").read_bytes()
    status, _, err = command(*words)
    assert status == 1
    assert "holds a model already" in err
    assert Path(out, "model.safetensors").read_bytes() == before


@pytest.mark.slow
def test_train_on_mini_by_the_command(command, tmp_path):
    out = str(tmp_path / "model")
    status, said, err = command("train", "--data", "mini", "--out", out, "--epochs", "1")
    assert status == 0, err
    assert "698 units to train on, 133 held out" in said
    units = loading.load("mini", split="test").select(range(3))
    model = Milan.from_pretrained(out)
    values, present = features_of(units, model.encoder).tensors()
    assert all(model.describe_features(values, present, strategy="greedy").text)


def test_several_editions_are_learned_from_together(edition, mini, tmp_path):
    moved = without(mini, "network", "another").to_list()
    parts = {"train": moved[:20], "validation": moved[20:]}
    other = str(write_config(tmp_path / "other", "more", parts).parent)
    train, validation = leaderboard.reproduction.training.open_units([edition, f"{other}:more"])
    assert Counter(train["network"]) == {**Counter(mini["network"]), "another": 20}
    assert set(validation["network"]) == {"another"}


@pytest.mark.parametrize(
    ("data", "says"),
    [
        (("mini", "mini"), "units come twice"),
        (("mini", "mini:mini"), "units come twice"),
        (("mini:maxi",), "No config 'maxi'"),
        (("minni",), "Did you mean 'mini'"),
    ],
)
def test_editions_that_cannot_be_learned_from(command, tmp_path, data, says):
    status, _, err = command("train", "--data", *data, "--out", str(tmp_path / "m"))
    assert status == 1
    assert says in " ".join(err.split())
    assert not (tmp_path / "m").exists()


def test_an_edition_without_a_unit_to_learn_from(command, mini, tmp_path):
    for name, parts, says in [
        ("none", {"train": without(mini, "descriptions", []).to_list()}, "to learn from"),
        ("test", {"test": mini.select(range(2)).to_list()}, "no split 'train'"),
    ]:
        made = str(write_config(tmp_path / name, "few", parts).parent)
        status, _, err = command("train", "--data", made, "--out", str(tmp_path / "m"))
        assert status == 1
        assert says in " ".join(err.split())


def test_the_command_says_which_encoder_and_which_sizes(command, edition, mini, tmp_path):
    rows = without(mini.select(range(3)), "unit_kind", "channel").to_list()
    real = str(write_config(tmp_path / "real", "few", {"train": rows}).parent)
    status, _, err = command("train", "--data", real, "--out", str(tmp_path / "m"))
    assert (status, "No encoder: add --encoder" in " ".join(err.split())) == (1, True)
    words = ("train", "--data", edition, "--out", str(tmp_path / "m"))
    status, _, err = command(*words, "--sizes", "huge")
    assert (status, "No sizes 'huge'" in err) == (1, True)
    status, _, err = command(*words, "--precision", "int8")
    assert (status, "expected one of no, bf16, fp16" in " ".join(err.split())) == (1, True)
