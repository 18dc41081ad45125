"""Tests of grounded scores on the whole mini world, and on a real network."""

import csv

import numpy as np
import pytest
from scipy.spatial.distance import cosine
from scipy.stats import pearsonr
from sklearn import metrics as sk

import baselines
from baselines import Subject
from baselines.framework.units import unit_keys
from leaderboard.cli import main
from leaderboard.console import score_table
from leaderboard.evaluation import predictions, references
from leaderboard.grounding import sanity_checks, score
from leaderboard.grounding.activations import ImageSampling, probe_mini, probe_subject
from leaderboard.grounding.functional import active_samples, count_coincidences
from leaderboard.grounding.metrics import HEADLINE, get
from milannotations import Unit

pytestmark = pytest.mark.slow

NETWORK = "mini-sharp"

PUBLISHED = ("recall", "wpmi", "precision", "mad", "auroc-invert")
"""Beside the headline, metrics whose failures are published."""


@pytest.fixture(scope="module")
def held():
    return probe_mini(networks=[NETWORK])


# ---- the mini world


@pytest.fixture(scope="module")
def scores(held):
    """Return the records of the truth, the nearest neighbour and a constant, of test units."""
    units = baselines.open_units("mini", split="test", network=NETWORK)
    training = baselines.open_training("mini")
    known = references.load("mini")
    made = {}
    for name in ("truth", "nearest", "constant"):
        # the usual constant is none that the grammar reads
        method = baselines.get(
            name, **({"text": "red striped objects"} if name == "constant" else {})
        )
        context = baselines.make_context(method.spec, units, training)
        answers = baselines.run(method, units, context)
        said = predictions.from_descriptions(zip(unit_keys(units), answers, strict=True))
        made[name] = score(said, held, "grammar", references=known, network=NETWORK, split="test")
    return made


def test_truth_is_above_the_nearest_neighbour_and_that_above_shuffled(scores):
    truth, nearest = scores["truth"].record, scores["nearest"].record
    for name in HEADLINE:
        top, near, person = (
            truth.scores[name],
            nearest.scores[name],
            truth.floors["one-person"][name],
        )
        floor = nearest.floors["shuffled"][name]
        print(
            f"\n{name}: truth {top.mean:.3f} ({top.low:.3f}-{top.high:.3f}), nearest "
            f"{near.mean:.3f} ({near.low:.3f}-{near.high:.3f}), shuffled {floor.mean:.3f}, one "
            f"simulated annotator {person.mean:.3f}, lift of truth {top.lift:.3f}, of nearest "
            f"{near.lift:.3f}",
            end="",
        )
        assert top.low > near.high, name
        assert near.low > floor.high, name
        assert near.lift_low > 0, name


def test_a_constant_has_exactly_no_lift(scores):
    lifts = scores["constant"].units.lift
    assert len(lifts) > 500
    assert (lifts == 0).all()
    assert scores["constant"].record.scores["pearson"].lift == 0


@pytest.mark.parametrize("name", HEADLINE)
def test_truth_is_near_the_best_that_any_truth_has(held, name):
    found = sanity_checks.rank_truths(get(name), held)
    print(
        f"\n{name}: truth above another {found.auc:.3f}, best of all {found.first:.3f}, mean "
        f"{found.truth:.3f} of {found.best:.3f}; two senses {found.half[0]:.3f}, one of them "
        f"{found.half[1]:.3f} ({found.polysemantic} units)"
    )
    assert found.auc > 0.95
    assert found.truth > 0.95 * found.best
    assert found.half[1] < found.half[0]


def test_published_verdicts_are_found_on_planted_units():
    every = sanity_checks.UnitPool.of_mini(probe_mini())
    pool = sanity_checks.UnitPool(every.activations[:, ::3], every.presence[::3])
    for kind in map(get, (*HEADLINE, *PUBLISHED)):
        found = sanity_checks.run_sanity_tests(kind, pool, (0.001, 0.01))
        missed = [each for each in found if each.verdict != "pass"]
        print("\n", kind.name, [(e.test, e.prevalence, round(e.drop, 4), e.fell) for e in missed])
        for prevalence in (0.001, 0.01):
            own = {each.test for each in missed if each.prevalence == prevalence}
            assert own == set(kind.fails), (kind.name, prevalence)


def test_the_command_prints_the_table(capsys):
    with pytest.raises(SystemExit) as stop:
        main.main(["check", "--metric", "pearson", "mad", "--network", NETWORK])
    assert stop.value.code == 1  # one of them fails
    out = capsys.readouterr().out
    assert "missing labels" in out
    assert "Differs: mad, missing labels" in out
    with pytest.raises(SystemExit) as stop:
        main.main(["check", "--metric", "pearson", "--network", NETWORK, "--json"])
    assert not stop.value.code


# ---- ResNet-18 on 1,000 images, one per class


@pytest.fixture(scope="module")
def lexicon(real, tmp_path_factory):
    classes = sorted(path.name for path in (real / "images" / "imagenet-sample").iterdir())
    words = (real / "text" / "imagenet_labels.txt").read_text().splitlines()
    path = tmp_path_factory.mktemp("lexicon") / "words.txt"
    path.write_text("".join(f"{c} {w}\n" for c, w in zip(classes, words, strict=True)))
    return path


@pytest.fixture(scope="module")
def layer3(real, tmp_path_factory):
    subject = Subject(
        "torchvision:resnet18",
        f"images:{real / 'images' / 'imagenet-sample'}",
        weights=str(real / "weights" / "resnet18_imagenet_to_layer3.safetensors"),
    )
    return probe_subject(subject, [Unit("resnet18", "layer3", 0)], ImageSampling())


@pytest.fixture(scope="module")
def described(real, layer3, lexicon):
    return {
        name: score(
            str(real / "descriptions" / name / "resnet18_imagenet_layer3.csv"),
            layer3,
            f"labels:{lexicon}",
            ["all"],
            layers=["layer3"],
        )
        for name in ("invert", "clip-dissect", "milan")
    }


def test_real_labels_score_above_the_same_labels_shuffled(described):
    for method, made in described.items():
        record = made.record
        print(f"\n{method}: {record.grounding.coverage:.3f} of descriptions can be read")
        for name in (*HEADLINE, "auprc-above", "auroc-invert"):
            own = record.scores[name]
            print(
                f"  {name}: {own.mean:.4f}, shuffled {record.floors['shuffled'][name].mean:.4f}, "
                f"lift {own.lift:+.4f} ({own.lift_low:+.4f} to {own.lift_high:+.4f})"
            )
            if method != "milan":  # reported whatever it shows
                assert own.lift_low > 0, (method, name)
        assert record.grounding.one_picture_a_label
        assert "no ranking of units" in score_table.to_text(made.record)


def test_real_values_are_those_of_scipy_and_scikit_learn(real, layer3, described):
    with open(real / "descriptions" / "invert" / "resnet18_imagenet_layer3.csv") as stream:
        synsets = {int(row["neuron"]): row["concept_id"] for row in csv.DictReader(stream)}
    classes = [layer3.probe.source_id(i).split("/")[0] for i in range(1000)]
    units = described["invert"].units.set_index(["metric", "unit"]).value
    activations = layer3.layers["resnet18", "layer3"]
    differ = 0
    for unit in range(256):
        there = np.array([each == synsets[unit] for each in classes])
        p, a = there.astype(float), activations[:, unit]
        if units["prevalence", unit] != 0.001:  # words that two synsets share, such as crane
            differ += 1
            continue
        assert units["pearson", unit] == pytest.approx(pearsonr(p, a).statistic, abs=1e-9)
        assert units["cosine", unit] == pytest.approx(1 - cosine(p, a), abs=1e-9)
        assert units["auprc", unit] == pytest.approx(sk.average_precision_score(there, a))
        assert units["auroc-invert", unit] == pytest.approx(sk.roc_auc_score(there, a))
        active = active_samples(activations[:, [unit]], 0.05)[:, 0]
        assert units["recall", unit] == pytest.approx(sk.recall_score(active, there))
        both, on, _ = count_coincidences(p[None], a[:, None])
        assert units["f1", unit] == pytest.approx(2 * both[0, 0] / (on[0, 0] + 1))
    print(f"\n{differ} units have a word of two synsets")
    assert differ < 10
