"""Tests of grounded scores: scorers, held-out images, records, sanity tests of metrics."""

import json

import clips
import networks
import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image
from scipy.stats import pearsonr
from sklearn import metrics as sk
from torch import nn

from baselines.shared.clip import ClipModel
from baselines.shared.probe_statistics import ProbeStatistics
from leaderboard.cli import main
from leaderboard.console import grounding_table, sanity_table, score_table
from leaderboard.evaluation import predictions, references
from leaderboard.evaluation.score_config import ScoreConfig
from leaderboard.grounding import human_ratings, sanity_checks, score
from leaderboard.grounding.activations import HeldOutActivations, ImageSampling, ProbeSubset
from leaderboard.grounding.metrics import HEADLINE, get
from leaderboard.grounding.scorers import Presences, labels, open_scorer, table
from leaderboard.grounding.scorers.grammar import GrammarScorer
from leaderboard.grounding.scorers.labels import LabelScorer
from leaderboard.grounding.scorers.text_image import TextImageScorer
from leaderboard.grounding.simulation import Simulation
from leaderboard.record_format import base, score_record
from milannotations import InputError, Unit
from milannotations.exemplars import Ablator
from milannotations.exemplars.tallies.grid_pooled import GridPooled
from milannotations.probes.mini import MiniProbe
from milannotations.synthetic import CONCEPTS
from milannotations.synthetic.formulas import Formula
from milannotations.synthetic.grammar import parse, phrase

IMAGES, UNITS = 80, 12
NAMES = [f"{word} thing" for word in ["a", "b", "c", "d", "e", "f", "g", "h", "i", "j", "k", "l"]]


def held_of(seed=0):
    """Return units that fire where their concept is, and a unit that never does."""
    draw = np.random.default_rng(seed)
    presence = draw.random((IMAGES, UNITS)) < 0.3
    activations = presence * draw.uniform(0.5, 1.5, presence.shape) + draw.random(presence.shape)
    return HeldOutActivations({"net": clips.Planted({"conv": activations}, presence, NAMES)})


def said(texts, layer="conv"):
    units = [Unit("net", layer, i) for i in range(len(texts))]
    return predictions.from_texts(units, list(texts))


@pytest.fixture(scope="module")
def held():
    return held_of()


@pytest.fixture(scope="module")
def truth(held):
    return score(said(NAMES), held, "labels", ["all"])


# ---- scores


def test_each_value_is_that_of_scipy_and_scikit_learn(held, truth):
    units = truth.units.set_index(["metric", "unit"]).value
    presence = held.probe.presence.T.astype(float)
    activations = held.layers["net", "conv"]
    for unit in range(UNITS):
        p, a = presence[unit], activations[:, unit]
        assert units["pearson", unit] == pytest.approx(pearsonr(p, a).statistic, abs=1e-12)
        assert units["auprc", unit] == pytest.approx(sk.average_precision_score(p, a))
        assert units["auroc-invert", unit] == pytest.approx(sk.roc_auc_score(p, a))
        assert units["prevalence", unit] == pytest.approx(p.mean())


def test_truth_is_above_shuffled_and_a_constant_has_no_lift(held, truth):
    made = truth.record
    for name in HEADLINE:
        assert made.scores[name].lift_low > 0, name
        assert made.floors["shuffled"][name].mean < made.scores[name].low, name
        assert made.floors["constant"][name].lift == 0, name
    constant = score(said([NAMES[3]] * UNITS), held, "labels", ["all"])
    assert (constant.units.lift == 0).all()


def test_what_cannot_be_read_is_a_failure_and_counted(held):
    made = score(said(["a thing", "nonsense", *NAMES[2:]]), held, "labels").record
    assert (made.grounding.n_unreadable, made.grounding.coverage) == (1, 1 - 1 / UNITS)
    pearson = made.scores["pearson"]
    assert (pearson.n_scored, pearson.n_units) == (UNITS - 1, UNITS)
    assert pearson.mean_all == pytest.approx(pearson.mean * (UNITS - 1) / UNITS)
    with pytest.raises(InputError, match="can read none"):
        score(said(["nonsense"] * UNITS), held, "labels")


def test_units_without_a_row_are_an_error_or_failures(held):
    with pytest.raises(InputError, match="missing net/conv/10, net/conv/11"):
        score(said(NAMES[:10]), held, "labels")
    made = score(said(NAMES[:10]), held, "labels", allow_missing=True).record
    assert made.scores["f1"].n_units == UNITS
    assert made.predictions.n_missing == 2
    with pytest.raises(InputError, match="The predictions are of net/other; activations"):
        score(said(NAMES, "other"), held, "labels")


def test_a_unit_that_never_moves_has_no_value():
    own = held_of()
    own.layers["net", "conv"][:, 4] = 0.5
    made = score(said(NAMES), own, "labels")
    assert 4 not in set(made.units.unit)
    assert made.record.scores["pearson"].mean_all == made.record.scores["pearson"].mean


def test_records_are_of_their_kind_and_the_same_twice(held, tmp_path):
    first, again = (score(said(NAMES), held, "labels") for _ in range(2))
    first.save(tmp_path / "record")
    loaded = score_record.load(tmp_path / "record")
    assert loaded == first.record
    assert loaded.kind == "grounding"
    assert loaded.address[-2] == "grounding"
    changing = {"id": "", "created": "", "seconds": {}, "files": {}}
    left, right = (each.record.model_copy(update=changing) for each in (first, again))
    assert base.dumps(left) == base.dumps(right)


def test_the_human_is_scored_beside_if_humans_described_units(held):
    units = tuple(Unit("net", "conv", i) for i in range(UNITS))
    texts = tuple((NAMES[i], NAMES[(i + 1) % UNITS]) for i in range(UNITS))
    n = (None,) * UNITS
    known = references.References(units, texts, ("test",) * UNITS, n, "made up", "net")
    made = score(said(NAMES), held, "labels", references=known).record
    right, wrong = (
        score(said([t[k] for t in texts]), held, "labels", references=known).record
        for k in range(2)
    )
    person = made.floors["one-person"]["pearson"].mean
    means = [each.scores["pearson"].mean for each in (right, wrong)]
    assert person == pytest.approx(np.mean(means))
    assert made.versus_person["pearson"].difference == pytest.approx(means[0] - person)
    assert "prevalence" not in made.versus_person  # neither way is better


def account(**chosen):
    return {"chosen_on": {"net": {"images": {"probe": {"sha256": "1" * 64}}, **chosen}}}


def test_images_that_a_method_chose_on_are_marked(held):
    def of(accounts, seen=False):
        return score(
            said(NAMES), held, "labels", accounts=accounts, exemplars_seen=seen
        ).record.grounding

    assert of([account()]).held_out is True
    assert of([account(images={"probe": {"sha256": "0" * 64}})]).held_out is False
    assert of([]).held_out is None
    assert of([account()], seen=True).held_out is False
    assert of([account()], seen=None).held_out is None


def test_the_table_says_what_to_know(held):
    scored = score(
        said(["nonsense", *NAMES[1:]]),
        held,
        "labels",
        ["headline", "mad"],
        accounts=[account(images={"probe": {"sha256": "0" * 64}})],
    )
    text = score_table.to_text(scored.record)
    for part in (
        "activations of net: 12 of 12", "80 images", "judged by labels", "Not held out",
        "cannot read the descriptions of 1 units", "mad (missing labels)", "prevalence",
    ):  # fmt: skip
        assert part in text
    assert "people" not in text
    assert "human" not in text
    assert "-allref" not in text


# ---- scorers


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    folder = clips.write(tmp_path_factory.mktemp("clip"), clips.alphabet())
    return ClipModel.load(folder, device="cpu")


def test_a_clip_judges_and_embeds_everything_once(held, model):
    counts = {"images": 0, "texts": 0}
    for kind, name in (("images", "get_image_features"), ("texts", "get_text_features")):
        inner = getattr(model.model, name)

        def counted(*args, _inner=inner, _kind=kind, **given):
            counts[_kind] += len(next(iter(given.values())))
            return _inner(*args, **given)

        setattr(model.model, name, counted)
    scorer = TextImageScorer(model, "tiny")
    made = [score(said(NAMES), held, scorer, ["all"]) for _ in range(2)]
    distinct = len({image.tobytes() for image in map(held.probe.image, range(IMAGES))})
    assert counts == {"images": distinct, "texts": UNITS + 1 + 1}  # a constant of real records
    assert made[0].units.equals(made[1].units)
    with torch.no_grad():
        images = model.embed_images([held.probe.image(i) for i in range(IMAGES)])
        texts = model.embed_texts(["a photo of a thing", "a photo"])
        logits = model.model.logit_scale.exp() * (texts @ images.T)
    presence = Presences(scorer, held.probe).of(["a thing"])[0]
    np.testing.assert_allclose(presence, logits.softmax(0)[0].numpy(), rtol=1e-4)


def test_a_siglip_gives_its_own_probability(held, tmp_path):
    scorer = open_scorer(f"clip:{clips.write_siglip(tmp_path / 'siglip')}")
    presence = Presences(scorer, held.probe).of(["red ball"])
    inner = scorer._model
    similar = (
        inner.embed_texts(["a photo of red ball"])
        @ inner.embed_images([held.probe.image(i) for i in range(IMAGES)]).T
    )
    logits = inner.model.logit_scale.exp() * similar + inner.model.logit_bias
    np.testing.assert_allclose(presence, logits.sigmoid().detach().numpy(), rtol=1e-4)


def test_a_judge_of_the_methods_family_is_marked(held, model):
    scorer = TextImageScorer(model, "tiny")
    own, other = (
        score(said(NAMES), held, scorer, accounts=[account(text_image_model=digest)]).record
        for digest in (model.digest, "another")
    )
    assert (own.grounding.same_model, own.grounding.same_family) == (True, True)
    assert (other.grounding.same_model, other.grounding.same_family) == (False, True)
    none = score(said(NAMES), held, scorer, accounts=[account()]).record.grounding
    assert (none.same_model, none.same_family) == (False, False)
    assert "Self-judged" in " ".join(grounding_table.notes(own))


@pytest.mark.parametrize("ending", ["csv", "parquet"])
def test_a_table_made_elsewhere(held, truth, tmp_path, ending):
    rows = [
        (name, str(i), float(held.probe.presence[i, unit]))
        for unit, name in enumerate(NAMES)
        for i in range(IMAGES)
    ]
    frame = pd.DataFrame(rows, columns=table.COLUMNS)
    path = tmp_path / f"table.{ending}"
    frame.to_csv(path, index=False) if ending == "csv" else frame.to_parquet(path, index=False)
    made = score(said(NAMES), held, f"table:{path}", ["all"])
    pd.testing.assert_frame_equal(made.units, truth.units)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("description,image,presence\na thing,0,2\n", "presence 2"),
        ("description,image,presence\na thing,0,1\na thing,0,1\n", "twice"),
        ("description,image,presence\na thing,0,1\n", "lacks 79 of 80 images"),
        ("description,picture,presence\na thing,0,1\n", "has the columns"),
    ],
)
def test_a_table_that_cannot_be_used(held, write_file, text, says):
    with pytest.raises(InputError, match=says):
        score(said(NAMES), held, f"table:{write_file('table.csv', text)}")


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("words.csv", "label,word\nn1,tabby\nn1,tiger cat\nn2,dog\n"),
        ("words.json", json.dumps({"n1": ["tabby", "tiger cat"], "n2": "dog"})),
        ("words.txt", "n1 tabby, tiger cat\nn2 dog\n"),
    ],
)
def test_lexicons(write_file, name, content):
    lexicon = labels.read_lexicon(write_file(name, content))
    assert lexicon == {"n1": ["tabby", "tiger cat"], "n2": ["dog"]}
    probe = clips.Squares([[True, False], [False, True], [True, True]], ["n1", "n2"])
    found = LabelScorer(lexicon).presence(
        ["two tiger cats", "dogs and tabbies, dogs", "fish"], probe, None
    )
    assert found[0].tolist() == [1, 0, 1]
    assert found[1].tolist() == [0, 1, 1]
    assert np.isnan(found[2]).all()


def test_a_lexicon_of_other_labels(write_file, held):
    path = write_file("words.txt", "n9 tabby\n")
    with pytest.raises(InputError, match="No label of squares"):
        score(said(NAMES), held, f"labels:{path}")
    with pytest.raises(InputError, match="holds no label with a word"):
        labels.read_lexicon(write_file("empty.txt", ""))


@pytest.mark.parametrize(
    ("name", "says"),
    [("labls", "Did you mean"), ("clip", "needs a model"), ("table", "needs a file"),
     ("grammar:x", "takes no argument")],
)  # fmt: skip
def test_scorers_that_there_are_not(name, says):
    with pytest.raises(InputError, match=says):
        open_scorer(name)


# ---- the grammar


@pytest.fixture(scope="module")
def scenes():
    return MiniProbe(40)


@pytest.mark.parametrize(
    "formula",
    ["red", "AND(circle, red)", "OR(circle, star)", "NEAR(circle, star)", "TOP(circle)",
     "POLY(text, star)", "dark_background"],
)  # fmt: skip
def test_the_grammar_finds_what_formulas_say(scenes, formula):
    meant = Formula.parse(formula)
    maps = torch.from_numpy(np.stack([scene.concepts for scene in scenes.scenes]))
    region = meant.regions(maps)
    presences = Presences(GrammarScorer(), scenes)
    assert (presences.of([phrase(meant)])[0] == region.flatten(1).any(1).numpy()).all()
    cells = Presences(GrammarScorer(), scenes, 8).of([phrase(meant)])[0].reshape(len(scenes), 8, 8)
    expected = region.reshape(-1, 8, 8, 8, 8).float().mean((2, 4))
    np.testing.assert_allclose(cells, expected.numpy(), atol=1e-6)


def test_the_grammar_reads_whole_descriptions_or_none(scenes):
    presences = Presences(GrammarScorer(), scenes)
    assert not presences.readable("a dog with a red collar")
    assert not presences.readable("nothing in particular, random parts of pictures")
    assert presences.readable("red striped circles")
    both = presences.of(["red striped circles", "red things", "striped things"])
    assert (both[0] <= both[1:].min(0)).all()


def test_the_grammar_reads_scenes_alone(held):
    with pytest.raises(InputError, match="reads scenes of the mini world"):
        score(said(["red things"] * UNITS), held, "grammar")


# ---- held-out images


def test_images_are_drawn_uniformly_and_without_exemplars():
    probe = clips.Squares(np.zeros((200, 1), bool))
    without = frozenset(map(str, range(50)))
    sample = ImageSampling(60, seed=1, without=without)(probe)
    assert isinstance(sample, ProbeSubset)
    ids = [int(sample.source_id(i)) for i in range(len(sample))]
    assert len(set(ids)) == 60
    assert min(ids) >= 50
    assert ids == sorted(ids)
    again, other = (ImageSampling(60, seed, without)(probe) for seed in (1, 2))
    assert again.source == sample.source
    assert other.source != sample.source
    counts = np.zeros(200)
    for seed in range(300):
        indices = ImageSampling(60, seed)(probe).indices
        counts[indices] += 1
    assert abs(counts / 300 - 0.3).max() < 0.15
    assert ImageSampling()(probe) is probe
    with pytest.raises(InputError, match=r"10 held-out images of squares .* 190 of them exemplars"):
        ImageSampling(without=frozenset(map(str, range(190))))(probe)


def test_networks_are_shown_the_same_images():
    presence = np.ones((4, 1), bool)
    one, other = (clips.probing([[1]], presence, network=name) for name in "ab")
    other.probe.source = {"sha256": "1" * 64}
    with pytest.raises(InputError, match="shown 2 sets of images"):
        HeldOutActivations({"a": one, "b": other})


def test_cells_are_means_whatever_the_batch():
    maps = torch.randn(6, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    whole, parts = GridPooled(4), GridPooled(4)
    whole.update(torch.arange(6), maps)
    for i in (3, 0, 5, 1, 4, 2):
        other = GridPooled(4)
        other.update(torch.tensor([i]), maps[i : i + 1])
        parts.merge(other)
    values = whole.result().values
    assert torch.equal(values, parts.result().values)
    expected = maps.reshape(6, 3, 4, 2, 4, 2).mean((3, 5)).flatten(2)
    torch.testing.assert_close(values, expected)
    kept = GridPooled(4)
    kept.load_state_dict(whole.state_dict())
    assert torch.equal(kept.result().values, values)
    with pytest.raises(InputError, match="0 cells per side"):
        GridPooled(0)


class Painted:
    """Images with a square of the first concept or none, and its label map."""

    def __init__(self, count=40):
        draw = np.random.default_rng(3)
        self.masks = np.zeros((count, 16, 16), bool)
        for mask in self.masks[: count // 2]:
            top, left = draw.integers(0, 12, 2)
            mask[top : top + 5, left : left + 5] = True
        self.concepts = clips.Squares([[True]], ["square"]).concepts
        self.name, self.source = "painted", {"sha256": "2" * 64}

    def __len__(self):
        return len(self.masks)

    def source_id(self, i):
        return str(i)

    def image(self, i):
        return Image.fromarray((self.masks[i, ..., None] * 255).repeat(3, 2).astype(np.uint8))

    def labels(self, i, size):
        rows = [np.arange(n) * 16 // n for n in size]
        return self.masks[i][np.ix_(*rows)].astype(np.int32)[None]


def test_by_region_a_unit_must_fire_where_the_concept_is(tmp_path):
    """One cached pass gives the regions; IoU is that of scikit-learn over cells."""
    probe = Painted()
    network = nn.Sequential(nn.Conv2d(3, 2, 1, bias=False)).eval()
    with torch.no_grad():
        network[0].weight.fill_(1 / 3)
        network[0].weight[1] *= -1  # the second fires where the square is not
    network.images = 0
    network.register_forward_pre_hook(
        lambda own, args: setattr(own, "images", own.images + len(args[0]))
    )

    def held():
        items = clips.Items(probe)
        return HeldOutActivations(
            {"net": ProbeStatistics("net", network, items, probe, ["0"], cache=tmp_path)}, grid=16
        )

    made = score(said(["squares", "squares"], "0"), held(), "labels", ["iou", "f1", "pearson"])
    assert network.images == len(probe)
    score(said(["squares", "squares"], "0"), held(), "labels", ["iou"])
    assert network.images == len(probe)
    units = made.units.set_index(["metric", "unit"]).value
    assert units["iou", 0] == pytest.approx(1)
    assert units["pearson", 1] == pytest.approx(-1)
    assert units["iou", 0] == pytest.approx(
        sk.jaccard_score(probe.masks.ravel(), probe.masks.ravel())
    )
    assert made.record.grounding.grid == 16
    with pytest.raises(InputError, match="tells what is in an image, not where"):
        score(said(["squares"] * 2, "0"), held(), table.TableScorer(
            pd.DataFrame([("squares", "0", 1.0)], columns=table.COLUMNS), "t", "d"))  # fmt: skip


# ---- tests of metrics


@pytest.fixture(scope="module")
def pool():
    """Units that are nearly clean: activations with the concept are high, and vary."""
    draw = np.random.default_rng(0)
    presence = draw.random((60, 600)) < 0.3
    high = draw.lognormal(0, 0.4, presence.shape)
    noise = np.abs(draw.normal(0, 0.15, presence.shape))
    return sanity_checks.UnitPool((presence * high + noise).T, presence)


@pytest.mark.parametrize("name", HEADLINE)
def test_the_headline_passes_both_sanity_tests(pool, name):
    found = sanity_checks.run_sanity_tests(get(name), pool, (0.01,))
    assert [each.verdict for each in found] == ["pass", "pass"]
    assert all(each.units == 60 and each.drop >= 0.005 for each in found)


@pytest.mark.parametrize(
    ("name", "fails"),
    [("recall", ["extra labels"]), ("wpmi", ["extra labels"]), ("precision", ["missing labels"]),
     ("mad", ["missing labels"]), ("auroc-invert", ["missing labels"])],
)  # fmt: skip
def test_others_fail_what_was_published(pool, name, fails):
    found = sanity_checks.run_sanity_tests(get(name), pool, (0.01,))
    assert [each.test for each in found if each.verdict != "pass"] == fails
    assert list(get(name).fails) == fails


def test_a_third_party_metric_that_ignores_the_unit_fails(pool, write_file):
    path = write_file("flat.py", "def metric(p, a):\n return 0 * (p @ a) + p.sum(1)[:, None]")
    found = sanity_checks.run_sanity_tests(get(str(path)), pool, (0.1,))
    assert [each.verdict for each in found] == ["pass", "FAIL"]
    text = sanity_table.verdict_notes(found)
    assert len(text) == 2  # nothing was published of it
    path = write_file("nan.py", "def metric(p, a):\n return float('nan') * (p @ a)")
    with pytest.raises(InputError, match="not finite"):
        sanity_checks.run_sanity_tests(get(str(path)), pool, (0.1,))


def test_a_drop_that_is_hardly_one_is_called_so(pool):
    found = sanity_checks.run_sanity_tests(get("accuracy"), pool, (0.01, 0.3))
    missing = [each for each in found if each.test == "missing labels"]
    assert missing[0].drop < 0.005
    assert missing[0].verdict != "pass"
    assert missing[1].verdict == "pass"
    assert any(
        "At higher prevalence accuracy passes" in line for line in sanity_table.verdict_notes(found)
    )


def test_sanity_tests_are_the_same_twice_and_say_what_is_wrong(pool):
    again = [sanity_checks.run_sanity_tests(get("pearson"), pool, (0.1,)) for _ in range(2)]
    assert again[0] == again[1]
    with pytest.raises(InputError, match=r"Prevalence 0.7"):
        sanity_checks.run_sanity_tests(get("f1"), pool, (0.7,))


# ---- human ratings

RATINGS = (
    "Layer,Unit,A Caption Label,B Label,A E1 Rating,B E1 Rating,A E2 Rating,B E2 Rating\n"
    "1,0,a thing,b thing,5,1,4,1\n"
    "1,1,a thing,b thing,1,5,2,2\n"
    "1,2,c thing,a thing,2,4,1,5\n"
    "1,3,d thing,nonsense,5,1,5,1\n"
    "1,4,e thing,,5,,5,\n"
)


def test_agreement_with_ratings_by_hand(write_file):
    own = held_of()
    rated = human_ratings.read_ratings(write_file("ratings.csv", RATINGS), "net", "conv")
    rated = [each for each in rated if each.unit.layer == "conv"]
    presences = Presences(open_scorer("labels"), own.probe)
    from leaderboard.grounding.metrics import GroundedMetric

    found = human_ratings.rating_agreement(GroundedMetric(get("pearson"), own, presences), rated)
    # unit 2 was rated against what it does; of unit 3 a label cannot be read
    assert (found.share, found.n_units, found.n_pairs) == (pytest.approx(2 / 3), 3, 3)
    assert found.n_unreadable == 1
    # of four pairs that the first told apart, the second agrees on three and is even on one
    assert found.people == pytest.approx(3.5 / 4)
    with pytest.raises(InputError, match="expected Layer, Unit"):
        human_ratings.read_ratings(write_file("other.csv", "a,b\n1,2\n"), "net")


def test_published_ratings_can_be_read(real):
    rated = human_ratings.read_ratings(real / "ratings" / "resnet50_human_ratings.csv", "resnet50")
    assert len(rated) == 200
    assert {each.unit.layer for each in rated} == {f"layer{i}" for i in range(1, 5)}
    given = [one for each in rated for both in each.ratings.values() for one in both]
    assert 1 <= min(given) <= max(given) <= 5
    between = [one for each in rated for one in human_ratings._between_raters(each)]
    print(f"\none rater prefers as the other: {np.mean(between):.3f} of {len(between)} pairs")
    assert 0.5 < np.mean(between) < 1


# ---- simulation by ablation


class Scores(nn.Module):
    """Units that see a column of pixels each, and class scores that some of them make."""

    def __init__(self):
        super().__init__()
        self.conv = clips.Columns(np.eye(UNITS)).eval()
        self.head = nn.Linear(UNITS, 3)
        with torch.no_grad():
            self.head.weight.copy_(
                torch.randn(3, UNITS, generator=torch.Generator().manual_seed(1))
            )
            self.head.weight[:, 5] = 0  # a unit that nothing depends on

    def forward(self, x):
        return self.head(self.conv(x).mean((2, 3)))


@pytest.fixture(scope="module")
def simulated():
    presence = np.random.default_rng(0).random((40, UNITS)) < 0.4
    probe = clips.Squares(presence, NAMES)
    return HeldOutActivations(
        {"net": ProbeStatistics("net", Scores().eval(), clips.Items(probe), probe, ["conv"])}
    )


def test_simulation_undoes_what_mean_ablation_moves(simulated):
    own = Simulation(simulated, Presences(open_scorer("labels"), simulated.probe))
    keys = [(f"net/conv/{i}",) for i in range(UNITS)]
    right = own.rows(NAMES, keys)
    assert np.isnan(right[5])
    np.testing.assert_allclose(np.delete(right, 5), 1, atol=1e-5)
    everywhere = Presences(open_scorer("labels"), simulated.probe)
    everywhere._known["always"] = np.ones(40)
    nothing = Simulation(simulated, everywhere).rows(["always"] * UNITS, keys)
    assert (np.delete(nothing, 5) == 0).all()  # exactly: it is mean ablation
    wrong = own.rows([*NAMES[1:], NAMES[0]], keys)
    assert np.nanmean(wrong) < 0.2


def test_simulation_is_what_running_the_network_by_hand_gives(simulated):
    own = Simulation(simulated, Presences(open_scorer("labels"), simulated.probe))
    (found,) = own.rows([NAMES[1]], [("net/conv/0",)])
    probing = simulated.probings["net"]
    network = probing.model
    images = torch.stack([probing.items[i]["image"] for i in own._measured])
    levels = own.predicted(("net", "conv"), [(NAMES[1], 0)])[:, 0]
    mean = simulated.layers["net", "conv"][own._fitted, 0].mean()

    def moved(values):
        with torch.no_grad():
            maps = network.conv(images)
            whole = network.head(maps.mean((2, 3)))
            maps[:, 0] = torch.as_tensor(values).float().reshape(-1, 1, 1)
            return (network.head(maps.mean((2, 3))) - whole).norm(dim=1).mean().item()

    assert found == pytest.approx(1 - moved(levels) / moved(np.full(len(images), mean)), abs=1e-5)


def test_simulation_goes_through_a_score(simulated):
    few = ScoreConfig(derangements=4)
    made = score(said(NAMES), simulated, "labels", ["simulation", "pearson"], settings=few).record
    assert made.scores["simulation"].mean == pytest.approx(1, abs=1e-5)
    assert made.scores["simulation"].lift_low > 0.5
    assert made.scores["simulation"].n_scored == UNITS - 1
    assert made.floors["constant"]["simulation"].lift == pytest.approx(0, abs=1e-12)


def test_units_may_be_given_what_they_do_anyway():
    network, images = networks.exact(), networks.noise(10)
    with torch.no_grad():
        maps = network.conv2(network.act(network.conv1((images * 255).round())))
        whole = network(images).numpy()
    given = Ablator(network, images, ["conv2"], given={"conv2": maps})
    np.testing.assert_allclose(given.logits([{"conv2": [0, 3]}])[0], whole, rtol=1e-5)
    means = maps.mean((0, 2, 3))
    held_at = Ablator(network, images, ["conv2"], given={"conv2": means.expand(10, -1)})
    mean = Ablator(network, images, ["conv2"], how="mean")
    sets = [{"conv2": [1]}, {"conv2": [2, 5]}]
    np.testing.assert_allclose(held_at.logits(sets), mean.logits(sets), rtol=1e-4)
    with pytest.raises(InputError, match="Values were given for layers conv1"):
        Ablator(network, images, ["conv2"], given={"conv1": maps})


# ---- the command


def test_a_network_of_ones_own_on_the_command_line(tmp_path, capsys):
    networks.folder(tmp_path / "pictures" / "bright", 12)
    networks.folder(tmp_path / "pictures" / "dark", 12, seed=1)
    path = tmp_path / "mine.csv"
    rows = [f"conv1,{i},{'bright' if i % 2 else 'dark'} pictures" for i in range(6)]
    path.write_text("layer,unit,description\n" + "\n".join(rows) + "\n")
    common = [
        "score", str(path), "--ground", f"{networks.__file__}:exact_plain", "--network", "net",
        "--images", str(tmp_path / "pictures"), "--layer", "conv1", "--device", "cpu",
    ]  # fmt: skip
    with pytest.raises(SystemExit) as stop:
        main.main([*common, "--out", str(tmp_path / "record"), "--cache", str(tmp_path / "cache")])
    assert not stop.value.code
    assert "judged by labels" in capsys.readouterr().out
    made = score_record.load(tmp_path / "record")
    assert made.scores["pearson"].n_scored == 6
    assert made.grounding.images["count"] == 24
    assert any((tmp_path / "cache").iterdir())
    with pytest.raises(SystemExit) as stop:
        main.main([*common, "--limit", "19"])
    assert stop.value.code == 1
    assert "19 held-out images" in capsys.readouterr().err


@pytest.mark.parametrize(
    "words",
    [["--scorer", "labels", "--data", "mini"], ["--ground", "mini", "--references", "x.csv"]],
)
def test_options_that_do_not_go_together(words):
    with pytest.raises(SystemExit) as stop:
        main.main(["score", "mine.csv", *words])
    assert stop.value.code == 2


def test_an_unknown_metric_on_the_command_line(capsys):
    with pytest.raises(SystemExit) as stop:
        main.main(["check", "--metric", "pearsn"])
    assert stop.value.code == 1
    assert "Did you mean" in capsys.readouterr().err


def test_concepts_of_the_world_are_all_read():
    assert len(CONCEPTS) == 31
    unread = [c for c in CONCEPTS if not parse(phrase(Formula.of("IS", c))).parsed]
    assert unread == []
