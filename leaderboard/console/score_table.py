"""Tables that a person reads: a metric a row, its floors and one person beside it."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from leaderboard.console import grounding_table
from leaderboard.console.cells import WIDE, digits, value_of
from leaderboard.console.synthetic_table import (
    SEEN,
    SYNTHETIC,
    abstention_lines,
    board,
    in_question,
    seen_and_unseen,
)
from leaderboard.evaluation.estimates import PERSON

if TYPE_CHECKING:
    import pandas as pd

    from leaderboard.record_format.score_record import Record

__all__ = ["board", "frame", "render", "text"]


def frame(record: Record) -> pd.DataFrame:
    """Return a record's scores as a DataFrame, a metric a row.

    Columns: the score with its interval, `mean_all` (failures at the metric's
    worst), lift with its interval, the mean of each floor, one person's mean and
    lift, the difference from one person with Holm's p, and the units scored. Of synthetic
    editions also mean and lift within `seen` and `unseen`.
    """
    import pandas as pd

    rows = {}
    for name, estimate in record.scores.items():
        person = record.floors.get(PERSON, {}).get(name)
        versus = record.versus_person.get(name)
        rows[name] = {
            "mean": estimate.mean,
            "low": estimate.low,
            "high": estimate.high,
            "mean_all": estimate.mean_all,
            "lift": estimate.lift,
            "lift_low": estimate.lift_low,
            "lift_high": estimate.lift_high,
            **{
                floor: value_of(made.get(name), "mean")
                for floor, made in record.floors.items()
                if floor != PERSON
            },
            "one_person": value_of(person, "mean"),
            "one_person_lift": value_of(person, "lift"),
            "versus_person": versus.difference if versus else None,
            "versus_person_p": versus.p_holm if versus else None,
            "n_scored": estimate.n_scored,
            "n_units": estimate.n_units,
            **{
                f"{cut}_{what}": value_of(record.slices[cut].get(name), what)
                for cut in SEEN
                for what in ("mean", "lift")
                if record.edition.synthetic and cut in record.slices
            },
        }
    made = pd.DataFrame.from_dict(rows, orient="index")
    made.index.name = "metric"
    return made


def render(record: Record, width: int = 200) -> Any:
    """Return a rich renderable: what was scored, the table, and what to know about it.

    Where `width` is too narrow for everything, intervals and comparisons are left to
    the record; floors and one person always stand beside the score. What is synthetic says so
    before anything else.
    """
    from rich.console import Group
    from rich.table import Table
    from rich.text import Text

    edition, said, grounding = record.edition, record.predictions, record.grounding
    head = Text(
        grounding_table.head(record)
        if grounding is not None
        else f"{record.method} on {edition.edition} / {edition.config} "
        f"({' '.join([edition.split, *record.asked.get('layers', [])])}): "
        f"{said.n_ok:,} of {edition.n_units:,} units described, {said.n_distinct:,} distinct; "
        f"{edition.n_descriptions:,} descriptions as references",
        style="bold",
    )
    wide = width >= WIDE
    person = "simulated annotator" if edition.synthetic else "person"
    floors = [name for name in record.floors if name not in (PERSON, "shuffled")]
    columns: list[tuple[str, Callable[[str], str]]] = [
        ("score", lambda name: digits(record.scores[name].mean)),
        ("95 %", lambda name: _range(record.scores[name].low, record.scores[name].high)),
        ("all\nunits", lambda name: digits(record.scores[name].mean_all)),
        ("above\nshuffle", lambda name: digits(record.scores[name].lift, signed=True)),
        (
            "95 %",
            lambda name: _range(record.scores[name].lift_low, record.scores[name].lift_high),
        ),
        *(
            (_floor_title(floor), lambda name, floor=floor: _floor(record, floor, name, "mean"))
            for floor in ("shuffled", *floors)
        ),
        (
            "simulated\nannotator" if edition.synthetic else "one\nperson",
            lambda name: _floor(record, PERSON, name, "mean"),
        ),
        (f"{person.split()[-1]}'s\nlift", lambda name: _floor(record, PERSON, name, "lift")),
        (f"minus\n{person.split()[-1]}", lambda name: _versus(record, name)),
        ("p\n(Holm)", lambda name: _p(record, name)),
    ]
    unread = grounding is not None and grounding.n_unreadable
    dropped = set() if said.n_ok < edition.n_units or unread else {2}
    dropped |= set() if wide else {1, 4, len(columns) - 2, len(columns) - 1}
    if grounding is not None and PERSON not in record.floors:
        dropped |= set(range(len(columns) - 4, len(columns)))
    table = Table(box=None, pad_edge=False, header_style="bold", padding=(0, 1))
    table.add_column("metric", no_wrap=wide, overflow="fold")
    shown = [column for i, column in enumerate(columns) if i not in dropped]
    for title, _ in shown:
        table.add_column(title, justify="right", style="bold" if title == "score" else "")
    for name, estimate in record.scores.items():
        if estimate.n_scored:
            table.add_row(name.replace("@", "\n@"), *(value(name) for _, value in shown))
    notes = [
        "-allref: against all references of a unit; without it, references are matched to one "
        f"{person}'s (the unit's others).",
        record.footnote,
    ]
    if grounding is not None:
        notes = [*grounding_table.notes(record), record.footnote]
    above = [Text(SYNTHETIC + "\n", style="bold reverse")] if edition.synthetic else []
    beside: list[Any] = []
    if edition.synthetic:
        notes = [in_question(record), *abstention_lines(record), *notes]
        beside = seen_and_unseen(record)
    if record.neighbours:
        name, orders = next(iter(_first_neighbour(record).items()))
        listed = ", ".join(f"by {order} {digits(v, signed=True)}" for order, v in orders.items())
        notes.append(
            f"Answers against the next unit's {'activations' if grounding else 'references'}, "
            f"above shuffle, {name}: {listed}."
        )
    unscored = [name for name, estimate in record.scores.items() if not estimate.n_scored]
    if unscored and grounding is None:
        notes.append(
            f"Not defined here: {', '.join(unscored)}. Matched scores need units with two "
            "references, top-1 retrieval layers of 100 units."
        )
    notes += [f"Note: {warning}" for warning in record.warnings]
    below = (Text(note, style="dim") for note in notes)
    return Group(*above, head, Text(""), table, Text(""), *beside, *below)


def _first_neighbour(record: Record) -> dict[str, dict[str, float]]:
    name = next((n for n in record.neighbours if n.startswith("rouge-l")), None)
    name = name or next(iter(record.neighbours))
    return {name: record.neighbours[name]}


def _floor_title(name: str) -> str:
    known = {
        "constant": "constant\n(commonest)",
        "most-common-of-layer": "commonest\nof layer",
        "shuffled": "answers\nshuffled",
    }
    return known.get(name) or f"constant\n{name.removeprefix('constant: ')}"


def _range(low: float | None, high: float | None) -> str:
    return "-" if low is None or high is None else f"{digits(low)}..{digits(high)}"


def _floor(record: Record, floor: str, name: str, what: str) -> str:
    estimate = record.floors.get(floor, {}).get(name)
    return digits(value_of(estimate, what), signed=what == "lift")


def _versus(record: Record, name: str) -> str:
    versus = record.versus_person.get(name)
    return digits(versus.difference, signed=True) if versus else "-"


def _p(record: Record, name: str) -> str:
    versus = record.versus_person.get(name)
    if versus is None:
        return "-"
    return f"{versus.p_holm:.3f}".replace("0.", ".", 1) if versus.p_holm >= 0.001 else "<.001"


def text(record: Record, width: int = 180) -> str:
    """Return the rendered table as plain text."""
    from rich.console import Console

    console = Console(width=width, no_color=True, highlight=False, markup=False)
    with console.capture() as capture:
        console.print(render(record, width))
    return capture.get()
