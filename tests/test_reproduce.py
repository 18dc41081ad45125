"""Tables of the paper: folds, training, comparisons, and (slow) their results."""

import json
import subprocess
import sys

import pytest

from leaderboard.reproduction import table_scores, tables
from leaderboard.reproduction.folds import (
    Fold,
    create_folds,
    open_all_units,
    published_folds,
)
from leaderboard.reproduction.paper_scores import PAPER
from milannotations import InputError, catalog

TINY = {"epochs": 1, "patience": 0}


@pytest.fixture(scope="module")
def mini():
    return open_all_units("mini")


def test_table2_leaves_one_network_out(mini):
    folds = create_folds("table2", mini)
    assert [fold.name for fold in folds] == ["mini-sharp", "mini-leaky", "mini-coarse"]
    for fold in folds:
        rows = {part: mini.select(getattr(fold, part)) for part in ("train", "validation", "test")}
        assert set(rows["test"]["network"]) == {fold.name}
        assert set(rows["test"]["split"]) == {"test"}
        for part in ("train", "validation"):
            assert fold.name not in rows[part]["network"]
            assert set(rows[part]["split"]) == {part}
            assert len(set(rows[part]["network"])) == 2


def test_table3_is_within_and_across_networks(mini):
    folds = {fold.name: fold for fold in create_folds("table3", mini)}
    assert len(folds) == 9
    across = folds["across-network/mini-sharp-to-mini-coarse"]
    assert set(mini.select(across.train)["network"]) == {"mini-sharp"}
    assert set(mini.select(across.test)["network"]) == {"mini-coarse"}
    within = folds["within-network/mini-leaky"]
    assert not set(within.train) & set(within.test)
    assert across.test == folds["within-network/mini-coarse"].test


def test_published_networks_go_by_the_official_splits():
    keys = [unit for name in catalog.GROUPS["base"] for unit in catalog.NETWORKS[name].units()]
    described = [True] * len(keys)
    folds = list(published_folds("table2", keys, described, catalog.GROUPS["base"]))
    assert [fold.name for fold in folds] == list(PAPER["table2"])
    alexnet = folds[0]
    assert len(alexnet.test) == 1152
    assert {keys[i].network for i in alexnet.test} == {"alexnet-imagenet"}
    assert len(alexnet.train) + len(alexnet.validation) == 17_920
    assert not set(alexnet.train) & set(alexnet.validation)
    with pytest.raises(InputError, match="needs more published networks than alexnet-imagenet"):
        list(published_folds("table2", keys, described, ["alexnet-imagenet"]))


def test_the_nearest_unit_lends_its_description(mini):
    import numpy as np

    from milan.features import Features

    values = np.zeros((4, 2, 3), np.float32)
    values[0], values[1], values[2], values[3] = [1, 0, 0], [0, 1, 0], [0, 0.9, 0.1], [0, 0, 0]
    fold = Fold("f", train=(0, 1), validation=(), test=(2, 3))
    said = table_scores.nearest_descriptions(
        fold, Features(values), [["a"], ["b", "", "b c"], [], []]
    )
    assert said[0] in ("b", "b c")
    assert len(said) == 2


def test_what_cannot_be_reproduced_is_said(tmp_path):
    with pytest.raises(InputError, match=r"No table 'table4' \(tables: table2, table3\)"):
        tables.reproduce("table4", out=str(tmp_path))


@pytest.mark.slow
def test_the_command_prints_the_table_and_trains_nothing_twice(tmp_path):
    words = ["reproduce", "table2", "--out", str(tmp_path), "--epochs", "1"]
    for _ in range(2):
        done = subprocess.run(
            [sys.executable, "-m", "leaderboard.cli", *words],
            capture_output=True, text=True, check=True,
        )  # fmt: skip
        for name in ("greedy", "beam", "pmi", "nearest", "human", "paper", "synthetic"):
            assert name in done.stdout
        files = {path: path.stat().st_mtime_ns for path in (tmp_path / "answers").iterdir()}
        assert len(files) == 3
    assert files == {path: path.stat().st_mtime_ns for path in (tmp_path / "answers").iterdir()}
    made = json.loads((tmp_path / "table2.json").read_text())
    assert made["synthetic"] is True
    assert {row["method"] for row in made["rows"]} == {*table_scores.METHODS, "one person"}


@pytest.mark.slow
def test_milan_describes_networks_it_never_saw_better_than_its_floors(tmp_path):
    """Three seeds of table 2: twelve minutes on two cores."""
    found = tables.reproduce("table2", out=str(tmp_path), seeds=(0, 1, 2), tell=print)
    all_ = found.differences[found.differences.fold == "all"].set_index(["metric", "pmi less"])
    print(found.rows.to_string(), all_.to_string(), sep="\n")
    headline = tables.SYNTHETIC_METRICS[0]
    for other in ("nearest", "beam"):
        assert all_.loc[(headline, other), "low"] > 0
    pmi = found.rows[(found.rows.method == "pmi") & (found.rows.metric == headline)]
    assert (pmi.lift > 0.5).all()
