"""Audit: flags, counts, and claims about networks and about training data."""

import json
from itertools import product

import numpy as np
import pytest

from leaderboard import statistics
from leaderboard.applications.audit.config import AuditConfig, preset_pairs
from leaderboard.applications.audit.task import audit
from leaderboard.applications.common import keyword_flags
from leaderboard.evaluation.predictions import from_texts
from leaderboard.record_format import application_record
from milannotations.errors import InputError
from milannotations.schema import Unit


def said(**networks):
    """Return predictions and units: how many of a network's 20 units, in 2 layers, are faces."""
    units, texts = [], []
    for name, count in networks.items():
        for i in range(20):
            units.append(Unit(name, f"layer{1 + i // 10}", i % 10))
            texts.append("the face of a person" if i * 7 % 20 < count else "green grass")
    return from_texts(units, texts), units


# ---- words


@pytest.mark.parametrize(
    ("text", "whole", "part"),
    [
        ("Faces of dogs", ["face"], ["face"]),
        ("shiny surfaces", [], ["face"]),
        ("a dog's nose.", ["nose"], ["nose"]),
        ("one eye", ["eyes"], []),
        ("headlights", [], ["head"]),
        ("", [], []),
        ("FACE/HEAD", ["face", "head"], ["face", "head"]),
    ],
)
def test_words_are_whole_ones_or_substrings(text, whole, part):
    assert keyword_flags.match_words(text, keyword_flags.FACES) == whole
    assert keyword_flags.match_words(text, keyword_flags.FACES, "substrings") == part


def test_several_words_in_one_stand_together():
    assert keyword_flags.match_words("a human face", ["human face"]) == ["human face"]
    assert keyword_flags.match_words("a face of a human", ["human face"]) == []


# ---- statistics, held against brute force


def test_sign_flips_are_all_gone_through():
    differences = [3, -1, 4, 0, 2.5]
    sums = [np.dot(signs, differences) for signs in product((1, -1), repeat=5)]
    assert statistics.sign_flip_p(differences) == np.mean([s >= 8.5 for s in sums])
    assert statistics.sign_flip_p(differences, one_sided=False) == np.mean(
        [abs(s) >= 8.5 for s in sums]
    )
    assert statistics.sign_flip_p([1] * 5) == 1 / 32
    assert statistics.sign_flip_p([0, 0, 0]) == 1
    with pytest.raises(ValueError, match="20"):
        statistics.sign_flip_p([1] * 21)


def test_label_permutation_agrees_with_fisher_and_with_draws():
    from scipy.stats import fisher_exact

    # of equal sizes Fisher's test and this one call the same tables extreme
    table = [(8, 20, 2, 20)]
    assert statistics.label_permutation_p(table) == pytest.approx(
        fisher_exact([[8, 12], [2, 18]])[1]
    )
    strata = [(5, 10, 1, 12), (2, 8, 3, 6)]
    rng, drawn = np.random.default_rng(0), []
    for _ in range(20_000):
        total = 0
        for first, size, second, other in strata:
            marks = rng.permutation(np.arange(size + other) < first + second)
            total += marks[:size].sum()
        drawn.append(total)
    expected = sum((a + c) * b / (b + d) for a, b, c, d in strata)
    by_draws = np.mean(np.abs(np.array(drawn) - expected) >= abs(7 - expected) - 1e-9)
    assert statistics.label_permutation_p(strata) == pytest.approx(by_draws, abs=0.01)


def test_intervals_cover_as_often_as_they_say():
    rng = np.random.default_rng(0)
    inside = [
        low <= 0 <= high for low, high in map(statistics.mean_interval, rng.normal(size=(2000, 4)))
    ]
    assert np.mean(inside) == pytest.approx(0.95, abs=0.015)
    assert np.isnan(statistics.mean_interval([1.0])).all()
    assert np.isnan(statistics.share_interval(0, 0)).all()


# ---- audits


def test_one_network_is_counted_by_layer_with_intervals():
    made = audit(*said(a=6))
    number, entry = made.record.number, made.record.results["groups"]["faces"]["networks"]["a"]
    assert number.value == entry["flagged"] == 6
    assert number.low < 6 < number.high
    assert number.p is None
    assert sum(layer["flagged"] for layer in entry["layers"].values()) == 6
    assert entry["by_word"] == {"face": 6, "head": 0, "nose": 0, "eyes": 0, "mouth": 0}


def test_two_networks_say_nothing_of_training_data():
    made = audit(*said(a=14, b=2), pairs=[("a", "b")])
    (pair,) = made.record.results["groups"]["faces"]["pairs"]
    assert pair["difference"] == made.record.number.value == 12
    assert pair["p"] < 0.001
    assert pair["about"] == "about these two networks only"
    assert "these two networks only" in made.record.number.says
    assert made.record.results["groups"]["faces"]["training_data"] is None


def test_pairs_make_a_claim_about_training_data():
    names = {f"{kind}{i}": count for i in range(5) for kind, count in (("n", 9 + i), ("b", 4))}
    made = audit(*said(**names), pairs=[(f"n{i}", f"b{i}") for i in range(5)])
    claim = made.record.results["groups"]["faces"]["training_data"]
    assert claim["differences"] == [5, 6, 7, 8, 9]
    assert claim["p"] == claim["p_holm"] == 1 / 32 == made.record.number.p
    assert made.record.number.low < 7 < made.record.number.high
    assert made.record.number.over == "pairs of networks"
    few = audit(*said(**names), pairs=[(f"n{i}", f"b{i}") for i in range(3)])
    assert few.record.number.p == 1 / 8
    assert any("0.125" in line for line in few.record.warnings)


def test_holm_is_within_the_call():
    names = {f"{kind}{i}": count for i in range(5) for kind, count in (("n", 9 + i), ("b", 4))}
    settings = AuditConfig(
        words={"faces": keyword_flags.FACES, "grass": ["grass"], "text": ["word"]}
    )
    made = audit(*said(**names), pairs=[(f"n{i}", f"b{i}") for i in range(5)], config=settings)
    claims = {name: g["training_data"] for name, g in made.record.results["groups"].items()}
    assert claims["faces"]["p"] == 1 / 32
    assert claims["faces"]["p_holm"] == 3 / 32
    assert claims["grass"]["p"] == 1.0, "the other way round"
    twos = [p for g in made.record.results["groups"].values() for p in g["pairs"]]
    assert [p["p_holm"] for p in twos] == statistics.holm([p["p"] for p in twos])


def test_the_flag_is_held_against_what_was_measured():
    predictions, units = said(a=6)
    hits = [u for u in predictions.units if "face" in predictions.first(u).description]
    measured = dict.fromkeys(predictions.units, 0.1) | dict.fromkeys(hits[:3], 0.9)
    measured[next(u for u in predictions.units if u not in hits)] = 0.7
    found = audit(predictions, units, selectivity=measured).record.results["groups"]["faces"]
    assert found["measured"]["networks"]["a"]["precision"] == 3 / 6
    assert found["measured"]["networks"]["a"]["recall"] == 3 / 4
    nothing = audit(predictions, units, selectivity=dict.fromkeys(measured, 0.0))
    assert nothing.record.results["groups"]["faces"]["measured"]["all"]["recall"] is None


def test_words_that_match_nothing_are_a_null_result(tmp_path):
    settings = AuditConfig(words={"zebras": ["zebra"]})
    made = audit(*said(a=6, b=3), pairs=[("a", "b")], config=settings)
    assert made.record.number.value == 0
    assert made.record.number.p == 1
    assert "No description contains any of: zebra." in made.record.warnings
    made.save(tmp_path / "out")
    alone = audit(*said(a=0))
    assert alone.record.number.value == 0


def test_the_preset_is_the_papers_twelve_architectures():
    pairs = preset_pairs("milan2022")
    assert len(pairs) == 12
    assert ("resnet18-imagenet", "resnet18-imagenet-blurred") in pairs
    assert len({name for pair in pairs for name in pair}) == 24
    names = {name.replace("-", "_").replace(".", "_"): name for pair in pairs for name in pair}
    units = [Unit(name, "conv1", i) for name in names.values() for i in range(3)]
    texts = ["faces" if "blurred" not in unit.network else "grass" for unit in units]
    made = audit(from_texts(units, texts), pairs=pairs)
    assert made.record.number.p == 2.0**-12
    assert made.record.results["paper"] == {"unblurred": 213, "blurred": 142}


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"pairs": [("a", "c")]}, "no predictions for c"),
        ({"pairs": [("a", "b"), ("b", "a")]}, "is in two pairs"),
        ({"units": list(said(a=1)[1])}, "The predictions are of b"),
        ({"units": [u for u in said(a=1, b=1)[1] if u[1:] < ("layer2", 7)]}, r"a/layer2/7.*0-6"),
    ],
)
def test_bad_input_is_said(change, says):
    predictions, units = said(a=1, b=1)
    with pytest.raises(InputError, match=says):
        audit(predictions, **{"units": units, **change})


def test_bad_settings_are_said():
    for settings in ({"words": {"none": []}}, {"words": {"x": ["--"]}}, {"matching": "regex"}):
        with pytest.raises(InputError):
            AuditConfig(**settings)
    with pytest.raises(InputError, match="Did you mean 'milan2022'"):
        preset_pairs("milan2023")


def test_two_runs_give_the_same_record(tmp_path):
    def write(name, seed=0):
        made = audit(*said(a=9, b=4), pairs=[("a", "b")], config=AuditConfig(seed=seed))
        made.save(tmp_path / name)
        record = json.loads((tmp_path / name / "record.json").read_text())
        return {k: v for k, v in record.items() if k not in ("id", "created", "seconds")}

    first = write("first")
    assert write("second") == first
    other = write("third", seed=1)
    pair = ("results", "groups", "faces", "pairs")
    assert dig(first, pair)[0]["low"] != dig(other, pair)[0]["low"] or first != other
    assert set(first["files"]) == {
        "curves.csv", "figure.png", "figure.svg", "flagged.csv", "predictions.csv"
    }  # fmt: skip
    assert application_record.load(tmp_path / "first").number.value == 5


def dig(value, path):
    for key in path:
        value = value[key]
    return value


def test_a_folder_of_something_else_is_left_alone(tmp_path):
    made = audit(*said(a=3))
    made.save(tmp_path / "out")
    made.save(tmp_path / "out")  # its own is replaced
    (tmp_path / "out" / "notes.txt").write_text("mine")
    with pytest.raises(InputError, match=r"notes\.txt"):
        made.save(tmp_path / "out")
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "thing").write_text("")
    with pytest.raises(InputError, match="holds no record"):
        made.save(tmp_path / "other")


def test_sheets_show_flagged_units(tmp_path):
    import baselines

    units = baselines.open_units("mini", split="test", network="mini-sharp", layers="layer3")
    from baselines.framework.units import unit_keys

    members = unit_keys(units)
    predictions = from_texts(members, ["a face"] * 3 + ["circles"] * (len(members) - 3))
    audit(predictions, exemplars={"mini-sharp": units}).save(tmp_path / "out")
    assert (tmp_path / "out" / "sheet-mini-sharp.png").stat().st_size > 1000
    circles = from_texts(members, ["circles"] * len(members))
    audit(circles, exemplars={"mini-sharp": units}).save(tmp_path / "none")
    assert not list((tmp_path / "none").glob("sheet*"))
