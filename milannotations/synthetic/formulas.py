"""Formulas that planted units respond to, and the regions of a scene where they hold.

A formula is an operator over concepts:

    red                  one concept
    AND(circle, red)     pixels with both
    OR(red, orange)      pixels with either, of one category
    POLY(star, text)     pixels with either, of unrelated concepts: the unit has two senses
    NEAR(circle, star)   either, where the other is within a few cells
    TOP(circle)          in that half of the image; BOTTOM, LEFT, RIGHT
    RANDOM, DEAD         the unit has no meaning; the unit never responds
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, NamedTuple

from milannotations.errors import InputError, did_you_mean
from milannotations.synthetic.concepts import CATEGORY, CHANNEL, CONCEPTS

if TYPE_CHECKING:
    from torch import Tensor

HALVES = ("TOP", "BOTTOM", "LEFT", "RIGHT")
PAIRS = ("AND", "OR", "POLY", "NEAR")
MEANINGLESS = ("RANDOM", "DEAD")
OPERATORS = ("IS", *PAIRS, *HALVES, *MEANINGLESS)

COMPATIBLE = frozenset(
    frozenset(pair)
    for pair in (
        ("color", "shape"),
        ("shape", "texture"),
        ("color", "texture"),
        ("color", "object"),
        ("part", "shape"),
        ("color", "part"),
    )
)
"""Pairs of categories of which a pixel may have a label each, and AND may join concepts."""

NEAR_CELLS = 4
"""Reach of NEAR in cells of a 16 x 16 grid, in all directions."""


class Formula(NamedTuple):
    """An operator and its concepts, in the order of `CONCEPTS`, so that equal formulas are equal.

    Example:
        >>> print(Formula.of("AND", "red", "circle"))
        AND(circle, red)
        >>> Formula.parse("AND(red, circle)") == Formula.of("AND", "circle", "red")
        True
    """

    operator: str
    concepts: tuple[str, ...]

    @classmethod
    def of(cls, operator: str, *concepts: str) -> Formula:
        """Return a validated formula.

        Raises:
            InputError: an unknown operator or concept, the wrong number of concepts, or
                concepts that the operator cannot join: no pixel is both red and blue.
        """
        if operator not in OPERATORS:
            raise InputError(
                f"No operator '{operator}' (operators: {', '.join(OPERATORS)})."
                + did_you_mean(operator, OPERATORS)
            )
        for concept in concepts:
            if concept not in CHANNEL:
                raise InputError(
                    f"No concept '{concept}' in the mini world.{did_you_mean(concept, CONCEPTS)} "
                    "See milannotations.synthetic.CONCEPTS."
                )
        expected = 2 if operator in PAIRS else 0 if operator in MEANINGLESS else 1
        if len(set(concepts)) != expected or len(concepts) != expected:
            noun = "concept" if expected == 1 else "concepts"
            raise InputError(
                f"{operator} takes {expected} {noun}; got {', '.join(concepts) or 'none'}."
            )
        _check_possible(operator, concepts)
        return cls(operator, tuple(sorted(concepts, key=CHANNEL.__getitem__)))

    @classmethod
    def parse(cls, text: str) -> Formula:
        """Parse a formula in the form that `str` returns.

        Raises:
            InputError: not a formula.
        """
        match = re.fullmatch(r"\s*(\w+)\s*(?:\(([^()]*)\))?\s*", text)
        if match is None:
            raise InputError(f"'{text[:60]}' is not a formula; expected such as AND(circle, red).")
        head, inside = match.groups()
        if inside is None:
            return cls.of(head) if head in MEANINGLESS else cls.of("IS", head)
        return cls.of(head, *(part.strip() for part in inside.split(",")))

    def __str__(self) -> str:
        if self.operator == "IS":
            return self.concepts[0]
        if not self.concepts:
            return self.operator
        return f"{self.operator}({', '.join(self.concepts)})"

    @property
    def means_something(self) -> bool:
        """True if the formula depends on concepts: False for RANDOM and DEAD."""
        return self.operator not in MEANINGLESS

    @property
    def senses(self) -> tuple[Formula, ...]:
        """The two senses of a polysemantic formula; otherwise the formula alone."""
        if self.operator != "POLY":
            return (self,)
        return tuple(Formula("IS", (concept,)) for concept in self.concepts)

    @property
    def kind(self) -> str:
        """Kind of unit, for tables: such as `shape`, `color+shape` or `near`."""
        if self.operator == "IS":
            return CATEGORY[self.concepts[0]]
        if self.operator == "AND":
            return "+".join(sorted(CATEGORY[concept] for concept in self.concepts))
        return "half" if self.operator in HALVES else self.operator.lower()

    def regions(self, maps: Tensor) -> Tensor:
        """Return the pixels at which the formula holds.

        Args:
            maps: concept maps, bool (..., concept, h, w), h and w multiples of 16.

        Returns:
            bool (..., h, w); False everywhere for RANDOM and DEAD, which depend on no concept.
        """
        import torch

        if not self.concepts:
            return torch.zeros_like(maps[..., 0, :, :], dtype=torch.bool)
        first = maps[..., CHANNEL[self.concepts[0]], :, :].bool()
        if self.operator == "IS":
            return first
        if self.operator in HALVES:
            return first & _half(self.operator, first)
        second = maps[..., CHANNEL[self.concepts[1]], :, :].bool()
        if self.operator == "AND":
            return first & second
        if self.operator == "NEAR":
            return (first & _around(second)) | (second & _around(first))
        return first | second


def _check_possible(operator: str, concepts: tuple[str, ...]) -> None:
    """Raise InputError for a formula that holds in no scene, or that no phrase expresses."""
    categories = [CATEGORY[concept] for concept in concepts]
    if operator == "AND" and frozenset(categories) not in COMPATIBLE:
        raise InputError(f"No pixel is both {concepts[0]} and {concepts[1]}.")
    if operator == "AND" and {"face", "hair", "eye", "mouth"} & set(concepts):
        raise InputError("Faces and their parts have no color, texture or edge.")
    if operator == "AND" and "text" in concepts and "color" not in categories:
        raise InputError("Text has a color and no other property.")
    if operator == "NEAR" and not set(categories) <= {"shape", "object"}:
        raise InputError("NEAR takes shapes, text and faces.")
    if operator in HALVES and categories[0] in ("background", "light"):
        raise InputError(f"{operator} does not take backgrounds.")


def _half(operator: str, like: Tensor) -> Tensor:
    """Return a mask, of the shape of `like`, of one half of the image."""
    import torch

    half = torch.zeros_like(like)
    h, w = like.shape[-2:]
    rows = {"TOP": slice(0, h // 2), "BOTTOM": slice(h // 2, h)}.get(operator, slice(0, h))
    columns = {"LEFT": slice(0, w // 2), "RIGHT": slice(w // 2, w)}.get(operator, slice(0, w))
    half[..., rows, columns] = True
    return half


def _around(region: Tensor) -> Tensor:
    """Return a region dilated by `NEAR_CELLS` cells of a 16 x 16 grid."""
    import torch.nn.functional as nnf

    h, w = region.shape[-2:]
    cells = nnf.max_pool2d(region.reshape(-1, 1, h, w).float(), (h // 16, w // 16))
    grown = nnf.max_pool2d(cells, 2 * NEAR_CELLS + 1, stride=1, padding=NEAR_CELLS)
    whole = nnf.interpolate(grown, size=(h, w), mode="nearest") > 0
    return whole.reshape(region.shape)
