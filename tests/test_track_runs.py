"""Tests of `milan run --track`, and of questions about a form on a terminal."""

from dataclasses import replace

import pytest

from leaderboard import run_methods
from leaderboard.cli import submit
from leaderboard.evaluation.score_config import ScoreConfig
from leaderboard.ranking import tracks
from leaderboard.record_format import score_record
from milannotations import InputError
from milannotations.published import annotations

FEW = ScoreConfig(draws=20, seed=3)


def shortened(monkeypatch, name, *metrics):
    """Give a track only these metrics: its own need a text model and a minute."""
    short = replace(tracks.get(name), metrics=metrics)
    monkeypatch.setattr(tracks, "get", lambda asked: short)
    return short


def test_a_run_for_a_track_makes_records_of_it(tmp_path, monkeypatch):
    track = shortened(monkeypatch, "mini", "concept-f1", "rouge-l")
    run_methods.run("mini", ["constant"], track="mini", settings=FEW, out=tmp_path)
    record = score_record.load(tmp_path / "mini-v1" / "constant-1.0-seed3")
    assert record.track == track.key
    assert set(record.scores) == {"concept-f1", "rouge-l"}
    assert record.edition.split == "test"
    assert (record.about.kind, record.about.seed) == ("floor", 3)
    assert record.about.command == "milan run --track mini@1 --methods constant --seed 3"


@pytest.mark.slow
def test_floors_on_the_real_annotations(real, tmp_path, monkeypatch):
    """Without exemplars, only floors can run."""
    source = real / "annotations" / "milannotations_resnet152_imagenet.csv"
    edition = tmp_path / "release"
    annotations.build_edition(source, "resnet152-imagenet", edition)
    name = "within-network/resnet152-imagenet"
    track = shortened(monkeypatch, name, "rouge-l", "retrieval-tfidf-auc")
    scores = run_methods.run(edition, track=name, settings=FEW, out=tmp_path / "out")
    assert set(scores) == {"constant", "most-common", "random-description"}
    for score in scores.values():
        record = score.record
        assert record.track == track.key
        assert record.edition.n_units == track.n_units == 390
        assert record.scores["retrieval-tfidf-auc"].mean_all == pytest.approx(0.5, abs=0.05)
    assert scores["constant"].record.scores["rouge-l"].lift == 0


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("leave-one-out/resnet152-imagenet", "restricts training to other networks"),
        ("mini-edit", "is a track of an application. Run: milan edit"),
        ("within-network/alexnet-imagenet", "is not the edition release"),
        ("maxi", "No track 'maxi'"),
    ],
)
def test_tracks_that_a_run_cannot_serve(name, says):
    with pytest.raises(InputError, match=says):
        run_methods.run("mini", ["constant"], track=name)


def test_on_a_terminal_what_is_missing_is_asked_for(monkeypatch):
    monkeypatch.setattr("sys.stdin.isatty", lambda: True)
    asked = []

    def answer(question):
        asked.append(question)
        return "A. One, B. Two"

    monkeypatch.setattr(submit.typer, "prompt", answer)
    assert submit._ask(["authors", "cost"]) == {
        "authors": ["A. One", "B. Two"],
        "cost": "A. One, B. Two",
    }
    assert asked == ["Authors, separated by commas", "Cost (time, money)"]
    monkeypatch.setattr("sys.stdin.isatty", lambda: False)
    with pytest.raises(InputError, match="needs --authors, --cost"):
        submit._ask(["authors", "cost"])
    assert submit._ask([]) == {}


@pytest.mark.parametrize("word", ["release", "release=", "release=/no/such/folder"])
def test_editions_are_named_with_their_folder(word):
    with pytest.raises(InputError, match="--data release"):
        submit._edition_folders([word])
