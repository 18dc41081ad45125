"""Formulas over concepts, read from left to right: `((dog OR cat) AND NOT water)`.

Concepts are numbers from 0, places in a list of names or of masks.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from itertools import groupby
from typing import Any, Literal, NamedTuple

Operator = Literal["OR", "AND", "AND NOT"]

OPERATORS: tuple[Operator, ...] = ("OR", "AND", "AND NOT")
"""How a concept is joined to a formula (Mu and Andreas 2020, section 2)."""

Step = tuple[Operator, int]


class ConceptFormula(NamedTuple):
    """A concept, and how further ones are joined to it, one by one.

    Attributes:
        first: place of a concept.
        steps: (operator, place of a concept): what stands before, joined with the concept.

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
        """How many concepts it joins."""
        return 1 + len(self.steps)

    @property
    def concepts(self) -> tuple[int, ...]:
        """Places of its concepts, in order."""
        return (self.first, *(concept for _, concept in self.steps))

    def append(self, operator: Operator, concept: int) -> ConceptFormula:
        """Return the formula with one more concept."""
        return ConceptFormula(self.first, (*self.steps, (operator, concept)))

    def normalize(self) -> ConceptFormula:
        """Return the formula with what may change places in order: equal ones become equal.

        Example:
            >>> ConceptFormula(3, (("AND NOT", 0), ("AND", 1))).normalize()
            ConceptFormula(first=1, steps=(('AND', 3), ('AND NOT', 0)))
        """
        first, steps = self.first, list[Step]()
        for run in self._runs():
            # until an OR came, or anything but, the first concept is one of the run
            if not steps:
                operator: Operator = "OR" if run[0][0] == "OR" else "AND"
                run = sorted([(operator, first), *run], key=_order)
                first, run = run[0][1], run[1:]
            steps += sorted(run, key=_order)
        return ConceptFormula(first, tuple(steps))

    def mask(self, masks: Any) -> Any:
        """Return where the formula holds.

        Args:
            masks: of every concept by place: bool arrays or tensors of one shape, or whole
                numbers whose bits are positions.

        Example:
            >>> import numpy as np
            >>> masks = np.array([[True, True, False], [False, True, True]])
            >>> ConceptFormula(0, (("AND NOT", 1),)).mask(masks).tolist()
            [True, False, False]
        """
        found = masks[self.first]
        for operator, concept in self.steps:
            found = join_masks(found, operator, masks[concept])
        return found

    def symbols(self, names: Sequence[str]) -> str:
        """Return the formula as Mu and Andreas write it, with its parentheses."""
        text = names[self.first]
        for operator, concept in self.steps:
            text = f"({text} {operator} {names[concept]})"
        return text

    def words(self, names: Sequence[str]) -> str:
        """Return the formula as one would say it, names cleaned (`readable_name`).

        A comma stands where OR and AND meet, so that there is one way to read it.

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
        for place, run in enumerate(self._runs()):
            comma = "," * (place > 0)
            if run[0][0] == "OR":
                said = [readable_name(names[concept]) for _, concept in run]
                if place == 0:
                    said = [text, *said]
                    text = " or ".join([", ".join(said[:-1]), said[-1]])
                else:
                    text += "".join(f"{comma} or {each}" for each in said)
                continue
            for operator, concept in run:
                text += f"{comma} {operator.lower()} {readable_name(names[concept])}"
                comma = ""
        return text

    def _runs(self) -> Iterator[list[Step]]:
        """Yield the steps by runs: those of OR, and those of AND and AND NOT."""
        for _, run in groupby(self.steps, key=lambda step: step[0] == "OR"):
            yield list(run)


def join_masks(mask: Any, operator: Operator, other: Any) -> Any:
    """Return a mask joined with another."""
    if operator == "OR":
        return mask | other
    return mask & other if operator == "AND" else mask & ~other


def readable_name(name: str) -> str:
    """Return a concept's name as one would say it: without its category's suffix in Broden.

    Example:
        >>> readable("red-c"), readable("swimming_pool-outdoor-s")
        ('red', 'swimming pool-outdoor')
    """
    return re.sub(r"-[a-z]$", "", name.strip()).replace("_", " ")


def _order(step: Step) -> tuple[bool, int]:
    return step[0] == "AND NOT", step[1]
