"""Header and notes of a grounded score, for the console and the pages of the leaderboard."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from leaderboard.record_format.score_record import Grounding, Record


def head(record: Record) -> str:
    """Return one line on what was scored, and on which images."""
    grounding, predictions = record.grounding, record.predictions
    assert grounding is not None
    grid = f", {grounding.grid} x {grounding.grid} regions each" if grounding.grid else ""
    return (
        f"{record.method} on the activations of {', '.join(grounding.networks)}: "
        f"{predictions.n_ok:,} of {record.edition.n_units:,} units described, "
        f"{predictions.n_distinct:,} distinct; {grounding.images['count']:,} images{grid}; "
        f"judged by {judge(grounding)}"
    )


def judge(grounding: Grounding) -> str:
    """Return a short name of the scorer that judged presence in images."""
    parts = (grounding.scorer.get(part) for part in ("scorer", "model", "file"))
    return " ".join(str(part) for part in parts if part)


def notes(record: Record) -> list[str]:
    """Return the caveats of a grounded score, one line each."""
    grounding = record.grounding
    assert grounding is not None
    lines = []
    if grounding.n_unreadable:
        lines.append(
            f"The scorer cannot read the descriptions of {grounding.n_unreadable:,} units: they "
            "count as failures in the column 'all units' and are left out of the score."
        )
    verdicts = {
        True: "Held out",
        False: "Not held out, so the score is optimistic",
        None: "Not known to be held out",
    }
    lines.append(f"{verdicts[grounding.held_out]}: {' '.join(grounding.why)}")
    if grounding.same_model:
        lines.append(
            "Self-judged: the scorer is the model by which the method chose its descriptions."
        )
    elif grounding.same_family:
        lines.append(
            "The scorer is a text-image model, like the one by which the method chose its "
            "descriptions."
        )
    if grounding.one_picture_a_label:
        lines.append(
            "Each label has one image: read means over units only, and no ranking of units."
        )
    failing = [f"{name} ({', '.join(tests)})" for name, tests in grounding.fails.items()]
    if failing:
        lines.append(f"Fails a sanity test, shown for comparison: {'; '.join(failing)}.")
    return lines
