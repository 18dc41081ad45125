"""What several test files share. No test writes into the home folder or asks a hub."""

import atexit
import csv
import os
import shutil
import tempfile
from pathlib import Path

import pytest
from jaxtyping import install_import_hook

# `datasets` reads these when it is first imported, so they come before any test file
_CACHE = tempfile.mkdtemp(prefix="milannotations-tests-")
atexit.register(shutil.rmtree, _CACHE, ignore_errors=True)
os.environ.pop("COLUMNS", None)  # processes of pytest-xdist have one of 80; tables are to be wide
os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["HF_HOME"] = _CACHE
os.environ["HF_DATASETS_CACHE"] = os.path.join(_CACHE, "datasets")

# the shapes in milan's signatures are checked while tests run
install_import_hook("milan", "beartype.beartype")

SHARED_DATA = Path(__file__).resolve().parents[2] / "shared" / "data"


@pytest.fixture(scope="session")
def real():
    """Return the folder of other people's real files; skip where it is not there."""
    if not (SHARED_DATA / "real").is_dir():
        pytest.skip("needs the real data folder ../shared/data/real")
    return SHARED_DATA / "real"


@pytest.fixture(scope="session")
def parity():
    """Return the folder of outputs of the original code; skip where it is not there."""
    if not (SHARED_DATA / "parity").is_dir():
        pytest.skip("needs the parity data folder ../shared/data/parity")
    return SHARED_DATA / "parity"


@pytest.fixture
def write_file(tmp_path):
    """Return a function that writes text (its line ends as they are) or bytes to a new file."""

    def write(name, content):
        path = tmp_path / name
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
        return path

    return write


@pytest.fixture
def tiny_annotations(tmp_path):
    """Return a function that writes (layer, unit, summary) rows as the published files are."""

    def write(rows, name="annotations.csv", ends="\r\n", encoding="utf-8"):
        path = tmp_path / name
        with open(path, "w", encoding=encoding, newline="") as stream:
            writer = csv.writer(stream, lineterminator=ends)
            writer.writerow(("layer", "unit", "summary"))
            writer.writerows(rows)
        return path

    return write


@pytest.fixture
def milan(capsys):
    """Return a function that runs a command and returns (exit status, stdout, stderr)."""
    from leaderboard.cli import main

    def run(*words):
        with pytest.raises(SystemExit) as stopped:
            main.main([str(word) for word in words])
        output = capsys.readouterr()
        return stopped.value.code, output.out, output.err

    return run
