"""Layouts of published description files, recognised by their header.

The table `LAYOUTS` maps a header to an adapter. To support another layout, add a row there and a
small file to the tests.
"""

from __future__ import annotations

import ast
import math
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from milannotations.errors import InputError, did_you_mean
from milannotations.utils.files import parse_whole_number

Cells = dict[str, str]
Row = dict[str, Any]
"""Result of an adapter: unit and description, and those of network, layer, rank, score and
status that its file has."""


@dataclass(frozen=True)
class Layout:
    """Header of a file and adapter of its rows.

    Attributes:
        name: program that writes such files.
        required: columns by which the layout is recognised.
        optional: further columns that are read.
        adapt: converts (cells, where) to a `Row`; `where` names file and line in errors.
        others: allow and ignore any other columns.
    """

    name: str
    required: tuple[str, ...]
    optional: tuple[str, ...]
    adapt: Callable[[Cells, str], Row]
    others: bool = False

    @property
    def header(self) -> str:
        names = [*self.required, *(f"[{name}]" for name in self.optional)]
        return ",".join([*names, "..."] if self.others else names)


def number(text: str, where: str, column: str) -> float | None:
    """Parse a finite number, or None for an empty cell; raise InputError otherwise."""
    if not text.strip():
        return None
    try:
        value = float(text)
    except ValueError:
        raise InputError(f"{where}: {column} {text[:40]!r} is not a number.") from None
    if not math.isfinite(value):
        raise InputError(
            f"{where}: {column} is {text.strip()!r}; expected a finite number, "
            "or an empty cell where the confidence is not known."
        )
    return value


def _suite(cells: Cells, where: str) -> Row:
    row: Row = {
        "unit": parse_whole_number(cells["unit"], where),
        "description": cells["description"],
        "score": number(cells.get("score", ""), where, "score"),
    }
    for column in ("network", "layer", "status"):
        if column in cells:
            row[column] = cells[column].strip()
    if "rank" in cells:
        row["rank"] = parse_whole_number(cells["rank"] or "1", where, "rank")
    return row


def _scored_by(column: str | None, text: str = "description") -> Callable[[Cells, str], Row]:
    """Return an adapter of files with a unit, a text and a confidence under their own names."""

    def adapt(cells: Cells, where: str) -> Row:
        row: Row = {"unit": parse_whole_number(cells["unit"], where), "description": cells[text]}
        if "layer" in cells:
            row["layer"] = cells["layer"].strip()
        if column and column in cells:
            row["score"] = number(cells[column], where, column)
        return row

    return adapt


def _dnd(cells: Cells, where: str) -> Row:
    label = cells["Label 1"] if "Label 1" in cells else cells["label"]
    return {"unit": parse_whole_number(cells["Neuron ID"], where), "description": label}


def _invert(cells: Cells, where: str) -> Row:
    return {
        "unit": parse_whole_number(cells["neuron"], where),
        "description": cells["concept"],
        "score": number(cells["metric"], where, "metric"),
    }


def _falcon(cells: Cells, where: str) -> Row:
    """Read the word with the highest score from a printed list of (word, score) pairs.

    The list is parsed as a literal, never executed.
    """
    printed = cells["concept_set_words"]
    try:
        pairs = ast.literal_eval(printed) if printed.strip() else []
        words = [(str(word), float(score)) for word, score in pairs]
    except (ValueError, SyntaxError, TypeError, MemoryError, OverflowError, RecursionError):
        raise InputError(
            f"{where}: concept_set_words is not a list of (word, score) pairs: {printed[:60]!r}"
        ) from None
    unit = parse_whole_number(cells["group"], where)
    if not words:
        return {"unit": unit, "description": ""}
    word, score = max(words, key=lambda pair: pair[1])
    return {"unit": unit, "description": word, "score": number(str(score), where, "word score")}


def _netdissect(cells: Cells, where: str) -> Row:
    """Read a label without the suffix of its category; units count from 1 in these files."""
    unit = parse_whole_number(cells["unit"], where)
    if unit == 0:
        raise InputError(f"{where}: unit 0 in a NetDissect table, whose units count from 1.")
    label = re.sub(r"-[a-z]$", "", cells["label"].strip())
    return {
        "unit": unit - 1,
        "description": label.replace("_", " "),
        "score": number(cells["score"], where, "score"),
    }


LAYOUTS: tuple[Layout, ...] = (
    Layout(
        "this suite; MILAN",
        ("unit", "description"),
        ("network", "layer", "rank", "score", "status"),
        _suite,
    ),
    Layout(
        "CLIP-Dissect",
        ("unit", "description", "similarity"),
        ("layer",),
        _scored_by("similarity"),
    ),
    Layout(
        "Linear Explanations",
        ("unit", "description", "sim correlation"),
        ("layer",),
        _scored_by("sim correlation"),
        others=True,
    ),
    Layout("MILAN's audit", ("unit", "caption"), ("layer",), _scored_by(None, "caption")),
    Layout(
        "Describe-and-Dissect", ("Neuron ID", "Label 1"), ("Label 2", "Label 3"), _dnd, others=True
    ),
    Layout("Describe-and-Dissect, one label", ("Neuron ID", "label"), (), _dnd),
    Layout("INVERT", ("neuron", "concept", "metric"), ("concept_id",), _invert),
    Layout("FALCON", ("group", "concept_set_words"), (), _falcon, others=True),
    Layout("NetDissect", ("unit", "category", "label", "score"), (), _netdissect, others=True),
)
"""Known layouts. The first one whose columns fit is used."""


def recognise(columns: Sequence[str], path: object) -> Layout:
    """Return the layout of a header.

    Raises:
        InputError: no layout fits; the message lists the known ones.

    Example:
        >>> recognise(["layer", "unit", "description"], "a.csv").name
        'this suite; MILAN'
    """
    present = set(columns)
    near: str = ""
    for layout in LAYOUTS:
        if not set(layout.required) <= present:
            continue
        extra = present - set(layout.required) - set(layout.optional)
        if not extra or layout.others:
            return layout
        unknown = sorted(extra)[0]
        near = near or (
            f" Column '{unknown}' is not one of {layout.name}'s."
            + did_you_mean(unknown, layout.optional)
        )
    required = {name for layout in LAYOUTS for name in layout.required}
    for column in sorted(present - required):
        near = near or did_you_mean(column, required)
    if len(columns) == 1 and any(mark in columns[0] for mark in "\t;|"):
        near = " Columns must be separated by commas."
    known = "\n".join(f"  {layout.header}   ({layout.name})" for layout in LAYOUTS)
    raise InputError(
        f"{path} has the columns {', '.join(columns)[:300]}, which is no known layout.{near}\n"
        f"Known layouts ([optional]):\n{known}"
    )
