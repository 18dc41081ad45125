"""CLIP's ranking of descriptions: against transformers' own CLIP and a slow one in numpy."""

import itertools
import json

import numpy as np
import pytest
import torch
from clips import END, PATCH, SIDE, alphabet, clip, clip_bpe, pictures, write
from PIL import Image
from safetensors.numpy import load_file
from transformers import (
    CLIPModel,
    CLIPProcessor,
    CLIPTextModel,
    CLIPTokenizer,
    SiglipConfig,
    SiglipModel,
)

from milan.clip_rerank import ClipReranker, describe
from milan.config import Config
from milan.encoder import build
from milan.model import Milan
from milannotations.errors import InputError

K = 5
TEXTS = ["a red ball", "blue", "the green square", "red", "a ball of balls", "squares"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return write(tmp_path_factory.mktemp("clip"), alphabet())


@pytest.fixture
def reranker(folder):
    return ClipReranker.load(folder)


@pytest.fixture(scope="module")
def unit():
    drawn = torch.Generator().manual_seed(3)
    images = torch.rand(K, 3, SIDE, SIDE, generator=drawn)
    masks = (torch.rand(K, 1, 24, 20, generator=drawn) > 0.6).float()
    masks[1, :, :, :10], masks[2, :, 12:], masks[3] = 0, 0, 0
    return images, masks


# ---- the definition, slowly, in numpy


def bilinear(mask, size):
    """Return a mask resized without antialiasing, pixels being squares with centres."""
    out = np.zeros((size, size))
    for row, column in itertools.product(range(size), range(size)):
        places = []
        for at, length in ((row, mask.shape[0]), (column, mask.shape[1])):
            where = max((at + 0.5) * length / size - 0.5, 0)
            low = min(int(where), length - 1)
            places.append((low, min(low + 1, length - 1), where - low))
        (top, bottom, down), (left, right, across) = places
        out[row, column] = (1 - down) * (
            (1 - across) * mask[top, left] + across * mask[top, right]
        ) + down * ((1 - across) * mask[bottom, left] + across * mask[bottom, right])
    return out


class Slow:
    """CLIP from its file, in float64, a token and a head at a time."""

    def __init__(self, folder):
        self.w = {
            k: v.astype(np.float64) for k, v in load_file(folder / "model.safetensors").items()
        }
        own = json.loads((folder / "processor_config.json").read_text())["image_processor"]
        self.mean, self.std = np.array(own["image_mean"]), np.array(own["image_std"])

    def linear(self, name, x):
        bias = self.w.get(f"{name}.bias")
        return self.w[f"{name}.weight"] @ x + (0 if bias is None else bias)

    def norm(self, name, x):
        scaled = (x - x.mean()) / np.sqrt(x.var() + 1e-5)
        return scaled * self.w[f"{name}.weight"] + self.w[f"{name}.bias"]

    def layer(self, name, xs, heads, cover=None, causal=False):
        normed = [self.norm(f"{name}.layer_norm1", x) for x in xs]
        q, k, v = (
            [self.linear(f"{name}.self_attn.{p}_proj", x) for x in normed] for p in ("q", "k", "v")
        )
        size, out = len(xs[0]) // heads, []
        for i in range(len(xs)):
            joined = []
            for head in range(heads):
                part = slice(head * size, (head + 1) * size)
                reach = range(i + 1 if causal else len(xs))
                exps = np.exp([q[i][part] @ k[j][part] / np.sqrt(size) for j in reach])
                weights = exps / exps.sum()
                if cover is not None and i == 0:
                    weights = [
                        weights[0],
                        *(w * c for w, c in zip(weights[1:], cover, strict=True)),
                    ]
                joined.append(sum(w * v[j][part] for w, j in zip(weights, reach, strict=True)))
            x = xs[i] + self.linear(f"{name}.self_attn.out_proj", np.concatenate(joined))
            y = self.linear(f"{name}.mlp.fc1", self.norm(f"{name}.layer_norm2", x))
            out.append(x + self.linear(f"{name}.mlp.fc2", y / (1 + np.exp(-1.702 * y))))
        return out

    def see(self, image, cover=None, layers=(0, 1, 2)):
        pixels = (image - self.mean[:, None, None]) / self.std[:, None, None]
        sight, kernel = "vision_model", self.w["vision_model.embeddings.patch_embedding.weight"]
        xs = [self.w[f"{sight}.embeddings.class_embedding"]]
        for row, column in itertools.product(range(0, SIDE, PATCH), range(0, SIDE, PATCH)):
            seen = pixels[:, row : row + PATCH, column : column + PATCH]
            xs.append(np.array([(each * seen).sum() for each in kernel]))
        places = self.w[f"{sight}.embeddings.position_embedding.weight"]
        xs = [self.norm(f"{sight}.pre_layrnorm", x + p) for x, p in zip(xs, places, strict=True)]
        for i in range(3):
            masked = cover if i in layers else None
            xs = self.layer(f"{sight}.encoder.layers.{i}", xs, 4, masked)
        return self.linear("visual_projection", self.norm(f"{sight}.post_layernorm", xs[0]))

    def read(self, ids):
        words = self.w["text_model.embeddings.token_embedding.weight"]
        places = self.w["text_model.embeddings.position_embedding.weight"]
        xs = [words[token] + places[place] for place, token in enumerate(ids)]
        for i in range(2):
            xs = self.layer(f"text_model.encoder.layers.{i}", xs, 3, causal=True)
        return self.linear("text_projection", self.norm("text_model.final_layer_norm", xs[-1]))

    def scores(self, images, masks, texts, lam, layers=(0, 1, 2)):
        tokenizer = CLIPTokenizer(*alphabet())
        seen = []
        for image, mask in zip(images.numpy(), masks.numpy(), strict=True):
            cover = bilinear(mask[0], SIDE // PATCH).flatten()
            seen += [(1 - lam, self.see(image, cover, layers)), (lam, self.see(image))]
        said = [
            self.read(ids) for ids in tokenizer(texts, truncation=True, max_length=12)["input_ids"]
        ]
        return [
            sum(w * (s @ t) / np.linalg.norm(s) / np.linalg.norm(t) for w, s in seen) for t in said
        ]


@pytest.mark.parametrize(("lam", "layers"), [(0.5, None), (0.0, None), (1.0, None), (0.3, (1, 2))])
def test_scores_are_the_definition_s(folder, unit, lam, layers):
    images, masks = unit
    found = ClipReranker.load(folder, lam=lam, layers=layers).score(images, masks, TEXTS)
    slow = Slow(folder).scores(images, masks, TEXTS, lam, layers or (0, 1, 2))
    np.testing.assert_allclose(found, slow, atol=2e-5)
    assert np.ptp(slow) > 0.1, "the texts differ by far more than the tolerance"


# ---- transformers' own


def test_whole_masks_give_what_the_model_itself_gives(folder, reranker, unit):
    images, _ = unit
    own = CLIPModel.from_pretrained(folder).eval()
    mean, std = (t[:, None, None] for t in (reranker.mean, reranker.std))
    pixels = (images - mean.reshape(3, 1, 1)) / std.reshape(3, 1, 1)
    with torch.no_grad():
        features = own.get_image_features(pixel_values=pixels).pooler_output
    features = features / features.norm(dim=-1, keepdim=True)
    torch.testing.assert_close(reranker.embed_images(images), features, atol=1e-5, rtol=0)
    whole = reranker.embed_images(images, torch.ones(K, 1, 7, 9))
    torch.testing.assert_close(whole, features, atol=1e-5, rtol=0)


def test_texts_and_images_go_in_as_the_processor_sends_them(folder, reranker):
    drawn = np.random.default_rng(0).integers(0, 256, (2, 50, 50, 3), dtype=np.uint8)
    processor = CLIPProcessor.from_pretrained(folder)
    inputs = processor(
        text=TEXTS,
        images=[Image.fromarray(each) for each in drawn],
        padding=True,
        truncation=True,
        max_length=12,
        return_tensors="pt",
    )
    with torch.no_grad():
        out = CLIPModel.from_pretrained(folder).eval()(**inputs)
    images = torch.tensor(drawn).permute(0, 3, 1, 2)
    torch.testing.assert_close(reranker.embed_texts(TEXTS), out.text_embeds, atol=1e-5, rtol=0)
    seen = reranker.embed_images(images)
    assert (seen * out.image_embeds).sum(1).min() > 1 - 1e-5, "it rounds pictures to bytes"
    torch.testing.assert_close(reranker.embed_images(images / 255), seen)


def test_the_real_vocabulary(real, tmp_path, unit):
    bpe = clip_bpe(real / "text" / "bpe_simple_vocab_16e6.txt.gz")
    ranker = ClipReranker.load(write(tmp_path, bpe, context=77))
    ids = [49406, 320, 1125, 539, 320, 2368, 49407]  # as OpenAI's own tokenizer has them
    assert ranker.tokenizer("a photo of a cat")["input_ids"] == ids
    assert len(ranker.rerank(*unit, ["A photo of a cat", "the dog's ear"])) == 2


def test_a_folder_as_openai_s_is(tmp_path, folder, unit):
    # vocab.json, merges.txt and preprocessor_config.json; no tokenizer.json
    vocabulary, merges = alphabet()
    clip(vocabulary).save_pretrained(tmp_path)
    (tmp_path / "vocab.json").write_text(json.dumps(vocabulary))
    lines = ["#version: 0.2", *(" ".join(pair) for pair in merges)]
    (tmp_path / "merges.txt").write_text("\n".join(lines) + "\n")
    own = {"tokenizer_class": "CLIPTokenizer", "model_max_length": 77, "pad_token": END}
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(own))
    pictures().save_pretrained(tmp_path)
    assert (tmp_path / "preprocessor_config.json").exists()
    old = ClipReranker.load(tmp_path).score(*unit, TEXTS)
    torch.testing.assert_close(old, ClipReranker.load(folder).score(*unit, TEXTS))


def test_the_end_token_of_old_configs(tmp_path, folder, unit):
    # 2, which is not the tokenizer's; texts are read at the highest token
    old = ClipReranker.load(write(tmp_path, alphabet(), eos_token_id=2))
    new = ClipReranker.load(folder)
    torch.testing.assert_close(old.score(*unit, TEXTS), new.score(*unit, TEXTS))


# ---- what has no influence, and what has


def test_the_order_of_images_and_of_texts_changes_nothing(reranker, folder, unit):
    images, masks = unit
    ranked = reranker.rerank(images, masks, TEXTS)
    assert [score for _, score in ranked] == sorted((s for _, s in ranked), reverse=True)
    turned = torch.tensor([3, 0, 4, 1, 2])
    other = ClipReranker.load(folder)
    again = other.rerank(images[turned], masks[turned], TEXTS[::-1])
    assert [text for text, _ in again] == [text for text, _ in ranked]
    np.testing.assert_allclose([s for _, s in again], [s for _, s in ranked], atol=1e-5)
    assert reranker.rerank(images, masks, TEXTS) == ranked


def test_of_equals_the_earlier_comes_first(reranker, unit):
    # one text to CLIP, which reads in lower case; each alone, so that no sum differs
    for texts in (["Red", "red", "RED"], ["RED", "Red", "red"]):
        for text in texts:
            reranker.embed_texts([text])
        ranked = reranker.rerank(*unit, texts)
        assert len({score for _, score in ranked}) == 1
        assert [text for text, _ in ranked] == texts


def test_lam_weighs_the_two_terms(reranker, unit):
    masked, unmasked = (reranker.score(*unit, TEXTS, lam) for lam in (0.0, 1.0))
    assert not torch.allclose(masked, unmasked, atol=1e-3)
    torch.testing.assert_close(reranker.score(*unit, TEXTS, 0.25), 0.75 * masked + 0.25 * unmasked)
    torch.testing.assert_close(reranker.score(*unit, TEXTS), (masked + unmasked) / 2)


def test_masks_matter_where_they_are_asked_to(folder, unit):
    images, masks = unit
    none = ClipReranker.load(folder, layers=())
    torch.testing.assert_close(
        none.embed_images(images, masks), none.embed_images(images), atol=0, rtol=0
    )
    by_layer = [ClipReranker.load(folder, layers=[i]).embed_images(images, masks) for i in range(3)]
    for one, other in itertools.combinations([*by_layer, none.embed_images(images)], 2):
        assert (one - other).abs().max() > 1e-3


def test_under_empty_masks_images_look_alike(reranker, unit):
    images, masks = unit
    seen = reranker.embed_images(images, torch.zeros_like(masks))
    assert seen.std(0).max() < reranker.embed_images(images).std(0).max() / 4
    assert reranker.score(images, torch.zeros_like(masks), TEXTS).isfinite().all()


def test_masks_may_be_bool_float_or_bytes(reranker, unit):
    images, masks = unit
    for kind in (torch.bool, torch.uint8):
        torch.testing.assert_close(
            reranker.embed_images(images, masks.to(kind)), reranker.embed_images(images, masks)
        )


def test_images_of_another_size_are_resized(reranker, unit):
    images, masks = unit
    large = torch.nn.functional.interpolate(images, scale_factor=4)  # each pixel four times
    small = reranker.embed_images(large, masks)
    assert (small * reranker.embed_images(images, masks)).sum(1).min() > 0.99
    wide = torch.nn.functional.interpolate(images, (SIDE, 3 * SIDE))
    torch.testing.assert_close(
        reranker.embed_images(wide.repeat_interleave(3, 2), masks),
        reranker.embed_images(wide, masks),
        atol=0.05,
        rtol=0,
    )


# ---- what it costs


def counted(module):
    sizes = []
    module.register_forward_hook(lambda _, __, output: sizes.append(len(output)))
    return sizes


def test_a_text_is_embedded_once_and_an_image_once_per_term(reranker, unit):
    read = counted(reranker.model.text_model.embeddings)
    seen = counted(reranker.model.vision_model.embeddings)
    reranker.score(*unit, [*TEXTS, *TEXTS])
    assert (sum(read), sum(seen)) == (len(TEXTS), 2 * K)
    reranker.score(*unit, [TEXTS[2], "new", TEXTS[0]])
    assert (sum(read), sum(seen)) == (len(TEXTS) + 1, 4 * K)
    reranker.clear_cache()
    reranker.score(*unit, TEXTS[:2])
    assert sum(read) == len(TEXTS) + 3


@pytest.mark.parametrize(("lam", "times"), [(0.0, 1), (1.0, 1), (0.5, 2)])
def test_a_term_without_weight_is_not_computed(reranker, unit, lam, times):
    seen = counted(reranker.model.vision_model.embeddings)
    reranker.score(*unit, TEXTS, lam)
    assert sum(seen) == times * K


def test_long_texts_are_cut_off_and_no_texts_are_allowed(reranker, unit):
    long = "the green square of a red ball"
    read = reranker.embed_texts([long, long + " and much more", "the"])
    torch.testing.assert_close(read[0], read[1])
    assert (read[0] - read[2]).abs().max() > 1e-3
    assert reranker.rerank(*unit, []) == []


# ---- what a user can mend


def test_names_and_folders_that_are_no_clip(tmp_path, folder):
    with pytest.raises(InputError, match=r"No CLIP '.*nowhere'.*save_pretrained.*openai/clip"):
        ClipReranker.load(tmp_path / "nowhere")
    with pytest.raises(InputError, match="No CLIP 'someone/clip'"):
        ClipReranker.load("someone/clip")
    model = CLIPModel.from_pretrained(folder)
    CLIPTextModel(model.config.text_config).save_pretrained(tmp_path / "text")
    with pytest.raises(InputError, match=r"type 'clip_text_model'; expected a CLIP"):
        ClipReranker.load(tmp_path / "text")
    sizes = {"hidden_size": 8, "intermediate_size": 8, "num_hidden_layers": 1}
    sizes["num_attention_heads"] = 1
    siglip = SiglipConfig(text_config=sizes, vision_config=sizes)
    SiglipModel(siglip).save_pretrained(tmp_path / "siglip")
    with pytest.raises(InputError, match=r"type 'siglip'; expected a CLIP"):
        ClipReranker.load(tmp_path / "siglip")


def test_folders_that_are_not_whole(tmp_path, folder):
    model = CLIPModel.from_pretrained(folder)
    model.save_pretrained(tmp_path / "bare")
    with pytest.raises(InputError):
        ClipReranker.load(tmp_path / "bare")
    state = {k: v for k, v in model.state_dict().items() if "visual_projection" not in k}
    model.save_pretrained(tmp_path / "part", state_dict=state)
    CLIPProcessor.from_pretrained(folder).save_pretrained(tmp_path / "part")
    with pytest.raises(InputError, match=r"lacks weights of a CLIP: visual_projection\.weight"):
        ClipReranker.load(tmp_path / "part")
    write(tmp_path / "other", alphabet(), eos_token_id=7)
    with pytest.raises(InputError, match="two models"):
        ClipReranker.load(tmp_path / "other")


def test_numbers_and_masks_that_cannot_be(folder, reranker, unit):
    images, masks = unit
    with pytest.raises(InputError, match=r"lam=1\.5"):
        ClipReranker.load(folder, lam=1.5)
    with pytest.raises(InputError, match=r"lam=-1"):
        reranker.score(images, masks, TEXTS, -1.0)
    with pytest.raises(InputError, match=r"layers 0 to 2; asked for 3"):
        ClipReranker.load(folder, layers=[1, 3])
    with pytest.raises(InputError, match="No masks came"):
        reranker.rerank(images, None, TEXTS)
    with pytest.raises(InputError, match="5 images came with 4 masks"):
        reranker.rerank(images, masks[:4], TEXTS)


# ---- with the reference model


def milan_of(words, length=2, lm_layers=2):
    encoder = build()
    sizes = {"embedding_size": 8, "hidden_size": 16, "attention_size": 8}
    sizes |= {"lm_embedding_size": 8, "lm_hidden_size": 8}
    torch.manual_seed(0)
    config = Config(words, encoder.config, **sizes, length=length, lm_layers=lm_layers)
    return Milan(config, encoder).eval()


@pytest.fixture(scope="module")
def model():
    return milan_of(("red", "blue", "ball", "square"))


@pytest.fixture(scope="module")
def units():
    drawn = torch.Generator().manual_seed(4)
    images = torch.rand(3, K, 3, 64, 64, generator=drawn)
    return images, torch.rand(3, K, 1, 64, 64, generator=drawn) > 0.5


def test_descriptions_are_the_beam_ranked_by_clip(model, reranker, units):
    images, masks = units
    described = describe(model, reranker, images, masks)
    beam = model.describe(images, masks, strategy="beam", beam=1000)
    assert len(described) == 3
    for unit, (ranked, found) in enumerate(zip(described.n_best, beam.n_best, strict=True)):
        assert len(ranked) == 4 + 4 * 4, "all there are: of one word and of two"
        known = {each.text: each for each in found}
        assert {each.text for each in ranked} == set(known)
        own = reranker.rerank(images[unit], masks[unit], [each.text for each in found])
        assert [(each.text, each.score) for each in ranked] == own
        for each in ranked:
            assert each.log_p_given_exemplars == known[each.text].log_p_given_exemplars
            assert (each.log_p, each.tokens) == (known[each.text].log_p, known[each.text].tokens)
    assert described.text == [each[0].text for each in described.n_best]
    assert describe(model, reranker, images, masks) == described


def test_beam_and_lam_are_passed_on(model, reranker, units):
    images, masks = units
    narrow = describe(model, reranker, images, masks, beam=3, lam=1.0)
    beam = model.describe(images, masks, strategy="beam", beam=3)
    for unit, (ranked, found) in enumerate(zip(narrow.n_best, beam.n_best, strict=True)):
        texts = [each.text for each in found]
        assert sorted(each.text for each in ranked) == sorted(texts)
        assert [e.score for e in ranked] == sorted(
            reranker.score(images[unit], masks[unit], texts, 1.0).tolist(), reverse=True
        )


def test_a_text_that_is_found_twice_counts_once(reranker, units):
    images, masks = (each[:1] for each in units)
    model = milan_of(("a", "-", "a-a"), length=3, lm_layers=0)
    (ranked,) = describe(model, reranker, images, masks).n_best
    found = model.describe(images, masks, strategy="beam", beam=1000)
    twice = [each for each in found.n_best[0] if each.text == "a-a"]
    assert len(twice) > 1
    assert [e.tokens for e in ranked if e.text == "a-a"] == [twice[0].tokens]
    assert len({each.text for each in ranked}) == len(ranked)
    assert ranked[0].log_p is None


def test_units_are_described_apart_and_none_may_come(model, reranker, units):
    images, masks = units
    together = describe(model, reranker, images, masks, beam=8)
    alone = describe(model, reranker, images[1:2], masks[1:2], beam=8)
    assert alone.text == together.text[1:2]
    assert alone.score == pytest.approx(together.score[1:2], abs=1e-5)
    assert len(describe(model, reranker, images[:0], masks[:0])) == 0


def test_masks_are_needed(model, reranker, units):
    with pytest.raises(InputError, match=r"No masks came.*model\.describe\(images\)"):
        describe(model, reranker, units[0], None)
    with pytest.raises(InputError, match="lam=2"):
        describe(model, reranker, *units, lam=2.0)
