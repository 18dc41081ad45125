"""The wheel, installed alone, does the main job from another folder."""

import os
import subprocess
import sys
import sysconfig
import tomllib
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent


def run(*command, **options):
    done = subprocess.run(
        [str(word) for word in command], capture_output=True, text=True, check=False, **options
    )
    assert done.returncode == 0, f"{command}\n{done.stdout}\n{done.stderr}"
    return done.stdout


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    out = tmp_path_factory.mktemp("wheel")
    # hatchling is in the environment: nothing is fetched to build
    run(
        sys.executable, "-m", "pip", "wheel", "--no-deps", "--no-build-isolation", "--no-index",
        "--wheel-dir", out, ROOT,
    )  # fmt: skip
    return next(out.glob("*.whl"))


def test_the_wheel_holds_the_four_rooms_and_no_tests(wheel):
    names = zipfile.ZipFile(wheel).namelist()
    tops = {name.split("/")[0] for name in names if ".dist-info" not in name}
    assert tops == {"milannotations", "milan", "baselines", "leaderboard"}
    assert "leaderboard/metrics/rouge/rouge.py" in names
    assert "milannotations/data/mini/test.parquet" in names
    assert "milannotations/data/encoder.safetensors" in names
    assert "milan/data/mini/model.safetensors" in names
    assert all(f"{top}/README.md" in names for top in tops)
    assert not [name for name in names if "__pycache__" in name]


def test_the_wheel_alone_runs_the_demo_from_another_folder(wheel, tmp_path):
    home = tmp_path / "environment"
    run(sys.executable, "-m", "venv", "--without-pip", home)
    python = home / "bin" / "python"
    run(
        sys.executable, "-m", "pip", "--python", python, "install", "--no-deps", "--no-index",
        "--disable-pip-version-check", wheel,
    )  # fmt: skip
    # the dependencies of this environment, without its editable copy of the package: paths
    # named in a .pth file are searched, but their own .pth files are not read
    site = Path(run(python, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))").strip())
    (site / "dependencies.pth").write_text(sysconfig.get_path("purelib") + "\n")
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    env = {k: v for k, v in os.environ.items() if k != "PYTHONPATH"}
    where = run(
        python, "-c", "import leaderboard; print(leaderboard.__file__)", cwd=elsewhere, env=env
    )
    assert where.startswith(str(site))
    demo = (
        "run",
        "--methods",
        "constant",
        "nearest",
        "--metrics",
        "concept-f1",
        "--out",
        "records",
    )
    shown = run(home / "bin" / "milan", *demo, cwd=elsewhere, env=env)
    assert shown.startswith("SYNTHETIC")
    assert (elsewhere / "records" / "mini-mini-test" / "nearest-1.0" / "record.json").is_file()
    loaded = run(
        python,
        "-c",
        "import evaluate; from leaderboard import metrics as m;"
        "print(evaluate.load(m.path('rouge-l')).compute(predictions=['a'], references=['a']))",
        cwd=elsewhere,
        env=env,
    )
    assert "'rouge-l': 1.0" in loaded
    assert "ok" in run(home / "bin" / "milannotations", "doctor", cwd=elsewhere, env=env)


def test_dependencies_have_lower_bounds_and_constraints_exact_versions():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    listed = [*project["dependencies"], *project["optional-dependencies"]["offline"]]
    assert all(">=" in requirement for requirement in listed)
    lines = [
        line
        for line in (ROOT / "constraints.txt").read_text().splitlines()
        if line and not line.startswith("#")
    ]
    assert all("==" in line and "/" not in line and "@" not in line for line in lines)
    pinned = {line.split("==")[0].lower().replace("_", "-") for line in lines}
    assert {
        requirement.split(">=")[0].lower().replace("_", "-") for requirement in listed
    } <= pinned
