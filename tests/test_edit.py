"""Edit: arms, counts, placebos and p, on networks whose accuracy is a formula."""

import csv
import json
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image
from scipy.stats import kstest
from typer.testing import CliRunner

from leaderboard.applications.common.ablated_accuracy import ROLES, AblatedNetwork
from leaderboard.applications.common.labelled_images import LabelledImages
from leaderboard.applications.common.task_result import TaskInfo
from leaderboard.applications.edit import image_roles
from leaderboard.applications.edit.arms import (
    choose_count,
    counts_to_try,
    draw_placebos,
    measure_arms,
)
from leaderboard.applications.edit.config import PROTOCOLS, SHARES, EditConfig
from leaderboard.applications.edit.estimates import rank_p, summarize_network
from leaderboard.applications.edit.task import edit
from leaderboard.cli.main import app
from leaderboard.evaluation.predictions import from_texts
from leaderboard.record_format import application_record
from milannotations.errors import InputError
from milannotations.schema import Unit

LAYERS = {"conv1": 20, "conv2": 30}
CLASSES = 4
PICTURES = 40_000
SMALL = EditConfig(placebos=19, shuffles=2)


class Formula(AblatedNetwork):
    """Network whose accuracy is a sum over ablated units: text units harm wrong names alone.

    Args:
        seed: random seed of the text units, and of the worth of each unit.
        reads: share of the harm of a wrong name due to text units; 0 makes all units alike.
    """

    def __init__(self, seed=0, reads=0.5, name=None):
        self.draw = np.random.default_rng([seed, 99])
        labels = np.arange(PICTURES) % CLASSES
        shown = {role: LabelledImages(range(PICTURES), labels, {"role": role}) for role in ROLES}
        name = name or f"formula-{seed}"
        classes = [str(i) for i in range(CLASSES)]
        super().__init__(name, None, LAYERS, shown, classes, seed=seed, source={"seed": seed})
        self.text = {u for u in self.units if self.draw.random() < 0.3}
        worth = self.draw.uniform(0.001, 0.02, len(self.units))
        self.worth = dict(zip(self.units, worth, strict=True))
        self.help = {
            u: reads / len(self.text) if u in self.text and reads else self.draw.normal(0, 0.01)
            for u in self.units
        }
        self.selectivity = {u: 0.9 if u in self.text else 0.05 for u in self.units}
        self.mask_shares = self.selectivity
        self.passes = 0

    def correct_counts(self, role, sets, how="zero"):
        found = []
        for units in sets:
            self.passes += 1
            if "conflict" in role:
                share = 0.3 + sum(self.help[u] for u in units)
            else:
                share = 0.9 - sum(self.worth[u] * (u not in self.text) for u in units)
            # validation and test images differ a little
            share += 0.002 * (ROLES.index(role) % 2) * len(units) / 50
            found.append([round(np.clip(share, 0, 1) * PICTURES / CLASSES)] * CLASSES)
        return np.array(found, dtype=np.int64).reshape(-1, CLASSES)


def said_of(trials, of_text, others="round things"):
    units = [unit for trial in trials for unit in trial.units]
    return from_texts(units, ["some words" if unit in of_text else others for unit in units])


@pytest.fixture(scope="module")
def made():
    trials = [Formula(seed) for seed in range(3)]
    text = {unit for trial in trials for unit in trial.text}
    return trials, edit(said_of(trials, text), trials, SMALL, TaskInfo("exact@1", "f"))


def test_the_right_flags_beat_placebos(made):
    trials, found = made
    number = found.record.number
    for protocol in PROTOCOLS:
        arms = found.record.results[protocol]["arms"]
        assert arms["method"]["gain"]["mean"] > 0.4
        assert arms["method"]["p"] == 1 / 20
        assert arms["method"]["p_each"] == [1 / 20] * 3
        assert arms["method"]["gain"] == arms["oracle"]["gain"], "the flags are the oracle's"
        assert arms["shuffled"]["gain"]["mean"] < arms["method"]["gain"]["mean"] / 2
        assert arms["no edit"]["gain"]["each"] == [0.0] * 3
        own = {key: arms["method"][key]["mean"] for key in ("gain", "loss", "specificity")}
        assert own["specificity"] == pytest.approx(own["gain"] - own["loss"])
    assert number.low < number.value < number.high
    assert (number.p, number.n, number.over) == (1 / 20, 3, "training seeds")
    flags = found.record.results["flags"]["formula-0"]
    assert flags["precision"] == flags["recall"] == 1
    assert flags["flagged"] == len(trials[0].text)


def test_edit_plain_never_looks_at_wrong_names_to_choose_count():
    class Blind(Formula):
        def correct_counts(self, role, sets, how="zero"):
            assert role in allowed or not any(len(units) > 30 for units in sets)
            seen.append(role)
            return super().correct_counts(role, sets)

    seen, allowed = [], set(ROLES)
    trial = Blind(0)
    said = {unit: ["word"] if unit in trial.text else [] for unit in trial.units}
    measure_arms(trial, said, "edit-plain", SMALL)
    assert "validation-conflict" not in seen
    assert seen.index("test-conflict") > max(
        place for place, role in enumerate(seen) if role == "validation-clean"
    ), "test images come last"


def test_numbers_are_chosen_on_validation():
    assert choose_count([0, 2, 4, 8], [0.8, 0.79, 0.785, 0.79], "edit-plain", 0.01) == 8
    assert choose_count([0, 2, 4, 8], [0.8, 0.7, 0.7, 0.7], "edit-plain", 0.01) == 0
    assert choose_count([0, 2, 4, 8], [0.8, 0.8, 0.9, 0.9], "edit-conflict", 0.01) == 4
    assert choose_count([0], [0.8], "edit-conflict", 0.01) == 0
    assert counts_to_try(0, SHARES) == [0]
    assert counts_to_try(3, SHARES) == [0, 1, 2, 3]
    assert len(counts_to_try(1000, SHARES)) == 8


def test_placebos_have_the_same_numbers_per_layer_and_are_shared():
    trial = Formula(1)
    flagged = [unit for unit in trial.units if unit.unit % 7 == 0]
    first, again = (list(draw_placebos(trial, flagged, 9, 0)) for _ in range(2))
    assert first == again
    assert len(first) == 9
    for units in first:
        assert len(set(units)) == len(flagged)
        for layer in LAYERS:
            assert sum(u.layer == layer for u in units) == sum(u.layer == layer for u in flagged)
    # others of the same numbers get the same draws; another seed gets others
    other = [Unit(trial.name, u.layer, u.unit + 1) for u in flagged]
    assert list(draw_placebos(trial, other, 9, 0)) == first
    assert list(draw_placebos(trial, flagged, 9, 1)) != first
    assert list(draw_placebos(trial, [], 9, 0)) == []


def test_units_go_in_the_order_of_accuracy_without_them():
    trial = Formula(2)
    order = trial.ablation_order("validation-clean")
    assert sorted(order) == sorted(trial.units)
    alone = trial.accuracies("validation-clean", [[unit] for unit in order])
    assert alone == sorted(alone, reverse=True)
    assert set(order[: len(trial.text)]) & trial.text


def test_p_is_a_rank():
    assert rank_p(1, []) == 1
    assert rank_p(0.5, [0.1] * 19) == 1 / 20
    assert rank_p(0.1, [0.1] * 19) == 1
    assert rank_p(0.0, [0.1] * 99) == 1


def test_p_is_uniform_when_descriptions_know_nothing():
    """Shuffled descriptions, and random words, which do not pass through the placebo generator."""
    rng = np.random.default_rng(5)
    shuffled, words = [], []
    for seed in range(40):
        trial = Formula(seed, reads=0)  # units differ in worth, and words know nothing of it
        said = {u: ["word"] if rng.random() < 0.3 else [] for u in trial.units}
        settings = replace(SMALL, shuffles=1, seed=seed, protocols=("edit-conflict",))
        arms, placebos = measure_arms(trial, said, "edit-conflict", settings)
        entry = summarize_network(trial, arms, placebos)["arms"]
        words.append(entry["method"]["p"])
        shuffled.append(entry["shuffled"][0]["p"])
    for values in (words, shuffled):
        assert kstest(np.array(values) - 0.025, "uniform").pvalue > 0.05, sorted(values)
        assert np.mean(np.array(values) <= 0.05) <= 0.15


def test_words_that_match_nothing_are_a_null_result():
    trials = [Formula(seed) for seed in range(2)]
    found = edit(said_of(trials, set()), trials, SMALL)
    assert found.record.number.value == 0
    assert found.record.number.p == 1
    assert "No description contains any of" in found.record.warnings[0]
    assert "nothing was ablated" in found.record.number.says


def test_outcomes_are_whole_and_the_same_twice(made, tmp_path):
    trials, found = made
    saved = found.save(tmp_path / "one")
    assert application_record.load(tmp_path / "one") == saved
    assert {"curves.csv", "figure.png", "figure.svg", "predictions.csv"} == set(saved.files)
    again = edit(found.predictions, trials, SMALL, TaskInfo("exact@1", "f"))
    again.save(tmp_path / "two")
    one, two = (json.loads((tmp_path / n / "record.json").read_text()) for n in ("one", "two"))
    for each in (one, two):
        for key in ("id", "created", "seconds"):
            del each[key]
    assert one == two
    other = edit(found.predictions, trials, replace(SMALL, seed=1), TaskInfo("exact@1"))
    key = "edit-plain"
    assert other.record.results[key] != found.record.results[key]
    with open(tmp_path / "one" / "curves.csv") as stream:
        rows = list(csv.DictReader(stream))
    assert {row["arm"] for row in rows} >= {"method", "placebo", "all units", "oracle", "shuffled"}
    chosen = [row for row in rows if row["chosen"] == "True"]
    assert all(row["test_conflict"] for row in chosen)
    assert not any(row["test_conflict"] for row in rows if row["chosen"] == "False")


def test_what_was_measured_is_kept_in_the_folder(tmp_path):
    import torch

    from milannotations.exemplars import RunConfig
    from milannotations.synthetic.subjects import SubjectNetwork

    class Noise(torch.utils.data.Dataset):
        def __len__(self):
            return 12

        def __getitem__(self, place):
            return torch.rand(3, 32, 32, generator=torch.Generator().manual_seed(place))

    torch.manual_seed(0)
    model, labels = SubjectNetwork().eval(), np.arange(12) % 8
    shown = {role: LabelledImages(Noise(), labels, {"role": role}) for role in ROLES}
    shown["training"] = shown["test-clean"]

    def trial():
        widths = dict(
            zip(("layer1", "layer2", "layer3", "layer4"), SubjectNetwork.widths, strict=True)
        )
        run = RunConfig(batch_size=6, device="cpu")
        return AblatedNetwork("n", model, widths, shown, list("abcdefgh"), run=run, folder=tmp_path)

    first = trial()
    sets = [[], [Unit("n", "layer4", 3)], [Unit("n", "layer1", 0), Unit("n", "layer4", 3)]]
    found = first.correct_counts("test-clean", sets)
    assert found.shape == (3, 8)
    (kept,) = tmp_path.glob("ablated-*.json")
    second = trial()
    second.model = None  # it is not run again
    second.__dict__["_digest"] = first._digest
    assert np.array_equal(second.correct_counts("test-clean", sets[::-1]), found[::-1])
    with torch.no_grad():
        answers = model(torch.stack([Noise()[i] for i in range(12)])).argmax(1).numpy()
    assert found[0].sum() == (answers == labels).sum()
    assert len(json.loads(kept.read_text())) == 3
    # a head that is trained on what it is tested on gets better at it
    tuned = first.fine_tuned_correct_counts(["test-clean"], sets, 300)["test-clean"]
    assert tuned.shape == (3, 8)
    assert tuned.sum() > found.sum()
    with pytest.raises(InputError, match="no training images"):
        AblatedNetwork("n", model, {"layer4": 96}, {}, list("abcdefgh")).fine_tuned_correct_counts(
            [], [], 1
        )


@pytest.mark.parametrize(
    ("units", "said"),
    [
        ([Unit("formula-0", "conv2", 30)], "no such unit"),
        ([Unit("formula-0", "conv9", 0)], "no such unit"),
        ([Unit("another", "conv1", 0)], "The predictions are of another"),
    ],
)
def test_predictions_of_something_else(units, said):
    with pytest.raises(InputError, match=said):
        edit(from_texts(units, ["words"]), [Formula(0)], SMALL)


def test_settings_that_cannot_be():
    for wrong, said in (
        ({"protocols": ("edit-all",)}, "No protocol"),
        ({"shares": (0, 1.5, 1)}, "ascending"),
        ({"words": ()}, "words to look for"),
        ({"placebos": 0}, "one placebo"),
    ):
        with pytest.raises(InputError, match=said):
            EditConfig(**wrong)
    with pytest.raises(InputError, match="no network"):
        edit(from_texts([Unit("n", "l", 0)], ["a word"]), [])
    with pytest.raises(InputError, match="no predictions for formula-1"):
        edit(said_of([Formula(0)], set()), [Formula(0), Formula(1)])


# ---- a real classifier's way, small


NET = """
import torch
from torch import nn
from torchvision import transforms as T

class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv1 = nn.Conv2d(3, 6, 3, 2)
        self.conv2 = nn.Conv2d(6, 8, 3, 2)
        self.head = nn.Linear(8, 3)
    def forward(self, x):
        return self.head(self.conv2(self.conv1(x).relu()).relu().mean((2, 3)))

def net():
    torch.manual_seed(0)
    return Net(), T.Compose([T.ToTensor(), T.Normalize([.5] * 3, [.5] * 3)])
"""


@pytest.fixture
def world(tmp_path):
    draw = np.random.default_rng(0)
    for place, name in enumerate(("ant", "bee", "cow")):
        for i in range(8):
            path = tmp_path / "images" / name / f"{i}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            pixels = draw.integers(0, 60, (40, 40, 3), dtype=np.uint8)
            pixels[..., place] += 120
            Image.fromarray(pixels).save(path)
    (tmp_path / "net.py").write_text(NET)
    return tmp_path


def run(*words):
    from milannotations.utils.terminal import expand_options

    return CliRunner().invoke(
        app, expand_options([str(word) for word in words]), catch_exceptions=True
    )


def test_the_command_from_exemplars_to_record(world):
    net, images = f"{world / 'net.py'}:net", world / "images"
    base = ["--model", net, "--random", "--images", images, "--layer", "conv1", "conv2",
            "--side", "32", "--cache", world / "work", "--height", "0.2"]  # fmt: skip
    done = run("edit", *base, "--prepare", "--out", world / "edition")
    assert done.exit_code == 0, done.output
    import milannotations

    units = milannotations.load(world / "edition")["test"]
    assert len(units) == 14
    name = units[0]["network"]
    lines = ["network,layer,unit,description"]
    lines += [f"{name},conv1,{i},{'words' if i < 2 else 'stripes'}" for i in range(6)]
    lines += [f"{name},conv2,{i},{'letters' if i < 3 else 'red'}" for i in range(8)]
    (world / "said.csv").write_text("\n".join(lines) + "\n")
    done = run("edit", world / "said.csv", *base, "--placebos", "5", "--out", world / "record")
    assert done.exit_code == 0, done.output
    record = application_record.load(world / "record")
    assert record.kind == "edit"
    assert record.data == "images"
    assert record.results["flags"][name]["by_layer"] == {"conv1": 2, "conv2": 3}
    assert "measured" in record.results["flags"][name]
    assert record.images["test-conflict"]["cue"]["wrong"]
    assert record.images["test-conflict"]["images"] == 12
    replicate = record.results["edit-conflict"]["replicates"][0]
    assert len(replicate["placebos"]["gains"]) == 5
    assert set(replicate["before"]["by_class"]) == {"test-conflict", "test-clean"}


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["said.csv", "--model", "net.py:net"], "needs --images"),
        (["said.csv", "--images", "images"], "add --model"),
        ([], "No descriptions"),
        (["said.csv", "--describe", "milan"], "expected one of them"),
        (["said.csv", "--model", "net.py:net", "--images", "images"], "No layers"),
    ],
)
def test_half_a_command_says_what_is_missing(words, said, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "said.csv").write_text("network,layer,unit,description\nn,conv1,0,words\n")
    done = run("edit", *words, "--out", "out")
    assert said in str(done.exception)


def test_classes_are_to_be_the_networks(world):
    with pytest.raises(InputError, match="lacks the classes cow"):
        image_roles.write_roles(world / "images", world / "work", classes=["ant", "bee", "dog"])
    (world / "names.txt").write_text("ant\nbee\ncow\ndog\n")
    (world / "said.csv").write_text("network,layer,unit,description\nn,conv1,0,words\n")
    done = run(
        "edit", world / "said.csv", "--model", f"{world / 'net.py'}:net", "--random", "--images",
        world / "images", "--layer", "conv1", "--side", "32", "--classes", world / "names.txt",
        "--out", world / "record",
    )  # fmt: skip
    assert "The network has 3 output classes, and there are 4" in str(done.exception)


def test_roles_are_written_once_and_deal_classes_alike(world):
    from leaderboard.applications.edit.spurious_cues import Cue

    cue = Cue(side=32, height=0.2)
    roles = image_roles.write_roles(
        world / "images", world / "work", cue, shares=image_roles.TRAINING_SHARES
    )
    counts = {part: sorted(path.split("/")[0] for path in own) for part, own in roles.parts.items()}
    assert [counts["train"].count(name) for name in ("ant", "bee", "cow")] in (
        [6, 7, 6], [7, 6, 6], [6, 6, 7], [6, 6, 6], [7, 6, 7], [6, 7, 7], [7, 7, 6],
    )  # fmt: skip
    assert sum(map(len, counts.values())) == 24
    assert len({path for own in roles.parts.values() for path in own}) == 24
    before = (world / "work" / "train" / "cues.csv").stat().st_mtime_ns
    image_roles.write_roles(
        world / "images", world / "work", cue, shares=image_roles.TRAINING_SHARES
    )
    assert (world / "work" / "train" / "cues.csv").stat().st_mtime_ns == before
    with pytest.raises(InputError, match="holds other images"):
        image_roles.write_roles(world / "images", world / "work", replace(cue, corner="any"))


def test_the_mini_world_end_to_end(tmp_path):
    """Networks of two steps, few images: exemplars, descriptions, edits, the same twice."""
    from leaderboard.applications.common.mini_networks import MiniNetworkFactory
    from leaderboard.applications.edit.mini import MiniEdit
    from milannotations.synthetic.training import FitConfig

    def trials():
        return MiniEdit(
            MiniNetworkFactory(tmp_path / "w", FitConfig(steps=1, batch=4), 20), [0], 16
        )

    settings = EditConfig(protocols=("edit-plain",), placebos=2, shuffles=1, shares=(0, 0.5, 1))
    made = trials()
    found = made.run("random-description", None, settings).record
    (name,) = found.networks
    assert name == "mini-subject-righttext03-0"
    assert (found.data, found.synthetic, found.method) == ("mini", True, "random-description")
    assert found.images["test-conflict"]["world"]["adversarial"]
    assert not found.images["validation-clean"]["world"]["text"]
    assert found.networks[name]["units"]["layer4"] == 96
    again = trials()
    for trial in again.ablated:
        trial._ablator = None  # all of it is in the folder
    assert again.run("random-description", None, settings).record.results == found.results
    # described by anything else: an edition, and a file of predictions
    made.write_exemplars(tmp_path / "edition")
    import milannotations

    units = milannotations.load(tmp_path / "edition")["test"]
    keys = zip(units["network"], units["layer"], units["unit"], strict=True)
    said = from_texts([Unit(*key) for key in keys], ["nothing to read"] * len(units))
    none = made.run("mine@2", said, settings).record
    assert none.number.value == 0
    assert none.number.p == 1
    tuned = made.run("mine@2", said, replace(settings, fine_tune=1)).record
    assert tuned.settings["fine_tune"] == 1
