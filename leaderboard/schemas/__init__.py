"""JSON Schemas of the files that users exchange: records and submission forms.

The files beside this one are written from the code: `python -m leaderboard.schemas --out DIR`.
"""

from __future__ import annotations

import json
import os
from pathlib import Path

from pydantic import BaseModel

from leaderboard.record_format.application_record import ApplicationRecord
from leaderboard.record_format.score_record import Record
from leaderboard.submission.form import Submission
from milannotations.utils.files import replacing

SCHEMAS: dict[str, type[BaseModel]] = {
    "record": Record,
    "outcome": ApplicationRecord,
    "submission": Submission,
}
"""Model of each schema, by the name of its file."""
HOME = Path(__file__).parent
"""Folder of the committed schemas."""


def schema_text(name: str) -> str:
    """Return a schema as JSON; the same bytes every time.

    Example:
        >>> "schema_version" in json.loads(schema_text("record"))["properties"]
        True
    """
    schema = SCHEMAS[name].model_json_schema()
    return json.dumps(schema, indent=1, sort_keys=True, ensure_ascii=False) + "\n"


def write(out: str | os.PathLike[str] = HOME) -> list[Path]:
    """Write every schema to `out`/<name>.schema.json; return the paths."""
    paths = [Path(out) / f"{name}.schema.json" for name in SCHEMAS]
    for name, path in zip(SCHEMAS, paths, strict=True):
        with replacing(path) as temporary:
            temporary.write_text(schema_text(name), encoding="utf-8")
    return paths
