"""Shared parts of all records: strict models, strict JSON, provenance, and the record folder."""

from __future__ import annotations

import json
import os
import platform
import subprocess
import sys
import uuid
from collections.abc import Callable
from datetime import UTC, datetime
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, Protocol, TypeVar

from pydantic import BaseModel, ConfigDict, FiniteFloat, ValidationError

from milannotations.errors import InputError
from milannotations.utils.files import check_is_file, replacing, sha256

PACKAGES = (
    "bert-score",
    "datasets",
    "numpy",
    "pandas",
    "rapidfuzz",
    "rouge-score",
    "sacrebleu",
    "scikit-learn",
    "scipy",
    "sentence-transformers",
    "torch",
    "transformers",
)
"""Packages whose versions a record holds."""

Model = TypeVar("Model", bound=BaseModel)

_LAST = ("warnings", "footnote", "seconds", "files")


class StrictModel(BaseModel):
    """Model that refuses unknown fields."""

    model_config = ConfigDict(extra="forbid")


class RecordBase(StrictModel):
    """Fields that every record has."""

    schema_version: int
    id: str
    created: str
    kind: str
    method: str
    version: str | None
    asked: dict[str, Any]
    settings: dict[str, Any]
    ran: dict[str, Any]
    warnings: list[str]
    footnote: str
    seconds: dict[str, FiniteFloat]
    files: dict[str, str]

    @classmethod
    def __get_pydantic_json_schema__(cls, core_schema: Any, handler: Any) -> Any:
        """Return the JSON schema; `required` keeps the order that schema 1 was published with."""
        schema = handler.resolve_ref_schema(handler(core_schema))
        first = [name for name in schema["required"] if name not in _LAST]
        schema["required"] = [*first, *_LAST]
        return schema


RecordType = TypeVar("RecordType", bound=RecordBase)


class Writable(Protocol):
    """Object that can write itself to a file, such as `Predictions`."""

    def write(self, path: str | os.PathLike[str]) -> None: ...


def stamp() -> dict[str, Any]:
    """Return the fields that identify one run: `id`, `created` (UTC) and `ran`."""
    return {
        "id": uuid.uuid4().hex,
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
        "ran": what_ran(),
    }


def what_ran() -> dict[str, Any]:
    """Return versions, commit and platform of this run."""
    commit, dirty = _commit()
    return {
        "milannotations": _version("milannotations"),
        "commit": commit,
        "dirty": dirty,
        "python": platform.python_version(),
        "platform": f"{sys.platform}-{platform.machine()}",
        "packages": {name: _version(name) for name in PACKAGES},
    }


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


@cache
def _commit() -> tuple[str | None, bool | None]:
    """Return (commit of this package, whether it has uncommitted changes), or (None, None).

    Git is asked about this file, so an installed package does not report the repository
    that it happens to be run from.
    """
    here = Path(__file__).resolve()

    def git(*words: str) -> str | None:
        try:
            process = subprocess.run(
                ["git", "-C", str(here.parent), *words],
                capture_output=True,
                text=True,
                check=False,
                timeout=20,
            )
        except (OSError, subprocess.TimeoutExpired):
            return None
        return process.stdout.strip() if process.returncode == 0 else None

    if not git("ls-files", "--error-unmatch", here.name):
        return None, None
    changes = git("status", "--porcelain", "--untracked-files=no")
    return git("rev-parse", "HEAD"), None if changes is None else bool(changes)


def record_files(folder: Path) -> set[str]:
    """Return the names of the files in a record's folder; none if there is no record yet.

    Raises:
        InputError: the path is a file, or a folder of something else.
    """
    if folder.exists() and not folder.is_dir():
        raise InputError(f"{folder} is a file; a record is a folder. Give another --out.")
    names = {path.name for path in folder.iterdir()} if folder.is_dir() else set()
    if names and "record.json" not in names:
        raise InputError(f"{folder} is not empty and holds no record. Give another --out.")
    return names


def check_no_other_files(folder: Path, others: set[str]) -> None:
    """Raise InputError if a record's folder holds other files, which would be lost."""
    if others:
        raise InputError(f"{folder} holds '{min(others)}' beside a record. Give another --out.")


def write_record(
    folder: Path, record: RecordType, write_files: Callable[[Path], None]
) -> RecordType:
    """Write a record's folder, whole or not at all; return the record with its files' digests.

    Args:
        folder: replaced if it exists.
        record: what to write.
        write_files: writes all files but `record.json` into the folder it is given.
    """
    with replacing(folder) as temporary:
        temporary.mkdir()
        write_files(temporary)
        digests = {path.name: sha256(path) for path in sorted(temporary.iterdir())}
        record = record.model_copy(update={"files": digests})
        (temporary / "record.json").write_text(dumps(record), encoding="utf-8")
    return record


def read_model(model: type[Model], path: Path, schema_version: int) -> Model:
    """Read a JSON file with a `schema_version` and validate it.

    Args:
        model: pydantic model of the content.
        path: the file.
        schema_version: the version that can be read.

    Raises:
        InputError: no such file, not strict JSON, another version, or fields that do not fit.
    """
    raw = read_json(check_is_file(path))
    written = raw.get("schema_version") if isinstance(raw, dict) else None
    if written != schema_version:
        raise InputError(
            f"{path} has schema version {written}; this version reads {schema_version}."
        )
    try:
        return model.model_validate(raw)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"]))
        raise InputError(f"{path}: {where}: {first['msg']}") from None


def read_json(path: Path) -> Any:
    """Read strict JSON; raise InputError for repeated keys, NaN and infinities."""
    try:
        return json.loads(
            path.read_text(encoding="utf-8"),
            object_pairs_hook=_refuse_repeated_keys,
            parse_constant=_refuse_constant,
        )
    except (ValueError, RecursionError) as error:
        raise InputError(f"{path} is not strict JSON: {error}") from None


def dumps(record: BaseModel) -> str:
    """Return a record as strict JSON with sorted keys."""
    return json.dumps(record.model_dump(), indent=1, sort_keys=True, allow_nan=False) + "\n"


def _refuse_repeated_keys(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    members = dict(pairs)
    if len(members) < len(pairs):
        raise ValueError("an object has the same key twice")
    return members


def _refuse_constant(name: str) -> Any:
    raise ValueError(f"{name} is not JSON")
