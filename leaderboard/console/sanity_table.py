"""Tables of sanity tests of metrics, and of how metrics rank known truths."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from leaderboard.console.cells import digits, short
from leaderboard.grounding.metrics import EXTRA_LABELS, MISSING_LABELS
from leaderboard.grounding.sanity_checks import RARE_PREVALENCE

if TYPE_CHECKING:
    from leaderboard.grounding.sanity_checks import SanityVerdict, TruthRanking


def verdicts(found: Sequence[SanityVerdict], width: int = 200) -> Any:
    """Return a rich table of sanity tests: a metric and a test a row, a prevalence a column.

    In a cell: verdict, mean drop, share of units that fell.
    """
    from rich.table import Table

    prevalences = sorted({each.prevalence for each in found})
    table = Table(box=None, pad_edge=False, header_style="bold", padding=(0, 2, 0, 0))
    table.add_column("metric")
    table.add_column("test")
    for prevalence in prevalences:
        table.add_column(f"at {short(prevalence, 3)}")
    pad = 11 if width >= 110 else 4
    cells = {(each.metric, each.test, each.prevalence): each for each in found}
    for metric, test in dict.fromkeys((each.metric, each.test) for each in found):
        row = [cells[metric, test, prevalence] for prevalence in prevalences]
        table.add_row(
            metric,
            test,
            *(f"{v.verdict:{pad}} {short(v.drop, 3, signed=True):>5} {v.fell:4.0%}" for v in row),
        )
    return table


def rankings(found: Sequence[TruthRanking]) -> Any:
    """Return a rich table of how metrics tell truths apart, a metric a row."""
    from rich.table import Table

    table = Table(box=None, pad_edge=False, header_style="bold", padding=(0, 2, 0, 0))
    for title in (
        "metric", "truth above\nother truths", "truth is\nbest of all", "truth",
        "best of\nall truths", "two senses:\nboth named", "one named", "units",
    ):  # fmt: skip
        table.add_column(title, justify="left" if title == "metric" else "right")
    for each in found:
        both, one = each.half or (None, None)
        cells = (each.auc, each.first, each.truth, each.best, both, one)
        table.add_row(each.metric, *map(digits, cells), f"{each.units:,}")
    return table


PUBLISHED: dict[str, tuple[str, ...]] = {
    **dict.fromkeys(("f1", "iou", "pearson", "cosine", "auprc"), ()),
    "recall": (EXTRA_LABELS,),
    "wpmi": (EXTRA_LABELS,),
    "precision": (MISSING_LABELS,),
    "mad": (MISSING_LABELS,),
}
"""Tests that a metric fails by Oikarinen et al. 2025."""

PUBLISHED_EITHER = ("accuracy", "balanced-accuracy", "auroc", "spearman", "pearson-top-random")
"""Metrics that fail one or both by the same paper; which is not known here."""

_EXPLAINED = (
    "Drop: mean over units of what the score falls by, as a share of the metric's range (where it "
    "has no bounds, over right, wrong and random labels); fell: units whose score falls by more "
    "than .001 of it. A test is passed where more than 90 % fall; where the mean drop is below "
    ".005, the metric is insensitive, which is no pass.",
    "SYNTHETIC: planted units of the mini world, scenes drawn with and without the concept.",
)


def explained(found: Sequence[SanityVerdict]) -> list[str]:
    """Return what to know about sanity tests, and where they differ from what was published."""
    lines = list(_EXPLAINED)
    for each in found:
        published = PUBLISHED.get(each.metric)
        if published is None or (each.test in published) == (each.verdict != "pass"):
            continue
        at = f"{each.metric}, {each.test}, at {short(each.prevalence, 3)}"
        said = "fails" if each.test in published else "passes"
        lines.append(f"Differs: {at}: {each.verdict}; published: {said}. {_why(each)}")
    for name in dict.fromkeys(each.metric for each in found if each.metric not in PUBLISHED):
        lines += _unpublished(name, [each for each in found if each.metric == name])
    return lines


def _unpublished(name: str, found: Sequence[SanityVerdict]) -> list[str]:
    """Return what differs of a metric of which it is not known which test it fails, if any."""
    low = [each for each in found if each.prevalence <= RARE_PREVALENCE]
    passes = all(each.verdict == "pass" for each in low)
    if name in PUBLISHED_EITHER and low and passes:
        return [
            f"Differs: {name} passes both up to {short(RARE_PREVALENCE, 3)}; published: it does "
            "not. Units here fire in few samples without their concept; the paper's were noisier."
        ]
    missed = {each.test for each in low if each.verdict != "pass"}
    high = [each for each in found if each.prevalence > RARE_PREVALENCE and each.test in missed]
    if high and all(each.verdict == "pass" for each in high):
        return [
            f"At higher prevalence {name} passes what it fails up to "
            f"{short(RARE_PREVALENCE, 3)}: so many labels are wrong there that it notices."
        ]
    return []


def _why(each: SanityVerdict) -> str:
    if each.prevalence <= RARE_PREVALENCE:
        return "Units here are noisier, or cleaner, than the classifier outputs of the paper."
    if each.test == MISSING_LABELS:
        return (
            "A common concept's missing labels are a sizeable part of the samples without it, "
            "which then look active."
        )
    return (
        "A common concept's extra labels are a sizeable part of the samples without it, and leave "
        "few that are right."
    )
