"""Description and scoring of the embedded edition, and the order that methods must have."""

import json

import numpy as np
import pytest

import baselines
from baselines.framework.units import unit_keys
from leaderboard import metrics, run_methods
from leaderboard import score as score_of
from leaderboard.cli import main
from leaderboard.evaluation import predictions, references
from leaderboard.evaluation.score_config import ScoreConfig
from leaderboard.metrics.text_models import is_available
from milannotations import InputError

pytestmark = pytest.mark.skipif(
    not is_available(sentences=True), reason="needs the text model of the extra 'offline'"
)

MERIT = ("concept-f1", "identification")
FEW = ScoreConfig(draws=400)
MARGIN = 0.05
"""Least difference in lift between one rank of the order and the next."""


@pytest.fixture(scope="module")
def world():
    """Return units, training rows, references and metrics, which all tests share."""
    return (
        baselines.open_units("mini", split="test"),
        baselines.open_training("mini"),
        references.load("mini"),
        metrics.build(MERIT),
    )


@pytest.fixture(scope="module")
def judged(world):
    """Return a function that describes and scores units with a method and a seed."""
    units, training, known, built = world
    contexts = {}

    def judge(name, seed=0, shown=units):
        context = contexts.setdefault(seed, baselines.Context(seed=seed, training=training))
        answers = baselines.run(baselines.get(name), shown, context)
        described = predictions.from_descriptions(zip(unit_keys(units), answers, strict=True))
        settings = ScoreConfig(seed=seed, draws=FEW.draws)
        scored = score_of(described, known, built, split="test", method=name, settings=settings)
        return {full.partition("@")[0]: scored.record.scores[full] for full in built}, scored

    return judge


@pytest.fixture(scope="module")
def merits(judged):
    return {name: judged(name)[0] for name in ("truth", "nearest", "constant", "most-common")}


@pytest.mark.parametrize("metric", MERIT)
def test_order_of_merit(merits, metric):
    truth, nearest = merits["truth"][metric], merits["nearest"][metric]
    assert truth.lift_low > nearest.lift_high + MARGIN
    assert nearest.lift_low > MARGIN


@pytest.mark.parametrize("name", ["constant", "most-common"])
def test_constants_have_no_lift_at_all(judged, name):
    """No unit has lift, because all descriptions of a layer are the same."""
    _, scored = judged(name)
    lifts = scored.units.dropna().lift
    assert len(lifts) > 600
    assert np.abs(lifts).max() < 1e-12


@pytest.mark.parametrize("metric", MERIT)
@pytest.mark.parametrize("seed", [0, *(pytest.param(s, marks=pytest.mark.slow) for s in (1, 2))])
def test_random_descriptions_and_shuffled_exemplars_have_no_lift(judged, world, seed, metric):
    """The lower end of the order: methods that see nothing, or another unit's images."""
    blind = baselines.shuffled_exemplars(world[0], seed)
    for estimate in (
        judged("random-description", seed)[0][metric],
        judged("nearest", seed, blind)[0][metric],
    ):
        assert estimate.lift_low - 0.01 <= 0 <= estimate.lift_high + 0.01
        assert abs(estimate.lift) < MARGIN


def test_one_simulated_annotator_stands_between(judged):
    """By concept F1, which knows synonyms: below the truth, above the floors."""
    _, scored = judged("truth")
    annotator = scored.record.floors["one-person"]["concept-f1"]
    assert 0.3 < annotator.lift < 0.95
    assert annotator.lift_high < scored.record.scores["concept-f1"].lift_low


def test_unseen_combinations_are_harder_for_who_repeats(judged):
    _, scored = judged("nearest")
    slices = scored.record.slices
    name = "concept-f1"
    assert slices["seen"][name].mean > slices["unseen"][name].mean + 0.1
    assert slices["seen"][name].n_scored + slices["unseen"][name].n_scored == (
        scored.record.scores[name].n_scored
    )


def test_run_writes_records_and_a_page_and_shows_one_table(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr("leaderboard.site.thumbnails.make_sheets", lambda *_, **__: None)
    asked = ["run", "--methods", "constant", "truth", "--metrics", "concept-f1", "unparsed",
             "retrieval-tfidf-auc"]  # fmt: skip
    with pytest.raises(SystemExit) as left:
        main.main([*asked, "--out", str(tmp_path / "out"), "--draws", "50"])
    assert left.value.code == 0
    shown, told = capsys.readouterr()
    page = tmp_path / "out" / "page" / "index.html"
    assert f"Page: {page}" in told
    assert "truth" in page.read_text("utf-8")
    assert shown.startswith("SYNTHETIC")
    assert "simulated annotator" in shown
    assert "one person" not in shown.lower()
    found = sorted(
        path.parent.relative_to(tmp_path).as_posix()
        for path in tmp_path.rglob("*.json")
        if page.parent not in path.parents
    )
    assert found == ["out/mini-mini-test/constant-1.0", "out/mini-mini-test/truth-1.0"]
    record = json.loads((tmp_path / found[1] / "record.json").read_text())
    assert record["edition"]["synthetic"] is True
    assert record["scores"]["concept-f1"]["mean"] == 1.0


@pytest.mark.parametrize(
    ("asked", "says"),
    [
        ({"methods": ["nearst"]}, "Did you mean 'nearest'"),
        ({"methods": ["human"]}, "computes one leave-one-out human itself"),
        ({"methods": ["constant", "constant"]}, "is given twice"),
        ({"data": "maxi"}, "maxi"),
        ({"methods": ["constant"], "split": "tset"}, "No split 'tset'"),
    ],
)
def test_what_cannot_be_run(asked, says):
    with pytest.raises(InputError, match=says):
        run_methods.run(**{"data": "mini", **asked})


@pytest.mark.slow
@pytest.mark.parametrize("seed", [1, 2])
def test_order_of_merit_on_other_worlds(tmp_path, seed):
    """Other scenes, units and annotations, and the same order."""
    from milannotations.synthetic.edition import build

    build(tmp_path / "edition", seed)
    scores = run_methods.run(
        tmp_path / "edition",
        ["truth", "nearest", "random-description", "constant"],
        metrics=MERIT,
        settings=FEW,
    )
    for metric in MERIT:
        found = {
            name: next(e for full, e in s.record.scores.items() if full.partition("@")[0] == metric)
            for name, s in scores.items()
        }
        print(seed, metric, {name: round(e.lift, 3) for name, e in found.items()})
        assert found["truth"].lift_low > found["nearest"].lift_high + MARGIN
        assert found["nearest"].lift_low > found["random-description"].lift_high + MARGIN
        assert abs(found["constant"].lift) < 1e-12


def test_a_metric_that_was_asked_for_is_shown(capsys):
    with pytest.raises(SystemExit):
        main.main(
            ["run", "--methods", "constant", "--metrics", "concept-f1", "length", "--draws", "10"]
        )
    _, table = capsys.readouterr().out.split("Other metrics")
    assert table.split()[:3] == ["method", "length", "constant"]
