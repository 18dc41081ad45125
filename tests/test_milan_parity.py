"""Outputs of the code of 2022 (../shared/data/parity, A1 and A2), made again by its checkpoint.

`compat="2022"` is to give them token for token; without it, results differ where the code of
2022 had its quirks, and nowhere else.
"""

import json

import golden
import numpy as np
import pytest
import torch
import torchvision
from torch.nn import functional as nnf

from milan import Milan, search
from milan.config import EncoderConfig
from milan.encoder import LAYERS, Encoder
from milan.legacy.convert import convert

SCORE, FEATURE = 1e-4, 1e-5
RERANKED = {"rerank": 0.2, "rerank_t05": 0.5, "rerank_t1": 1.0, "default": None}
BEAMS = {
    "beam1": {"strategy": "beam", "beam": 1},
    "beam5": {"strategy": "beam", "beam": 5},
    "beam50": {"strategy": "beam", "beam": 50},
    "beam5_mi": {"strategy": "pmi-beam", "beam": 5},
    "beam50_len6": {"strategy": "beam", "beam": 50, "length": 6},
}
GREEDY = {"greedy": 0.0, "greedy_mi": 0.2, "greedy_mi_t075": 0.75}


@pytest.fixture(scope="module")
def said(parity):
    return json.loads((parity / "a1_golden.json").read_text())


@pytest.fixture(scope="module")
def numbers(parity):
    with np.load(parity / "a1_golden.npz") as arrays:
        return {name: torch.from_numpy(arrays[name]) for name in arrays.files}


@pytest.fixture(scope="module")
def model(parity, tmp_path_factory):
    folder = tmp_path_factory.mktemp("converted") / "model"
    made = Milan.from_pretrained(convert(parity / "a1_decoder_full_keys.pth", folder))
    golden.formula_weights(made.encoder.backbone)  # the file's are zeros, to be small
    return made


@pytest.fixture(scope="module")
def features(numbers):
    return numbers["features"]


def close(made, wanted, tolerance=SCORE):
    made = torch.as_tensor(made, dtype=torch.float32)
    assert made.shape == wanted.shape
    torch.testing.assert_close(made, wanted.float(), rtol=0, atol=tolerance)


def found_tokens(model, features, **how):
    """Return the descriptions that the search finds, all places of them."""
    words = model.vocabulary
    rules = search.Rules(
        words.start, words.stop, how.get("length", 15), empty=True, after_stop=True
    )
    seen = model.decoder.exemplars(features)
    lam = how.get("lam", model.config.lam)
    by = (model.decoder, model.language_model, lam) if how.get("mi") else (model.decoder,)
    with torch.no_grad():
        if "beam" in how:
            return search.beam(search.WordScorer(*by), seen, rules, how["beam"])
        return search.greedy(search.WordScorer(*by), seen, rules)


def until_stop(model, tokens):
    ids = tokens.tolist()
    stop = model.vocabulary.stop
    return tuple(ids[: ids.index(stop) + 1] if stop in ids else ids)


def test_the_vocabulary_is_that_of_the_file(model, said):
    assert list(model.config.vocabulary) == said["meta"]["vocab"]
    words = model.vocabulary
    assert {
        "<start>": words.start,
        "<stop>": words.stop,
        "<pad>": words.pad,
        "<unk>": words.unk,
    } == said["meta"]["specials"]
    kept = said["meta"]["default_attributes"]
    config = model.config
    assert config.made["settings_of_2022"] == kept
    assert (config.lam, config.beam, config.length) == (
        kept["temperature"],
        kept["beam_size"],
        kept["length"],
    )


@pytest.mark.parametrize("mode", BEAMS)
def test_beams(model, features, said, numbers, mode):
    how = BEAMS[mode]
    made = model.describe_features(features, **how, compat="2022")
    assert made.text == said[mode]["captions"]
    assert [[c.text for c in found] for found in made.n_best] == said[mode]["beam_captions"]
    close(made.score, numbers[f"{mode}.scores"])
    close([[c.score for c in found] for found in made.n_best], numbers[f"{mode}.beam_scores"])
    wanted = numbers[f"{mode}.beam_tokens"]
    options = {key: value for key, value in how.items() if key != "strategy"}
    found = found_tokens(model, features, mi=how["strategy"] == "pmi-beam", **options)
    assert found.tokens.tolist() == wanted.tolist()
    close(found.scores, numbers[f"{mode}.beam_scores"])
    assert found.tokens[:, 0].tolist() == numbers[f"{mode}.tokens"].tolist()
    for unit, candidates in enumerate(made.n_best):
        assert [c.tokens for c in candidates] == [until_stop(model, w) for w in wanted[unit]]


@pytest.mark.parametrize("mode", GREEDY)
def test_greedy(model, features, said, numbers, mode):
    lam = GREEDY[mode]
    strategy = "pmi-greedy" if lam else "greedy"
    made = model.describe_features(features, strategy=strategy, lam=lam, compat="2022")
    assert made.text == said[mode]["captions"]
    close(made.score, numbers[f"{mode}.scores"])
    wanted = numbers[f"{mode}.tokens"]
    assert [f[0].tokens for f in made.n_best] == [until_stop(model, row) for row in wanted]
    found = found_tokens(model, features, mi=lam > 0, lam=lam)
    assert found.tokens[:, 0].tolist() == wanted.tolist()
    # the predictions and attentions behind them, by forcing the tokens that were found
    predictions, attentions = forced(model, features, wanted, lam)
    close(predictions, numbers[f"{mode}.predictions"])
    close(attentions, numbers[f"{mode}.attentions"])


def forced(model, features, tokens, lam=0.0):
    """Return predictions and attentions of given tokens, `start` not among them."""
    start = torch.full((len(tokens), 1), model.vocabulary.start)
    inputs = torch.cat([start, tokens[:, :-1]], 1)
    with torch.no_grad():
        predictions, attentions = model.decoder(model.decoder.exemplars(features), inputs)
        if lam:
            predictions = predictions - lam * model.language_model(inputs)
    return predictions, attentions


@pytest.mark.parametrize("mode", RERANKED)
def test_reranking(model, features, said, numbers, mode):
    lam = RERANKED[mode]
    how = {} if lam is None else {"strategy": "pmi", "beam": 50, "lam": lam}
    made = model.describe_features(features, **how, compat="2022")
    assert made.text == said[mode]["captions"]
    close(made.score, numbers[f"{mode}.scores"])
    assert [f[0].tokens for f in made.n_best] == [
        until_stop(model, row) for row in numbers[f"{mode}.tokens"]
    ]
    # ours are ranked anew; those of 2022 stand in the order of the beam
    for unit, candidates in enumerate(made.n_best):
        ours = sorted(candidates, key=lambda c: -c.log_p_given_exemplars)
        close([c.log_p_given_exemplars for c in ours], numbers[f"{mode}.beam_scores"][unit])
        assert [c.text for c in ours] == said[mode]["beam_captions"][unit]
        assert [c.tokens for c in ours] == [
            until_stop(model, row) for row in numbers[f"{mode}.beam_tokens"][unit]
        ]


def test_log_p_in_reranking(model, features, numbers):
    made = model.describe_features(features, compat="2022")
    for unit, candidates in enumerate(made.n_best):
        ours = sorted(candidates, key=lambda c: -c.log_p_given_exemplars)
        close([c.log_p for c in ours], numbers["rerank.beam_lm_quirk"][unit])
        close([c.score for c in ours], numbers["rerank.quirk_scores_all"][unit])
        best = candidates[0].tokens
        assert best == ours[numbers["rerank.quirk_argmax"][unit]].tokens
        right = model.language_model.score([c.tokens for c in ours], model.vocabulary.start)
        close(right.detach(), numbers["rerank.beam_lm_correct"][unit])


def test_without_compat_the_end_counts_once_and_only_that_differs(model, features, numbers):
    """The beam of 2022 as the candidates: it may hold `<unk>` and the empty description."""
    tokens, given = numbers["rerank.beam_tokens"], numbers["rerank.beam_scores"]
    chosen = []
    for unit in range(len(tokens)):
        ids = [until_stop(model, row) for row in tokens[unit]]
        with torch.no_grad():
            log_p = model.language_model.score(ids, model.vocabulary.start)
        scores = given[unit] - model.config.lam * log_p
        close(scores, numbers["rerank.correct_scores_all"][unit])
        chosen.append(int(scores.argmax()))
    assert chosen == numbers["rerank.correct_argmax"].tolist()
    quirk = numbers["rerank.quirk_argmax"].tolist()
    assert [unit for unit in range(6) if chosen[unit] != quirk[unit]] == [1]

    made = model.describe_features(features)
    for unit, candidates in enumerate(made.n_best):
        known = {until_stop(model, row): place for place, row in enumerate(tokens[unit])}
        shared = [c for c in candidates if c.tokens in known]
        assert len(shared) >= 40  # the rest came in where what is forbidden went out
        places = [known[c.tokens] for c in shared]
        close([c.score for c in shared], numbers["rerank.correct_scores_all"][unit][places])
        left_out = set(known) - {c.tokens for c in candidates}
        forbidden = {model.vocabulary.unk, model.vocabulary.pad, model.vocabulary.start}
        for ids in left_out:
            empty = ids == (model.vocabulary.stop,)
            worse = given[unit][known[ids]] <= min(c.log_p_given_exemplars for c in candidates)
            assert empty or forbidden & set(ids) or worse
        best = tuple(candidates[0].tokens)
        assert best == until_stop(model, tokens[unit][chosen[unit]])


def test_without_compat_greedy_ends_at_the_end(model, features, numbers):
    made = model.describe_features(features, strategy="greedy")
    predictions, tokens = numbers["greedy.predictions"], numbers["greedy.tokens"]
    for unit, candidates in enumerate(made.n_best):
        ids = until_stop(model, tokens[unit])
        assert candidates[0].tokens == ids
        each = predictions[unit].gather(1, tokens[unit][:, None])[:, 0]
        close(candidates[0].score, each[: len(ids)].sum())
        assert abs(each[len(ids) :].sum()) > 1  # what the code of 2022 added
        assert made.text[unit] == made.text[unit].lower()


def test_given_descriptions(model, features, said, numbers):
    texts = said["score"]["captions"]
    made = model.score(texts, features)
    close(made.log_p_given_exemplars, numbers["score.likelihood"])
    close(made.pmi, numbers["score.mi"])
    alone = model.score(texts, features[:1])
    close(alone.log_p_given_exemplars, numbers["score.broadcast_unit0.likelihood"])


def test_forced_decoding(model, features, said, numbers):
    tokens = model.vocabulary.encode(said["score"]["captions"])[:, 1:]
    assert tokens.tolist() == numbers["forced.tokens"].tolist()
    predictions, attentions = forced(model, features, tokens)
    close(predictions, numbers["forced.predictions"])
    close(attentions, numbers["forced.attentions"])
    # the score of 2022 counts all places, those after the end too
    close(predictions.gather(2, tokens[:, :, None]).sum((1, 2)), numbers["forced.scores"])
    words = [model.vocabulary.decode(row, "2022") for row in tokens.tolist()]
    assert words == said["forced"]["captions"]


def test_the_loss_of_training(model, features, said, numbers):
    """Spec 3.4: NLL over what is no padding; the regulariser sums over time, padding included."""
    tokens = model.vocabulary.encode(said["score"]["captions"])[:, 1:]
    predictions, attentions = forced(model, features, tokens)
    nll = nnf.nll_loss(
        predictions.flatten(0, 1), tokens.flatten(), ignore_index=model.vocabulary.pad
    )
    close(nll, numbers["train.nll"])
    close((1 - attentions.sum(1)).square().mean(), numbers["train.regulariser"])


def test_the_language_model(model, said, numbers):
    texts = said["lm"]["texts"]
    ids = model.vocabulary.encode(texts)
    assert ids.tolist() == said["lm"]["ids_batched"]
    close(model.log_p(texts, compat="2022"), numbers["lm.logp_batched"])
    close(model.log_p(texts), numbers["lm.logp_correct"])
    alone = torch.cat([model.log_p([text]) for text in texts])
    close(alone, numbers["lm.logp_single"])
    assert (numbers["lm.logp_correct"] - numbers["lm.logp_batched"]).max() > 12
    with torch.no_grad():
        log_probs = model.language_model(ids)
    assert numbers["lm.forward_batched_ids"].tolist() == ids.tolist()
    close(log_probs, numbers["lm.forward_batched"])
    targets = ids[:, 1:]
    nll = nnf.nll_loss(
        log_probs[:, :-1].flatten(0, 1), targets.flatten(), ignore_index=model.vocabulary.pad
    )
    close(nll, numbers["lm.train_nll"])


def test_from_images_to_words(parity, model, said, numbers):
    with np.load(parity / "a1_e2e_inputs.npz") as arrays:
        images, masks = (torch.from_numpy(arrays[f"e2e.{n}"]) for n in ("images", "masks"))
    features = model.encode(images, masks)
    torch.testing.assert_close(features, numbers["e2e.features"], rtol=FEATURE, atol=FEATURE)
    torch.testing.assert_close(model.encode(images / 255, masks.float()), features)
    made = model.describe(images, masks, compat="2022")
    assert made.text == said["e2e"]["captions"] == said["e2e_predict"]
    close(made.score, numbers["e2e.scores"])
    for unit, candidates in enumerate(made.n_best):
        ours = sorted(candidates, key=lambda c: -c.log_p_given_exemplars)
        assert [c.text for c in ours] == said["e2e"]["beam_captions"][unit]
        close([c.log_p_given_exemplars for c in ours], numbers["e2e.beam_scores"][unit])
        assert [c.tokens for c in ours] == [
            until_stop(model, row) for row in numbers["e2e.beam_tokens"][unit]
        ]
    made = model.describe(images, masks, strategy="greedy", compat="2022")
    assert made.text == said["e2e_greedy"]["captions"]
    close(made.score, numbers["e2e_greedy.scores"])
    tokens = numbers["e2e_greedy.tokens"]
    assert [f[0].tokens for f in made.n_best] == [until_stop(model, row) for row in tokens]
    predictions, attentions = forced(model, features, tokens)
    close(predictions, numbers["e2e_greedy.predictions"])
    close(attentions, numbers["e2e_greedy.attentions"])


@pytest.mark.parametrize("name", ["no_cnn", "no_cnn_thinc_name"])
def test_a_file_without_its_encoder_takes_given_weights(parity, model, tmp_path, name, numbers):
    weights = tmp_path / "resnet18.pth"
    torch.save(golden.formula_weights(torchvision.models.resnet18()).state_dict(), weights)
    old = parity / f"a1_decoder_{name}.pth"
    made = Milan.from_pretrained(convert(old, tmp_path / "model", encoder_weights=weights))
    assert made.config == model.config
    for key, value in model.state_dict().items():
        assert torch.equal(made.state_dict()[key], value), key


SETS = [("resnet18", 64), ("resnet18", 224), ("resnet101", 224), ("alexnet", 224)]


@pytest.mark.parametrize(("name", "side"), SETS)
def test_encoders(parity, name, side):
    with np.load(parity / "a2_encoder.npz") as arrays:
        kept = {key: torch.from_numpy(arrays[key]) for key in arrays.files}
    network = golden.formula_weights(torchvision.models.get_model(name, weights=None))
    sums = [float(v.double().abs().sum()) for v in network.state_dict().values()]
    np.testing.assert_allclose(sums, kept[f"{name}_param_abs_sums"].numpy(), rtol=1e-9)
    backbone = f"torchvision:{name}"
    encoder = Encoder(EncoderConfig(backbone, LAYERS[backbone]), network)
    images, masks = kept[f"images{side}"] / 255, kept[f"masks{side}"].float()
    made = encoder(images, masks)[:, 0]
    wanted = kept[f"{name}_{side}_masked"]
    torch.testing.assert_close(made, wanted, rtol=FEATURE, atol=FEATURE)
    assert (made[2] == 0).all()  # its mask is empty
    whole = encoder(images)[:, 0]
    torch.testing.assert_close(whole, kept[f"{name}_{side}_unmasked"], rtol=FEATURE, atol=FEATURE)
    if f"{name}_{side}_masked_nonormalize" in kept:
        plain = EncoderConfig(backbone, LAYERS[backbone], mean=(0.0,) * 3, std=(1.0,) * 3)
        made = Encoder(plain, network)(images, masks)[:, 0]
        wanted = kept[f"{name}_{side}_masked_nonormalize"]
        torch.testing.assert_close(made, wanted, rtol=FEATURE, atol=FEATURE)
    if side == 64:
        maps = encoder.maps(images[:1])
        for layer, found in zip(LAYERS[backbone], maps, strict=True):
            wanted = kept[f"{name}_64_act0_{layer}"]
            torch.testing.assert_close(found[0, :4], wanted, rtol=FEATURE, atol=FEATURE)
