"""Units to browse: exemplars, what people wrote, every method's answer side by side.

A page opens from a folder, where a script may read no file but other scripts: so the data are
scripts, an index that is read at once and parts of `PART` units that are read as they are needed.
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

PART = 200
"""Units whose texts stand in one script."""

FAILED, ABSTAINED, MISSING = -1, -2, -3
"""What stands for a text where there is none."""


@dataclass(frozen=True)
class UnitAnnotations:
    """What an edition says of its units, for people to read.

    Attributes:
        units: in order of network, layer and index.
        descriptions: what people wrote of each.
        truths: what each was made to respond to; None where nobody knows.
        synthetic: annotators are simulated.
    """

    units: list[Unit]
    descriptions: list[list[str]]
    truths: list[str | None]
    synthetic: bool = False


@dataclass(frozen=True)
class MethodDescriptions:
    """A method's answers: texts by unit and rank, and the value of each unit.

    Attributes:
        name, kind, page: of the method; `page` is the file name of its page, or None.
        said: the predictions.
        values: of each unit under the metric that orders the table.
    """

    name: str
    kind: str
    page: str | None
    said: Predictions
    values: dict[Unit, float] = field(default_factory=dict)


@dataclass(frozen=True)
class BrowserData:
    """What the page of units reads: the index, and parts of it."""

    index: dict[str, Any]
    parts: list[dict[str, Any]]
    sheets: list[int]


def read_annotations(edition: str | os.PathLike[str], config: str) -> UnitAnnotations:
    """Return what an edition says of its units; no picture is read."""
    import pyarrow.parquet as parquet

    rows: list[tuple[Unit, list[str], str | None, str | None]] = []
    columns = ["network", "layer", "unit", "descriptions", "truth", "unit_kind"]
    for paths in list_files(edition, config).values():
        for path in paths:
            for row in parquet.read_table(path, columns=columns).to_pylist():
                unit = Unit(row["network"], row["layer"], row["unit"])
                rows.append((unit, row["descriptions"], row["truth"], row["unit_kind"]))
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
    """Return the answers in a record's folder."""
    if run.folder is None:
        raise ValueError("a run without a folder has no predictions")
    name = f"{run.record.method}@{run.record.version or '-'}"
    said = predictions.read(Path(run.folder) / "predictions.csv")
    return MethodDescriptions(name, kind, page, said, unit_values(run, ranked_by))


def unit_values(run: EntryRun, metric: str) -> dict[Unit, float]:
    """Return the values of a run's units under a metric."""
    part = run.units[run.units.metric == metric]
    keys = zip(part.network, part.layer, part.unit, strict=True)
    return {Unit(*key): float(value) for key, value in zip(keys, part.value, strict=True)}


def build_browser(
    methods: Sequence[MethodDescriptions],
    of: UnitAnnotations | None,
    sheets: ThumbnailSheets | None,
    *,
    title: str,
    measure: str,
) -> BrowserData:
    """Return the data of a page of units: those that any method describes.

    Args:
        methods: in the order of their columns.
        of: what is known of the units; None where the edition is not at hand.
        sheets: their thumbnails, or None.
        title: of the page.
        measure: what the units' values are called.
    """
    described = {unit for method in methods for unit in method.said.units}
    units = sorted(described) if of is None else [u for u in of.units if u in described]
    place = {} if of is None else {unit: i for i, unit in enumerate(of.units)}
    texts = MethodAgreement(methods, units)
    layers = list(dict.fromkeys(unit[:2] for unit in units))
    number = {layer: i for i, layer in enumerate(layers)}
    at = {} if sheets is None else {unit: i for i, unit in enumerate(sheets.pictures)}
    counts = {} if sheets is None else sheets.pictures
    index: dict[str, Any] = {
        "title": visible_text(title),
        "measure": visible_text(measure),
        "people": "Simulated annotators" if of is not None and of.synthetic else "People",
        "methods": [[visible_text(m.name), m.kind, m.page] for m in methods],
        "layers": [[visible_text(network), visible_text(layer)] for network, layer in layers],
        "part": PART,
        "layer": [number[unit[:2]] for unit in units],
        "unit": [unit.unit for unit in units],
        "disagreement": _rounded(texts.disagreement()),
        "value": _rounded(texts.mean_value()),
        "sheet": None,
    }
    if sheets is not None:
        index["sheet"] = {
            "side": sheets.side,
            "rows": ROWS,
            "last": len(at) % ROWS or ROWS,
            "count": sheets.count,
        }
        index["at"] = [at.get(unit, -1) for unit in units]
        index["pictures"] = [counts.get(unit, 0) for unit in units]
    parts = []
    for start in range(0, len(units), PART):
        members = units[start : start + PART]
        table: dict[str, int] = {}

        def number_of(text: str, table: dict[str, int] = table) -> int:
            return table.setdefault(visible_text(text), len(table))

        people, truths = [], []
        for unit in members:
            i = place.get(unit)
            people.append(
                [] if of is None or i is None else [number_of(t) for t in of.descriptions[i]]
            )
            truth = None if of is None or i is None else of.truths[i]
            truths.append(None if truth is None else number_of(truth))
        said = [[_said(method.said, unit, number_of) for unit in members] for method in methods]
        values = [[_round(method.values.get(unit)) for unit in members] for method in methods]
        parts.append(
            {"texts": list(table), "people": people, "truth": truths, "said": said, "value": values}
        )
    used = sorted({at[unit] // ROWS for unit in units if unit in at and counts[unit]})
    return BrowserData(index, parts, used)


def _said(said: Predictions, unit: Unit, number_of: Callable[[str], int]) -> int | list[int]:
    """Return the number of what a method says of a unit: several where it gives several senses."""
    first = said.first(unit)
    if first is None:
        return MISSING
    if first.status != "ok":
        return ABSTAINED if first.status == "abstained" else FAILED
    senses = [number_of(text) for text in said.senses(unit)]
    return senses[0] if len(senses) == 1 else senses


class MethodAgreement:
    """What the methods proper say of units, as numbers: which agree, which are easy.

    Args:
        methods: floors and references among them are left out.
        units: in question.
    """

    def __init__(self, methods: Sequence[MethodDescriptions], units: Sequence[Unit]) -> None:
        self.methods = [method for method in methods if method.kind == "method"]
        self.units = units

    def disagreement(self) -> NDArray[np.float64]:
        """Return 1 - mean cosine of the TF-IDF vectors of each pair of answers; nan without a pair.

        TF-IDF is scikit-learn's, fitted on the distinct answers. With unit vectors x_1, ..., x_m
        the mean over pairs is (|sum x|^2 - sum |x|^2) / m(m-1).
        """
        from sklearn.feature_extraction.text import TfidfVectorizer

        distinct: dict[str, int] = {}
        columns = []
        for method in self.methods:
            column = np.full(len(self.units), -1, dtype=np.intp)
            for i, unit in enumerate(self.units):
                row = method.said.first(unit)
                if row is not None and row.status == "ok":
                    column[i] = distinct.setdefault(normalise(row.description), len(distinct))
            columns.append(column)
        answered = np.array([column >= 0 for column in columns]).reshape(-1, len(self.units))
        count = answered.sum(axis=0)
        try:
            vectors = TfidfVectorizer().fit_transform(distinct)
        except ValueError:  # no answer has a word of two letters
            return np.where(count > 1, 1.0, np.nan)
        total = vectors[:1].multiply(0).tocsr()[np.zeros(len(self.units), dtype=int)]
        own = np.zeros(len(self.units))
        lengths = np.asarray(vectors.multiply(vectors).sum(axis=1)).ravel()
        for column, said in zip(columns, answered, strict=True):
            chosen = vectors[np.where(said, column, 0)]
            total = total + chosen.multiply(said[:, None]).tocsr()
            own += np.where(said, lengths[column], 0.0)
        whole = np.asarray(total.multiply(total).sum(axis=1)).ravel()
        with np.errstate(invalid="ignore", divide="ignore"):
            return np.where(count > 1, 1 - (whole - own) / (count * (count - 1)), np.nan)

    def mean_value(self) -> NDArray[np.float64]:
        """Return the mean value of each unit over the methods that have one; nan without any."""
        total, count = np.zeros(len(self.units)), np.zeros(len(self.units))
        for method in self.methods:
            own = np.array([method.values.get(unit, np.nan) for unit in self.units])
            total += np.nan_to_num(own)
            count += ~np.isnan(own)
        return np.divide(total, count, out=np.full(len(self.units), np.nan), where=count > 0)


def _round(value: float | None) -> float | None:
    return None if value is None or value != value else round(value, 3)


def _rounded(values: NDArray[np.float64]) -> list[float | None]:
    return [_round(value) for value in values.tolist()]


def renamed(of: MethodDescriptions, name: str) -> MethodDescriptions:
    """Return the same answers under another name."""
    return replace(of, name=name)
