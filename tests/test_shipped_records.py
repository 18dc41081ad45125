"""The records that ship: current track, edition and methods; the same scores from their files."""

from pathlib import Path

import pytest

import baselines
import leaderboard
from leaderboard import run_methods
from leaderboard.evaluation import predictions
from leaderboard.evaluation.score_config import ScoreConfig
from leaderboard.ranking import standings, tracks
from leaderboard.site import load_records
from leaderboard.submission.track_units import open_references

HOME = Path(leaderboard.__file__).parent / "results"
MINI = tracks.get("mini")
AGAIN = "Write the records that ship again: leaderboard/results/README.md"


@pytest.fixture(scope="module")
def runs():
    return load_records.load_records([HOME])[0]


def test_every_method_that_needs_no_download_is_there_in_its_version(runs):
    expected = {name: baselines.get(name).spec for name in run_methods.offline_methods(True, True)}
    records = {run.record.method: run.record for run in runs}
    assert set(records) == set(expected), AGAIN
    for name, spec in expected.items():
        assert records[name].version == spec.version, AGAIN
        assert records[name].about.title == spec.title, AGAIN
        assert records[name].about.kind == spec.kind


def test_all_stand_on_the_track_and_were_made_from_an_unchanged_checkout(runs):
    for run in runs:
        assert tracks.mismatch(run.record, MINI) is None, AGAIN
        assert run.record.ran["dirty"] is False
        assert run.folder == HOME / tracks.record_path(
            MINI, run.record.method, run.record.version, run.record.about.seed
        )


def test_they_are_small():
    assert sum(path.stat().st_size for path in HOME.rglob("*")) < 4 << 20


def test_their_table_has_floors_below_methods_and_the_truth_above(runs):
    rows = standings.standings(runs, MINI, draws=200)
    place = {(row.name, row.kind): i for i, row in enumerate(rows)}
    assert place["truth", "reference"] == 0
    methods = [i for (_, kind), i in place.items() if kind == "method"]
    floors = [i for (_, kind), i in place.items() if kind == "floor"]
    assert max(methods) < min(floors)
    ranks = [row.rank for row in rows if row.rank is not None]
    assert ranks == sorted(ranks)
    assert ranks[0] == 1
    seeded = next(row for row in rows if row.name == "random-description")
    assert len(seeded.records) == 3
    assert seeded.spread > 0


@pytest.mark.parametrize(
    "names",
    [
        ("concept-f1", "rouge-l", "retrieval-tfidf-auc"),
        pytest.param(MINI.metrics, marks=pytest.mark.slow),
    ],
)
def test_scored_again_from_their_predictions_they_are_the_same(runs, names):
    """Two of the methods; with every metric a minute or two, because of the text model."""
    known = open_references(MINI, "mini")
    for run in [run for run in runs if run.record.method in ("nearest", "compexp")]:
        record = run.record
        predicted = predictions.read(run.folder / "predictions.csv")
        settings = ScoreConfig(draws=1000, seed=record.settings["seed"])
        again = leaderboard.score(predicted, known, names, split="test", settings=settings).record
        for name in names:
            assert again.metrics[name].signature == record.metrics[name].signature, AGAIN
            for field, value in record.scores[name].model_dump().items():
                assert getattr(again.scores[name], field) == pytest.approx(value, abs=1e-6), AGAIN
