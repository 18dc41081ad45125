"""Table of one score: one row per metric, with its floors and the leave-one-out human."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from leaderboard.console import grounding_table
from leaderboard.console.cells import WIDE, digits, interval, value_of
from leaderboard.console.synthetic_table import (
    SYNTHETIC,
    abstention_lines,
    scope_line,
    seen_and_unseen,
)
from leaderboard.record_format.score_record import (
    CONSTANT_FLOOR,
    HUMAN,
    LAYER_FLOOR,
    SHUFFLED_FLOOR,
)

if TYPE_CHECKING:
    from leaderboard.record_format.score_record import Record

_FLOOR_TITLES = {
    CONSTANT_FLOOR: "most\ncommon",
    LAYER_FLOOR: "most common\nof layer",
    SHUFFLED_FLOOR: "shuffled",
}


def render(record: Record, width: int = 200) -> Any:
    """Return a rich renderable: a heading, the table, and notes.

    Where `width` is too narrow for all columns, intervals and comparisons are left out; floors and
    the human always stand beside the score. Synthetic results are labelled before anything else.
    """
    from rich.console import Group
    from rich.text import Text

    synthetic = record.edition.synthetic
    parts: list[Any] = [Text(SYNTHETIC + "\n", style="bold reverse")] if synthetic else []
    parts += [Text(_heading(record), style="bold"), Text(""), _table(record, width >= WIDE)]
    parts += [Text(""), *(seen_and_unseen(record) if synthetic else [])]
    return Group(*parts, *(Text(note, style="dim") for note in _notes(record)))


def to_text(record: Record, width: int = 180) -> str:
    """Return the rendered table as plain text."""
    from rich.console import Console

    console = Console(width=width, no_color=True, highlight=False, markup=False)
    with console.capture() as capture:
        console.print(render(record, width))
    return capture.get()


def _heading(record: Record) -> str:
    if record.grounding is not None:
        return grounding_table.head(record)
    edition, counts = record.edition, record.predictions
    return (
        f"{record.method} on {edition.edition} / {edition.config} "
        f"({' '.join([edition.split, *record.asked.get('layers', [])])}): "
        f"{counts.n_ok:,} of {edition.n_units:,} units described, {counts.n_distinct:,} distinct; "
        f"{edition.n_descriptions:,} annotations as references"
    )


def _table(record: Record, wide: bool) -> Any:
    from rich.table import Table

    scores, counts, grounding = record.scores, record.predictions, record.grounding
    human = _human(record)
    unread = grounding is not None and grounding.n_unreadable
    incomplete = bool(counts.n_ok < record.edition.n_units or unread)
    has_human = grounding is None or HUMAN in record.floors
    floors = [SHUFFLED_FLOOR, *(f for f in record.floors if f not in (HUMAN, SHUFFLED_FLOOR))]
    # (title, cell of a metric, whether to show the column)
    columns: list[tuple[str, Callable[[str], str], bool]] = [
        ("score", lambda name: digits(scores[name].mean), True),
        ("95 %", lambda name: interval(scores[name].low, scores[name].high), wide),
        ("all\nunits", lambda name: digits(scores[name].mean_all), incomplete),
        ("lift", lambda name: digits(scores[name].lift, signed=True), True),
        ("95 %", lambda name: interval(scores[name].lift_low, scores[name].lift_high), wide),
        *(
            (_floor_title(floor), lambda name, floor=floor: _floor(record, floor, name), True)
            for floor in floors
        ),
        (human.replace(" ", "\n"), lambda name: _floor(record, HUMAN, name), has_human),
        (f"{human.split()[-1]}'s\nlift", lambda name: _human_lift(record, name), has_human),
        (f"minus\n{human.split()[-1]}", lambda name: _versus(record, name), has_human and wide),
        ("p\n(Holm)", lambda name: _p(record, name), has_human and wide),
    ]
    table = Table(box=None, pad_edge=False, header_style="bold", padding=(0, 1))
    table.add_column("metric", no_wrap=wide, overflow="fold")
    shown = [(title, cell) for title, cell, show in columns if show]
    for title, _ in shown:
        table.add_column(title, justify="right", style="bold" if title == "score" else "")
    for name, estimate in scores.items():
        if estimate.n_scored:
            table.add_row(name.replace("@", "\n@"), *(cell(name) for _, cell in shown))
    return table


def _notes(record: Record) -> list[str]:
    grounding = record.grounding
    if grounding is not None:
        notes = [*grounding_table.notes(record), record.footnote]
    else:
        notes = [
            "Lift: the score above that of the same descriptions shuffled within the layer.",
            "-allref: against all references of a unit; without it, references are matched to "
            f"those of the {_human(record)} (the unit's others).",
            record.footnote,
        ]
    if record.edition.synthetic:
        notes = [scope_line(record), *abstention_lines(record), *notes]
    if record.neighbours:
        name = next((n for n in record.neighbours if n.startswith("rouge-l")), None)
        name = name or next(iter(record.neighbours))
        lifts = ", ".join(
            f"by {order} {digits(lift, signed=True)}"
            for order, lift in record.neighbours[name].items()
        )
        notes.append(
            "Lift of descriptions against the next unit's "
            f"{'activations' if grounding else 'references'}, {name}: {lifts}."
        )
    unscored = [name for name, estimate in record.scores.items() if not estimate.n_scored]
    if unscored and grounding is None:
        notes.append(
            f"Not defined here: {', '.join(unscored)}. Matched scores need units with two "
            "references, top-1 retrieval layers of 100 units."
        )
    return notes + [f"Note: {warning}" for warning in record.warnings]


def _human(record: Record) -> str:
    return "simulated annotator" if record.edition.synthetic else "leave-one-out human"


def _floor_title(name: str) -> str:
    return _FLOOR_TITLES.get(name) or f"constant\n{name.removeprefix('constant: ')}"


def _floor(record: Record, floor: str, name: str) -> str:
    return digits(value_of(record.floors.get(floor, {}).get(name), "mean"))


def _human_lift(record: Record, name: str) -> str:
    return digits(value_of(record.floors.get(HUMAN, {}).get(name), "lift"), signed=True)


def _versus(record: Record, name: str) -> str:
    versus = record.versus_person.get(name)
    return digits(versus.difference, signed=True) if versus else "-"


def _p(record: Record, name: str) -> str:
    versus = record.versus_person.get(name)
    if versus is None:
        return "-"
    return f"{versus.p_holm:.3f}".replace("0.", ".", 1) if versus.p_holm >= 0.001 else "<.001"
