"""Answers held against the truth of synthetic units: by grammar, and by embedding.

The grammar is that of the mini world (`milannotations.synthetic.grammar`), which wrote
the truths and the simulated annotators' phrases too: these scores show how well a method
does where all is known, and say nothing of photographs. `identification` needs no grammar
in the answer, so that methods which know none can be scored.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from functools import cache
from typing import Literal

import numpy as np

from leaderboard.metrics.base import (
    Against,
    Floats,
    MetricSpec,
    PairMetric,
    ReferenceSets,
    TextMetric,
    distinct,
    reduce_sets,
)
from milannotations.synthetic.formulas import Formula
from milannotations.synthetic.grammar import Meaning, meaning, parse

_SOURCE = "this suite, by the grammar of the mini world"


@cache
def said(text: str) -> Meaning:
    """Return what a description means."""
    return parse(text)


@cache
def planted(formula: str) -> Meaning:
    """Return what a formula means."""
    return meaning(Formula.parse(formula))


def means_nothing(text: str) -> bool:
    """Say whether a description says that there is nothing to describe.

    Example:
        >>> means_nothing("random parts, nothing in common"), means_nothing("red things")
        (True, False)
    """
    return said(text).operator == "RANDOM"


class GrammarMetric(PairMetric):
    """Meanings of descriptions held against those of formulas, mean over a set's formulas."""

    def __init__(
        self,
        name: str,
        title: str,
        against: Against = "formula",
        reads: Literal["first", "all"] = "first",
    ) -> None:
        self.spec = MetricSpec(
            name=name,
            family="concepts",
            title=title,
            low=0.0,
            high=1.0,
            direction="higher",
            source=_SOURCE,
            against=against,
            reads=reads,
        )

    @abstractmethod
    def compare(self, texts: Sequence[str], formulas: Sequence[str]) -> Floats:
        """Return the score of all pairs of a description and a formula."""

    def pairs(self, predictions: Sequence[str], references: ReferenceSets) -> Floats:
        texts, at = distinct(predictions)
        formulas, columns = distinct([one for members in references for one in members])
        scores = self.compare(texts, formulas)
        return reduce_sets(scores, columns, [len(members) for members in references], "mean")[at]


class ConceptF1(GrammarMetric):
    """`concept-f1`: F1 of what a description names and what the formula holds.

    Counted are concepts, the relation or place, and words that the grammar does not know,
    each of which is a wrong concept. A description that it cannot read at all scores 0.
    """

    def __init__(self) -> None:
        super().__init__("concept-f1", "F1 of the concepts named and those of the formula")

    def compare(self, texts: Sequence[str], formulas: Sequence[str]) -> Floats:
        meanings = [said(text) for text in texts]
        named = [meant.atoms if meant.parsed else frozenset() for meant in meanings]
        true = [planted(formula).atoms for formula in formulas]
        place = {atom: i for i, atom in enumerate(sorted(frozenset().union(*named, *true)))}
        left, right = (_indicators(side, place) for side in (named, true))
        total = left.sum(axis=1)[:, None] + right.sum(axis=1)[None, :]
        return np.divide(2 * (left @ right.T), total, out=np.zeros_like(total), where=total > 0)


def _indicators(members: Sequence[frozenset[str]], place: dict[str, int]) -> Floats:
    made = np.zeros((len(members), len(place)))
    for row, atoms in enumerate(members):
        made[row, [place[atom] for atom in atoms]] = 1.0
    return made


class ConceptExact(GrammarMetric):
    """`concept-exact`: 1 where a description means exactly what the formula does."""

    def __init__(self) -> None:
        super().__init__("concept-exact", "share of units whose description means the formula")

    def compare(self, texts: Sequence[str], formulas: Sequence[str]) -> Floats:
        sides = [[said(text) for text in texts], [planted(formula) for formula in formulas]]
        keys: dict[tuple[str, frozenset[str]], int] = {}
        left, right = (
            np.array([keys.setdefault((m.operator, m.atoms), len(keys)) for m in side], dtype=int)
            for side in sides
        )
        parsed = np.array([meant.parsed for meant in sides[0]], dtype=bool)
        return ((left[:, None] == right[None, :]) & parsed[:, None]).astype(np.float64)


class SenseRecall(GrammarMetric):
    """`sense-recall`: share of a unit's senses that some rank of the prediction names.

    A prediction is all ranks, a line each. A rank names a sense whose concepts are among its
    own; what else it names is not held against it, which is why there is lift.
    """

    def __init__(self) -> None:
        super().__init__(
            "sense-recall",
            "share of a polysemantic unit's senses that some rank names",
            against="senses",
            reads="all",
        )

    def compare(self, texts: Sequence[str], formulas: Sequence[str]) -> Floats:
        ranks = [[said(line).atoms for line in text.split("\n")] for text in texts]
        senses = [planted(formula).atoms for formula in formulas]
        named = [[any(s <= rank for rank in several) for s in senses] for several in ranks]
        return np.array(named, dtype=np.float64).reshape(len(texts), len(formulas))


class Unparsed(TextMetric):
    """`unparsed`: share of answers in which the grammar can read nothing at all."""

    spec = MetricSpec(
        name="unparsed",
        family="concepts",
        title="share of descriptions that the grammar cannot read",
        low=0.0,
        high=1.0,
        direction="lower",
        source=_SOURCE,
        against="formula",
    )

    def values(self, predictions: Sequence[str]) -> Floats:
        return np.array([float(not said(text).parsed) for text in predictions])
