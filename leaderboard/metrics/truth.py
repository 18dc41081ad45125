"""Metrics against the truth of synthetic units, by grammar.

The grammar is that of the mini world (`milannotations.synthetic.grammar`), which also wrote the
truths and the simulated annotators' phrases. So these scores show how well a method does where
everything is known, and say nothing about photographs. Metrics of identification
(`candidate_ranking`) need no grammar, and suit methods that do not know it.
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
def meaning_of_text(text: str) -> Meaning:
    """Return the meaning of a description."""
    return parse(text)


@cache
def meaning_of_formula(formula: str) -> Meaning:
    """Return the meaning of a formula."""
    return meaning(Formula.parse(formula))


def means_nothing(text: str) -> bool:
    """Return True if a description says that there is nothing to describe.

    Example:
        >>> means_nothing("random parts, nothing in common"), means_nothing("red things")
        (True, False)
    """
    return meaning_of_text(text).operator == "RANDOM"


class GrammarMetric(PairMetric):
    """Base of metrics that compare meanings of descriptions and formulas, mean over formulas."""

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
        """Score every description against every formula; return (description, formula)."""

    def pairs(self, predictions: Sequence[str], references: ReferenceSets) -> Floats:
        texts, rows = distinct(predictions)
        formulas, columns = distinct([formula for members in references for formula in members])
        scores = self.compare(texts, formulas)
        return reduce_sets(scores, columns, [len(members) for members in references], "mean")[rows]


class ConceptF1(GrammarMetric):
    """`concept-f1`: F1 of the concepts in a description and those in the formula.

    Concepts, the relation or position, and words that the grammar does not know are counted; each
    such word is a wrong concept. A description that the grammar cannot read at all scores 0.
    """

    def __init__(self) -> None:
        super().__init__("concept-f1", "F1 of the concepts named and those of the formula")

    def compare(self, texts: Sequence[str], formulas: Sequence[str]) -> Floats:
        meanings = [meaning_of_text(text) for text in texts]
        named = [meant.atoms if meant.parsed else frozenset() for meant in meanings]
        true = [meaning_of_formula(formula).atoms for formula in formulas]
        # sets as rows of 0 and 1, so that the sizes of all intersections are a matrix product
        columns = {atom: i for i, atom in enumerate(sorted(frozenset().union(*named, *true)))}
        left, right = (_indicators(sets, columns) for sets in (named, true))
        total = left.sum(axis=1)[:, None] + right.sum(axis=1)[None, :]
        return np.divide(2 * (left @ right.T), total, out=np.zeros_like(total), where=total > 0)


def _indicators(sets: Sequence[frozenset[str]], columns: dict[str, int]) -> Floats:
    """Return sets of atoms as rows of 0 and 1, (set, atom)."""
    indicators = np.zeros((len(sets), len(columns)))
    for row, atoms in enumerate(sets):
        indicators[row, [columns[atom] for atom in atoms]] = 1.0
    return indicators


class ConceptExact(GrammarMetric):
    """`concept-exact`: 1 if a description means exactly the same as the formula, else 0."""

    def __init__(self) -> None:
        super().__init__("concept-exact", "share of units whose description means the formula")

    def compare(self, texts: Sequence[str], formulas: Sequence[str]) -> Floats:
        described = [meaning_of_text(text) for text in texts]
        true = [meaning_of_formula(formula) for formula in formulas]
        # number the distinct meanings, so that equal meanings have equal numbers
        keys: dict[tuple[str, frozenset[str]], int] = {}
        left, right = (
            np.array([keys.setdefault((m.operator, m.atoms), len(keys)) for m in side], dtype=int)
            for side in (described, true)
        )
        parsed = np.array([meant.parsed for meant in described], dtype=bool)
        return ((left[:, None] == right[None, :]) & parsed[:, None]).astype(np.float64)


class SenseRecall(GrammarMetric):
    """`sense-recall`: share of a unit's senses that some rank of the prediction names.

    A prediction holds all ranks, one per line. A rank names a sense if it has all of its
    concepts. Further concepts cost nothing, so look at the lift.
    """

    def __init__(self) -> None:
        super().__init__(
            "sense-recall",
            "share of a polysemantic unit's senses that some rank names",
            against="senses",
            reads="all",
        )

    def compare(self, texts: Sequence[str], formulas: Sequence[str]) -> Floats:
        ranks = [[meaning_of_text(line).atoms for line in text.split("\n")] for text in texts]
        senses = [meaning_of_formula(formula).atoms for formula in formulas]
        named = [[any(s <= rank for rank in several) for s in senses] for several in ranks]
        return np.array(named, dtype=np.float64).reshape(len(texts), len(formulas))


class Unparsed(TextMetric):
    """`unparsed`: 1 if the grammar can read nothing in the description, else 0."""

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
        return np.array([float(not meaning_of_text(text).parsed) for text in predictions])
