"""Whatever bytes stand in a file that somebody hands over: a result, or `InputError`.

Random bytes test the first line of a parser; a valid file with a few bytes changed tests what
comes behind it.
"""

import json
import shutil
import tempfile
import zipfile
from pathlib import Path

import pytest
import sample
import submitted
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from baselines.framework import provenance
from leaderboard.evaluation import predictions
from leaderboard.record_format import score_record
from leaderboard.site import load_records
from leaderboard.submission import form
from milannotations import InputError
from milannotations.editions import loading
from milannotations.editions.configs import list_configs, locate
from milannotations.probes.coco import open_probe
from milannotations.published import annotations
from milannotations.published.archive import Archive
from milannotations.utils.files import read_json, sha256

ROOT = Path(__file__).resolve().parent
RECORD = ROOT / "records" / "v1"


def _form():
    entry = {"track": "mini@1", "file": "mini-mini.csv", "sha256": "0" * 64, "seed": 1}
    return yaml.safe_dump({**submitted.FIELDS, "predictions": [entry]}).encode()


def _parquet():
    folder = Path(tempfile.mkdtemp())
    predictions.read(sample.PREDICTIONS).write(folder / "a.parquet")
    content = (folder / "a.parquet").read_bytes()
    shutil.rmtree(folder)
    return content


def _zip():
    folder = Path(tempfile.mkdtemp())
    with zipfile.ZipFile(folder / "a.zip", "w") as archive:
        archive.writestr("annotations.csv", Path(sample.ANNOTATIONS).read_text())
        archive.writestr("layer1/ids.csv", "0,1\n2,3\n")
    content = (folder / "a.zip").read_bytes()
    shutil.rmtree(folder)
    return content


def _card():
    return (locate("mini") / "README.md").read_bytes()


COCO = {
    "categories": [{"id": 1, "name": "dog"}],
    "images": [{"id": 1, "file_name": "a.jpg", "height": 4, "width": 4}],
    "annotations": [{"image_id": 1, "category_id": 1, "segmentation": [[0, 0, 1, 0, 1, 1]]}],
}


def _units(path):
    """Read a record whose `units.parquet` is the file."""
    record = json.loads((path.parent / "record.json").read_text())
    record["files"] = {"units.parquet": sha256(path)}
    (path.parent / "record.json").write_text(json.dumps(record))
    return load_records.load_records([path.parent])


def _edition(path):
    """Read an edition whose one split is the file."""
    return loading.select(path.parent)


def _account(path):
    said = path.parent / "said.csv"
    return provenance.read_account(said, sha256(said))


PARSERS = {
    # name: how the file is called, what a valid one holds, what reads it
    "the form of a submission": ("submission.yaml", _form, lambda p: form.load_form(p.parent)),
    "predictions": (
        "a.csv",
        lambda: Path(sample.PREDICTIONS).read_bytes(),
        lambda p: predictions.read(p, network="n", layer="l"),
    ),
    "predictions as parquet": ("a.parquet", _parquet, predictions.read),
    "a record": (
        "record.json",
        lambda: (RECORD / "record.json").read_bytes(),
        lambda p: score_record.load(p.parent),
    ),
    "records for a board": (
        "record.json",
        lambda: (RECORD / "record.json").read_bytes(),
        lambda p: load_records.group_by_track(load_records.load_records([p.parent])[0]),
    ),
    "units of a record": (
        "units.parquet",
        lambda: (RECORD / "units.parquet").read_bytes(),
        _units,
    ),
    "annotations": (
        "annotations.csv",
        lambda: Path(sample.ANNOTATIONS).read_bytes(),
        lambda p: annotations.read(p, "sample"),
    ),
    "the card of an edition": ("README.md", _card, lambda p: list_configs(p.parent)),
    "what an edition's folder says of itself": ("a.json", lambda: b'{"a": 1}', read_json),
    "a split of an edition": (
        "test.parquet",
        lambda: _parquet(),
        _edition,
    ),
    "an account": (
        "said.csv.account.json",
        lambda: b'{"predictions": "0", "seconds": 1.0}',
        _account,
    ),
    "a published archive": (
        "a.zip",
        _zip,
        lambda p: Archive(p, "sample", unlisted=True).close(),
    ),
    "segments as COCO has them": (
        "instances_a.json",
        lambda: json.dumps(COCO).encode(),
        open_probe,
    ),
}


@pytest.fixture
def beside(tmp_path):
    """Return a folder with what some parsers need beside the file."""
    shutil.copy(RECORD / "record.json", tmp_path)
    (tmp_path / "said.csv").write_text("unit,description\n0,red\n")
    (tmp_path / "README.md").write_text(
        "---\nconfigs:\n- config_name: a\n  data_files:\n"
        "  - {split: test, path: test.parquet}\n---\n"
    )
    return tmp_path


def reads(name, folder, content):
    called, _, read = PARSERS[name]
    path = folder / called
    path.write_bytes(content)
    try:
        read(path)
    except InputError as error:
        said = str(error)
    else:
        said = "it could be read"
    assert said.strip()


MANY = settings(
    max_examples=60,
    deadline=None,
    derandomize=True,
    database=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)


@pytest.mark.parametrize("name", PARSERS)
@MANY
@given(content=st.binary(max_size=300))
def test_random_bytes(name, beside, content):
    reads(name, beside, content)


@pytest.mark.parametrize("name", PARSERS)
@MANY
@given(data=st.data())
def test_valid_files_with_bytes_changed(name, beside, data):
    valid = PARSERS[name][1]()
    content = bytearray(valid)
    for _ in range(data.draw(st.integers(1, 4))):
        at = data.draw(st.integers(0, len(content)))
        gone = data.draw(st.integers(0, 12))
        content[at : at + gone] = data.draw(st.binary(max_size=12))
    reads(name, beside, bytes(content))


@pytest.mark.parametrize("name", PARSERS)
@MANY
@given(text=st.text(max_size=200))
def test_random_text(name, beside, text):
    reads(name, beside, text.encode("utf-8", "surrogatepass"))


@pytest.mark.parametrize(
    "text", ["[" * 100_000, '{"a":' * 100_000, "9" * 100_000, "1e999", "\ufeff{}"]
)
@pytest.mark.parametrize("name", PARSERS)
def test_deep_long_and_odd_numbers(name, beside, text):
    reads(name, beside, text.encode())


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3)
    ),
    max_leaves=6,
)


@MANY
@given(data=st.data())
def test_records_and_forms_with_a_value_of_another_kind(beside, data):
    record = json.loads((RECORD / "record.json").read_text())
    key = data.draw(st.sampled_from(sorted(record)))
    record[key] = data.draw(json_values)
    reads("records for a board", beside, json.dumps(record).encode())
    fields = yaml.safe_load(_form())
    fields[data.draw(st.sampled_from(sorted(fields)))] = data.draw(json_values)
    try:
        content = yaml.safe_dump(fields)
    except yaml.YAMLError:
        return
    reads("the form of a submission", beside, content.encode("utf-8", "surrogatepass"))
