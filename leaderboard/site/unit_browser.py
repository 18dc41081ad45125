"""Data of the unit browser: exemplars, annotations and every method's description side by side.

A page that is opened from a disk may read no files but scripts. So the data are written as scripts:
an index, which is read at once, and parts of `PART_UNITS` units, which are read when needed.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from leaderboard.evaluation import predictions
from leaderboard.evaluation.predictions import Predictions
from leaderboard.metrics.text import normalise
from leaderboard.ranking.standings import EntryRun
from leaderboard.site.safe_text import visible_text
from leaderboard.site.thumbnails import ROWS, ThumbnailSheets
from milannotations.editions.configs import list_files
from milannotations.schema import Unit

PART_UNITS = 200
"""Units whose texts are in one script."""

FAILED, ABSTAINED, MISSING = -1, -2, -3
"""Numbers that stand for a missing text; assets/units.js shows them in words."""


@dataclass(frozen=True)
class UnitAnnotations:
    """Annotations of an edition's units.

    Attributes:
        units: in order of network, layer and index.
        descriptions: human (or simulated) descriptions of each unit.
        truths: known truth of each unit, or None.
        synthetic: True if annotators are simulated.
    """

    units: list[Unit]
    descriptions: list[list[str]]
    truths: list[str | None]
    synthetic: bool = False


@dataclass(frozen=True)
class MethodDescriptions:
    """Descriptions by one method, with the value of each unit.

    Attributes:
        name, kind: of the method.
        page: file name of the method's page, or None.
        predictions: the descriptions.
        values: value of each unit under the metric that orders the table.
    """

    name: str
    kind: str
    page: str | None
    predictions: Predictions
    values: dict[Unit, float] = field(default_factory=dict)


@dataclass(frozen=True)
class BrowserData:
    """Data of a unit page: the index, its parts, and the numbers of the sheets that it shows."""

    index: dict[str, Any]
    parts: list[dict[str, Any]]
    sheets: list[int]


def read_annotations(edition: str | os.PathLike[str], config: str) -> UnitAnnotations:
    """Read the annotations of an edition's units, without images."""
    import pyarrow.parquet as parquet

    rows: list[tuple[Unit, list[str], str | None, str | None]] = []
    columns = ["network", "layer", "unit", "descriptions", "truth", "unit_kind"]
    for paths in list_files(edition, config).values():
        for path in paths:
            for row in parquet.read_table(path, columns=columns).to_pylist():
                unit = Unit(row["network"], row["layer"], row["unit"])
                rows.append((unit, row["descriptions"], row["truth"], row["unit_kind"]))
    # Splits are separate files; the browser lists all units of a layer together.
    rows.sort(key=lambda row: row[0])
    return UnitAnnotations(
        [row[0] for row in rows],
        [row[1] for row in rows],
        [row[2] for row in rows],
        any(row[3] == "synthetic" for row in rows),
    )


def read_descriptions(
    run: EntryRun, kind: str, page: str | None, ranked_by: str
) -> MethodDescriptions:
    """Read the descriptions in a record's folder.

    Args:
        run: a run with a folder.
        kind: kind of the entry.
        page: file name of the method's page, or None.
        ranked_by: metric of the units' values; "" for none.
    """
    if run.folder is None:
        raise ValueError("a run without a folder has no predictions")
    name = f"{run.record.method}@{run.record.version or '-'}"
    descriptions = predictions.read(Path(run.folder) / "predictions.csv")
    return MethodDescriptions(name, kind, page, descriptions, unit_values(run, ranked_by))


def unit_values(run: EntryRun, metric: str) -> dict[Unit, float]:
    """Return the values of a run's units under a metric."""
    part = run.units[run.units.metric == metric]
    keys = zip(part.network, part.layer, part.unit, strict=True)
    return {Unit(*key): float(value) for key, value in zip(keys, part.value, strict=True)}


def renamed(method: MethodDescriptions, name: str) -> MethodDescriptions:
    """Return the same descriptions under another name."""
    return replace(method, name=name)


def build_browser(
    methods: Sequence[MethodDescriptions],
    annotations: UnitAnnotations | None,
    sheets: ThumbnailSheets | None,
    *,
    title: str,
    measure: str,
) -> BrowserData:
    """Build the data of a unit page: all units that any method describes.

    Args:
        methods: in the order of their columns.
        annotations: annotations of the units; None if the edition is not available.
        sheets: thumbnails of the units, or None.
        title: title of the page.
        measure: name of the units' values.
    """
    described = {unit for method in methods for unit in method.predictions.units}
    if annotations is None:
        units, row_of = sorted(described), {}
    else:
        units = [unit for unit in annotations.units if unit in described]
        row_of = {unit: i for i, unit in enumerate(annotations.units)}
    parts = [
        _part(units[start : start + PART_UNITS], methods, annotations, row_of)
        for start in range(0, len(units), PART_UNITS)
    ]
    index = _index(units, methods, title, measure)
    if annotations is not None and annotations.synthetic:
        index["annotators"] = "Simulated annotators"
    used: set[int] = set()
    if sheets is not None:
        counts = sheets.image_counts
        sheet_row = {unit: i for i, unit in enumerate(counts)}
        index["sheet"] = {
            "side": sheets.side,
            "rows": ROWS,
            "last": len(counts) % ROWS or ROWS,
            "count": sheets.count,
        }
        index["at"] = [sheet_row.get(unit, -1) for unit in units]
        index["images"] = [counts.get(unit, 0) for unit in units]
        used = {sheet_row[unit] // ROWS for unit in units if counts.get(unit)}
    return BrowserData(index, parts, sorted(used))


def _index(
    units: Sequence[Unit], methods: Sequence[MethodDescriptions], title: str, measure: str
) -> dict[str, Any]:
    """Return the index without thumbnails: columns over all units, and their names."""
    agreement = MethodAgreement(methods, units)
    layers = list(dict.fromkeys(unit[:2] for unit in units))
    layer_number = {layer: i for i, layer in enumerate(layers)}
    return {
        "title": visible_text(title),
        "measure": visible_text(measure),
        "annotators": "Annotators",
        "methods": [[visible_text(m.name), m.kind, m.page] for m in methods],
        "layers": [[visible_text(network), visible_text(layer)] for network, layer in layers],
        "part": PART_UNITS,
        "layer": [layer_number[unit[:2]] for unit in units],
        "unit": [unit.unit for unit in units],
        "disagreement": [_rounded(value) for value in agreement.disagreement().tolist()],
        "value": [_rounded(value) for value in agreement.mean_value().tolist()],
        "sheet": None,
    }


def _part(
    units: Sequence[Unit],
    methods: Sequence[MethodDescriptions],
    annotations: UnitAnnotations | None,
    row_of: dict[Unit, int],
) -> dict[str, Any]:
    """Return the texts and values of some units; each distinct text is stored once, by number."""
    numbers: dict[str, int] = {}

    def number_of(text: str) -> int:
        return numbers.setdefault(visible_text(text), len(numbers))

    unit_annotations: list[list[int]] = []
    truths: list[int | None] = []
    for unit in units:
        row = row_of.get(unit)
        if annotations is None or row is None:
            unit_annotations.append([])
            truths.append(None)
            continue
        unit_annotations.append([number_of(text) for text in annotations.descriptions[row]])
        truth = annotations.truths[row]
        truths.append(None if truth is None else number_of(truth))
    return {
        "annotations": unit_annotations,
        "truth": truths,
        "descriptions": [
            [_description(method.predictions, unit, number_of) for unit in units]
            for method in methods
        ],
        "value": [[_rounded(method.values.get(unit)) for unit in units] for method in methods],
        "texts": list(numbers),
    }


def _description(
    descriptions: Predictions, unit: Unit, number_of: Callable[[str], int]
) -> int | list[int]:
    """Return the number of a unit's description; a list if there are several senses."""
    first = descriptions.first(unit)
    if first is None:
        return MISSING
    if first.status != "ok":
        return ABSTAINED if first.status == "abstained" else FAILED
    senses = [number_of(text) for text in descriptions.senses(unit)]
    return senses[0] if len(senses) == 1 else senses


class MethodAgreement:
    """Statistics of units over methods: which descriptions agree, which units are easy.

    Args:
        methods: floors and references among them are left out.
        units: the units.
    """

    def __init__(self, methods: Sequence[MethodDescriptions], units: Sequence[Unit]) -> None:
        self.methods = [method for method in methods if method.kind == "method"]
        self.units = units

    def disagreement(self) -> NDArray[np.float64]:
        """Return 1 - the mean cosine between TF-IDF vectors of all pairs of methods: (unit,).

        nan for a unit with fewer than two descriptions. TF-IDF is scikit-learn's, fitted on the
        distinct descriptions. With unit vectors x_1, ..., x_m, the mean over pairs is
        (|sum x|^2 - sum |x|^2) / m(m-1), so no pair is computed on its own.
        """
        from sklearn.feature_extraction.text import TfidfVectorizer

        # 1. Number the distinct descriptions; a column per method holds the number, -1 for none.
        numbers: dict[str, int] = {}
        columns = []
        for method in self.methods:
            column = np.full(len(self.units), -1, dtype=np.intp)
            for i, unit in enumerate(self.units):
                row = method.predictions.first(unit)
                if row is not None and row.status == "ok":
                    column[i] = numbers.setdefault(normalise(row.description), len(numbers))
            columns.append(column)
        answered = np.array([column >= 0 for column in columns]).reshape(-1, len(self.units))
        count = answered.sum(axis=0)
        try:
            vectors = TfidfVectorizer().fit_transform(numbers)
        except ValueError:  # no description has a word of two letters
            return np.where(count > 1, 1.0, np.nan)
        # 2. Sum the vectors of each unit, and their squared lengths (0 for a text without words).
        total = vectors[:1].multiply(0).tocsr()[np.zeros(len(self.units), dtype=int)]
        squares = np.zeros(len(self.units))
        lengths = np.asarray(vectors.multiply(vectors).sum(axis=1)).ravel()
        for column, has_text in zip(columns, answered, strict=True):
            chosen = vectors[np.where(has_text, column, 0)]
            total = total + chosen.multiply(has_text[:, None]).tocsr()
            squares += np.where(has_text, lengths[column], 0.0)
        # 3. The formula above.
        whole = np.asarray(total.multiply(total).sum(axis=1)).ravel()
        with np.errstate(invalid="ignore", divide="ignore"):
            return np.where(count > 1, 1 - (whole - squares) / (count * (count - 1)), np.nan)

    def mean_value(self) -> NDArray[np.float64]:
        """Return the mean value of each unit over the methods that have one; nan if none has."""
        total, count = np.zeros(len(self.units)), np.zeros(len(self.units))
        for method in self.methods:
            values = np.array([method.values.get(unit, np.nan) for unit in self.units])
            total += np.nan_to_num(values)
            count += ~np.isnan(values)
        return np.divide(total, count, out=np.full(len(self.units), np.nan), where=count > 0)


def _rounded(value: float | None) -> float | None:
    """Return a value with three decimals; None for None and nan."""
    return None if value is None or value != value else round(value, 3)
