"""Tables about synthetic editions. What they are stands above everything that is printed."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from leaderboard.console.cells import WIDE, digits, short, value_of
from leaderboard.evaluation.estimates import PERSON
from leaderboard.metrics import left_out
from milannotations.errors import InputError

if TYPE_CHECKING:
    from leaderboard.evaluation.abstention import Abstained
    from leaderboard.record_format.score_record import Estimate, Record

SYNTHETIC = (
    "SYNTHETIC: drawn pictures, planted units whose truth is known, simulated annotators. "
    "Annotators, formulas and scores come from one grammar: good scores show that the pipeline "
    "works, not that it transfers to photographs."
)
"""What stands above everything that is printed about a synthetic edition."""

SEEN = ("seen", "unseen")
"""Slices by whether a unit's formula is among the training units'."""


_Column = tuple[str, Callable[["_Row"], str]]


def in_question(record: Record) -> str:
    """Return which of the units a synthetic record's scores are about."""
    n_units = {record.metrics[n].against: made.n_units for n, made in record.scores.items()}
    senses = n_units.pop("senses", None)
    parts = [f"of {record.edition.n_units:,} units"]
    grounded = n_units.pop("activations", None)
    if grounded is not None:
        parts.append(f"scores are over the {grounded:,} that mean something")
    if n_units:
        agreeing = next(iter(n_units.values()))
        parts.append(f"agreement is over the {agreeing:,} that mean something and have one sense")
    if senses is not None:
        parts.append(f"sense recall over the {senses:,} that have two")
    if record.abstention is not None:
        parts.append(f"abstention over the {record.abstention.n_meaningless:,} that mean nothing")
    return f"{parts[0].capitalize()}, {', '.join(parts[1:])}."


def missing_model(metrics: Collection[str]) -> list[str]:
    """Return a line on what could not be scored without a text model; none where one is."""
    absent = left_out(["synthetic"])
    if not absent or "concept-exact" not in metrics:
        return []
    return [
        f"No text model is at hand, so no {', '.join(absent)}: "
        "pip install 'milannotations[offline]'."
    ]


def abstention_lines(record: Record) -> list[str]:
    """Return how well units that mean nothing were told from others; no line where none are."""
    found = record.abstention
    if found is None:
        return []
    own, floor = found.method, found.never
    right, wrong = round(own.right * found.n_meaningless), round(own.wrong * found.n_meaningful)
    beside = [f"never abstaining has {floor.balanced_accuracy:.2f}"]
    if found.person is not None:
        beside.append(f"one simulated annotator {found.person.balanced_accuracy:.2f}")
    return [
        f"Abstention: on {right:,} of {found.n_meaningless:,} units that mean nothing "
        f"({own.right:.2f}), and falsely on {wrong:,} of {found.n_meaningful:,} that mean "
        f"something ({own.wrong:.2f}). Balanced accuracy {own.balanced_accuracy:.2f}; "
        f"{', '.join(beside)}."
    ]


def seen_and_unseen(record: Record) -> list[Any]:
    """Return a table of the scores against the truth, seen and unseen combinations apart."""
    from rich.table import Table
    from rich.text import Text

    cuts = [cut for cut in SEEN if cut in record.slices]
    names = [
        name
        for name, estimate in record.scores.items()
        if record.metrics[name].against != "descriptions" and estimate.n_scored
    ]
    if not cuts or not names:
        return []
    table = Table(box=None, pad_edge=False, header_style="bold", padding=(0, 1))
    table.add_column("metric", overflow="fold")
    for cut in cuts:
        for title in (f"{cut} in\ntraining", "above\nshuffle", "simulated\nannotator", "units"):
            table.add_column(title, justify="right")
    for name in names:
        cells = []
        for cut in cuts:
            made = record.slices[cut][name]
            theirs = record.person_slices.get(cut, {}).get(name)
            cells += [
                digits(made.mean),
                digits(made.lift, signed=True),
                digits(value_of(theirs, "mean")),
                f"{made.n_scored:,}",
            ]
        table.add_row(name, *cells)
    return [table, Text("")]


@dataclass(frozen=True)
class _Row:
    """A row of the board: a method, or one simulated annotator."""

    name: str
    scores: Mapping[str, Estimate]
    slices: Mapping[str, Mapping[str, Estimate]]
    abstention: Abstained | None
    described: str


def board(records: Mapping[str, Record] | Sequence[Record], width: int = 200) -> Any:
    """Return a rich renderable of several methods on one synthetic edition, a method a row.

    Behind every score stands its lift: what it is above the method's own answers shuffled.
    Rows are in order of concept F1 over all units (`mean_all`); one simulated annotator comes
    last, from the record of the method that described most.

    Args:
        records: of each method, under its name or not.
        width: of the terminal; intervals are left out of narrow ones.

    Raises:
        InputError: no records; an edition that is not synthetic; several editions or splits.
    """
    from rich.console import Group
    from rich.table import Table
    from rich.text import Text

    named = dict(records) if isinstance(records, Mapping) else {r.method: r for r in records}
    if len(named) < len(records):
        raise InputError("Two records are of the same method; give them names of their own.")
    _check_one_synthetic(list(named.values()))
    most = max(named.values(), key=lambda record: record.predictions.n_ok)
    rows = [_of_method(name, record) for name, record in named.items()]
    metrics = {name.partition("@")[0]: name for r in named.values() for name in r.metrics}
    f1 = metrics.get("concept-f1", "")
    rows.sort(key=lambda row: -(value_of(row.scores.get(f1), "mean_all") or 0.0))
    rows.append(_of_person(most))

    wide = width >= WIDE
    places = 3 if wide else 2

    def scored(title: str, base: str) -> list[_Column]:
        name = metrics.get(base)
        if name is None:
            return []
        return [(title, lambda row: _with_lift(row.scores.get(name), places))]

    def within(title: str, base: str, cut: str) -> list[_Column]:
        name = metrics.get(base)
        if name is None:
            return []
        column = lambda row: _with_lift(row.slices.get(cut, {}).get(name), places)  # noqa: E731
        return [(f"{title}\n{cut}", column)]

    def plain(title: str, base: str, what: str) -> list[_Column]:
        name = metrics.get(base)
        if name is None:
            return []
        return [(title, lambda row: short(value_of(row.scores.get(name), what), places))]

    incomplete = any(r.predictions.n_ok < r.edition.n_units for r in named.values())
    columns: list[_Column] = [
        ("method", lambda row: row.name),
        *([("units\ndescribed", lambda row: row.described)] if incomplete else []),
        *scored("concept\nF1", "concept-f1"),
        *(plain("F1, all\nunits", "concept-f1", "mean_all") if incomplete and wide else []),
        *(
            [("F1's lift,\n95 %", lambda row: _lift_range(row.scores.get(f1)))]
            if wide and f1
            else []
        ),
        *scored("exact", "concept-exact"),
        *plain("un-\nparsed", "unparsed", "mean"),
        *scored("identified", "identification"),
        *scored("sense\nrecall", "sense-recall"),
        ("abstained\ntrue/false", lambda row: _shares(row.abstention)),
        *scored("retrieval\nAUC", "retrieval-tfidf-auc"),
        *scored("ROUGE-L", "rouge-l"),
    ]
    apart: list[_Column] = [
        ("method", lambda row: row.name),
        *(
            column
            for title, base in (
                ("concept F1", "concept-f1"),
                ("exact", "concept-exact"),
                ("identified", "identification"),
            )
            for cut in SEEN
            for column in within(title, base, cut)
        ),
    ]
    edition = most.edition
    head = Text(f"{len(named)} methods on {edition.edition} / {edition.config} ({edition.split})")
    head.stylize("bold")
    notes = [
        "Behind each score, its lift: what it is above the method's own answers shuffled within "
        "each layer. A constant has lift 0.",
        in_question(most),
        "Abstained: share of units that mean nothing / of units that mean something, on which it "
        "said that they mean nothing; never abstaining has 0 / 0.",
        *(
            ["Identified: the unit's truth fits best of its layer's truths, by sentence embedding."]
            if "identification" in metrics
            else []
        ),
        most.footnote,
        *([] if "identification" in metrics else missing_model(metrics)),
    ]

    def table(shown: list[_Column], members: list[_Row]) -> Any:
        made = Table(box=None, pad_edge=False, header_style="bold", padding=(0, 1, 0, 0))
        for title, _ in shown:
            first = title == "method"
            made.add_column(title, justify="left" if first else "right", overflow="fold")
        for row in members:
            made.add_row(*(value(row) for _, value in shown))
        return made

    parts = [Text(SYNTHETIC + "\n", style="bold reverse"), head, Text(""), table(columns, rows)]
    if len(apart) > 1 and all(cut in most.slices for cut in SEEN):
        parts += [Text("\nCombinations seen in training, and never seen\n", style="bold")]
        parts += [table(apart, rows)]
    return Group(*parts, Text(""), *(Text(note, style="dim") for note in notes))


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


def _of_method(name: str, record: Record) -> _Row:
    found = record.abstention
    return _Row(
        name,
        record.scores,
        record.slices,
        found.method if found else None,
        f"{record.predictions.n_ok:,}/{record.edition.n_units:,}",
    )


def _of_person(record: Record) -> _Row:
    found = record.abstention
    floors = record.floors.get(PERSON, {})
    return _Row(
        "one simulated annotator", floors, record.person_slices, found.person if found else None, ""
    )


def _with_lift(estimate: Estimate | None, places: int) -> str:
    if estimate is None or estimate.mean is None:
        return "-"
    lift = short(estimate.lift, places, signed=True)
    return f"{short(estimate.mean, places)} {lift:>{places + 2}}"


def _lift_range(estimate: Estimate | None) -> str:
    if estimate is None or estimate.lift_low is None:
        return "-"
    return f"{short(estimate.lift_low, 3)}..{short(estimate.lift_high, 3)}"


def _shares(found: Abstained | None) -> str:
    return "-" if found is None else f"{short(found.right, 2)} / {short(found.wrong, 2)}"
