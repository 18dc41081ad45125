"""What answers are held against: descriptions, one left out or not, or the truth."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from leaderboard.evaluation.references import References
from leaderboard.metrics.base import Against
from leaderboard.metrics.text import normalise
from milannotations.synthetic.formulas import Formula
from milannotations.synthetic.grammar import phrase

Answers = Sequence[str | None]
Sets = Sequence[tuple[str, ...]]
Mask = NDArray[np.bool_]


@dataclass(frozen=True)
class View:
    """References of every unit, and which units are scored against theirs.

    The others are candidates in retrieval all the same, with what they have.
    """

    sets: Sets
    targets: Mask


@dataclass(frozen=True)
class Side:
    """What metrics of one kind hold answers against.

    Attributes:
        about: units whose values are reported.
        everything: all references of each unit.
        matched: what a method and one person alike are held against, averaged over.
        people: what the k-th person said of each unit, for each k, and the view it is held
            against.
    """

    about: Mask
    everything: View
    matched: list[View]
    people: list[tuple[Answers, View]]


def side(known: References, against: Against) -> Side:
    """Return what metrics of this kind hold answers against."""
    if against == "activations":
        return _activations(known)
    return _described(known) if against == "descriptions" else _truth(known, against)


def _described(known: References) -> Side:
    """Everything that people wrote; matched, without the k-th, for each k that some unit has."""
    about, texts = known.about("descriptions"), known.texts
    most = max(map(len, texts), default=0)
    matched: list[View] = []
    people: list[tuple[Answers, View]] = []
    for k in range(most if most > 1 else 0):
        several = np.array([len(t) > max(k, 1) for t in texts])
        left = [t[:k] + t[k + 1 :] if s else t for t, s in zip(texts, several, strict=True)]
        view = View(left, several & about)
        said = [t[k] if wanted else None for t, wanted in zip(texts, view.targets, strict=True)]
        matched.append(view)
        people.append((said, view))
    everything = View(texts, about & np.array([bool(t) for t in texts]))
    return Side(about, everything, matched, people)


def _activations(known: References) -> Side:
    """Return each unit as its own reference: what it does is known to the metric."""
    about = known.about("activations")
    view = View([(str(unit),) for unit in known.units], about)
    return Side(about, view, [view], _people(known, view))


def _people(known: References, view: View) -> list[tuple[Answers, View]]:
    """Return what the k-th person said of each unit, for each k, where nothing is left out."""
    most = max(map(len, known.texts), default=0)
    return [([t[k] if len(t) > k else None for t in known.texts], view) for k in range(most)]


def _truth(known: References, against: Against) -> Side:
    """The truths of all units that mean something. Nobody's words are in them: none is left out."""
    about, means = known.about(against), known.meaningful
    sets: list[tuple[str, ...]] = []
    for formula, truth, wanted in zip(known.formulas, known.truths, means, strict=True):
        if formula is None or not wanted:
            sets.append(())
        elif against == "senses":
            sets.append(tuple(map(str, formula.senses)))
        else:
            sets.append((str(formula) if against == "formula" else _phrase(formula, truth),))
    # few units of a layer have several senses: lift is among all that have any
    view = View(sets, means if against == "senses" else about)
    return Side(about, view, [view], _people(known, view))


def _phrase(formula: Formula, truth: str | None) -> str:
    return normalise(truth or phrase(formula))
