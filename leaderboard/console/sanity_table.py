"""Tables of sanity tests of metrics, and of how metrics rank known truths."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from leaderboard.console.cells import digits, short
from leaderboard.grounding.metrics import EXTRA_LABELS, MISSING_LABELS
from leaderboard.grounding.sanity_checks import RARE_PREVALENCE

if TYPE_CHECKING:
    from leaderboard.grounding.sanity_checks import SanityVerdict, TruthRanking


def verdict_table(verdicts: Sequence[SanityVerdict], width: int = 200) -> Any:
    """Return a rich table of sanity tests: one row per metric and test, one column per prevalence.

    A cell holds the verdict, the mean drop, and the share of units whose score fell.
    """
    from rich.table import Table

    prevalences = sorted({verdict.prevalence for verdict in verdicts})
    table = Table(box=None, pad_edge=False, header_style="bold", padding=(0, 2, 0, 0))
    table.add_column("metric")
    table.add_column("test")
    for prevalence in prevalences:
        table.add_column(f"at {short(prevalence, 3)}")
    pad = 11 if width >= 110 else 4
    cells = {(v.metric, v.test, v.prevalence): v for v in verdicts}
    for metric, test in dict.fromkeys((v.metric, v.test) for v in verdicts):
        row = [cells[metric, test, prevalence] for prevalence in prevalences]
        table.add_row(
            metric,
            test,
            *(f"{v.verdict:{pad}} {short(v.drop, 3, signed=True):>5} {v.fell:4.0%}" for v in row),
        )
    return table


def ranking_table(rankings: Sequence[TruthRanking]) -> Any:
    """Return a rich table of how well metrics separate truths, one row per metric."""
    from rich.table import Table

    table = Table(box=None, pad_edge=False, header_style="bold", padding=(0, 2, 0, 0))
    for title in (
        "metric", "truth above\nother truths", "truth is\nbest of all", "truth",
        "best of\nall truths", "two senses:\nboth named", "one named", "units",
    ):  # fmt: skip
        table.add_column(title, justify="left" if title == "metric" else "right")
    for ranking in rankings:
        both, one = ranking.half or (None, None)
        values = (ranking.auc, ranking.first, ranking.truth, ranking.best, both, one)
        table.add_row(ranking.metric, *map(digits, values), f"{ranking.units:,}")
    return table


PUBLISHED: dict[str, tuple[str, ...]] = {
    **dict.fromkeys(("f1", "iou", "pearson", "cosine", "auprc"), ()),
    "recall": (EXTRA_LABELS,),
    "wpmi": (EXTRA_LABELS,),
    "precision": (MISSING_LABELS,),
    "mad": (MISSING_LABELS,),
}
"""Tests that each metric fails according to Oikarinen et al. 2025."""

PUBLISHED_EITHER = ("accuracy", "balanced-accuracy", "auroc", "spearman", "pearson-top-random")
"""Metrics that fail at least one test in the same paper; which one is not known here."""

_LEGEND = (
    "Drop: mean decrease of the score over units, as a share of the metric's range (for a metric "
    "without bounds, the range over right, wrong and random labels). Fell: units whose score "
    "decreases by more than .001 of the range. A test is passed if more than 90 % of units fall; "
    "with a mean drop below .005, the metric is insensitive, which is not a pass.",
    "SYNTHETIC: planted units of the mini world, scenes drawn with and without the concept.",
)


def verdict_notes(verdicts: Sequence[SanityVerdict]) -> list[str]:
    """Return the legend of the table of sanity tests, and differences from published verdicts."""
    lines = list(_LEGEND)
    for verdict in verdicts:
        published = PUBLISHED.get(verdict.metric)
        if published is None or (verdict.test in published) == (verdict.verdict != "pass"):
            continue
        cell = f"{verdict.metric}, {verdict.test}, at {short(verdict.prevalence, 3)}"
        expected = "fails" if verdict.test in published else "passes"
        lines.append(
            f"Differs: {cell}: {verdict.verdict}; published: {expected}. {_explanation(verdict)}"
        )
    for name in dict.fromkeys(v.metric for v in verdicts if v.metric not in PUBLISHED):
        lines += _unpublished_notes(name, [v for v in verdicts if v.metric == name])
    return lines


def _unpublished_notes(name: str, verdicts: Sequence[SanityVerdict]) -> list[str]:
    """Return what differs for a metric whose published verdict per test is not known, if any."""
    rare = [v for v in verdicts if v.prevalence <= RARE_PREVALENCE]
    passes = all(v.verdict == "pass" for v in rare)
    if name in PUBLISHED_EITHER and rare and passes:
        return [
            f"Differs: {name} passes both tests up to {short(RARE_PREVALENCE, 3)}; published: it "
            "does not. Units here fire in few samples without their concept; the paper's were "
            "noisier."
        ]
    failed = {v.test for v in rare if v.verdict != "pass"}
    common = [v for v in verdicts if v.prevalence > RARE_PREVALENCE and v.test in failed]
    if common and all(v.verdict == "pass" for v in common):
        return [
            f"At higher prevalence {name} passes what it fails up to "
            f"{short(RARE_PREVALENCE, 3)}: so many labels are wrong there that it notices."
        ]
    return []


def _explanation(verdict: SanityVerdict) -> str:
    """Return why a verdict can differ from the published one."""
    if verdict.prevalence <= RARE_PREVALENCE:
        return "Units here are noisier, or cleaner, than the classifier outputs of the paper."
    if verdict.test == MISSING_LABELS:
        return (
            "The missing labels of a common concept are a large part of the samples without it, "
            "which then look active."
        )
    return (
        "The extra labels of a common concept are a large part of the samples without it and "
        "leave few samples that are right."
    )
