"""CLIP-Dissect: similarities against a plain reading of the paper's formulas; tiny models."""

import math

import numpy as np
import pytest
import torch
from clips import Planted, alphabet, probing, rows, shown, write, write_siglip
from PIL import Image
from transformers import AutoModel, AutoProcessor, CLIPModel, CLIPProcessor

import baselines
from baselines import Context, Description
from baselines.clip_dissect import (
    SIMILARITIES,
    cosine,
    cosine_cubed,
    create,
    rank_reorder,
    read_concepts,
    soft_wpmi,
    wpmi,
)
from baselines.shared.clip import ClipModel, TextImageModel
from milannotations.errors import InputError

WORDS = ["red", "a ball", "blue squares", "the green", "x"]


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    path = tmp_path_factory.mktemp("models")
    return {"clip": write(path / "clip", alphabet()), "siglip": write_siglip(path / "siglip")}


def context(*probes):
    return Context(probe_statistics={each.network: each for each in probes})


def run(method, probe, units, **how):
    return baselines.framework.run.run(method, rows(probe.network, units), context(probe), **how)


# ---- the paper's formulas, one image, concept and unit at a time


def softmaxed(p, a):
    return [[math.exp(a * v) / sum(math.exp(a * w) for w in row) for v in row] for row in p]


def most(q, unit, k):
    return sorted(range(len(q)), key=lambda i: (-q[i][unit], i))[:k]


def mutual(given, lam):
    """Return log p(t|B) - lam log p(t) of {(unit, concept): p(t|B)}, p(t) the mean over units."""
    units = {u for u, _ in given}
    mean = {c: sum(given[u, c] for u in units) / len(units) for _, c in given}
    return {(u, c): math.log(v) - lam * math.log(mean[c]) for (u, c), v in given.items()}


def slow_soft_wpmi(p, q, top=100, a=10, lam=1, start=0.998, end=0.97):
    k, soft, given = min(top, len(p)), softmaxed(p, a), {}
    for unit in range(len(q[0])):
        for concept in range(len(p[0])):
            product = 1.0
            for place, x in enumerate(most(q, unit, k)):
                inside = start - place / k * (start - end)
                product *= 1 + inside * (soft[x][concept] - 1)
            given[unit, concept] = product
    return mutual(given, lam)


def slow_wpmi(p, q, top=28, a=2, lam=0.6):
    soft, given = softmaxed(p, a), {}
    for unit in range(len(q[0])):
        for concept in range(len(p[0])):
            given[unit, concept] = math.prod(soft[x][concept] for x in most(q, unit, top))
    return mutual(given, lam)


def slow_rank_reorder(p, q):
    found = {}
    for unit in range(len(q[0])):
        own = [row[unit] for row in q]
        descending = sorted(own, reverse=True)
        for concept in range(len(p[0])):
            column = [row[concept] for row in p]
            reordered = [descending[sorted(column, reverse=True).index(each)] for each in column]
            total = sum(abs(a - b) ** 3 for a, b in zip(own, reordered, strict=True))
            found[unit, concept] = -(total ** (1 / 3))
    return found


def slow_cosine(p, q, power=1, centred=False):
    found = {}
    for unit in range(len(q[0])):
        for concept in range(len(p[0])):
            one, other = [row[unit] for row in q], [row[concept] for row in p]
            if centred:
                one, other = (
                    [(v - np.mean(each)) / np.std(each) for v in each] for each in (one, other)
                )
            one, other = [v**power for v in one], [v**power for v in other]
            dot = sum(a * b for a, b in zip(one, other, strict=True))
            found[unit, concept] = dot / math.sqrt(
                sum(a * a for a in one) * sum(b * b for b in other)
            )
    return found


PLAIN = {
    "soft-wpmi": slow_soft_wpmi,
    "wpmi": slow_wpmi,
    "rank-reorder": slow_rank_reorder,
    "cosine": slow_cosine,
    "cosine-cubed": lambda p, q: slow_cosine(p, q, power=3, centred=True),
}


def drawn(images=130, concepts=7, units=4, seed=0):
    draw = np.random.default_rng(seed)
    p = draw.uniform(-0.2, 0.4, (images, concepts)).astype(np.float32)
    q = np.maximum(draw.normal(size=(images, units)), 0).astype(np.float32)  # half are ties
    return torch.from_numpy(p), torch.from_numpy(q)


@pytest.mark.parametrize("name", SIMILARITIES)
@pytest.mark.parametrize("images", [130, 40])
def test_similarities_are_the_paper_s(name, images):
    p, q = drawn(images)
    found = SIMILARITIES[name](p, q)
    plain = PLAIN[name](p.double().tolist(), q.double().tolist())
    assert found.shape == (4, 7)
    for (unit, concept), value in plain.items():
        assert float(found[unit, concept]) == pytest.approx(value, rel=1e-6, abs=1e-7)


def test_settings_of_the_formulas():
    p, q = drawn()
    lists = p.double().tolist(), q.double().tolist()
    for fast, slow, how in (
        (soft_wpmi, slow_soft_wpmi, {"top": 9, "a": 3.0, "lam": 0.5, "start": 0.9, "end": 0.1}),
        (wpmi, slow_wpmi, {"top": 5, "a": 20.0, "lam": 0.0}),
    ):
        for (unit, concept), value in slow(*lists, **how).items():
            assert float(fast(p, q, **how)[unit, concept]) == pytest.approx(value, rel=1e-6)


def test_cosines_of_nothing_are_0():
    p, q = drawn()
    p[:, 2], q[:, 1] = 0.0, 0.0
    for function in (cosine, cosine_cubed):
        found = function(p, q)
        assert not found[:, 2].any()
        assert not found[1].any()
        assert found[0, 0]


def test_work_in_blocks_is_the_same(monkeypatch):
    p, q = drawn()
    whole = [function(p, q) for function in (rank_reorder, cosine, cosine_cubed)]
    monkeypatch.setattr("baselines.clip_dissect.BLOCK", 300)
    for function, one in zip((rank_reorder, cosine, cosine_cubed), whole, strict=True):
        torch.testing.assert_close(function(p, q), one)


# ---- planted similarities


class Fake:
    """Text-image model that knows the concepts in the images of `clips.Squares`."""

    digest = "fake"

    def __init__(self, names, noise=0.02):
        self.names, self.noise, self.calls = names, noise, []

    def embed_images(self, pictures):
        seen = [np.asarray(each)[8, : len(self.names), 0] / 255.0 for each in pictures]
        self.calls.append(("images", len(seen)))
        draw = np.random.default_rng(0)
        vectors = 0.15 + 0.15 * np.array(seen)
        return torch.from_numpy(vectors + draw.normal(size=vectors.shape) * self.noise).float()

    def embed_texts(self, texts):
        self.calls.append(("texts", len(texts)))
        return torch.eye(len(self.names))[[self.names.index(text) for text in texts]]


NAMES = ["dog", "red", "water", "sky", "cat", "tree"]


def planted(images=400, seed=0, layers=("conv",)):
    """Return units that are concepts, with noise; the seventh is constant."""
    draw = np.random.default_rng(seed)
    presence = draw.random((images, len(NAMES))) < 0.3
    own = {}
    for layer in layers:
        noisy = presence + draw.uniform(0, 0.6, presence.shape)
        own[layer] = np.concatenate([noisy, np.zeros((images, 1))], 1)
    return Planted(own, presence, NAMES)


@pytest.mark.parametrize("name", SIMILARITIES)
def test_planted_concepts_are_named(name):
    answers = run(create(Fake(NAMES), similarity=name), planted(), range(7))
    assert isinstance(Fake(NAMES), TextImageModel)
    assert [each.text for each in answers[:6]] == NAMES
    assert answers[6] == Description.abstained()


@pytest.mark.parametrize("name", SIMILARITIES)
def test_what_misleads_which(name):
    """Test images that all resemble one concept, and activations far from 0.

    The plain cosine, weakest in the paper, then sees the offsets alone; and of the prior of that
    concept, a lam below 1 leaves some in WPMI.
    """
    fake, probe = Fake(NAMES), planted()
    plain = fake.embed_images

    def embed_images(pictures):
        vectors = plain(pictures)
        vectors[:, 2] = 0.6 + (vectors[:, 2] - 0.3) / 3
        return vectors

    fake.embed_images = embed_images
    probe._given = {layer: values + 3 for layer, values in probe._given.items()}
    said = [each.text for each in run(create(fake, similarity=name), probe, range(6))]
    assert said == (["water"] * 6 if name in ("wpmi", "cosine") else NAMES)
    if name == "wpmi":
        said = [each.text for each in run(create(fake, similarity=name, lam=1.0), probe, range(6))]
        assert said == NAMES


def test_texts_and_images_are_embedded_once_whatever_asks():
    fake, probe = Fake(NAMES), planted(layers=("a", "b", "c"))
    given, method = context(probe), create(fake)
    for layer in ("a", "b", "c"):
        for batch_size in (1, 3):
            asked = rows("net", range(7), layer)
            baselines.framework.run.run(method, asked, given, batch_size=batch_size)
    baselines.framework.run.run(create(fake, similarity="cosine"), rows("net", [0], "a"), given)
    assert fake.calls == [("images", 400), ("texts", 6)]


def test_batches_and_order_change_nothing():
    probe, units = planted(), [5, 0, 6, 3, 3, 1, 2, 4]
    answers = run(create(Fake(NAMES)), probe, units)
    assert run(create(Fake(NAMES)), probe, units, batch_size=1) == answers
    assert run(create(Fake(NAMES)), probe, units[::-1])[::-1] == answers
    assert answers[3] == answers[4]
    assert run(create(Fake(NAMES)), probe, []) == []
    # what a unit is called depends on its layer, not on which of its units are asked for
    assert run(create(Fake(NAMES)), probe, [3]) == answers[3:4]


def test_a_probe_of_one_image(folders):
    one = Planted({"conv": [[1.0, 0.0]]}, [[True, False]])
    assert run(create(folders["clip"]), one, [0, 1]) == [Description.abstained()] * 2


def test_a_probe_of_two_images(folders):
    two = Planted({"conv": [[1.0, 0.0], [0.0, 0.0]]}, [[True, False], [False, True]])
    for name in SIMILARITIES:
        answers = run(create(folders["siglip"], similarity=name), two, [0, 1])
        assert answers[0].text in ("thing0", "thing1")
        assert answers[1] == Description.abstained()


# ---- tiny real models


def test_vectors_are_transformers_own(folders):
    pictures = shown(5, side=40)
    for kind, folder in folders.items():
        model, processor = AutoModel.from_pretrained(folder).eval(), None
        processor = AutoProcessor.from_pretrained(folder)
        padding = {"padding": True} if kind == "clip" else {"padding": "max_length"}
        size = 12 if kind == "clip" else 16
        inputs = processor(
            text=WORDS,
            images=pictures,
            return_tensors="pt",
            truncation=True,
            max_length=size,
            **padding,
        )
        if kind == "siglip":
            inputs.pop("attention_mask", None)
        with torch.no_grad():
            own = model(**inputs)
        ours = ClipModel.load(folder)
        torch.testing.assert_close(ours.embed_images(pictures), own.image_embeds, atol=1e-5, rtol=0)
        torch.testing.assert_close(ours.embed_texts(WORDS), own.text_embeds, atol=1e-5, rtol=0)
        assert (
            ours.embed_images([]).shape
            == ours.embed_texts([]).shape
            == (0, own.text_embeds.shape[1])
        )
        assert (ours.embed_texts(["red"]) - ours.embed_texts(["x"])).abs().max() > 1e-3


@pytest.mark.parametrize("kind", ["clip", "siglip"])
def test_each_thing_is_embedded_once_and_kept(folders, kind, tmp_path, monkeypatch):
    embedded = []
    embed = ClipModel._embed

    def counted(self, what, batch):
        embedded.extend([what] * len(batch))
        return embed(self, what, batch)

    monkeypatch.setattr(ClipModel, "_embed", counted)
    pictures = shown(70)
    model = ClipModel.load(folders[kind], cache=tmp_path)
    first = model.embed_images([*pictures, pictures[0], pictures[3].convert("RGBA")])
    texts = model.embed_texts([*WORDS, "red"])
    assert torch.equal(first[:2], first[[70, 1]])
    assert torch.equal(first[71], first[3])
    assert len(embedded) == 70 + len(WORDS)
    assert torch.equal(model.embed_images(pictures[::-1]), first[:70].flip(0))
    again = ClipModel.load(folders[kind], cache=tmp_path)
    assert torch.equal(again.embed_images(pictures), first[:70])
    assert torch.equal(again.embed_texts([*WORDS, "red"]), texts)
    assert len(embedded) == 70 + len(WORDS)
    again.embed_texts(["new"])
    assert len(embedded) == 71 + len(WORDS)
    ClipModel.load(folders["siglip" if kind == "clip" else "clip"], cache=tmp_path).embed_texts(
        ["red"]
    )
    assert len(embedded) == 72 + len(WORDS), "another model's are not taken"


def test_what_was_embedded_before_an_interruption_is_kept(folders, tmp_path, monkeypatch):
    monkeypatch.setattr("baselines.shared.clip.SHARD", 32)

    def broken():
        yield from shown(40)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        ClipModel.load(folders["clip"], cache=tmp_path).embed_images(broken())
    again = ClipModel.load(folders["clip"], cache=tmp_path)
    assert len(again._read_cache("images")) == 32


def test_a_broken_cache_is_named(folders, tmp_path):
    model = ClipModel.load(folders["clip"], cache=tmp_path)
    model.embed_texts(["red"])
    (file,) = tmp_path.rglob("*.safetensors")
    file.write_bytes(b"nothing")
    with pytest.raises(InputError, match=r"broken.*Remove it"):
        ClipModel.load(folders["clip"], cache=tmp_path).embed_texts(["red"])


def test_digests_tell_models_apart(folders, tmp_path):
    one, same = ClipModel.load(folders["clip"]), ClipModel.load(folders["clip"])
    other = ClipModel.load(write(tmp_path / "other", alphabet(), seed=1))
    assert one.digest == same.digest != other.digest
    assert one.digest != ClipModel.load(folders["siglip"]).digest


@pytest.mark.parametrize("kind", ["clip", "siglip"])
def test_a_real_network_and_a_real_model(folders, kind, tmp_path):
    presence = np.random.default_rng(0).random((40, 5)) < 0.4
    net = probing([*np.eye(5), np.zeros(5)], presence, ["dog", "red-c", "sky", "a_b", "cat"])
    words = tmp_path / "words.txt"
    words.write_text("\n".join(WORDS))
    for concepts, known in ((None, ["dog", "red", "sky", "a b", "cat"]), (words, WORDS)):
        for name in SIMILARITIES if concepts is None else ["soft-wpmi"]:
            method = create(folders[kind], concepts, name, cache=tmp_path / "kept")
            given = context(net)
            answers = baselines.run(method, rows(net.network, range(6)), given)
            assert {each.text for each in answers[:5]} <= set(known)
            assert answers[5] == Description.abstained()
            if name == "soft-wpmi":  # anew, and by the name of the folder
                assert run(create(str(folders[kind]), concepts, name), net, range(6)) == answers
            chosen = given.chosen_on["net"]
            assert chosen["images"] == net.items.source
            assert chosen["concepts"]["count"] == 5
            assert chosen["text_image_model"] == ClipModel.load(folders[kind]).digest


# ---- lists of concepts


def test_lists_of_concepts(write_file):
    path = write_file("c.txt", b"\xef\xbb\xbfred\r\n\r\n ball \ntench, Tinca tinca\nred\n")
    assert read_concepts(path) == ["red", "ball", "tench, Tinca tinca"]
    with pytest.raises(InputError, match="No list of concepts"):
        create(concepts="nowhere.txt")
    with pytest.raises(InputError, match="holds no concept"):
        read_concepts(write_file("empty.txt", "\n\n"))
    with pytest.raises(InputError, match="no word"):
        read_concepts(write_file("signs.txt", "red\n--\n"))
    with pytest.raises(InputError, match="not UTF-8"):
        read_concepts(write_file("old.txt", "été".encode("latin-1")))


@pytest.mark.parametrize(("name", "count"), [("20k", 20_000), ("3k", 3_000)])
def test_real_lists_of_concepts(real, name, count):
    words = read_concepts(real / "text" / f"{name}.txt")
    assert len(words) == count
    assert {"red", "dog", "the"} <= set(words)


# ---- errors of the user


def test_without_a_model():
    with pytest.raises(InputError, match=r"needs a text-image model.*--model DIR"):
        run(create(), planted(), [0])
    with pytest.raises(InputError, match="probe images"):
        baselines.framework.run.run(create(), rows("net", [0]), Context())


def test_options_that_cannot_be():
    with pytest.raises(InputError, match=r"No similarity 'softwpmi'.*Did you mean 'soft-wpmi'"):
        create(similarity="softwpmi")
    with pytest.raises(InputError, match="'cosine' takes no lam"):
        create(similarity="cosine", lam=1.0)
    with pytest.raises(InputError, match="No pooling"):
        create(pool="median")
    with pytest.raises(InputError, match="top=0"):
        create(top=0)


def test_folders_that_hold_something_else(folders, tmp_path):
    with pytest.raises(InputError, match=r"No text-image model '.*nowhere'.*save_pretrained"):
        ClipModel.load(tmp_path / "nowhere")
    with pytest.raises(InputError, match="No text-image model 'someone/clip'"):
        ClipModel.load("someone/clip")
    model = CLIPModel.from_pretrained(folders["clip"])
    model.text_model.save_pretrained(tmp_path / "text")
    with pytest.raises(InputError, match="expected a whole CLIP or SigLIP"):
        ClipModel.load(tmp_path / "text")
    model.save_pretrained(tmp_path / "bare")
    with pytest.raises(InputError, match="No text-image model"):
        ClipModel.load(tmp_path / "bare")
    state = {k: v for k, v in model.state_dict().items() if "visual_projection" not in k}
    model.save_pretrained(tmp_path / "part", state_dict=state)
    CLIPProcessor.from_pretrained(folders["clip"]).save_pretrained(tmp_path / "part")
    with pytest.raises(InputError, match=r"lacks weights of a clip: visual_projection\.weight"):
        ClipModel.load(tmp_path / "part")
    with pytest.raises(InputError, match="two models"):
        ClipModel.load(write(tmp_path / "other", alphabet(), eos_token_id=7))


def test_images_of_one_mode_and_size_are_known_by_pixels(folders):
    model = ClipModel.load(folders["clip"])
    flat, tall = Image.new("RGB", (8, 2)), Image.new("RGB", (2, 8))
    model.embed_images([flat, tall])
    assert len(model._read_cache("images")) == 2
