"""Edits of trained networks: calibration on the mini world, and real networks on real images."""

import csv
import json
from copy import copy
from dataclasses import replace

import numpy as np
import pytest
from scipy.stats import kstest
from test_models import RESNET20

from leaderboard.applications.common import keyword_flags
from leaderboard.applications.common.mini_networks import MiniNetworkFactory
from leaderboard.applications.edit.arms import measure_arms
from leaderboard.applications.edit.config import EditConfig
from leaderboard.applications.edit.estimates import summarize_network
from leaderboard.applications.edit.mini import FAST_SHARES, MiniEdit
from leaderboard.record_format import application_record
from milannotations.errors import InputError

pytestmark = pytest.mark.slow

CONFLICT = EditConfig(protocols=("edit-conflict",), placebos=19, shuffles=8, shares=FAST_SHARES)
PICTURES = 500


@pytest.fixture(scope="module")
def mini(tmp_path_factory):
    """Five networks that learned to read; a folder named by MILAN_WORKSHOP keeps them."""
    import os
    from pathlib import Path

    kept = os.environ.get("MILAN_WORKSHOP")
    return MiniEdit(MiniNetworkFactory(Path(kept) if kept else tmp_path_factory.mktemp("w")),
                    images=PICTURES)  # fmt: skip


@pytest.fixture(scope="module")
def milan(mini):
    return mini.run("milan", None, CONFLICT).record


def test_oracle_flags_beat_placebos(milan):
    arms = milan.results["edit-conflict"]["arms"]
    for name in ("oracle", "method", "all units"):
        own = arms[name]
        print(
            f"\n{name}: gain {own['gain']}, loss {own['loss']}, p {own['p_each']}, all {own['p']}"
        )
    assert sum(p <= 0.05 for p in arms["oracle"]["p_each"]) >= 4
    assert arms["oracle"]["p"] <= 0.05


def test_milan_flags_text_units(milan):
    """By one threshold, `edit.AT`: .43 of a unit's exemplars' masks lie in text, each alike."""
    found = milan.results["flags"].values()
    print("\n", [(each["precision"], each["recall"]) for each in found])
    assert np.mean([each["precision"] for each in found]) >= 0.85
    assert np.mean([each["recall"] for each in found]) >= 0.85


def test_p_is_uniform_over_null_runs(mini, milan):
    """Descriptions shuffled within layers share placebos; random words draw their own.

    Ties count against an arm, so that p is larger than uniform where nothing is deleted by many;
    with ties split at random it is to be uniform.
    """
    draw = np.random.default_rng(0)

    def split(gain, placebos):
        above, tied = np.sum(np.array(placebos) > gain), np.sum(np.array(placebos) == gain)
        return (above + draw.random() * (tied + 1)) / (len(placebos) + 1)

    runs = {"shuffled": [], "random words": []}
    for each in milan.results["edit-conflict"]["replicates"]:
        gains = each["placebos"]["gains"]
        for entry in each["arms"]["shuffled"]:
            runs["shuffled"].append((entry["p"], split(entry["gain"], gains)))
    words = ["red", "circles", "squares", "stars", "lined", "dark", "blue", "dotted"]
    for seed, word in enumerate(words):
        settings = replace(CONFLICT, words=(word,), shuffles=0, seed=seed)
        said = mini.describe("random-description", seed)
        for trial in map(copy, mini.ablated):
            trial.selectivity = None  # the ceiling, and placebos of its own, are not asked for
            own = keyword_flags.flag_units(said, trial.units, settings.words)
            arms, placebos = measure_arms(trial, own, "edit-conflict", settings)
            made = summarize_network(trial, arms, placebos)
            entry = made["arms"]["method"]
            if entry["flagged"]:
                gains = made["placebos"]["gains"]
                runs["random words"].append((entry["p"], split(entry["gain"], gains)))
    for name, values in runs.items():
        p, even = np.array(values).T
        test = kstest(even, "uniform")
        print(f"\n{name}: {len(p)} runs, KS p {test.pvalue:.2f}, {np.mean(p <= 0.05):.3f} at .05")
        assert len(p) >= 30
        assert np.mean(p <= 0.05) <= 0.15
        assert test.pvalue > 0.01


def test_two_runs_give_the_same_record(mini, milan, tmp_path):
    again = MiniEdit(MiniNetworkFactory(mini.factory.folder), images=PICTURES)
    made = again.run("milan", None, CONFLICT).record
    assert made.results == milan.results
    assert made.number == milan.number


# ---- real networks


def run(*words):
    from leaderboard.cli.main import main

    with pytest.raises(SystemExit) as left:
        main([str(word) for word in words])
    assert left.value.code in (0, None)


def described(record, path, network, layers):
    """Write descriptions that are the oracle's: what was measured to lie in text, said so."""
    with open(path, "w", newline="") as stream:
        rows = csv.writer(stream)
        rows.writerow(("network", "layer", "unit", "description"))
        for layer, width in layers.items():
            for unit in range(width):
                share = record.get((layer, unit), 0)
                rows.writerow((network, layer, unit, "words" if share else "things"))


def test_resnet20_on_cifar10(real, tmp_path):
    (tmp_path / "resnet20.py").write_text(RESNET20)
    base = (
        "--model", f"{tmp_path}/resnet20.py:resnet20", "--weights",
        real / "weights" / "resnet20_cifar10.th", "--images", real / "images" / "cifar10-test",
        "--layer", "layer2", "layer3", "--side", 0, "--height", 0.2, "--limit", 600,
        "--batch-size", 100, "--cache", tmp_path / "work",
    )  # fmt: skip
    run("edit", *base, "--prepare", "--out", tmp_path / "edition")
    described(
        {("layer2", 1): 1, ("layer2", 5): 1, ("layer3", 7): 1, ("layer3", 30): 1},
        tmp_path / "said.csv", "resnet20-cifar10-test", {"layer2": 32, "layer3": 64},
    )  # fmt: skip
    run("edit", tmp_path / "said.csv", *base, "--placebos", 19, "--out", tmp_path / "edit")
    made = application_record.load(tmp_path / "edit")
    before = made.results["edit-plain"]["replicates"][0]["before"]["accuracy"]
    print(f"\n{before} {made.number.says}")
    print({k: v["gain"]["mean"] for k, v in made.results["edit-conflict"]["arms"].items()})
    assert before["test-clean"] > 0.75
    assert before["test-conflict"] < before["test-clean"], "a plate hides a part of the image"
    assert made.images["test-conflict"]["images"] == 300
    assert len(made.results["edit-plain"]["replicates"][0]["placebos"]["gains"]) == 19


def test_squeezenet_on_imagenet(real, tmp_path):
    layer, width = "features.12", 512
    base = (
        "--model", "torchvision:squeezenet1_1", "--weights",
        real / "weights" / "squeezenet1_1_imagenet.safetensors", "--images",
        real / "images" / "imagenet-sample", "--classes", tmp_path / "classes.txt",
        "--layer", layer, "--limit", 80, "--cache", tmp_path / "work",
        "--protocol", "edit-conflict",
    )  # fmt: skip
    folders = sorted(p.name for p in (real / "images" / "imagenet-sample").iterdir() if p.is_dir())
    (tmp_path / "classes.txt").write_text("\n".join(folders) + "\n")
    described({(layer, i): 1 for i in range(0, width, 64)}, tmp_path / "said.csv",
              "squeezenet", {layer: width})  # fmt: skip
    run("edit", tmp_path / "said.csv", *base, "--placebos", 9, "--out", tmp_path / "edit")
    made = application_record.load(tmp_path / "edit")
    before = made.results["edit-conflict"]["replicates"][0]["before"]["accuracy"]
    print(f"\n{before} {made.number.says}")
    assert before["test-clean"] > 0.5
    assert made.results["flags"]["squeezenet"]["flagged"] == 8


EVERY_THIRD = """
from baselines import Description, MethodSpec

SPEC = MethodSpec(
    name="every-third", version="1.0", title="Text, now and then", paper="", license="MIT",
    kind="method", trained_on="nothing",
)


class EveryThird:
    spec = SPEC

    def describe(self, units, context):
        return [Description.of("things" if unit % 3 else "text") for unit in units["unit"]]


def create():
    return EveryThird()
"""


def test_resnet18_is_trained_and_edited(real, tmp_path):
    """`milan reproduce edit` on three classes of CIFAR-10, after a short training: it runs."""
    import shutil

    for name in ("cat", "ship", "truck"):
        shutil.copytree(real / "images" / "cifar10-test" / name, tmp_path / "images" / name)
    from leaderboard.applications.edit.spurious_cues import Cue
    from leaderboard.reproduction.edit import reproduce_edit
    from leaderboard.reproduction.train_classifier import ClassifierConfig

    (tmp_path / "every_third.py").write_text(EVERY_THIRD)
    made = reproduce_edit(
        tmp_path / "out", str(tmp_path / "images"),
        method=f"{tmp_path}/every_third.py", seeds=1, placebos=3,
        layers=("layer3", "layer4"), training=ClassifierConfig(rate=1e-3, batch=32, epochs=2),
        cue=Cue(side=64, height=0.15), limit=240, cache=str(tmp_path / "work"),
    )  # fmt: skip
    with pytest.raises(InputError, match="needs training"):
        reproduce_edit(tmp_path / "no", str(tmp_path / "images"), method="nearest")
    print(f"\n{made.number.says}", made.results["edit-plain"]["replicates"][0]["before"])
    (name,) = made.networks
    assert made.networks[name]["settings"]["epochs"] == 2
    assert made.networks[name]["units"] == {"layer3": 256, "layer4": 512}
    assert json.loads((tmp_path / "work" / "pictures" / "train" / "cues.json").read_text())
    assert made.results["edit-plain"]["arms"]["oracle"]["p"] <= 1
