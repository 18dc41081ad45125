"""Decoder, language model and search beside slow ones that use none of their tricks.

The slow ones know one description at a time, compute every prefix from its first word, project
keys at each, and keep lists.
"""

import itertools
import math

import jaxtyping
import pytest
import torch
from torch import nn

from milan import Milan, search
from milan import model as models
from milan.config import STRATEGIES, Config, EncoderConfig
from milan.language_model import LanguageModel
from milannotations.errors import InputError

WORDS = ["red", "green", "blue", "dogs", "cats", "ears", "and", "of"]
K, F, LENGTH = 4, 10, 5
CLOSE = {"rtol": 0, "atol": 1e-5}


def tiny(words=WORDS, seed=0, **how):
    """Return a model whose descriptions are of various lengths and likelihoods."""
    torch.manual_seed(seed)
    encoder = EncoderConfig("mini", ("outputs:0",), feature_size=F)
    sizes = {"embedding_size": 6, "hidden_size": 8, "attention_size": 7}
    own = {"lm_embedding_size": 5, "lm_hidden_size": 9, "length": LENGTH, "beam": 6}
    model = Milan(Config(tuple(words), encoder, **{**sizes, **own, **how})).eval()
    with torch.no_grad():
        for parameter in [*model.decoder.parameters(), *_of(model.language_model)]:
            parameter *= 3
        model.decoder.output.bias[model.vocabulary.stop] += 1
    return model


def _of(language_model):
    return [] if language_model is None else language_model.parameters()


@pytest.fixture(scope="module")
def model():
    return tiny()


@pytest.fixture(scope="module")
def features():
    return seen(7)


def seen(units, k=K, seed=1):
    return torch.randn(units, k, F, generator=torch.Generator().manual_seed(seed))


# ---- the slow ones


def after(decoder, exemplars, words):
    """Return log p of the word after each of `words`; `exemplars` is a list of vectors."""
    mean = sum(exemplars) / len(exemplars)
    h, c = torch.tanh(decoder.init_h(mean)), torch.tanh(decoder.init_c(mean))
    said = []
    for word in words:
        energies = [
            decoder.energy(torch.tanh(decoder.query(h) + decoder.key(f))).item() for f in exemplars
        ]
        largest = max(energies)
        weights = [math.exp(each - largest) for each in energies]
        context = sum(w / sum(weights) * f for w, f in zip(weights, exemplars, strict=True))
        gate = torch.sigmoid(decoder.gate(h))
        inputs = torch.cat([decoder.embedding.weight[word], gate * context])
        h, c = (each[0] for each in decoder.lstm(inputs[None], (h[None], c[None])))
        logits = decoder.output(h)
        said.append(logits - logits.exp().sum().log())
    return said


def after_alone(language_model, words):
    """Return log p of the word after each of `words`, by the equations of an LSTM."""
    lstm, size = language_model.lstm, language_model.lstm.hidden_size
    states = [(torch.zeros(size), torch.zeros(size)) for _ in range(lstm.num_layers)]
    said = []
    for word in words:
        x = language_model.embedding.weight[word]
        for layer, (h, c) in enumerate(states):
            into, across, *biases = (
                getattr(lstm, f"{name}_l{layer}")
                for name in ("weight_ih", "weight_hh", "bias_ih", "bias_hh")
            )
            i, f, g, o = (into @ x + across @ h + sum(biases)).reshape(4, size)
            c = torch.sigmoid(f) * c + torch.sigmoid(i) * torch.tanh(g)
            x = torch.sigmoid(o) * torch.tanh(c)
            states[layer] = (x, c)
        logits = language_model.output(x)
        said.append(logits - logits.exp().sum().log())
    return said


@torch.no_grad()
def continuations(model, exemplars, prefix, lam=0.0, old=False):
    """Return the score of each word after a prefix; those that are forbidden are left out."""
    words = model.vocabulary
    scores = after(model.decoder, exemplars, [words.start, *prefix])[-1]
    if lam:
        scores = scores - lam * after_alone(model.language_model, [words.start, *prefix])[-1]
    never = {} if old else {words.start, words.pad, words.unk}
    if not prefix and not old:
        never |= {words.stop}
    return {word: score for word, score in enumerate(scores.tolist()) if word not in never}


def slow_beam(model, exemplars, width, length=LENGTH, lam=0.0):
    """Return (score, tokens), the best first: each place proposes `width`, `width` survive."""
    stop, beam = model.vocabulary.stop, [(0.0, ())]
    for _ in range(length):
        proposed = []
        for score, tokens in beam:
            if tokens and tokens[-1] == stop:
                proposed.append((score, tokens))
                continue
            scores = continuations(model, exemplars, tokens, lam)
            best = sorted(scores, key=scores.get, reverse=True)[:width]
            proposed += [(score + scores[word], (*tokens, word)) for word in best]
        beam = sorted(proposed, reverse=True)[:width]
        if all(tokens[-1] == stop for _, tokens in beam):
            break
    return beam


@torch.no_grad()
def log_p_slow(model, exemplars, tokens):
    said = after(model.decoder, exemplars, [model.vocabulary.start, *tokens[:-1]])
    return sum(each[word].item() for each, word in zip(said, tokens, strict=True))


@torch.no_grad()
def log_p_alone(model, tokens):
    said = after_alone(model.language_model, [model.vocabulary.start, *tokens[:-1]])
    return sum(each[word].item() for each, word in zip(said, tokens, strict=True))


def check(candidates, wanted):
    """Compare candidates with (score, tokens)."""
    assert [each.tokens for each in candidates] == [tokens for _, tokens in wanted]
    assert [each.score for each in candidates] == pytest.approx([s for s, _ in wanted], abs=1e-5)


# ---- the equations


def test_a_step_is_attention_a_gate_and_an_lstm(model, features):
    words = torch.tensor([[model.vocabulary.start, 3, 1, 4, 1]] * len(features))
    with torch.no_grad():
        log_probs, attention = model.decoder(model.decoder.exemplars(features), words)
        for unit, rows in enumerate(features):
            wanted = torch.stack(after(model.decoder, list(rows), words[unit].tolist()))
            torch.testing.assert_close(log_probs[unit], wanted, **CLOSE)
    torch.testing.assert_close(attention.sum(2), torch.ones(attention.shape[:2]))
    torch.testing.assert_close(log_probs.exp().sum(2), torch.ones(log_probs.shape[:2]))


def test_gradients_are_those_of_the_slow_equations(features):
    one, other = tiny(), tiny()
    words = torch.tensor([[one.vocabulary.start, 3, 1]])
    one.decoder(one.decoder.exemplars(features[:1]), words)[0][0, -1, 2].backward()
    decoder = other.decoder
    h = torch.tanh(decoder.init_h(features[0].mean(0)))
    c = torch.tanh(decoder.init_c(features[0].mean(0)))
    for word in words[0]:
        energies = decoder.energy(torch.tanh(decoder.query(h) + decoder.key(features[0])))
        context = (energies.softmax(0) * features[0]).sum(0) * decoder.gate(h).sigmoid()
        inputs = torch.cat([decoder.embedding.weight[word], context])
        h, c = (each[0] for each in decoder.lstm(inputs[None], (h[None], c[None])))
    decoder.output(h).log_softmax(0)[2].backward()
    for name, parameter in one.decoder.named_parameters():
        wanted = other.decoder.get_parameter(name).grad
        torch.testing.assert_close(parameter.grad, wanted, rtol=1e-4, atol=1e-5, msg=name)


def test_the_language_model_sums_term_by_term(model):
    texts = [[1, 2, 3, 9], [1, 2, 9], [1, 2, 3], [4], [], [1, 2, 3, 9], [7, 7, 7, 7, 7, 9]]
    with torch.no_grad():
        made = model.language_model.score(texts, model.vocabulary.start)
    wanted = [log_p_alone(model, text) if text else 0.0 for text in texts]
    assert made.tolist() == pytest.approx(wanted, abs=1e-5)
    assert not len(model.language_model.score([], model.vocabulary.start))


def test_many_texts_go_through_the_language_model_in_parts(model, monkeypatch):
    draw = torch.Generator().manual_seed(3)
    texts = [torch.randint(0, 3, (n % 5 + 1,), generator=draw).tolist() for n in range(60)]
    rows, step = [], LanguageModel.step

    def counted(self, tokens, state):
        rows.append(len(tokens))
        return step(self, tokens, state)

    monkeypatch.setattr(LanguageModel, "step", counted)
    with torch.no_grad():
        whole = model.language_model.score(texts, model.vocabulary.start)
        prefixes = {tuple(text[:n]) for text in texts for n in range(len(text))}
        assert sum(rows) == len(prefixes), "every distinct prefix once"
        rows.clear()
        monkeypatch.setattr("milan.language_model.ROWS", 7)
        parts = model.language_model.score(texts, model.vocabulary.start)
    assert max(rows) <= 7
    torch.testing.assert_close(whole, parts, **CLOSE)


def test_a_wrong_shape_is_refused(model, features):
    wrong = (jaxtyping.TypeCheckError, TypeError)
    with pytest.raises(wrong, match="features"):
        model.decoder.exemplars(features[0])
    with pytest.raises(wrong, match="present"):
        model.decoder.exemplars(features, torch.ones(len(features), K + 1, dtype=torch.bool))
    with pytest.raises(wrong, match="tokens"):
        model.language_model.step(torch.zeros(3), model.language_model.start(3))


# ---- the beam


@pytest.mark.parametrize("width", [1, 2, 5, 20])
@pytest.mark.parametrize("length", [1, 2, LENGTH])
def test_the_beam_is_that_of_lists(model, features, width, length):
    found = model.describe_features(features, strategy="beam", beam=width, length=length)
    for candidates, rows in zip(found.n_best, features, strict=True):
        check(candidates, slow_beam(model, list(rows), width, length))


@pytest.mark.parametrize("lam", [0.2, 1.0])
def test_the_beam_by_mutual_information_is_that_of_lists(model, features, lam):
    found = model.describe_features(features, strategy="pmi-beam", beam=5, lam=lam)
    for candidates, rows in zip(found.n_best, features, strict=True):
        check(candidates, slow_beam(model, list(rows), 5, lam=lam))


def test_descriptions_end_early_and_late(model, features):
    """Otherwise the tests here would say little."""
    found = model.describe_features(features, strategy="beam", beam=20)
    lengths = {len(each.tokens) for candidates in found.n_best for each in candidates}
    ended = [each.tokens[-1] == model.vocabulary.stop for each in itertools.chain(*found.n_best)]
    assert lengths >= {2, 3, 4, 5}
    assert any(ended)
    assert not all(ended)


def test_a_beam_that_is_wide_enough_finds_all(features):
    model, length = tiny(WORDS[:3]), 3
    stop, words = model.vocabulary.stop, range(3)
    texts = [(*said, stop) for n in (1, 2) for said in itertools.product(words, repeat=n)] + list(
        itertools.product(words, repeat=3)
    )
    found = model.describe_features(features[:3], strategy="beam", beam=60, length=length)
    for candidates, rows in zip(found.n_best, features, strict=False):
        scored = sorted((log_p_slow(model, list(rows), text), text) for text in texts)[::-1]
        check(candidates, scored)
        assert sum(math.exp(each.score) for each in candidates) < 1


def test_what_is_not_forbidden_sums_to_one(features):
    model = tiny(WORDS[:2])
    seen_ones = model.decoder.exemplars(features[:2])
    rules = search.Rules(model.vocabulary.start, model.vocabulary.stop, 3, empty=True)
    with torch.no_grad():
        found = search.beam(search.WordScorer(model.decoder), seen_ones, rules, 200)
    torch.testing.assert_close(found.scores.exp().sum(1), torch.ones(2))


def test_reranking_is_the_beam_sorted_by_both(model, features):
    beams = model.describe_features(features, strategy="beam", beam=8).n_best
    found = model.describe_features(features, beam=8, lam=0.7)
    for candidates, beam in zip(found.n_best, beams, strict=True):
        scored = [
            (each.score - 0.7 * log_p_alone(model, each.tokens), each.tokens) for each in beam
        ]
        check(candidates, sorted(scored, reverse=True))
        for each in candidates:
            assert each.score == pytest.approx(each.log_p_given_exemplars - 0.7 * each.log_p)
    assert found.text != [beam[0].text for beam in beams], "it changes something"
    assert len({len(candidates) for candidates in found.n_best}) == 1
    plain = model.describe_features(features, beam=8, lam=0.0)
    assert plain.text == [beam[0].text for beam in beams]


@pytest.mark.parametrize("strategy", ["pmi-beam", "pmi-greedy"])
def test_scores_of_words_sum_to_mutual_information(model, features, strategy):
    found = model.describe_features(features, strategy=strategy, lam=0.6)
    for candidates, rows in zip(found.n_best, features, strict=True):
        for each in candidates:
            given = log_p_slow(model, list(rows), each.tokens)
            log_p = log_p_alone(model, each.tokens)
            assert each.score == pytest.approx(given - 0.6 * log_p, abs=1e-5)
            assert each.log_p_given_exemplars == pytest.approx(given, abs=1e-5)
            assert each.log_p == pytest.approx(log_p, abs=1e-5)


@pytest.mark.parametrize(("one", "other"), [("greedy", "beam"), ("pmi-greedy", "pmi-beam")])
def test_greedy_is_a_beam_of_one(model, features, one, other):
    greedy = model.describe_features(features, strategy=one)
    beam = model.describe_features(features, strategy=other, beam=1)
    assert [each[0].tokens for each in greedy.n_best] == [each[0].tokens for each in beam.n_best]
    assert greedy.score == pytest.approx(beam.score, abs=1e-5)


@pytest.mark.parametrize("strategy", ["pmi", "beam", "greedy", "sample"])
def test_forced_scores_are_those_that_were_found(model, features, strategy):
    found = model.describe_features(features, strategy=strategy, length=12)
    ended = [i for i, each in enumerate(found.n_best) if each[0].tokens[-1] in (9,)]
    assert ended
    scores = model.score([found.text[i] for i in ended], features[ended])
    wanted = [found.log_p_given_exemplars[i] for i in ended]
    assert scores.log_p_given_exemplars.tolist() == pytest.approx(wanted, abs=1e-5)
    assert scores.log_p.tolist() == pytest.approx([found.log_p[i] for i in ended], abs=1e-5)
    torch.testing.assert_close(
        scores.pmi, scores.log_p_given_exemplars - model.config.lam * scores.log_p
    )


def test_many_texts_of_one_unit_are_scored(model, features):
    texts = ["red dogs", "ears", "red dogs and cats"]
    many = model.score(texts, features[:1])
    each = [model.score([text], features[:1]) for text in texts]
    torch.testing.assert_close(many.pmi, torch.cat([one.pmi for one in each]), **CLOSE)
    with pytest.raises(InputError, match="3 texts came for 2 units"):
        model.score(texts, features[:2])


# ---- units and exemplars


@pytest.mark.parametrize("at_once", [3, 12])
@pytest.mark.parametrize("strategy", STRATEGIES)
def test_batches_do_not_change_descriptions(model, features, strategy, at_once, monkeypatch):
    whole = model.describe_features(features, strategy=strategy)
    monkeypatch.setattr(models, "MAX_HYPOTHESES", at_once)  # by a beam of 6, or of 1
    monkeypatch.setattr(search, "ROWS", 5)
    parts = model.describe_features(features, strategy=strategy)
    assert [[c.tokens for c in each] for each in whole.n_best] == [
        [c.tokens for c in each] for each in parts.n_best
    ]
    assert whole.text == parts.text
    assert whole.score == pytest.approx(parts.score, abs=1e-5)


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_fewer_exemplars_are_those_exemplars_alone(model, features, strategy):
    present = torch.ones(len(features), K, dtype=torch.bool)
    present[1, 1:] = present[2, :2] = present[4, 3] = False
    absent = features.masked_fill(~present[:, :, None], 1e3)  # whatever stands there
    found = model.describe_features(absent, present, strategy=strategy)
    for unit, rows in enumerate(features):
        alone = model.describe_features(rows[present[unit]][None], strategy=strategy)
        if strategy != "sample":  # whose draws go by place
            assert found.n_best[unit][0].tokens == alone.n_best[0][0].tokens
            assert found.score[unit] == pytest.approx(alone.score[0], abs=1e-5)
    scores = model.score(["red dogs"] * len(features), absent, present)
    for unit, rows in enumerate(features):
        alone = model.score(["red dogs"], rows[present[unit]][None])
        torch.testing.assert_close(scores.pmi[unit : unit + 1], alone.pmi, **CLOSE)


def test_one_exemplar_is_enough_and_repeating_it_changes_nothing(model):
    one = seen(3, k=1)
    found, repeated = (model.describe_features(each) for each in (one, one.repeat(1, 15, 1)))
    assert found.text == repeated.text
    assert found.score == pytest.approx(repeated.score, abs=1e-5)


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_features_of_empty_masks_are_described(model, strategy):
    found = model.describe_features(torch.zeros(2, K, F), strategy=strategy)
    assert all(math.isfinite(score) for score in found.score)
    assert all(found.text)


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_no_units_give_no_descriptions(model, strategy):
    found = model.describe_features(torch.zeros(0, K, F), strategy=strategy)
    assert len(found) == 0
    assert found.text == found.score == found.log_p == []
    seen_ones = model.decoder.exemplars(torch.zeros(0, K, F))
    rules = search.Rules(model.vocabulary.start, model.vocabulary.stop, 3)
    assert search.beam(search.WordScorer(model.decoder), seen_ones, rules, 4).tokens.shape[:2] == (
        0,
        4,
    )


# ---- rules


def test_a_beam_wider_than_the_vocabulary(features):
    model = tiny(WORDS[:2])
    one = model.describe_features(features, strategy="beam", beam=50, length=1)
    assert [len(candidates) for candidates in one.n_best] == [2] * len(features)
    for candidates, rows in zip(one.n_best, features, strict=True):
        check(candidates, slow_beam(model, list(rows), 50, 1))
    several = model.describe_features(features, strategy="beam", beam=50)
    for candidates, rows in zip(several.n_best, features, strict=True):
        check(candidates, slow_beam(model, list(rows), 50))
        assert len({each.tokens for each in candidates}) == len(candidates)


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_special_tokens_are_never_written_and_nothing_is_empty(features, strategy):
    model = tiny()
    words = model.vocabulary
    with torch.no_grad():
        for special in words.specials:
            model.decoder.output.bias[special] += 4
    found = model.describe_features(features, strategy=strategy, seed=4)
    for each in itertools.chain(*found.n_best):
        assert not {words.start, words.pad, words.unk} & set(each.tokens)
        assert words.stop not in each.tokens[:-1]
        assert each.tokens[0] != words.stop
        assert each.text
        assert math.isfinite(each.score)
    old = model.describe_features(features, strategy=strategy, compat="2022")
    assert {token for each in itertools.chain(*old.n_best) for token in each.tokens} & {10, 8, 11}


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_descriptions_of_one_word(model, features, strategy):
    found = model.describe_features(features, strategy=strategy, length=1)
    assert {len(each.tokens) for each in itertools.chain(*found.n_best)} == {1}
    assert set(found.text) <= set(WORDS)


# ---- sampling


def test_a_draw_goes_by_seed_and_place(model):
    same = seen(1).expand(12, -1, -1)
    one = model.describe_features(same, strategy="sample", seed=3)
    assert one == model.describe_features(same, strategy="sample", seed=3)
    assert one.text[:5] == model.describe_features(same[:5], strategy="sample", seed=3).text
    assert one.text != model.describe_features(same, strategy="sample", seed=4).text
    assert len(set(one.text)) > 1, "places draw apart"
    torch.manual_seed(99)
    before = torch.get_rng_state()
    assert one == model.describe_features(same, strategy="sample", seed=3)
    assert torch.equal(before, torch.get_rng_state())


def test_frequencies_of_samples_follow_the_model():
    model, n = tiny(WORDS[:3]), 4000
    exemplars = seen(1)
    found = model.describe_features(exemplars.expand(n, -1, -1), strategy="sample", length=2)
    counts = {}
    for each in found.n_best:
        counts[each[0].tokens] = counts.get(each[0].tokens, 0) + 1
    chances = {}
    rows = list(exemplars[0])
    for first, score in continuations(model, rows, ()).items():
        for second, added in continuations(model, rows, (first,)).items():
            chances[first, second] = math.exp(score + added)
    # what is forbidden is not drawn: the rest share its probability, at each word
    firsts = {f: math.exp(s) for f, s in continuations(model, rows, ()).items()}
    for (first, second), chance in list(chances.items()):
        rest = sum(math.exp(s) for s in continuations(model, rows, (first,)).values())
        chances[first, second] = chance / rest / sum(firsts.values())
    assert sum(chances.values()) == pytest.approx(1, abs=1e-5)
    assert set(counts) <= set(chances)
    chi = sum((counts.get(t, 0) - n * p) ** 2 / (n * p) for t, p in chances.items())
    assert len(chances) == 12
    assert chi < 31.3, "99.9 % of draws of 11 degrees of freedom lie below"


# ---- faults


def out_of_memory(at_most, tried):
    beam = search.beam

    def refusing(model, seen, rules, width):
        tried.append(len(seen.features))
        if len(seen.features) > at_most:
            raise RuntimeError("CUDA out of memory. Tried to allocate 2 GiB")
        return beam(model, seen, rules, width)

    return refusing


def test_out_of_memory_halves_the_batch(model, features, monkeypatch):
    wanted, tried = model.describe_features(features), []
    monkeypatch.setattr(models.search, "beam", out_of_memory(2, tried))
    monkeypatch.setattr(models, "MAX_HYPOTHESES", 8 * 6)
    found = model.describe_features(features)
    assert tried == [7, 4, 2, 2, 2, 1]
    assert found.text == wanted.text
    assert found.score == pytest.approx(wanted.score, abs=1e-5)


def test_out_of_memory_with_one_unit_is_said(model, features, monkeypatch):
    monkeypatch.setattr(models.search, "beam", out_of_memory(0, []))
    with pytest.raises(InputError, match="too little memory for one unit at a beam of 9"):
        model.describe_features(features, beam=9)


def test_other_errors_are_not_taken_for_it(model, features, monkeypatch):
    def broken(*_):
        raise RuntimeError("shapes")

    monkeypatch.setattr(models.search, "beam", broken)
    with pytest.raises(RuntimeError, match="shapes"):
        model.describe_features(features)


@pytest.mark.parametrize(
    ("how", "said"),
    [
        ({"strategy": "rerank"}, "No strategy 'rerank' .strategies: pmi, beam, greedy"),
        ({"beam": 0}, "beam=0; expected at least 1"),
        ({"length": 0}, "length=0; expected at least 1"),
        ({"compat": "2021"}, "compat='2021'"),
    ],
)
def test_a_search_that_is_none(model, features, how, said):
    with pytest.raises(InputError, match=said):
        model.describe_features(features, **how)


def test_without_a_language_model(features):
    model = tiny(lm_layers=0)
    assert model.language_model is None
    for strategy in ("pmi", "pmi-beam", "pmi-greedy"):
        with pytest.raises(InputError, match="needs a language model, and this model has none"):
            model.describe_features(features, strategy=strategy)
    found = model.describe_features(features, strategy="beam")
    assert found.log_p == [None] * len(features)
    assert model.score(["red"], features[:1]).pmi is None
    with pytest.raises(InputError, match="no language model"):
        model.log_p(["red"])


def test_describing_leaves_training_and_gradients_as_they_were(features):
    model = tiny()
    wanted = model.describe_features(features).text
    model.train()
    assert model.describe_features(features).text == wanted, "without dropout"
    assert model.training
    assert model.decoder.training
    assert not model.encoder.training
    assert all(p.grad is None for p in model.parameters())
    assert isinstance(model.decoder.dropout, nn.Dropout)
