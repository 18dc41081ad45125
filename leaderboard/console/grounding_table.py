"""What a person reads of a score in activations, and of tests of metrics."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from leaderboard.record_format.score_record import Grounding, Record


def head(record: Record) -> str:
    """Return what was scored, and on what, in a line."""
    grounding, said = record.grounding, record.predictions
    assert grounding is not None
    of = f", {grounding.grid} x {grounding.grid} regions each" if grounding.grid else ""
    return (
        f"{record.method} on the activations of {', '.join(grounding.networks)}: "
        f"{said.n_ok:,} of {record.edition.n_units:,} units described, {said.n_distinct:,} "
        f"distinct; {grounding.images['count']:,} pictures{of}; judged by {judge(grounding)}"
    )


def judge(grounding: Grounding) -> str:
    """Return what said in which pictures a description holds, in few words."""
    parts = (grounding.scorer.get(part) for part in ("scorer", "model", "file"))
    return " ".join(str(part) for part in parts if part)


def notes(record: Record) -> list[str]:
    """Return what to know about the score, a line each."""
    grounding = record.grounding
    assert grounding is not None
    made = []
    if grounding.n_unreadable:
        made.append(
            f"The scorer cannot read the descriptions of {grounding.n_unreadable:,} units: they "
            "count as failures (all units) and are not in the score."
        )
    said = {True: "Held out", False: "NOT HELD OUT", None: "Not known to be held out"}
    made.append(f"{said[grounding.held_out]}: {' '.join(grounding.why)}")
    if grounding.same_model:
        made.append("THE JUDGE IS THE MODEL THAT THE METHOD CHOSE BY: it agrees with itself.")
    elif grounding.same_family:
        made.append("The judge is a text-image model, as the one that the method chose by.")
    if grounding.one_picture_a_label:
        made.append(
            "A label has one picture: means over units can be read, and no ranking of units."
        )
    failing = [f"{name} ({', '.join(tests)})" for name, tests in grounding.fails.items()]
    if failing:
        made.append(f"Fails a sanity test, and is shown to compare: {'; '.join(failing)}.")
    return made
