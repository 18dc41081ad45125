"""Tables that a person reads: a metric a row, its floors and one person beside it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import pandas as pd

    from leaderboard.records import Estimate, Record

PERSON = "one-person"


def _value(estimate: Estimate | None, what: str) -> float | None:
    return None if estimate is None else getattr(estimate, what)


def frame(record: Record) -> pd.DataFrame:
    """Return a record's scores as a DataFrame, a metric a row.

    Columns: the score with its interval, `mean_all` (failures at the metric's
    worst), lift with its interval, the mean of each floor, one person's mean and
    lift, the difference from one person with Holm's p, and the units scored.
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
                floor: _value(made.get(name), "mean")
                for floor, made in record.floors.items()
                if floor != PERSON
            },
            "one_person": _value(person, "mean"),
            "one_person_lift": _value(person, "lift"),
            "versus_person": versus.difference if versus else None,
            "versus_person_p": versus.p_holm if versus else None,
            "n_scored": estimate.n_scored,
            "n_units": estimate.n_units,
        }
    made = pd.DataFrame.from_dict(rows, orient="index")
    made.index.name = "metric"
    return made


def _digits(value: float | None, signed: bool = False) -> str:
    if value is None:
        return "-"
    if value == 0:
        return "0"
    sign = "+" if signed else ""
    if abs(value) >= 10:
        return f"{value:{sign}.1f}"
    if abs(value) >= 2:
        return f"{value:{sign}.2f}"
    return f"{value:{sign}.4f}".replace("0.", ".", 1)


def render(record: Record) -> Any:
    """Return a rich renderable: what was scored, the table, and what to know about it."""
    from rich.console import Group
    from rich.table import Table
    from rich.text import Text

    edition, said = record.edition, record.predictions
    head = Text(
        f"{record.method} on {edition.edition} / {edition.config} ({edition.split}): "
        f"{said.n_ok:,} of {edition.n_units:,} units described, {said.n_distinct:,} distinct; "
        f"{edition.n_descriptions:,} human descriptions",
        style="bold",
    )
    floors = [name for name in record.floors if name not in (PERSON, "shuffled")]
    partial = said.n_ok < edition.n_units
    table = Table(box=None, pad_edge=False, header_style="bold", padding=(0, 1))
    table.add_column("metric", no_wrap=True)
    table.add_column("score", justify="right", style="bold")
    table.add_column("95 %", justify="right")
    if partial:
        table.add_column("all units", justify="right")
    table.add_column("above\nshuffle", justify="right", style="bold")
    table.add_column("95 %", justify="right")
    table.add_column("shuffled", justify="right")
    for name in floors:
        table.add_column(_floor_title(name), justify="right")
    table.add_column("one\nperson", justify="right")
    table.add_column("its\nlift", justify="right")
    table.add_column("minus\nperson", justify="right")
    table.add_column("p", justify="right")
    for name, estimate in record.scores.items():
        person = record.floors.get(PERSON, {}).get(name)
        versus = record.versus_person.get(name)
        table.add_row(
            name,
            _digits(estimate.mean),
            _range(estimate.low, estimate.high),
            *([_digits(estimate.mean_all)] if partial else []),
            _digits(estimate.lift, signed=True),
            _range(estimate.lift_low, estimate.lift_high),
            _digits(_value(record.floors["shuffled"].get(name), "mean")),
            *(_digits(_value(record.floors[floor].get(name), "mean")) for floor in floors),
            _digits(_value(person, "mean")),
            _digits(_value(person, "lift"), signed=True),
            _digits(versus.difference, signed=True) if versus else "-",
            _p(versus.p_holm) if versus else "-",
        )
    notes = [
        "-allref: against all references of a unit; without it, references are matched to one "
        "person's (the unit's others).",
        record.footnote,
    ]
    if record.neighbours:
        name, orders = next(iter(_first_neighbour(record).items()))
        listed = ", ".join(f"by {order} {_digits(v, signed=True)}" for order, v in orders.items())
        notes.append(f"Answers against the next unit's references, above shuffle, {name}: {listed}.")
    notes += [f"Note: {warning}" for warning in record.warnings]
    return Group(head, Text(""), table, Text(""), *(Text(note, style="dim") for note in notes))


def _first_neighbour(record: Record) -> dict[str, dict[str, float]]:
    name = next((n for n in record.neighbours if n.startswith("rouge-l")), None)
    name = name or next(iter(record.neighbours))
    return {name: record.neighbours[name]}


def _floor_title(name: str) -> str:
    return {"constant": "constant\n(commonest)", "most-common-of-layer": "commonest\nof layer"}.get(
        name, name.replace("constant: ", "constant\n")
    )


def _range(low: float | None, high: float | None) -> str:
    return "-" if low is None or high is None else f"{_digits(low)}..{_digits(high)}"


def _p(value: float) -> str:
    return f"{value:.3f}".replace("0.", ".", 1) if value >= 0.001 else "<.001"


def text(record: Record, width: int = 180) -> str:
    """Return the rendered table as plain text."""
    from rich.console import Console

    console = Console(width=width, no_color=True, highlight=False)
    with console.capture() as capture:
        console.print(render(record))
    return capture.get()
