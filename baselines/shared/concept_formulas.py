"""Formulas over concepts, read from left to right: `((dog OR cat) AND NOT water)`.

Concepts are numbers from 0: indices into a list of names or of masks.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from itertools import groupby
from typing import Any, Literal, NamedTuple

Operator = Literal["OR", "AND", "AND NOT"]

OPERATORS: tuple[Operator, ...] = ("OR", "AND", "AND NOT")
"""Operators that join a concept to a formula (Mu and Andreas 2020, section 2)."""

BEAM, LENGTH = 5, 3
"""Defaults of the search of Mu and Andreas 2020: formulas kept from one length to the next, and
most concepts in a formula."""

Step = tuple[Operator, int]


class ConceptFormula(NamedTuple):
    """A concept, and the further concepts that are joined to it one by one.

    Attributes:
        first: index of the first concept.
        steps: (operator, index of a concept): everything before, joined with the concept.

    Example:
        >>> formula = ConceptFormula(0, (("OR", 1), ("AND NOT", 2)))
        >>> print(formula.symbols(["dog", "cat", "water"]))
        ((dog OR cat) AND NOT water)
        >>> print(formula.words(["dog", "cat", "water"]))
        dog or cat, and not water
    """

    first: int
    steps: tuple[Step, ...] = ()

    @property
    def length(self) -> int:
        """Number of concepts."""
        return 1 + len(self.steps)

    @property
    def concepts(self) -> tuple[int, ...]:
        """Indices of the concepts, in order."""
        return (self.first, *(concept for _, concept in self.steps))

    def append(self, operator: Operator, concept: int) -> ConceptFormula:
        """Return the formula with one more concept."""
        return ConceptFormula(self.first, (*self.steps, (operator, concept)))

    def normalize(self) -> ConceptFormula:
        """Return the formula with its interchangeable steps sorted.

        Formulas that differ only in the order of such steps become equal.

        Example:
            >>> ConceptFormula(3, (("AND NOT", 0), ("AND", 1))).normalize()
            ConceptFormula(first=1, steps=(('AND', 3), ('AND NOT', 0)))
        """
        first, steps = self.first, list[Step]()
        for run in self._runs():
            # In the first run, the first concept is interchangeable with those of the run: as one
            # more OR in a run of OR, as one more AND in any other.
            if not steps:
                operator: Operator = "OR" if run[0][0] == "OR" else "AND"
                run = sorted([(operator, first), *run], key=_step_order)
                first, run = run[0][1], run[1:]
            steps += sorted(run, key=_step_order)
        return ConceptFormula(first, tuple(steps))

    def mask(self, masks: Any) -> Any:
        """Return the mask of the positions where the formula holds.

        Args:
            masks: mask of every concept by its index: bool arrays or tensors of one shape, or
                integers whose bits are positions.

        Example:
            >>> import numpy as np
            >>> masks = np.array([[True, True, False], [False, True, True]])
            >>> ConceptFormula(0, (("AND NOT", 1),)).mask(masks).tolist()
            [True, False, False]
        """
        mask = masks[self.first]
        for operator, concept in self.steps:
            mask = join_masks(mask, operator, masks[concept])
        return mask

    def symbols(self, names: Sequence[str]) -> str:
        """Return the formula in the notation of Mu and Andreas, with parentheses."""
        text = names[self.first]
        for operator, concept in self.steps:
            text = f"({text} {operator} {names[concept]})"
        return text

    def words(self, names: Sequence[str]) -> str:
        """Return the formula in plain words, with cleaned names (`readable_name`).

        A comma separates OR from AND, so that there is only one way to read the text.

        Example:
            >>> names = ["red-c", "swimming_pool", "dog", "cat"]
            >>> ConceptFormula(0, (("AND", 1),)).words(names)
            'red and swimming pool'
            >>> ConceptFormula(2, (("OR", 3), ("OR", 0))).words(names)
            'dog, cat or red'
            >>> ConceptFormula(2, (("OR", 3), ("AND", 0))).words(names)
            'dog or cat, and red'
        """
        text = readable_name(names[self.first])
        for index, run in enumerate(self._runs()):
            comma = "," if index > 0 else ""
            if run[0][0] == "OR":
                words = [readable_name(names[concept]) for _, concept in run]
                if index == 0:
                    words = [text, *words]
                    text = " or ".join([", ".join(words[:-1]), words[-1]])
                else:
                    text += "".join(f"{comma} or {word}" for word in words)
                continue
            for operator, concept in run:
                text += f"{comma} {operator.lower()} {readable_name(names[concept])}"
                comma = ""
        return text

    def _runs(self) -> Iterator[list[Step]]:
        """Yield the runs of steps: those of OR, and those of AND and AND NOT."""
        for _, run in groupby(self.steps, key=lambda step: step[0] == "OR"):
            yield list(run)


def join_masks(mask: Any, operator: Operator, other: Any) -> Any:
    """Return a mask joined with another."""
    if operator == "OR":
        return mask | other
    return mask & other if operator == "AND" else mask & ~other


def readable_name(name: str) -> str:
    """Return a concept's name in plain words, without Broden's suffix for its category.

    Example:
        >>> readable_name("red-c"), readable_name("swimming_pool-outdoor-s")
        ('red', 'swimming pool-outdoor')
    """
    return re.sub(r"-[a-z]$", "", name.strip()).replace("_", " ")


def _step_order(step: Step) -> tuple[bool, int]:
    return step[0] == "AND NOT", step[1]
