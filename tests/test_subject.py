"""Describing a user's network: a subject on a probe dataset, options, accounts."""

import csv
import json
from contextlib import contextmanager

import networks
import numpy as np
import pytest
from PIL import Image

import baselines
import leaderboard
from baselines import Account, Subject
from baselines.framework.provenance import SUFFIX, read_account
from leaderboard.cli import main
from leaderboard.evaluation import predictions, references
from leaderboard.evaluation.score_config import ScoreConfig
from leaderboard.record_format import score_record
from milannotations import InputError, Unit
from milannotations.probes import open_probe
from milannotations.utils.files import sha256

FACTORY = f"{networks.__file__}:exact_plain"


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """Return a folder with an edition of a network's exemplars, and two probe datasets."""
    root = tmp_path_factory.mktemp("subject")
    networks.folder(root / "pictures" / "bright", 12)
    networks.folder(root / "pictures" / "dark", 12, seed=1)
    segments = root / "segments"
    networks.folder(segments / "images", 16, seed=2)
    (segments / "labels").mkdir()
    draw = np.random.default_rng(0)
    for picture in (segments / "images").iterdir():
        labels = draw.integers(0, 3, (16, 16)).astype(np.uint8)
        Image.fromarray(labels).save(segments / "labels" / picture.name)
    (segments / "labels.txt").write_text("left\nright\n")
    run("exemplars", FACTORY, "--layer", "conv1", "conv2", "--images", root / "pictures",
        "--out", root / "edition", "--name", "net", "--k", "3")  # fmt: skip
    return root


@contextmanager
def suppress_success():
    """Let a command exit with 0, and with no other status."""
    try:
        yield
    except SystemExit as stop:
        if stop.code:
            raise


def run(*said):
    """Run the command; return nothing unless it fails."""
    with suppress_success():
        main.main([*map(str, said)])


def test_a_network_of_ones_own_is_described(place, tmp_path, capsys):
    """Test the way from images and a network's file to descriptions and their account."""
    out, cache = tmp_path / "said.csv", tmp_path / "cache"
    words = ["describe", place / "edition", "--method", "netdissect", "--subject", FACTORY,
             "--probe", f"segments:{place}/segments", "--cache", cache, "--out", out]  # fmt: skip
    run(*words)
    # nobody annotated these units, so the next command scores on activations
    assert f"--ground {FACTORY} --images DIR" in capsys.readouterr().out
    with open(out, newline="") as stream:
        rows = list(csv.DictReader(stream))
    assert [row["layer"] for row in rows] == ["conv1"] * 6 + ["conv2"] * 8
    assert {row["description"] for row in rows} <= {"left", "right", ""}
    account = json.loads((tmp_path / f"said.csv{SUFFIX}").read_text())
    assert account["predictions"] == sha256(out)
    assert account["method"]["name"] == "netdissect"
    assert account["n_units"] == 14
    assert account["seconds"] > 0
    assert account["a_unit"]["tokens_in"] is None
    chosen = account["chosen_on"]["net"]
    probe = open_probe(f"segments:{place / 'segments'}")
    assert chosen["images"]["probe"]["sha256"] == probe.source["sha256"]
    before = out.read_bytes()
    passes = sorted(cache.iterdir())
    assert len(passes) == 2
    run(*words)  # of what was kept: the network is not shown a picture
    assert sorted(cache.iterdir()) == passes
    assert out.read_bytes() == before
    capsys.readouterr()


def test_answers_are_those_of_the_python_call(place, tmp_path):
    subject = Subject(FACTORY, f"images:{place / 'pictures'}")
    account = Account()
    said = baselines.describe(
        place / "edition", "invert", subject=subject, layers="conv2", account=account,
        options={"length": 1, "fewest": 2},
    )  # fmt: skip
    assert [unit for unit, _ in said] == [Unit("net", "conv2", i) for i in range(8)]
    texts = {answer.text for _, answer in said}
    assert texts <= {"bright", "dark", "not bright", "not dark", None}
    assert account.options == {"length": "1", "fewest": "2"}
    out = tmp_path / "said.csv"
    run("describe", place / "edition", "--method", "invert", "--set", "length=1", "--set",
        "fewest=2", "--layer", "conv2", "--subject", FACTORY, "--probe",
        f"images:{place / 'pictures'}", "--out", out)  # fmt: skip
    with open(out, newline="") as stream:
        assert [row["description"] or None for row in csv.DictReader(stream)] == [
            answer.text for _, answer in said
        ]


def test_class_folders_are_concepts(place):
    probe = open_probe(f"images:{place / 'pictures'}")
    assert [concept.name for concept in probe.concepts] == ["bright", "dark"]
    assert len(probe) == 24
    assert np.unique(probe.labels(0, (4, 4))).tolist() == [1]
    assert np.unique(probe.labels(23, (4, 4))).tolist() == [2]
    assert probe.image(0).size == (16, 16)


def test_images_of_which_nothing_is_known(place):
    subject = Subject(FACTORY, f"images:{place / 'segments' / 'images'}")
    with pytest.raises(InputError, match="are images without labels"):
        baselines.describe(place / "edition", "netdissect", subject=subject)


@pytest.mark.parametrize(
    ("said", "error"),
    [
        (["--subject", FACTORY], "add --probe PROBE"),
        (["--probe", "mini"], "add --subject MODEL"),
        (["--cache", "x"], "belong to a network"),
        ([], "Give both: --subject MODEL"),
        (["--subject", FACTORY, "--probe", "coco:nowhere"], "no such folder"),
        (["--set", "quantil=.9"], "has no option 'quantil'"),
        (["--set", "quantile=much"], "valid number"),
        (["--set", "quantile"], "NAME=VALUE was expected"),
        (["--set", "quantile=.9", "--set", "quantile=.8"], "is set twice"),
    ],
)
def test_what_is_wrong_is_said(place, tmp_path, capsys, said, error):
    with pytest.raises(SystemExit) as stop:
        main.main(["describe", str(place / "edition"), "--method", "netdissect",
                  "--out", str(tmp_path / "x.csv"), *said])  # fmt: skip
    assert stop.value.code == 1
    assert error in capsys.readouterr().err
    assert not (tmp_path / "x.csv").exists()


def test_several_networks_are_not_one_subject():
    subject = Subject(FACTORY, "mini")
    with pytest.raises(InputError, match="is one network, and the units are of 2"):
        subject.probe_statistics([Unit("a", "x", 0), Unit("b", "x", 0)])


@pytest.mark.parametrize(
    ("given", "made"),
    [
        (["lam=0.3", "pmi=true", "show=crops"], {"lam": 0.3, "pmi": True, "show": "crops"}),
        (["model=none", "candidates=4"], {"model": "none", "candidates": 4}),
        (['body={"top_p": 0.5}', "max-words=9"], {"body": {"top_p": 0.5}, "max_words": 9}),
        ([], {}),
    ],
)
def test_options_have_the_types_of_create(given, made):
    assert baselines.parse_options("captioner", given) == made


def test_options_of_a_file_without_types(write_file):
    path = write_file(
        "own.py",
        "from baselines import MethodSpec\nSPEC = MethodSpec('own', '1', 'method', 'Own')\n"
        "def create(a=1, b='x'):\n    raise SystemExit\n",
    )
    assert baselines.parse_options(str(path), ["a=2", "b=two"]) == {"a": 2, "b": "two"}


def test_an_account_is_of_its_file_alone(tmp_path):
    path = tmp_path / "said.csv"
    path.write_text("network,layer,unit,description\n")
    where = Account(seed=3, n_units=4, seconds=2.0, tokens_in=8).write(path)
    found = read_account(path, sha256(path))
    assert (found["seed"], found["a_unit"]["seconds"], found["a_unit"]["tokens_in"]) == (3, 0.5, 2)
    assert read_account(path, "another") is None
    assert read_account(tmp_path / "other.csv", "") is None
    where.write_text("{")
    with pytest.raises(InputError, match="is not JSON"):
        read_account(path, sha256(path))


def test_accounts_and_the_blind_control_go_into_records(tmp_path):
    known = references.load("mini")
    texts = [truth or "nothing" for truth in known.truths]
    said = predictions.from_texts(known.units, texts)
    blind = predictions.from_texts(known.units, texts[::-1])
    account = Account(seed=3, n_units=len(texts), seconds=5.0)
    made = leaderboard.score(
        said, known, ["concept-f1"], split="test", beside={"blind": blind},
        accounts=[account.to_dict()], settings=ScoreConfig(draws=50),
    )  # fmt: skip
    made.save(tmp_path / "record")
    record = score_record.load(tmp_path / "record")
    assert record.accounts == [account.to_dict()]
    floor = record.floors["blind"]["concept-f1"]
    alone = leaderboard.score(blind, known, ["concept-f1"], split="test",
                              settings=ScoreConfig(draws=50)).record  # fmt: skip
    assert floor == alone.scores["concept-f1"]
    assert alone.accounts == []


@pytest.mark.slow
def test_what_looks_at_exemplars_has_no_lift_when_they_are_shuffled(tmp_path, capsys):
    """Test all methods with blind controls in the main job."""
    out = tmp_path / "records"
    names = ("nearest", "milan", "milan-greedy", "milan-beam", "invert")
    run("run", "--methods", *names, "--metrics", "concept-f1", "retrieval-tfidf-auc", "--blind",
        "--out", out)  # fmt: skip
    capsys.readouterr()
    for folder in (out / "mini-mini-test").iterdir():
        made = score_record.load(folder)
        if made.method == "invert":
            assert "blind" not in made.floors
            for chosen in made.accounts[0]["chosen_on"].values():
                assert len(chosen["images"]["probe"]["sha256"]) == 64
            continue
        assert made.accounts[0]["a_unit"]["seconds"] > 0
        assert made.accounts[0]["chosen_on"] == {}
        for metric, own in made.scores.items():
            blind = made.floors["blind"][metric]
            print(f"{made.method} {metric}: lift {own.lift:+.3f}, blind {blind.lift:+.3f} "
                  f"({blind.lift_low:+.3f} to {blind.lift_high:+.3f})")  # fmt: skip
            assert blind.lift_low <= 0 <= blind.lift_high
            assert own.lift_low > blind.lift_high
