"""Tables of synthetic editions. A label stands above everything that is printed."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from leaderboard.console.cells import WIDE, digits, short, value_of
from leaderboard.metrics import SYNTHETIC as SYNTHETIC_METRICS
from leaderboard.metrics import left_out
from leaderboard.record_format.score_record import HUMAN
from milannotations.errors import InputError

if TYPE_CHECKING:
    from leaderboard.record_format.score_record import Abstained, Estimate, Record

SYNTHETIC = (
    "SYNTHETIC: drawn images, planted units whose truth is known, simulated annotators. "
    "Annotators, formulas and scores come from one grammar: good scores show that the pipeline "
    "works, not that it transfers to photographs."
)
"""Label above everything that is printed about a synthetic edition."""

SEEN = ("seen", "unseen")
"""Slices: is the unit's formula among the training units' formulas?"""


_Column = tuple[str, Callable[["_Row"], str]]


def scope_line(record: Record) -> str:
    """Return a sentence on the units that each kind of score of a synthetic record is over."""
    n_units = {
        record.metrics[name].against: estimate.n_units for name, estimate in record.scores.items()
    }
    senses = n_units.pop("senses", None)
    parts = [f"of {record.edition.n_units:,} units"]
    grounded = n_units.pop("activations", None)
    if grounded is not None:
        parts.append(f"scores are over the {grounded:,} that mean something")
    if n_units:
        agreement = next(iter(n_units.values()))
        parts.append(f"agreement is over the {agreement:,} that mean something and have one sense")
    if senses is not None:
        parts.append(f"sense recall over the {senses:,} that have two")
    if record.abstention is not None:
        parts.append(f"abstention over the {record.abstention.n_meaningless:,} that mean nothing")
    return f"{parts[0].capitalize()}, {', '.join(parts[1:])}."


def missing_model(metrics: Collection[str]) -> list[str]:
    """Return a line on the metrics that lack a text model; none if there are none."""
    absent = left_out(["synthetic"])
    if not absent or "concept-exact" not in metrics:
        return []
    return [
        f"No text model is available, so {', '.join(absent)} are left out. Install the small one: "
        "pip install 'milannotations[offline]'."
    ]


def abstention_lines(record: Record) -> list[str]:
    """Return a line on abstention; none where units of one kind are missing."""
    abstention = record.abstention
    if abstention is None:
        return []
    method, never, annotator = abstention.method, abstention.never, abstention.person
    n_right = round(method.right * abstention.n_meaningless)
    n_wrong = round(method.wrong * abstention.n_meaningful)
    others = [f"never abstaining has {never.balanced_accuracy:.2f}"]
    if annotator is not None:
        others.append(f"the simulated annotator {annotator.balanced_accuracy:.2f}")
    return [
        f"Abstention: on {n_right:,} of {abstention.n_meaningless:,} units that mean nothing "
        f"({method.right:.2f}), and falsely on {n_wrong:,} of {abstention.n_meaningful:,} that "
        f"mean something ({method.wrong:.2f}). Balanced accuracy {method.balanced_accuracy:.2f}; "
        f"{', '.join(others)}."
    ]


def seen_and_unseen(record: Record) -> list[Any]:
    """Return a table of the scores against the truth within seen and unseen formulas."""
    from rich.table import Table
    from rich.text import Text

    parts = [part for part in SEEN if part in record.slices]
    names = [
        name
        for name, estimate in record.scores.items()
        if record.metrics[name].against != "descriptions" and estimate.n_scored
    ]
    if not parts or not names:
        return []
    table = Table(box=None, pad_edge=False, header_style="bold", padding=(0, 1))
    table.add_column("metric", overflow="fold")
    for part in parts:
        for title in (f"{part} in\ntraining", "lift", "simulated\nannotator", "units"):
            table.add_column(title, justify="right")
    for name in names:
        cells = []
        for part in parts:
            estimate = record.slices[part][name]
            annotator = record.person_slices.get(part, {}).get(name)
            cells += [
                digits(estimate.mean),
                digits(estimate.lift, signed=True),
                digits(value_of(annotator, "mean")),
                f"{estimate.n_scored:,}",
            ]
        table.add_row(name, *cells)
    return [table, Text("")]


@dataclass(frozen=True)
class _Row:
    """Row of the table of methods: a method, or the simulated annotator."""

    name: str
    scores: Mapping[str, Estimate]
    slices: Mapping[str, Mapping[str, Estimate]]
    abstention: Abstained | None
    described: str


def render_methods(records: Mapping[str, Record] | Sequence[Record], width: int = 200) -> Any:
    """Return a rich renderable of several methods on one synthetic edition, one method per row.

    Every score is followed by its lift. Rows are sorted by concept F1 over all units
    (`mean_all`); the simulated annotator comes last, from the record of the method that described
    most units.

    Args:
        records: records of the methods, optionally by name.
        width: width of the terminal in characters; narrow tables omit intervals.

    Raises:
        InputError: no records; an edition that is not synthetic; several editions or splits.
    """
    from rich.console import Group
    from rich.text import Text

    named = dict(records) if isinstance(records, Mapping) else {r.method: r for r in records}
    if len(named) < len(records):
        raise InputError("Two records are of the same method; give them names of their own.")
    _check_one_synthetic(list(named.values()))
    fullest = max(named.values(), key=lambda record: record.predictions.n_ok)
    rows = [_method_row(name, record) for name, record in named.items()]
    metrics = {name.partition("@")[0]: name for r in named.values() for name in r.metrics}
    f1 = metrics.get("concept-f1", "")
    rows.sort(key=lambda row: -(value_of(row.scores.get(f1), "mean_all") or 0.0))
    rows.append(_annotator_row(fullest))

    wide = width >= WIDE
    incomplete = any(r.predictions.n_ok < r.edition.n_units for r in named.values())
    columns = _score_columns(metrics, wide, incomplete)
    slice_columns = _slice_columns(metrics, wide)
    edition = fullest.edition
    head = f"{len(named)} methods on {edition.edition} / {edition.config} ({edition.split})"
    parts = [
        Text(SYNTHETIC + "\n", style="bold reverse"),
        Text(head, style="bold"),
        Text(""),
        _table(columns, rows),
    ]
    if len(slice_columns) > 1 and all(part in fullest.slices for part in SEEN):
        parts += [Text("\nFormulas seen in training, and unseen ones\n", style="bold")]
        parts += [_table(slice_columns, rows)]
    others = [base for base in metrics if base not in SYNTHETIC_METRICS]
    if others:  # nothing that was asked for is hidden
        parts += [Text("\nOther metrics\n", style="bold")]
        parts += [_table(_other_columns(metrics, others, wide), rows)]
    notes = [
        "Each score is followed by its lift: the score above that of the same descriptions "
        "shuffled within each layer. A constant has lift 0.",
        scope_line(fullest),
        "Abstained: share of units that mean nothing / of units that mean something, on which the "
        "method said that they mean nothing; never abstaining has 0 / 0.",
        *(
            ["Identified: the unit's truth fits best of its layer's truths, by sentence embedding."]
            if "identification" in metrics
            else []
        ),
        fullest.footnote,
        *([] if "identification" in metrics else missing_model(metrics)),
    ]
    return Group(*parts, Text(""), *(Text(note, style="dim") for note in notes))


def _score_columns(metrics: Mapping[str, str], wide: bool, incomplete: bool) -> list[_Column]:
    """Return the columns of the main table; metrics that were not computed have none.

    Args:
        metrics: full name of each metric, by its name without a model.
        wide: show intervals.
        incomplete: some method left units without a description.
    """
    places = 3 if wide else 2

    def with_lift(title: str, base: str) -> list[_Column]:
        if (name := metrics.get(base)) is None:
            return []
        return [(title, lambda row: _with_lift(row.scores.get(name), places))]

    def plain(title: str, base: str, field: str) -> list[_Column]:
        if (name := metrics.get(base)) is None:
            return []
        return [(title, lambda row: short(value_of(row.scores.get(name), field), places))]

    f1 = metrics.get("concept-f1", "")
    described: list[_Column] = [("units\ndescribed", lambda row: row.described)]
    lift_interval: list[_Column] = [
        ("F1's lift,\n95 %", lambda row: _lift_interval(row.scores.get(f1)))
    ]
    return [
        ("method", lambda row: row.name),
        *(described if incomplete else []),
        *with_lift("concept\nF1", "concept-f1"),
        *(plain("F1, all\nunits", "concept-f1", "mean_all") if incomplete and wide else []),
        *(lift_interval if wide and f1 else []),
        *with_lift("exact", "concept-exact"),
        *plain("un-\nparsed", "unparsed", "mean"),
        *with_lift("identified", "identification"),
        *with_lift("sense\nrecall", "sense-recall"),
        ("abstained\ntrue/false", lambda row: _shares(row.abstention)),
        *with_lift("retrieval\nAUC", "retrieval-tfidf-auc"),
        *with_lift("ROUGE-L", "rouge-l"),
    ]


def _slice_columns(metrics: Mapping[str, str], wide: bool) -> list[_Column]:
    """Return the columns of the table of seen and unseen formulas."""
    places = 3 if wide else 2
    bases = {
        "concept F1": "concept-f1",
        "exact": "concept-exact",
        "identified": "identification",
    }
    titles = {title: metrics[base] for title, base in bases.items() if base in metrics}
    return [
        ("method", lambda row: row.name),
        *(
            (f"{title}\n{part}", _slice_cell(name, part, places))
            for title, name in titles.items()
            for part in SEEN
        ),
    ]


def _other_columns(metrics: Mapping[str, str], bases: Sequence[str], wide: bool) -> list[_Column]:
    """Return the columns of the table of metrics that are not made for synthetic editions."""
    places = 3 if wide else 2

    def cell(name: str) -> Callable[[_Row], str]:
        return lambda row: _with_lift(row.scores.get(name), places)

    return [
        ("method", lambda row: row.name),
        *((base.replace("-", "-\n"), cell(metrics[base])) for base in bases),
    ]


def _slice_cell(name: str, part: str, places: int) -> Callable[[_Row], str]:
    return lambda row: _with_lift(row.slices.get(part, {}).get(name), places)


def _table(columns: list[_Column], rows: list[_Row]) -> Any:
    from rich.table import Table

    table = Table(box=None, pad_edge=False, header_style="bold", padding=(0, 1, 0, 0))
    for title, _ in columns:
        justify: Any = "left" if title == "method" else "right"
        table.add_column(title, justify=justify, overflow="fold")
    for row in rows:
        table.add_row(*(cell(row) for _, cell in columns))
    return table


def _check_one_synthetic(records: Sequence[Record]) -> None:
    if not records:
        raise InputError("There are no records to show.")
    for record in records:
        if not record.edition.synthetic:
            raise InputError(
                f"The record of {record.method} is of {record.edition.config}, which is not "
                "synthetic: real and synthetic results never stand in one table."
            )
    first = records[0].edition
    for record in records:
        if (record.edition.digest, record.edition.split, record.edition.layers) != (
            first.digest,
            first.split,
            first.layers,
        ):
            raise InputError(
                f"{records[0].method} and {record.method} were scored on other units: score "
                "them on the same edition, split and layers."
            )


def _method_row(name: str, record: Record) -> _Row:
    abstention = record.abstention
    return _Row(
        name,
        record.scores,
        record.slices,
        abstention.method if abstention else None,
        f"{record.predictions.n_ok:,}/{record.edition.n_units:,}",
    )


def _annotator_row(record: Record) -> _Row:
    abstention = record.abstention
    return _Row(
        "simulated annotator",
        record.floors.get(HUMAN, {}),
        record.person_slices,
        abstention.person if abstention else None,
        "",
    )


def _with_lift(estimate: Estimate | None, places: int) -> str:
    if estimate is None or estimate.mean is None:
        return "-"
    lift = short(estimate.lift, places, signed=True)
    return f"{short(estimate.mean, places)} {lift:>{places + 2}}"


def _lift_interval(estimate: Estimate | None) -> str:
    if estimate is None or estimate.lift_low is None:
        return "-"
    return f"{short(estimate.lift_low, 3)} to {short(estimate.lift_high, 3)}"


def _shares(abstained: Abstained | None) -> str:
    return (
        "-" if abstained is None else f"{short(abstained.right, 2)} / {short(abstained.wrong, 2)}"
    )
