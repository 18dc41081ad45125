"""Views of the references: all of them, all but one, the truth, or the unit itself."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from leaderboard.evaluation.references import Descriptions, Mask, References
from leaderboard.metrics.base import Against, ReferenceSets
from leaderboard.metrics.text import normalise
from milannotations.synthetic.formulas import Formula
from milannotations.synthetic.grammar import phrase


@dataclass(frozen=True)
class ReferenceView:
    """One set of references per unit.

    Attributes:
        sets: references of each unit.
        targets: units (n,) that are scored. The others are candidates in retrieval all the same,
            with the references that they have.
    """

    sets: ReferenceSets
    targets: Mask


@dataclass(frozen=True)
class ReferenceViews:
    """Views that metrics of one kind score descriptions against.

    Attributes:
        reported: units (n,) whose values are reported.
        allref: all references of each unit.
        matched: views that the method is averaged over, and the human as well.
        humans: for each k, the k-th annotation of each unit and the view that it is scored
            against.
    """

    reported: Mask
    allref: ReferenceView
    matched: list[ReferenceView]
    humans: list[tuple[Descriptions, ReferenceView]]


def build_views(references: References, against: Against) -> ReferenceViews:
    """Build the views for metrics that score against annotations, truths or activations."""
    if against == "activations":
        return _activation_views(references)
    return (
        _annotation_views(references)
        if against == "descriptions"
        else _truth_views(references, against)
    )


def _annotation_views(references: References) -> ReferenceViews:
    """Build views of the annotations: all of them, and for each k all but the k-th."""
    reported, texts = references.reported("descriptions"), references.texts
    most = max(map(len, texts), default=0)
    matched: list[ReferenceView] = []
    humans: list[tuple[Descriptions, ReferenceView]] = []
    for k in range(most if most > 1 else 0):
        # units with a k-th annotation and at least one other
        has_rest = np.array([len(members) > max(k, 1) for members in texts])
        rest = [
            members[:k] + members[k + 1 :] if several else members
            for members, several in zip(texts, has_rest, strict=True)
        ]
        view = ReferenceView(rest, has_rest & reported)
        left_out = [
            members[k] if target else None
            for members, target in zip(texts, view.targets, strict=True)
        ]
        matched.append(view)
        humans.append((left_out, view))
    allref = ReferenceView(texts, reported & np.array([bool(members) for members in texts]))
    return ReferenceViews(reported, allref, matched, humans)


def _activation_views(references: References) -> ReferenceViews:
    """Build the view in which each unit is its own reference: the metric knows its activations."""
    reported = references.reported("activations")
    view = ReferenceView([(str(unit),) for unit in references.units], reported)
    return ReferenceViews(reported, view, [view], _annotators(references, view))


def _truth_views(references: References, against: Against) -> ReferenceViews:
    """Build the view of the truths of units that mean something; no annotation is left out."""
    reported, meaningful = references.reported(against), references.meaningful
    sets: list[tuple[str, ...]] = []
    for formula, truth, wanted in zip(
        references.formulas, references.truths, meaningful, strict=True
    ):
        if formula is None or not wanted:
            sets.append(())
        elif against == "senses":
            sets.append(tuple(map(str, formula.senses)))
        else:
            sets.append((str(formula) if against == "formula" else _truth_text(formula, truth),))
    # few units of a layer have several senses, so lift is computed among all that have any
    view = ReferenceView(sets, meaningful if against == "senses" else reported)
    return ReferenceViews(reported, view, [view], _annotators(references, view))


def _annotators(
    references: References, view: ReferenceView
) -> list[tuple[Descriptions, ReferenceView]]:
    """Return the k-th annotation of each unit, for each k, with the same view for all of them."""
    most = max(map(len, references.texts), default=0)
    return [
        ([members[k] if len(members) > k else None for members in references.texts], view)
        for k in range(most)
    ]


def _truth_text(formula: Formula, truth: str | None) -> str:
    return normalise(truth or phrase(formula))
