"""Simulated annotators: programs that stand in for human annotators and make similar mistakes.

Each of three annotators writes a phrase of 4 to 9 words for a unit. Each has preferred words and
phrasings, and rates of omitting a part, of confusing similar concepts, of naming something that
only happens to be in the image, and of answering with a stock phrase.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from milannotations.errors import InputError
from milannotations.synthetic.concepts import CATEGORY
from milannotations.synthetic.formulas import HALVES, Formula
from milannotations.synthetic.grammar import ADJECTIVES, BACKGROUND, NOUNS, PLACES

LENGTHS = (4, 9)
"""Least and largest number of words of a phrase."""


@dataclass(frozen=True)
class Annotator:
    """Habits of a simulated annotator. Rates are shares of units.

    Attributes:
        name: begins with `simulated`.
        words: probability of each step down a list of synonyms; with 0 it always uses the first.
        first: index of its preferred synonym.
        omits: rate of omitting one of two parts.
        confuses: rate of confusing a concept with one that looks similar.
        strays: rate of naming something else that the regions show.
        stock: rate of answering with a stock phrase.
        padding: rate of an introduction where none is needed.
        leads, tails: phrases before and after.
    """

    name: str
    words: float
    first: int
    omits: float
    confuses: float
    strays: float
    stock: float
    padding: float
    leads: tuple[str, ...]
    tails: tuple[str, ...]

    def describe(self, formula: Formula, beside: Sequence[str], seed: Sequence[int]) -> str:
        """Write a phrase for a unit.

        Args:
            formula: what the unit responds to.
            beside: other concepts that its regions show, the most common first.
            seed: random seed of every choice.
        """
        return _Writer(self, np.random.default_rng([*seed, len(self.name), self.first])).write(
            formula, beside
        )


ANNOTATORS = (
    Annotator(
        "simulated-careful", 0.45, 0, omits=0.08, confuses=0.05, strays=0.03, stock=0.03,
        padding=0.15,
        leads=("the ", "mostly ", "many "),
        tails=(" in the picture", " of different sizes", " in several places"),
    ),
    Annotator(
        "simulated-brief", 0.6, 1, omits=0.2, confuses=0.09, strays=0.07, stock=0.06, padding=0.2,
        leads=("some ", "various ", "a lot of "),
        tails=(" and nothing else", " in the middle", " that stand out"),
    ),
    Annotator(
        "simulated-wordy", 0.75, 2, omits=0.26, confuses=0.13, strays=0.11, stock=0.1, padding=0.4,
        leads=("pictures of ", "what looks like ", "mainly ", "there are "),
        tails=(" of some sort", " in various places", " i think", " all over"),
    ),
)  # fmt: skip
"""The three annotators of the mini world."""

ANY_STOCK = (
    "various objects in the pictures",
    "shapes of many different colors",
    "different things in different places",
    "colorful shapes and other things",
    "small objects in the middle",
    "a mix of different objects",
)
"""Stock phrases of all annotators, which say nothing about a unit."""

NOTHING = (
    "nothing in common that i see",
    "random areas of the pictures",
    "random parts, nothing in common",
    "unclear, the areas look unrelated",
    "unrelated areas of different pictures",
)
"""Answers to random units."""

EMPTY = (
    "nothing is highlighted in the pictures",
    "nothing, all of it is blank",
    "blank, there is nothing to see",
    "nothing shown in any picture",
)
"""Answers to dead units, whose masks are empty."""

LOOKALIKES = {
    "circle": ("ring", "square"), "square": ("diamond", "circle"), "triangle": ("star", "diamond"),
    "star": ("cross", "triangle"), "cross": ("star", "square"), "ring": ("circle", "moon"),
    "diamond": ("square", "triangle"), "moon": ("ring", "circle"),
    "red": ("orange", "purple"), "orange": ("red", "yellow"), "yellow": ("orange", "white"),
    "green": ("blue", "yellow"), "blue": ("purple", "green"), "purple": ("blue", "red"),
    "white": ("yellow", "blue"), "plain": ("striped", "dotted"), "striped": ("checkered", "plain"),
    "dotted": ("checkered", "plain"), "checkered": ("dotted", "striped"),
    "hair": ("face", "edge"), "eye": ("face", "mouth"), "mouth": ("eye", "face"),
    "face": ("eye", "hair"), "text": ("edge", "white"), "edge": ("striped", "plain"),
    "plain_background": ("dark_background", "light_background"),
    "gradient_background": ("plain_background", "dark_background"),
    "noisy_background": ("lined_background", "light_background"),
    "lined_background": ("noisy_background", "dark_background"),
    "dark_background": ("plain_background", "gradient_background"),
    "light_background": ("plain_background", "gradient_background"),
}  # fmt: skip
"""Concepts that each concept may be confused with."""

_THINGS = ("objects", "things", "shapes", "items", "areas", "figures")
_SURFACES = ("objects", "patterns", "surfaces", "things", "textures")


class _Writer:
    """Writer of one phrase of one annotator."""

    def __init__(self, habits: Annotator, generator: np.random.Generator) -> None:
        self.habits, self.generator = habits, generator

    def write(self, formula: Formula, beside: Sequence[str]) -> str:
        """Return the phrase, with the annotator's mistakes."""
        if formula.operator == "DEAD":
            return self.pick(EMPTY)
        if formula.operator == "RANDOM":
            # half of the time the annotator sees a pattern in noise
            if self.chance(0.5) or not beside:
                return self.pick(NOTHING)
            formula = Formula.of("IS", beside[0])
        elif self.chance(self.habits.stock):
            return self.pick(ANY_STOCK)
        elif beside and self.chance(self.habits.strays):
            formula = Formula.of("IS", self.pick(tuple(beside[:3])))
        elif self.chance(self.habits.confuses):
            formula = self.confuse(formula)
        return self.fit_length(lambda: self.express(formula))

    def chance(self, share: float) -> bool:
        """Return True with a probability."""
        return bool(self.generator.random() < share)

    def pick(self, choices: Sequence[str]) -> str:
        """Return one of several choices, all equally likely."""
        return choices[int(self.generator.integers(len(choices)))]

    def word(self, names: Sequence[str]) -> str:
        """Return one of several synonyms; the annotator's preferred one is the most likely."""
        step = 0
        while self.chance(self.habits.words) and step < len(names) - 1:
            step += 1
        return names[(self.habits.first + step) % len(names)]

    def confuse(self, formula: Formula) -> Formula:
        """Return the formula with one concept replaced by a similar one."""
        index = int(self.generator.integers(len(formula.concepts)))
        concepts = list(formula.concepts)
        concepts[index] = self.pick(LOOKALIKES[concepts[index]])
        try:
            return Formula.of(formula.operator, *concepts)
        except InputError:  # the operator cannot join the two
            return Formula.of("IS", concepts[index])

    def fit_length(self, express: Callable[[], str]) -> str:
        """Return a phrase of a length in `LENGTHS`, padded where it is too short, or at random.

        Args:
            express: returns a phrase, which may be another one each time.
        """
        fewest, most = LENGTHS
        for _ in range(40):
            text = express()
            more = self.chance(self.habits.padding)
            if more or len(text.split()) < fewest:
                text = self.pick(self.habits.leads) + text
            if len(text.split()) < fewest:
                text += self.pick(self.habits.tails)
            if fewest <= len(text.split()) <= most:
                return text
        return self.pick(ANY_STOCK)

    def express(self, formula: Formula) -> str:
        """Return words for a formula, or for a part of it."""
        operator, concepts = formula
        omitted = operator != "IS" and self.chance(self.habits.omits)
        if operator in HALVES:
            half = "" if omitted else " " + self.word(PLACES[operator])
            return self.thing(concepts[0]) + half
        if omitted:
            return self.thing(self.pick(concepts))
        if operator == "IS":
            return self.thing(concepts[0])
        one, two = self.generator.permutation(list(concepts)).tolist()
        if operator == "AND":
            return self.both(one, two)
        if operator == "NEAR":
            return f"{self.thing(one)} {self.pick(('next to', 'beside', 'close to'))} " + (
                self.thing(two)
            )
        if operator == "POLY" and self.chance(0.4):  # notices one sense only
            return self.thing(one)
        if {CATEGORY[one], CATEGORY[two]} <= {"color", "texture"} and CATEGORY[one] == CATEGORY[
            two
        ]:
            joint = self.pick((" or ", " and "))
            return self.property(one) + joint + self.property(two) + " " + self.pick(_THINGS)
        return f"{self.thing(one)} or {self.thing(two)}"

    def both(self, one: str, two: str) -> str:
        """Return words for something that has both concepts."""
        things = [concept for concept in (one, two) if concept in NOUNS]
        if "edge" in things:
            other = two if one == "edge" else one
            return f"{self.word(NOUNS['edge'])} of {self.thing(other)}"
        if not things:
            return f"{self.property(one)} and {self.property(two)} {self.pick(_THINGS)}"
        thing = things[0]
        attribute = two if thing == one else one
        ways = (
            f"{self.property(attribute)} {self.word(NOUNS[thing])}",
            f"{self.word(NOUNS[thing])} that are {self.property(attribute)}",
        )
        return ways[int(self.chance(0.35))]

    def property(self, concept: str) -> str:
        """Return an adjective for a concept."""
        return self.word(ADJECTIVES[concept])

    def thing(self, concept: str) -> str:
        """Return a noun phrase for a concept."""
        if concept in NOUNS:
            more = concept in ("eye", "mouth", "hair") and self.chance(0.3)
            return self.word(NOUNS[concept]) + (" of faces" if more else "")
        if CATEGORY[concept] in ("background", "light"):
            return f"{self.property(concept)} {self.word(BACKGROUND)}"
        choices = _SURFACES if CATEGORY[concept] == "texture" else _THINGS
        return f"{self.property(concept)} {self.word(choices)}"
