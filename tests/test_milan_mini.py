"""MILAN on the mini edition: the model that ships, and models trained anew, beside floors."""

from dataclasses import replace

import pytest

import leaderboard
from leaderboard import run_methods
from leaderboard.evaluation.score_config import ScoreConfig
from leaderboard.reproduction import training

METRICS = ["concept-f1", "retrieval-tfidf-auc"]
MARGIN = 0.03


def lifts(score):
    return {name: score.record.scores[name] for name in METRICS}


@pytest.fixture(scope="module")
def floors():
    return run_methods.run("mini", ["nearest", "most-common", "constant"], metrics=METRICS)


def described(model, tmp_path):
    import baselines
    from leaderboard.evaluation.predictions import from_descriptions

    said = baselines.describe("mini", "milan", split="test", options={"model": str(model)})
    return leaderboard.score(
        from_descriptions(said), "mini", METRICS, split="test", settings=ScoreConfig(draws=200)
    )


def test_the_model_that_ships_is_better_than_floors_and_the_nearest_unit(floors, tmp_path):
    made = lifts(described("mini", tmp_path))
    for metric in METRICS:
        nearest = floors["nearest"].record.scores[metric]
        assert made[metric].lift_low > nearest.lift
        assert made[metric].lift_low > MARGIN  # its own answers shuffled have 0
        for name in ("most-common", "constant"):
            assert made[metric].lift_low > floors[name].record.scores[metric].lift_high + MARGIN


@pytest.mark.slow
@pytest.mark.parametrize("seed", [1, 2])
def test_other_seeds_learn_as_well(floors, tmp_path, seed):
    training.train(["mini"], str(tmp_path / "model"), settings={"seed": seed})
    made = lifts(described(tmp_path / "model", tmp_path))
    for metric in METRICS:
        assert made[metric].lift_low > floors["nearest"].record.scores[metric].lift


@pytest.mark.slow
def test_one_command_makes_what_ships(tmp_path):
    from milan import Milan

    made = training.train(["mini"], str(tmp_path / "model"))
    ships = Milan.from_pretrained("mini").config
    assert replace(made.config, lam=0.0) == replace(ships, lam=0.0)
    assert made.config.made["settings"] == ships.made["settings"]
    assert abs(made.config.lam - ships.lam) <= 0.3  # sums differ in their last bits by machine
