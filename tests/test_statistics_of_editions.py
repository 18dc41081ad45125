"""Statistics of a config: counts, words, and how far people agree."""

import itertools
import json
from pathlib import Path

import numpy as np
import pytest

import milannotations
from milannotations import schema
from milannotations.editions import statistics
from milannotations.editions.writing import write_config
from milannotations.published import annotations
from milannotations.schema import Unit

SMALL = {
    "train": [
        ("conv1", ["red cars", "Red cars", "a red car, here"]),
        ("conv1", ["red cars", "red cars"]),
        ("4", []),
    ],
    "test": [("conv1", ["the dog's 2 ears"])],
}


def rows_of(parts):
    return {
        split: [
            schema.row(Unit("mine", layer, i), descriptions=texts)
            for i, (layer, texts) in enumerate(members)
        ]
        for split, members in parts.items()
    }


def test_by_hand():
    assert statistics.row_statistics(rows_of(SMALL)) == {
        "units": 4,
        "units_by_split": {"train": 3, "test": 1},
        "units_by_layer": {"mine/4": {"train": 1}, "mine/conv1": {"test": 1, "train": 2}},
        "descriptions": 6,
        "descriptions_by_unit": {"0": 1, "1": 1, "2": 1, "3": 1},
        "words": {
            "mean": round(16 / 6, 4),
            "median": 2.0,
            "least": 2,
            "most": 4,
            "vocabulary": len({"red", "cars", "a", "car", "here", "the", "dog's", "2", "ears"}),
        },
        "distinct": 4,
        "distinct_share": round(4 / 6, 4),
        "ten_commonest": [
            ["red cars", 3],
            ["Red cars", 1],
            ["a red car, here", 1],
            ["the dog's 2 ears", 1],
        ],
        "ten_commonest_share": 1.0,
        # one pair in four has the same characters
        "identical_pairs_share": 0.25,
        # units: (1 + 1/3 + 1/3) / 3 and 1
        "rouge_l_to_others": round((5 / 9 + 1) / 2, 4),
    }


def test_pairs_of_split_and_row_come_as_a_stream():
    def stream():
        for split, members in rows_of(SMALL).items():
            for member in members:
                yield split, {name: member[name] for name in statistics.COLUMNS}

    assert statistics.row_statistics(stream()) == statistics.row_statistics(rows_of(SMALL))


@pytest.mark.parametrize("rows", [{}, {"test": []}, rows_of({"test": [("conv1", [])]})])
def test_nothing_has_no_mean(rows):
    made = statistics.row_statistics(rows)
    unknown = ["distinct_share", "ten_commonest_share", "identical_pairs_share"]
    assert {made[name] for name in [*unknown, "rouge_l_to_others"]} == {None}
    assert [made["words"][name] for name in ("mean", "median", "least", "most")] == [None] * 4
    assert made["words"]["vocabulary"] == made["descriptions"] == 0
    json.dumps(made, allow_nan=False)


def test_order_of_rows_changes_nothing():
    forward = rows_of(SMALL)
    backward = {split: members[::-1] for split, members in reversed(forward.items())}
    assert statistics.row_statistics(forward) == statistics.row_statistics(backward)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("a red car", "red cars and a car"),
        ("Dogs' heads, and water.", "the heads of dogs"),
        ("", "nothing"),
        ("...", "!"),
        ("one", "one"),
        ("naïve façades", "façades"),
    ],
)
def test_rouge_l_is_that_of_rouge_score(one, other):
    from rouge_score.rouge_scorer import RougeScorer

    expected = RougeScorer(["rougeL"]).score(one, other)["rougeL"].fmeasure
    assert statistics.rouge_l(one, other) == pytest.approx(expected, abs=1e-12)
    assert statistics.rouge_l(one, other) == statistics.rouge_l(other, one)


def test_of_config_reads_an_edition(tmp_path):
    write_config(tmp_path / "edition", "mine", rows_of(SMALL))
    assert statistics.config_statistics(tmp_path / "edition") == statistics.row_statistics(
        rows_of(SMALL)
    )


def test_those_of_mini_are_the_shared_ones():
    folder = Path(milannotations.__file__).parent / "data" / "mini"
    shipped = json.loads((folder / "statistics.json").read_text())
    made = statistics.config_statistics("mini")
    assert {name: shipped[name] for name in made} == made


# ---- real people


def test_of_people_are_the_numbers_known_of_them(real):
    found = annotations.read(
        real / "annotations" / "milannotations_resnet152_imagenet.csv", "resnet152-imagenet"
    )
    parts = annotations.split_units(found.network, found.descriptions)
    made = statistics.row_statistics(
        (split, schema.row(unit, descriptions=found.descriptions[unit]))
        for split, units in parts.items()
        for unit in units
    )
    assert made["units"] == 3904
    assert made["units_by_split"] == {"train": 3514, "test": 390}
    assert {at: sum(n.values()) for at, n in made["units_by_layer"].items()} == {
        "resnet152-imagenet/conv1": 64,
        "resnet152-imagenet/layer1": 256,
        "resnet152-imagenet/layer2": 512,
        "resnet152-imagenet/layer3": 1024,
        "resnet152-imagenet/layer4": 2048,
    }
    assert (made["descriptions"], made["descriptions_by_unit"]) == (11_712, {"3": 3904})
    assert round(made["words"]["mean"], 2) == 4.59
    assert (made["words"]["median"], made["words"]["most"]) == (4, 67)
    assert (made["words"]["vocabulary"], made["distinct"]) == (3161, 8428)
    assert made["identical_pairs_share"] == 0.0042
    # one person against the other two, at file positions 1, 2 and 3
    assert made["rouge_l_to_others"] == pytest.approx(np.mean([0.0937, 0.0933, 0.0831]), abs=1e-4)


def test_agreement_is_each_against_each_other():
    rng = np.random.default_rng(0)
    words = ["red", "blue", "cars", "dogs", "and", "of"]
    units = [[" ".join(rng.choice(words, 4)) for _ in range(n)] for n in (3, 2, 1, 5)]
    made = statistics.row_statistics(rows_of({"test": [("conv1", texts) for texts in units]}))
    expected = [
        np.mean([statistics.rouge_l(a, b) for a, b in itertools.permutations(texts, 2)])
        for texts in units
        if len(texts) > 1
    ]
    assert made["rouge_l_to_others"] == round(np.mean(expected), 4)
