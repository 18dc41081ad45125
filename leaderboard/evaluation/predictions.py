"""Predictions: one description (or several senses, or none) of each unit, in a file.

The only hand-over between describing and scoring, and what users submit:
`network,layer,unit,description[,rank][,score][,status]`, CSV or parquet.
"""

from __future__ import annotations

import numbers
import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from leaderboard.evaluation.file_formats import recognise
from leaderboard.metrics.text import normalise
from milannotations import catalog
from milannotations.errors import InputError, did_you_mean, some
from milannotations.published.annotations import has_words
from milannotations.schema import Unit
from milannotations.utils.files import TextTable, begins_with, check_is_file, replacing, sha256

if TYPE_CHECKING:
    import pandas as pd

    from baselines import Description

COLUMNS = ("network", "layer", "unit", "description", "rank", "score", "status")
STATUSES = ("ok", "abstained", "failed")
MAX_DESCRIPTION = 10_000
"""Most characters of a description; longer ones come from broken files."""

_TEXT = {"description", "caption", "concept", "label", "Label 1"}

_NOT_TEXT = {"nan", "none", "null", "nil", "na", "<na>", "n/a"}
"""What programs write for a missing value. Counted as a failure, never scored as text."""


@dataclass(frozen=True)
class Prediction:
    """Description of one sense of one unit."""

    unit: Unit
    description: str
    rank: int = 1
    score: float | None = None
    status: str = "ok"


@dataclass(frozen=True)
class Predictions:
    """Validated predictions, in file order; the key (unit, rank) is unique.

    Attributes:
        rows: every sense of every unit.
        sources: (path, sha256) of each file they were read from.
        layouts: name of the layout of each file.
        n_not_text: number of descriptions such as "nan", which are read as failures.
    """

    rows: tuple[Prediction, ...]
    sources: tuple[tuple[str, str], ...] = ()
    layouts: tuple[str, ...] = ()
    n_not_text: int = 0
    _first: dict[Unit, Prediction] = field(init=False, repr=False, compare=False)
    _senses: dict[Unit, list[str]] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        seen: dict[tuple[Unit, int], None] = {}
        repeated = []
        for row in self.rows:
            if (row.unit, row.rank) in seen:
                repeated.append(row.unit)
            seen[row.unit, row.rank] = None
        if repeated:
            raise InputError(
                f"Described twice: {some(dict.fromkeys(repeated))}. "
                "Expected one row per unit (or one per rank)."
            )
        first = {row.unit: row for row in self.rows if row.rank == 1}
        unranked = [row.unit for row in self.rows if row.unit not in first]
        if unranked:
            raise InputError(f"No rank 1 for {some(dict.fromkeys(unranked))}; ranks count from 1.")
        object.__setattr__(self, "_first", first)
        senses: dict[Unit, list[str]] = {}
        for row in sorted(self.rows, key=lambda row: row.rank):
            if row.status == "ok":
                senses.setdefault(row.unit, []).append(row.description)
        object.__setattr__(self, "_senses", senses)

    def __len__(self) -> int:
        return len(self._first)

    def of_layers(self, layers: Sequence[str]) -> Predictions:
        """Return the predictions for units of these layers; those of other layers are left out.

        Raises:
            InputError: a layer without predictions.
        """
        present = list(dict.fromkeys(unit.layer for unit in self.units))
        for layer in layers:
            if layer not in present:
                raise InputError(
                    f"The predictions are of layers {', '.join(present)}, and none is of '{layer}'."
                    f"{did_you_mean(layer, present)}"
                )
        return replace(self, rows=tuple(row for row in self.rows if row.unit.layer in layers))

    @property
    def units(self) -> list[Unit]:
        return list(self._first)

    def first(self, unit: Unit) -> Prediction | None:
        """Return the rank-1 prediction for a unit, or None if there is no row for it."""
        return self._first.get(unit)

    def senses(self, unit: Unit) -> list[str]:
        """Return the descriptions of a unit in order of rank, without failed ones."""
        return self._senses.get(unit, [])

    def counts(self, units: Iterable[Unit]) -> dict[str, Any]:
        """Count the predictions for some units, as records hold the counts.

        Returns:
            `files`, `n_units`, `n_ok`, `n_failed`, `n_abstained`, `n_missing`, and `n_distinct`,
            the number of different descriptions.
        """
        rows = [self.first(unit) for unit in units]
        status = ["missing" if row is None else row.status for row in rows]
        return {
            "files": [{"name": Path(path).name, "sha256": at} for path, at in self.sources],
            "n_units": len(rows),
            **{f"n_{word}": status.count(word) for word in (*STATUSES, "missing")},
            "n_distinct": len({row.description for row in rows if row and row.status == "ok"}),
        }

    def to_pandas(self) -> pd.DataFrame:
        """Return a DataFrame with the columns of the file."""
        import pandas as pd

        rows = [(*row.unit, row.description, row.rank, row.score, row.status) for row in self.rows]
        return pd.DataFrame(rows, columns=list(COLUMNS))

    def write(self, path: str | os.PathLike[str]) -> None:
        """Write CSV (or parquet, by the file extension), whole or not at all."""
        frame = self.to_pandas()
        with replacing(path) as temporary:
            if Path(path).suffix == ".parquet":
                frame.to_parquet(temporary, index=False)
            else:
                # with CRLF for line ends, the csv module quotes lone CRs in texts too
                frame.to_csv(temporary, index=False, lineterminator="\r\n", float_format="%.17g")


def load(
    source: Any,
    *,
    network: str | None = None,
    networks: Sequence[str] = (),
    layers: Sequence[str] = (),
) -> Predictions:
    """Return the predictions in files or a DataFrame.

    Args:
        source: `Predictions`, which are returned as they are, a DataFrame, one path or several.
        network: network of files that do not name it.
        networks: networks of the references; if there is only one, it is the default of `network`.
        layers: layers that are scored; a single one is the layer of files that do not name it.

    Raises:
        InputError: anything else, a file of another layer, or as `read`.
    """
    if isinstance(source, Predictions):
        return source
    if network is None and len(networks) == 1:
        network = networks[0]
    layer = layers[0] if len(layers) == 1 else None
    if hasattr(source, "to_dict") and hasattr(source, "columns"):
        return from_frame(source, network=network, layer=layer)
    files = source if isinstance(source, list | tuple) else [source]
    if not all(isinstance(file, str | os.PathLike) for file in files):
        raise InputError(
            f"Predictions were given as {type(source).__name__}; expected a path, a list of "
            "paths, a DataFrame or Predictions."
        )
    for file in files:
        named = split_layer(os.fspath(file))[0]
        if named and layers and named not in layers:
            raise InputError(
                f"{file} is of layer '{named}', which is not scored. Add --layer {named}, or "
                "leave the file out."
            )
    return read(*files, network=network, layer=layer)


def read(
    *files: str | os.PathLike[str],
    network: str | None = None,
    layer: str | None = None,
) -> Predictions:
    """Return the predictions of one method from one file or several parts.

    Args:
        files: CSV (layouts: `leaderboard.evaluation.file_formats`) or parquet; `layer1=path` names
            the layer of a file that has no layer column.
        network: network of files without a network column; in other files it must agree.
        layer: layer of files without a layer column.

    Raises:
        InputError: an unknown layout; a network or layer that is neither in the file
            nor given; a unit described twice; a unit or score that is no number; not
            UTF-8; a directory.
    """
    if not files:
        raise InputError("No file of predictions was given.")
    rows: list[Prediction] = []
    sources, layouts = [], []
    n_not_text = 0
    for file in files:
        named, path = split_layer(os.fspath(file))
        source = check_is_file(path)
        if source.suffix == ".parquet" or begins_with(source, b"PAR1"):
            columns, cells = _parquet_cells(source)
            kind = "row"
        else:
            table = TextTable(source)
            columns, cells = table.columns, table
            kind = "line"
        layout = recognise(columns, path)
        for line, row_cells in cells:
            where = f"{path}, {kind} {line}"
            row = layout.adapt(row_cells, where)
            if named and (row.get("layer") or named) != named:
                raise InputError(f"{where}: layer '{row['layer']}' in a file given as {named}.")
            n_not_text += _is_not_text(row["description"])
            rows.append(_prediction(row, where, network, named or layer))
        sources.append((path, sha256(source)))
        layouts.append(layout.name)
    if not rows:
        raise InputError(f"{files[0]} has a header and no rows.")
    return Predictions(tuple(rows), tuple(sources), tuple(layouts), n_not_text)


def from_frame(
    frame: pd.DataFrame, *, network: str | None = None, layer: str | None = None
) -> Predictions:
    """Return the predictions in a DataFrame with the columns of any known layout.

    Raises:
        InputError: as `read`.
    """
    names = [str(name) for name in frame.columns]
    if len(set(names)) < len(names):
        raise InputError("The DataFrame has the same column twice.")
    layout = recognise(names, "the DataFrame")
    rows, n_not_text = [], 0
    filled = frame.astype(object).where(frame.notna(), None)  # pandas has NaN for empty cells
    for position, cells in enumerate(_text_cells(filled.to_dict("records"))):
        where = f"the DataFrame, row {position}"
        row = layout.adapt(cells, where)
        n_not_text += _is_not_text(row["description"])
        rows.append(_prediction(row, where, network, layer))
    if not rows:
        raise InputError("The DataFrame of predictions has no rows.")
    return Predictions(tuple(rows), layouts=(layout.name,), n_not_text=n_not_text)


def from_texts(units: Sequence[Unit], texts: Iterable[str]) -> Predictions:
    """Return predictions with one text per unit; an empty text is a failure.

    Example:
        >>> predictions = from_texts([Unit("n", "conv1", 0), Unit("n", "conv1", 1)], ["red", ""])
        >>> [row.status for row in predictions.rows]
        ['ok', 'failed']
    """
    pairs = list(zip(units, texts, strict=True))
    return Predictions(
        tuple(
            _prediction(
                {"unit": unit.unit, "description": text}, str(unit), unit.network, unit.layer
            )
            for unit, text in pairs
        ),
        n_not_text=sum(_is_not_text(text) for _, text in pairs),
    )


def from_descriptions(described: Iterable[tuple[Unit, Description]]) -> Predictions:
    """Return the predictions of `baselines.describe`, one row per sense of a unit.

    Example:
        >>> from baselines import Description
        >>> predictions = from_descriptions([(Unit("n", "conv1", 0), Description.abstained())])
        >>> predictions.rows[0].status
        'abstained'
    """
    return Predictions(
        tuple(
            Prediction(unit, *row) for unit, description in described for row in description.rows()
        )
    )


def _is_not_text(description: str) -> bool:
    return normalise(description).strip() in _NOT_TEXT


def split_layer(file: str) -> tuple[str | None, str]:
    """Split `layer=path`; return (None, path) for a plain path or an existing file."""
    layer, equals, path = file.partition("=")
    if not equals or not layer or Path(file).exists() or "/" in layer:
        return None, file
    return layer, path


def _parquet_cells(path: Path) -> tuple[list[str], Iterable[tuple[int, dict[str, str]]]]:
    """Return the columns of a parquet file and its numbered rows as text cells."""
    import pyarrow as pa
    import pyarrow.parquet as parquet

    try:
        table = parquet.read_table(path)
    except (pa.ArrowInvalid, OSError) as error:
        raise InputError(f"{path} is not a parquet file: {str(error).splitlines()[0]}") from None
    try:
        return table.column_names, enumerate(_text_cells(table.to_pylist()))
    except UnicodeDecodeError:
        raise InputError(f"{path} holds text that is not UTF-8.") from None


def _text_cells(records: Iterable[dict[Any, Any]]) -> Iterable[dict[str, str]]:
    """Yield rows as a CSV file holds them: null is an empty cell, 3.0 in a unit column is 3."""
    for record in records:
        cells = {}
        for name, value in record.items():
            if not (value is None or isinstance(value, str | numbers.Number)):
                kind = type(value).__name__
                raise InputError(f"Column '{name}' holds {kind}; text or numbers were expected.")
            if name in _TEXT and not (value is None or isinstance(value, str) or value != value):
                raise InputError(f"Column '{name}' holds {value!r}; text was expected.")
            if value is None or (value != value and name != "score"):  # NaN is not itself
                text = ""
            elif isinstance(value, float) and value.is_integer() and name != "score":
                text = str(int(value))
            else:
                text = str(value)
            cells[str(name)] = text
        yield cells


def _prediction(
    row: dict[str, Any], where: str, network: str | None, layer: str | None
) -> Prediction:
    """Validate a row, with network and layer completed by the arguments."""
    row_network, row_layer = row.get("network") or network, row.get("layer", layer)
    if not row_network:
        raise InputError(f"{where}: no network in the file; give it with --network.")
    if not row_layer:
        raise InputError(
            f"{where}: the layer is empty."
            if "layer" in row
            else f"{where}: no layer in the file; give it with --layer, or as layer1=FILE."
        )
    row_network = catalog.canonical(row_network)
    if network and row_network != catalog.canonical(network):
        raise InputError(f"{where}: the file says network '{row_network}', not '{network}'.")
    unit = Unit(row_network, row_layer, row["unit"])
    rank = row.get("rank", 1)
    if rank < 1:
        raise InputError(f"{where}: rank {rank}; ranks count from 1.")
    description = row["description"]
    if not description.isascii() and any("\ud800" <= c <= "\udfff" for c in description):
        raise InputError(f"{where}: the description holds half a character (a lone surrogate).")
    if len(description) > MAX_DESCRIPTION:
        raise InputError(
            f"{where}: a description of {len(description):,} characters; "
            f"{MAX_DESCRIPTION:,} is the most."
        )
    has_text = has_words(description) and not _is_not_text(description)
    status = row.get("status") or ("ok" if has_text else "failed")
    if status not in STATUSES:
        raise InputError(f"{where}: status '{status}'; expected one of {', '.join(STATUSES)}.")
    if has_text and status != "ok":
        raise InputError(
            f"{where}: status is {status}, yet there is a description: {description[:40]!r}."
        )
    if not has_text and status == "ok":
        status = "failed"
    return Prediction(unit, description if has_text else "", rank, row.get("score"), status)
