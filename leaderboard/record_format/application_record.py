"""Record of an application: a folder like the record of a score.

    <task>-<networks>/<method>-<version>/
      record.json        strict JSON: options, settings, seeds, digests, results
      curves.csv         points of the figure, one per row
      figure.png, .svg
      predictions.csv    the descriptions that the task was run on, if any
      ...                other files of a task, such as contact sheets

Two runs of the same thing differ only in `id`, `created` and `seconds`.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from pydantic import ConfigDict, FiniteFloat

from leaderboard.record_format.base import (
    RecordBase,
    StrictModel,
    Writable,
    check_no_other_files,
    read_json,
    read_model,
    record_files,
    stamp,
    write_record,
)
from milannotations.errors import InputError
from milannotations.utils.files import check_is_file

if TYPE_CHECKING:
    import pandas as pd

SCHEMA_VERSION = 1
Task = Literal["analyze", "audit", "edit"]

SYNTHETIC_FOOTNOTE = (
    "Synthetic: scenes are drawn, and networks learned from the same renderer that methods learned "
    "from. This shows that the pipeline works, not that it transfers to photographs."
)


class Number(StrictModel):
    """Headline result of a task.

    Attributes:
        name: the quantity, with its unit.
        value: None where it is undefined (no unit was flagged, nothing varies).
        low, high: bounds of its 95 % interval.
        control: the same quantity of the control; 0 where `value` is a difference from it.
        p: p-value of no difference from the control, adjusted for the comparisons beside it.
        n: number of replicates behind the interval.
        over: kind of replicates: `training seeds`, `random orders`, `units`, `pairs of networks`.
        says: the finding in one sentence, as far as it is supported.
    """

    name: str
    value: FiniteFloat | None
    low: FiniteFloat | None
    high: FiniteFloat | None
    control: FiniteFloat | None
    p: FiniteFloat | None
    n: int
    over: str
    says: str


class Described(StrictModel):
    """Predictions that a task was run on, counted over its units."""

    files: list[dict[str, str]]
    n_units: int
    n_ok: int
    n_failed: int
    n_abstained: int
    n_missing: int
    n_distinct: int


class ApplicationRecord(RecordBase):
    """Everything needed to trust, repeat or refute the result of an application.

    Attributes:
        kind: the task.
        data: data set of the networks: its name, or `mini`.
        networks: each network by name: digest, units per layer, accuracy where it was measured.
        images: source and digest of the images, by role (`test`, `exemplars`, ...).
        results: results of the task, as documented in its module.
    """

    model_config = ConfigDict(title="Outcome")

    schema_version: int = SCHEMA_VERSION
    kind: Task
    data: str
    synthetic: bool
    networks: dict[str, dict[str, Any]]
    images: dict[str, dict[str, Any]]
    predictions: Described | None
    number: Number
    results: dict[str, Any]

    @property
    def address(self) -> tuple[str, ...]:
        """Key of the leaderboard cell that this record fills."""
        return (
            self.kind,
            self.data,
            "+".join(sorted(self.networks)),
            self.method,
            self.version or "-",
        )


def create(
    kind: Task,
    *,
    method: str,
    data: str,
    number: Number,
    asked: Mapping[str, Any],
    settings: Mapping[str, Any],
    networks: Mapping[str, Mapping[str, Any]],
    images: Mapping[str, Mapping[str, Any]],
    results: Mapping[str, Any],
    seconds: Mapping[str, float],
    predictions: Described | None = None,
    synthetic: bool = False,
    warnings: Sequence[str] = (),
    footnote: str = "",
) -> ApplicationRecord:
    """Create a record; id, time and versions are filled in.

    Args:
        kind, data, number, asked, settings, networks, images, results, seconds, predictions,
            synthetic, warnings: fields of the record.
        method: name, or name@version, of the method that described the units.
        footnote: put before the footnote of synthetic results.
    """
    name, _, version = method.partition("@")
    footnotes = [footnote, SYNTHETIC_FOOTNOTE if synthetic else ""]
    return ApplicationRecord(
        **stamp(),
        kind=kind,
        method=name,
        version=version or None,
        asked=to_json_value(asked),
        settings=to_json_value(settings),
        data=data,
        synthetic=synthetic,
        networks=to_json_value(networks),
        images=to_json_value(images),
        predictions=predictions,
        number=number,
        results=to_json_value(results),
        warnings=list(warnings),
        footnote=" ".join(text for text in footnotes if text),
        seconds={name: round(value, 3) for name, value in seconds.items()},
        files={},
    )


def check_free(folder: str | os.PathLike[str], task: str) -> Path:
    """Return the folder as a Path, after checking that a record of this task may be saved there.

    Call it before a long run.

    Raises:
        InputError: the folder holds something else.
    """
    folder = Path(folder)
    names = record_files(folder)
    if not names:
        return folder
    raw = read_json(check_is_file(folder / "record.json"))
    if not isinstance(raw, dict) or raw.get("kind") != task:
        raise InputError(f"{folder} holds a record of something else. Give another --out.")
    check_no_other_files(folder, names - {"record.json", *raw.get("files", {})})
    return folder


def save(
    folder: str | os.PathLike[str],
    record: ApplicationRecord,
    *,
    curves: pd.DataFrame,
    predictions: Writable | None = None,
    files: Mapping[str, bytes] | None = None,
) -> ApplicationRecord:
    """Write a record's folder, whole or not at all; return the record as written.

    A record of the same task is replaced.

    Args:
        folder: see `check_free`.
        record: what to write.
        curves: `curves.csv`.
        predictions: `predictions.csv`.
        files: other files by name, such as the figure.

    Raises:
        InputError: the folder holds something else.
    """

    def write_files(temporary: Path) -> None:
        curves.to_csv(temporary / "curves.csv", index=False, float_format="%.6g")
        if predictions is not None:
            predictions.write(temporary / "predictions.csv")
        for name, content in (files or {}).items():
            (temporary / name).write_bytes(content)

    return write_record(check_free(folder, record.kind), record, write_files)


def load(folder: str | os.PathLike[str]) -> ApplicationRecord:
    """Return the validated record in a folder.

    Raises:
        InputError: no `record.json`, not strict JSON, an unknown schema version, or fields that
            do not fit.
    """
    return read_model(ApplicationRecord, Path(folder) / "record.json", SCHEMA_VERSION)


def to_json_value(value: Any) -> Any:
    """Convert a value to what JSON can hold: lists, null for NaN and infinities, text keys.

    Example:
        >>> to_json_value({1: (np.float64(0.5), float("nan"))})
        {'1': [0.5, None]}
    """
    if isinstance(value, Mapping):
        return {str(key): to_json_value(member) for key, member in value.items()}
    if isinstance(value, np.ndarray):
        return to_json_value(value.tolist())
    if isinstance(value, np.generic):
        return to_json_value(value.item())
    if isinstance(value, (set, frozenset)):
        return [to_json_value(member) for member in sorted(value)]
    if isinstance(value, (list, tuple)):
        return [to_json_value(member) for member in value]
    if isinstance(value, float):
        return value if np.isfinite(value) else None
    return value
