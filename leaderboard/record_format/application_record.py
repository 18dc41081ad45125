"""Outcomes: the record of an application, a folder as any other record.

    <task>-<networks>/<method>-<version>/
      record.json        strict JSON: asked, settings, seeds, digests, results, the one number
      curves.csv         what the figure shows, a point a row
      figure.png, .svg
      predictions.csv    the descriptions it was run for, where there are any
      ...                what else a task has to show, such as a sheet of pictures

Two runs of the same thing differ in `id`, `created` and `seconds` alone.
"""

from __future__ import annotations

import os
import uuid
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from pydantic import BaseModel, ConfigDict, FiniteFloat

from leaderboard.record_format.score_record import (
    check_beside,
    dumps,
    held_by,
    read_as,
    read_strict,
    what_ran,
)
from milannotations.errors import InputError
from milannotations.utils.files import check_is_file, replacing, sha256

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.figure import Figure

    from leaderboard.evaluation.predictions import Predictions

SCHEMA_VERSION = 1
Task = Literal["analyze", "audit", "edit"]

SYNTHETIC_FOOTNOTE = (
    "Synthetic: scenes are drawn, and networks learned from the same renderer that methods learned "
    "from. This shows that the pipeline works, not that it transfers to photographs."
)


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid")


class Number(_Strict):
    """What a task comes to, in one number.

    Attributes:
        name: what it is, with its unit.
        value: None where it is not defined (nothing was flagged, nothing varies).
        low, high: ends of its 95 % interval.
        control: the same of the control; 0 where the number is a difference from it.
        p: of the hypothesis that it is the control's, adjusted for what was looked at beside it.
        n: replicates that the interval is over.
        over: what they are: `training seeds`, `random orders`, `units`, `pairs of networks`.
        says: the finding, in a sentence, as far as it goes.
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


class Described(_Strict):
    """The predictions that a task was run for, by unit in question."""

    files: list[dict[str, str]]
    n_units: int
    n_ok: int
    n_failed: int
    n_abstained: int
    n_missing: int
    n_distinct: int


class Outcome(_Strict):
    """Everything that a reader needs to trust, repeat or refute what an application came to.

    Attributes:
        kind: the task.
        data: what the networks are of: the name of a data set, or `mini`.
        networks: by name, what each is: digest, units a layer, accuracy where it was measured.
        images: by role (`test`, `exemplars`, ...), where pictures came from, with a digest.
        results: the task's own, as its module says.
    """

    schema_version: int = SCHEMA_VERSION
    id: str
    created: str
    kind: Task
    method: str
    version: str | None
    asked: dict[str, Any]
    settings: dict[str, Any]
    ran: dict[str, Any]
    data: str
    synthetic: bool
    networks: dict[str, dict[str, Any]]
    images: dict[str, dict[str, Any]]
    predictions: Described | None
    number: Number
    results: dict[str, Any]
    warnings: list[str]
    footnote: str
    seconds: dict[str, FiniteFloat]
    files: dict[str, str]

    @property
    def address(self) -> tuple[str, ...]:
        """What makes two outcomes the same cell of a board."""
        return (
            self.kind,
            self.data,
            "+".join(sorted(self.networks)),
            self.method,
            self.version or "-",
        )


def made(
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
) -> Outcome:
    """Return an outcome with what is known without asking: id, time, versions.

    Args:
        method: name, or name@version, of what described the units.
    """
    name, _, version = method.partition("@")
    return Outcome(
        id=uuid.uuid4().hex,
        created=datetime.now(UTC).isoformat(timespec="seconds"),
        kind=kind,
        method=name,
        version=version or None,
        asked=plain(asked),
        settings=plain(settings),
        ran=what_ran(),
        data=data,
        synthetic=synthetic,
        networks=plain(networks),
        images=plain(images),
        predictions=predictions,
        number=number,
        results=plain(results),
        warnings=list(warnings),
        footnote=" ".join(part for part in (footnote, SYNTHETIC_FOOTNOTE * synthetic) if part),
        seconds={name: round(value, 3) for name, value in seconds.items()},
        files={},
    )


def described(predictions: Predictions, units: Iterable[Any]) -> Described:
    """Return what the predictions hold of the units in question."""
    rows = [predictions.first(unit) for unit in units]
    status = ["missing" if row is None else row.status for row in rows]
    return Described(
        files=[{"name": Path(path).name, "sha256": at} for path, at in predictions.sources],
        n_units=len(rows),
        n_distinct=len({row.description for row in rows if row is not None and row.description}),
        **{f"n_{word}": status.count(word) for word in ("ok", "failed", "abstained", "missing")},
    )


def check_free(folder: str | os.PathLike[str], task: str) -> Path:
    """Return the folder as a Path; raise InputError unless an outcome of this task may go there.

    Called before a long run, so that its result has a place to go.
    """
    folder = Path(folder)
    there = held_by(folder)
    if not there:
        return folder
    held = read_strict(check_is_file(folder / "record.json"))
    if not isinstance(held, dict) or held.get("kind") != task:
        raise InputError(f"{folder} holds a record of something else. Give another --out.")
    check_beside(folder, there - {"record.json", *held.get("files", {})})
    return folder


def save(
    folder: str | os.PathLike[str],
    outcome: Outcome,
    *,
    curves: pd.DataFrame,
    figure: Figure | None = None,
    predictions: Predictions | None = None,
    files: Mapping[str, bytes] | None = None,
) -> Outcome:
    """Write an outcome's folder, whole or not at all; return the outcome as written.

    An outcome of the same task is replaced.

    Args:
        folder: see `check_free`.
        outcome: what to write.
        curves: `curves.csv`.
        figure: `figure.png` and `figure.svg`.
        predictions: `predictions.csv`.
        files: what else, by name.

    Raises:
        InputError: the folder holds something else.
    """
    from leaderboard.applications.common.figures import write_figure

    folder = check_free(folder, outcome.kind)
    with replacing(folder) as temporary:
        temporary.mkdir()
        curves.to_csv(temporary / "curves.csv", index=False, float_format="%.6g")
        if figure is not None:
            write_figure(figure, temporary)
        if predictions is not None:
            predictions.write(temporary / "predictions.csv")
        for name, content in (files or {}).items():
            (temporary / name).write_bytes(content)
        digests = {path.name: sha256(path) for path in sorted(temporary.iterdir())}
        outcome = outcome.model_copy(update={"files": digests})
        (temporary / "record.json").write_text(dumps(outcome), encoding="utf-8")
    return outcome


def load(folder: str | os.PathLike[str]) -> Outcome:
    """Return the outcome in a folder, checked.

    Raises:
        InputError: no `record.json`, not strict JSON, an unknown schema version, or fields that
            do not fit it.
    """
    return read_as(Outcome, Path(folder) / "record.json", SCHEMA_VERSION)


def plain(value: Any) -> Any:
    """Return a value as JSON has it: arrays and tuples as lists, NaN as null, keys as text.

    Example:
        >>> plain({1: (np.float64(0.5), float("nan"))})
        {'1': [0.5, None]}
    """
    if isinstance(value, Mapping):
        return {str(key): plain(each) for key, each in value.items()}
    if isinstance(value, np.ndarray):
        return plain(value.tolist())
    if isinstance(value, np.generic):
        return plain(value.item())
    if isinstance(value, (list, tuple, set, frozenset)):
        return [
            plain(each)
            for each in (sorted(value) if isinstance(value, (set, frozenset)) else value)
        ]
    if isinstance(value, float):
        return value if np.isfinite(value) else None
    return value
