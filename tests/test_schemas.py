"""The committed JSON Schemas are those of the code, and old records fit them."""

import json
from pathlib import Path

import jsonschema
import pytest
import submitted
import yaml

from leaderboard import schemas
from leaderboard.ranking import tracks
from leaderboard.record_format import score_record

V1 = Path(__file__).parent / "records" / "v1"
AGAIN = "Write them again: python -m leaderboard.schemas --out leaderboard/schemas"


@pytest.mark.parametrize("name", schemas.SCHEMAS)
def test_the_file_is_what_the_code_makes(name):
    found = (schemas.HOME / f"{name}.schema.json").read_text(encoding="utf-8")
    assert found == schemas.schema_text(name), AGAIN


@pytest.mark.parametrize("place", [V1, schemas.HOME.parent / "results"])
def test_records_of_every_age_fit_their_schema(place):
    schema = json.loads(schemas.schema_text("record"))
    found = sorted(place.rglob("record.json"))
    assert found
    for path in found:
        jsonschema.validate(json.loads(path.read_text()), schema)
        score_record.load(path.parent)


def test_a_record_older_than_tracks_stands_on_none():
    record = score_record.load(V1)
    assert (record.track, record.about) == (None, None)
    assert tracks.mismatch(record, tracks.get("mini")) == "its track is none"


def test_a_form_fits_its_schema():
    entry = {"track": "mini@1", "file": "mini-mini.csv", "sha256": "0" * 64}
    schema = json.loads(schemas.schema_text("submission"))
    form = yaml.safe_load(yaml.safe_dump({**submitted.FIELDS, "predictions": [entry]}))
    jsonschema.validate(form, schema)
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate({**form, "scores": {}}, schema)
