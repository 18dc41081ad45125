"""MILAN trained on real exemplars and on the names people gave to their units.

996 units of InceptionV1, ten crops each, named by the authors of Distill's circuits; seen by
torchvision's ResNet-18 up to layer3. None of it is part of the project. Nearly all units have one
name, so all of people's words are held against a description (`-allref`).
"""

import re

import datasets
import numpy as np
import pyarrow.parquet as pq
import pytest

import leaderboard
from baselines.framework.units import unit_keys
from leaderboard.evaluation import predictions, references
from leaderboard.metrics import build
from leaderboard.reproduction.folds import Fold
from leaderboard.reproduction.lambda_choice import best_of_beam, choose_lambda, search_beams
from leaderboard.reproduction.table_scores import nearest_descriptions
from milan import encoder as encoders
from milan import training
from milan.config import TrainingConfig
from milan.features import features_of
from milannotations.schema import Unit, features, row

pytestmark = pytest.mark.slow

OVERLAP, RETRIEVAL = METRICS = ("rouge-l-allref", "retrieval-tfidf-auc-allref")
SPLITS = {"train": 0.8, "validation": 0.9, "test": 1.0}
LAYERS = ("conv1", "layer1", "layer2", "layer3")
SETTINGS = TrainingConfig(
    epochs=60, patience=12, rate=2e-3, least=8, noise=0.1, stop_on="loss", seed=0
)
"""Those for a thousand units, but longer, and by loss: of names of one to four words, few have
the four words in a row that BLEU counts."""


def plain(name):
    """Return a family's name in words, without the layer that some of them begin with."""
    return re.sub(r"^mixed\d[a-z]_", "", name).replace("_", " ").lower()


@pytest.fixture(scope="module")
def units(real):
    table = pq.read_table(real / "exemplars" / "inceptionv1_imagenet.parquet")
    rows = [
        row(
            Unit(found["network"], found["layer"], found["unit"]),
            images=found["images"],
            descriptions=[plain(name) for name in found["descriptions"]],
            unit_kind="channel",
        )
        for found in table.to_pylist()
    ]
    return datasets.Dataset.from_list(rows, features=features())


@pytest.fixture(scope="module")
def split(units):
    """Return the rows of each split, drawn within each layer."""
    draw, layers = np.random.default_rng(0), np.array(units["layer"])
    found = {name: [] for name in SPLITS}
    for layer in sorted(set(layers)):
        own = draw.permutation(np.flatnonzero(layers == layer))
        ends = [0, *(round(end * len(own)) for end in SPLITS.values())]
        for name, first, end in zip(SPLITS, ends, ends[1:], strict=False):
            found[name] += own[first:end].tolist()
    return {name: tuple(sorted(rows)) for name, rows in found.items()}


@pytest.fixture(scope="module")
def said(real, units, split, tmp_path_factory):
    """Return what each method says of the units of `test`."""
    encoder = encoders.build(
        "torchvision:resnet18",
        real / "weights" / "resnet18_imagenet_to_layer3.safetensors",
        LAYERS,
    )
    # the crops as they come, 73 pixels wide: twice the size took three times as long and its
    # neighbours were no better
    seen = features_of(units, encoder)
    assert seen.values.shape == (996, 10, encoder.config.feature_size)
    texts = units["descriptions"]
    learned = ("train", "validation")
    model, _ = training.learn(
        [seen.of(split[name]) for name in learned],
        [[texts[i] for i in split[name]] for name in learned],
        encoder,
        tmp_path_factory.mktemp("work"),
        "small",
        SETTINGS,
    )
    held_out = search_beams(model, seen.of(split["validation"]))
    lam = choose_lambda([(units.select(split["validation"]), held_out)], OVERLAP)
    test = seen.of(split["test"])
    beam = search_beams(model, test)
    print(f"\nlambda {lam}")
    return {
        "greedy": model.describe_features(*test.tensors(), strategy="greedy").text,
        "beam": best_of_beam(beam, 0.0),
        "pmi": best_of_beam(beam, lam),
        "nearest": nearest_descriptions(Fold("units", *split.values()), seen, texts),
        "blind": best_of_beam(search_beams(model, seen.of(dealt_anew(units, split["test"]))), lam),
    }


def dealt_anew(units, rows):
    """Return, for each unit, one of the same layer: whose exemplars are shown in its place."""
    draw, rows = np.random.default_rng(0), np.array(rows)
    layers, dealt = np.array(units["layer"])[rows], rows.copy()
    for layer in sorted(set(layers)):
        dealt[layers == layer] = draw.permutation(rows[layers == layer])
    return tuple(dealt.tolist())


@pytest.fixture(scope="module")
def found(units, split, said):
    known = references.from_dataset({name: units.select(rows) for name, rows in split.items()})
    tested, built = unit_keys(units.select(split["test"])), build(METRICS)
    records = {
        method: leaderboard.score(
            predictions.from_texts(tested, texts), known, built, split="test", method=method
        ).record
        for method, texts in said.items()
    }
    floors = records["pmi"].floors
    for name, scores in [*floors.items(), *((m, each.scores) for m, each in records.items())]:
        # retrieval's floor is its chance, not what was shuffled
        shown = "  ".join(line(metric, scores[metric]) for metric in METRICS)
        print(f"{name:31}{shown}")
    return records


def line(metric, score):
    above = "none" if score.lift is None else f"{score.lift:+.3f}"
    if score.lift_low is not None:
        above += f" [{score.lift_low:+.3f}, {score.lift_high:+.3f}]"
    return f"{metric} {score.mean:.3f} [{score.low:.3f}, {score.high:.3f}], lift {above}"


@pytest.mark.parametrize("method", ["greedy", "beam", "pmi", "nearest"])
def test_descriptions_of_units_never_seen_are_above_their_floors(found, method):
    scores = found[method].scores
    assert scores[OVERLAP].n_scored == 100
    assert scores[OVERLAP].lift_low > 0
    assert scores[RETRIEVAL].low > 0.5


def test_what_is_said_of_other_units_images_is_not_above(found):
    for metric in METRICS:
        blind, scores = found["blind"].scores[metric], found["pmi"].scores[metric]
        assert blind.lift_low < 0 < blind.lift_high
        assert blind.lift_high < scores.lift_low


def test_floors_are_where_they_belong(found):
    for name, floor in found["pmi"].floors.items():
        assert floor[OVERLAP].lift == pytest.approx(0, abs=1e-9), name
        assert floor[RETRIEVAL].low < 0.5 + 1e-9, name
