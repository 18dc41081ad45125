"""The command: what it prints, what it writes, how it refuses."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import sample

from leaderboard.cli import main

ROOT = Path(__file__).resolve().parent.parent
SAMPLE = ("--references", sample.ANNOTATIONS, "--network", "sample")
SCORE = ("score", sample.PREDICTIONS, *SAMPLE)


@pytest.fixture
def milan(capsys):
    def run(*words):
        """Return (exit status, standard output, standard error) of a command."""
        try:
            main.main(words)
            status = 0
        except SystemExit as stop:
            status = stop.code or 0
        made = capsys.readouterr()
        return status, made.out, made.err

    return run


def test_score_prints_the_table_and_writes_a_record(milan, tmp_path):
    status, out, err = milan(*SCORE, "--out", str(tmp_path / "record"))
    assert status == 0, err
    assert "rouge-l-allref" in out
    assert "most common" in out
    assert (tmp_path / "record" / "record.json").is_file()
    assert "Record:" in err


def test_score_of_an_edition_is_that_of_its_annotations(milan, tmp_path):
    edition = str(tmp_path / "edition")
    assert (
        milan("data", "annotations", sample.ANNOTATIONS, "--network", "sample", "--out", edition)[0]
        == 0
    )
    by_file = json.loads(milan(*SCORE, "--metrics", "rouge-l", "bleu-2", "--json")[1])
    by_edition = json.loads(
        milan(
            "score", sample.PREDICTIONS, "--data", edition, "--metrics", "rouge-l,bleu-2", "--json"
        )[1]
    )
    assert by_file["scores"] == by_edition["scores"]
    assert set(by_file["scores"]) == {"rouge-l", "bleu-2"}


def test_files_by_layer_and_layers_alone(milan, tmp_path):
    for layer in ("layer1", "layer2"):
        lines = [
            line.split(",", 2)[2].rsplit(",", 1)[0]
            for line in Path(sample.PREDICTIONS).read_text().splitlines()
            if f",{layer}," in line
        ]
        (tmp_path / f"{layer}.csv").write_text("Neuron ID,label\n" + "\n".join(lines) + "\n")
    files = [f"{layer}={tmp_path / layer}.csv" for layer in ("layer1", "layer2")]
    where = (
        "--references",
        sample.ANNOTATIONS,
        "--network",
        "sample",
        "--metrics",
        "rouge-l",
        "--json",
    )
    whole = json.loads(milan(*SCORE, "--metrics", "rouge-l", "--json")[1])
    both = json.loads(milan("score", *files, *where)[1])
    assert both["scores"] == whole["scores"]
    one = json.loads(milan("score", str(tmp_path / "layer2.csv"), "--layer", "layer2", *where)[1])
    assert one["scores"]["rouge-l"]["n_units"] == 16
    assert one["scores"]["rouge-l"]["mean"] == whole["slices"]["sample/layer2"]["rouge-l"]["mean"]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("score", sample.PREDICTIONS, "--data", "no/such"), "No edition 'no/such'"),
        (("score", "nowhere.csv", *SAMPLE), "No such file"),
        (("score", str(ROOT), *SAMPLE), "is a directory"),
        ((*SCORE, "--metrics", "rouge-9"), "No metric 'rouge-9'"),
        ((*SCORE, "--layer", "layer7"), "Layer 'layer7' is not in sample"),
        (("score", sample.PREDICTIONS, "--references", str(ROOT)), "is a directory"),
        (("data", "annotations", sample.ANNOTATIONS, "--network", "alexnet-imagnet", "--out", "x"),
         "Did you mean 'alexnet-imagenet'?"),
        (("data", "annotations", sample.PREDICTIONS, "--network", "sample", "--out", "x"),
         "expected layer, unit, summary"),
    ],
)  # fmt: skip
def test_what_the_user_can_mend_is_said_in_a_line_with_exit_1(
    milan, tmp_path, monkeypatch, words, said
):
    monkeypatch.chdir(tmp_path)
    status, out, err = milan(*words)
    assert status == 1
    assert err.startswith("error: ")
    assert said in err
    assert "Traceback" not in err
    assert out == ""
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "words",
    [
        ("score",),
        ("score", sample.PREDICTIONS),
        ("nonsense",),
        ("list",),
        (*SCORE, "--draws", "x"),
        (*SCORE, "--metrics"),
    ],
)
def test_wrong_usage_exits_with_2(milan, words):
    assert milan(*words)[0] == 2


def test_nothing_is_written_when_scoring_fails(milan, tmp_path):
    (tmp_path / "half.csv").write_text("layer,unit,description\nlayer1,0,red\n")
    status, _, err = milan(
        "score", str(tmp_path / "half.csv"), "--references", sample.ANNOTATIONS,
        "--network", "sample", "--out", str(tmp_path / "record"),
    )  # fmt: skip
    assert status == 1
    assert "has rows for 1 of 32 units; missing" in err
    assert [path.name for path in tmp_path.iterdir()] == ["half.csv"]


def test_missing_units_count_as_failures_when_allowed(milan, tmp_path):
    kept = Path(sample.PREDICTIONS).read_text().splitlines()[:17]
    (tmp_path / "half.csv").write_text("\n".join(kept))
    status, out, _ = milan(
        "score", str(tmp_path / "half.csv"), "--references", sample.ANNOTATIONS,
        "--network", "sample", "--allow-missing",
    )  # fmt: skip
    assert status == 0
    assert "16 of 32 units described" in out
    assert "units" in out
    assert "have no description" in out


def test_an_interruption_exits_with_130(milan, monkeypatch):
    import leaderboard

    def interrupted(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr(leaderboard, "score", interrupted, raising=False)
    assert milan(*SCORE)[0] == 130


def test_lists(milan):
    networks = json.loads(milan("list", "networks", "--json")[1])
    assert sum(network["units"] for network in networks) == 20_272
    assert networks[2]["layers"] == {
        "conv1": 64, "layer1": 256, "layer2": 512, "layer3": 1024, "layer4": 2048,
    }  # fmt: skip
    metrics = json.loads(milan("list", "metrics", "--json")[1])
    assert {"rouge-l", "bleu-4", "retrieval-tfidf-auc"} <= {metric["name"] for metric in metrics}
    assert "rouge-l-max" in milan("list", "metrics")[1]
    assert "res4" in milan("list", "networks")[1]


@pytest.mark.parametrize("what", ["methods", "editions"])
def test_lists_of_what_ships(milan, what):
    status, out, err = milan("list", what)
    assert status == 0, err
    assert {"methods": "nearest", "editions": "mini"}[what] in out
    assert json.loads(milan("list", what, "--json")[1])


def test_describe_then_score(milan, tmp_path):
    """The two steps with a file between, and what both refuse."""
    made = str(tmp_path / "said.csv")
    asked = ("describe", "mini", "--split", "test", "--network", "mini-sharp", "--layer", "layer1")
    status, out, err = milan(*asked, "--method", "most-common", "--out", made)
    assert status == 0, err
    n_units = out.split(": ")[1].split()[0]
    assert f"{n_units} units ({n_units} ok)" in out
    assert int(n_units) >= 35
    before = Path(made).read_bytes()
    assert milan(*asked, "--method", "most-common", "--batch-size", "5", "--out", made)[0] == 0
    assert Path(made).read_bytes() == before
    score = ("score", made, "--data", "mini", "--split", "test", "--metrics", "concept-f1")
    status, _, err = milan(*score)
    assert status == 1
    assert f"rows for {n_units} of " in err
    assert "missing mini-coarse/layer1/" in err
    status, out, err = milan(*score, "--allow-missing", "--json")
    assert status == 0, err
    assert json.loads(out)["scores"]["concept-f1"]["lift"] == 0
    for wrong, says in (
        (
            ("--method", "human", "--out", made),
            "'milan score' computes one leave-one-out human itself",
        ),
        (("--method", "nearst", "--out", made), "Did you mean 'nearest'"),
        (("--method", "constant", "--model", "x", "--out", made), "It takes text"),
        (("--method", "constant", "--out", str(tmp_path / "said.txt")), "ends in .csv"),
    ):
        status, _, err = milan(*asked, *wrong)
        assert (status, says in err) == (1, True), err


def test_show_draws_a_unit(milan, tmp_path):
    made = tmp_path / "unit.png"
    status, out, err = milan(
        "data", "show", "mini", "mini-leaky", "layer2", "5", "--out", str(made)
    )
    assert status == 0, err
    assert "simulated annotators: " in out
    assert made.read_bytes().startswith(b"\x89PNG")
    status, _, err = milan("data", "show", "mini", "mini-leaky", "--out", str(tmp_path / "x.gif"))
    assert (status, ".png" in err) == (1, True)
    assert milan("data", "show", "mini", "--scenes", "24", "--out", str(made))[0] == 0


def test_a_narrow_terminal_keeps_floors_and_one_person(milan, monkeypatch):
    monkeypatch.setenv("COLUMNS", "100")
    _, out, _ = milan(*SCORE, "--metrics", "rouge-l")
    assert max(map(len, out.splitlines())) <= 100
    assert all(word in out for word in ("shuffled", "constant", "human"))
    assert "95 %" not in out


@pytest.mark.parametrize(
    "words",
    [
        (),
        ("score",),
        ("run",),
        ("doctor",),
        ("data",),
        ("data", "annotations"),
        ("list",),
        ("list", "metrics"),
        ("list", "networks"),
    ],
)
def test_help_ends_with_two_commands(milan, words):
    status, out, _ = milan(*words, "--help")
    assert status == 0
    tail = out[out.index("Examples:") :]
    assert tail.count(f"milan {' '.join(words)}".strip()) >= 2


def test_version(milan):
    assert milan("--version")[1].startswith("milannotations 0.")


def test_options_with_several_values_in_every_spelling(milan):
    spellings = (
        ("--metrics", "rouge-l", "distinct"),
        ("--metrics", "rouge-l,distinct"),
        ("--metrics=rouge-l,distinct",),
        ("--metrics", "rouge-l", "--metrics", "distinct"),
    )
    for words in spellings:
        made = json.loads(milan(*SCORE, *words, "--json")[1])
        assert set(made["scores"]) == {"rouge-l", "distinct"}, words


def test_a_damaged_or_foreign_edition_is_said(milan, tmp_path):
    edition = tmp_path / "edition"
    new = ("data", "annotations", sample.ANNOTATIONS, "--network", "sample", "--out")
    assert milan(*new, str(edition))[0] == 0
    file = edition / "sample" / "train.parquet"
    file.write_bytes(file.read_bytes()[:200])
    status, _, err = milan("score", sample.PREDICTIONS, "--data", str(edition))
    assert (status, "cannot be read" in err) == (1, True)
    status, _, err = milan(*new[:3], "--network", "another", "--out", str(edition))
    assert (status, "is damaged" in err) == (1, True)
    assert not (edition / "another").exists()
    card = tmp_path / "theirs" / "README.md"
    card.parent.mkdir()
    card.write_text(
        "---\nconfigs:\n- config_name: a\n  data_files:\n  - split: train\n    path: a\n---\nmine"
    )
    before = card.read_text()
    status, _, err = milan(*new, str(card.parent))
    assert (status, "was not made by this package" in err) == (1, True)
    assert card.read_text() == before


def test_a_record_keeps_its_company_out(milan, tmp_path):
    out = tmp_path / "record"
    assert milan(*SCORE, "--metrics", "rouge-l", "--out", str(out))[0] == 0
    (out / "notes.txt").write_text("mine")
    status, shown, err = milan(*SCORE, "--metrics", "rouge-l", "--out", str(out))
    assert (status, shown) == (1, "")  # refused before anything is scored
    assert "holds 'notes.txt' beside a record" in err


def test_help_imports_nothing_heavy():
    code = (
        "import sys, leaderboard.cli.main as c\n"
        "try: c.main(['--help'])\nexcept SystemExit: pass\n"
        "print([m for m in ('torch', 'pandas', 'datasets', 'scipy', 'milan', 'baselines')"
        " if m in sys.modules], file=sys.stderr)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stderr.strip() == "[]"


def test_doctor_finds_nothing_wrong_here(milan):
    status, out, _ = milan("doctor")
    assert status == 0, out
    assert "package baselines" in out


@pytest.mark.parametrize("room", ["milan", "baselines"])
def test_doctor_says_who_else_owns_a_package(tmp_path, room):
    """A stranger's distribution on the path, as pip would have left it."""
    info = tmp_path / f"stranger_{room}-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: stranger-{room}\nVersion: 1.0\n")
    (info / "RECORD").write_text(f"{room}/__init__.py,,\n")
    done = subprocess.run(
        [sys.executable, "-m", "leaderboard.cli", "doctor"],
        capture_output=True, text=True, check=False, cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(tmp_path)},
    )  # fmt: skip
    assert done.returncode == 1
    assert f"the distribution 'stranger-{room}' has files in {room}/ too" in done.stdout
    assert f"pip uninstall stranger-{room}" in done.stdout


def test_doctor_says_when_a_folder_shadows_a_package(tmp_path):
    (tmp_path / "milan").mkdir()
    (tmp_path / "milan" / "__init__.py").write_text("")
    done = subprocess.run(
        [sys.executable, "-m", "leaderboard.cli", "doctor", "--json"],
        capture_output=True, text=True, check=False, cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": f"{tmp_path}{os.pathsep}{ROOT}"},
    )  # fmt: skip
    checks = {check["name"]: check for check in json.loads(done.stdout)}
    assert done.returncode == 1
    assert str(tmp_path) in checks["package milan"]["says"]
    assert checks["package leaderboard"]["ok"]


def test_list_methods_shows_their_options(milan):
    status, out, _ = milan("list", "methods")
    assert status == 0
    row = next(line for line in out.splitlines() if line.split()[:2] == ["netdissect", "threshold"])
    assert row.split()[2:4] == ["0.04", "IoU"]
    status, out, _ = milan("list", "methods", "--json")
    methods = {method["name"]: method for method in json.loads(out)}
    assert {"name": "beam", "default": "5"}.items() <= methods["compexp"]["options"][1].items()
