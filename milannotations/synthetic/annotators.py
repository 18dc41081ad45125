"""Simulated annotators: programs with habits, in the place of people. They are no people.

Three of them look at a unit and write a phrase of 4 to 9 words. Each has words it likes,
a way of putting things, a rate of leaving something out, of taking one thing for another,
of naming what only happens to be there, and of answering with a stock phrase.
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
"""Fewest and most words of a phrase."""


@dataclass(frozen=True)
class Annotator:
    """The habits of a simulated annotator; shares of units, but for `words`.

    Attributes:
        name: always begins with `simulated`.
        words: how far down a list of synonyms it goes: 0 always says the first.
        first: which synonym it likes best, counted from the concept's first.
        omits: leaves one of two parts out.
        confuses: takes a concept for one that looks like it.
        strays: names something else that the regions show.
        stock: answers with a stock phrase.
        padding: puts something before, needed or not.
        leads, tails: what it puts before and after.
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
        """Return a phrase for a unit.

        Args:
            formula: what the unit responds to.
            beside: other concepts that its regions show, the commonest first.
            seed: of every choice.
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
"""What any of them says when it has no idea, or no patience."""

NOTHING = (
    "nothing in common that i see",
    "random areas of the pictures",
    "random parts, nothing in common",
    "unclear, the areas look unrelated",
    "unrelated areas of different pictures",
)
EMPTY = (
    "nothing is highlighted in the pictures",
    "nothing, all of it is blank",
    "blank, there is nothing to see",
    "nothing shown in any picture",
)

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
"""What each concept is taken for."""

_THINGS = ("objects", "things", "shapes", "items", "areas", "figures")
_SURFACES = ("objects", "patterns", "surfaces", "things", "textures")


class _Writer:
    """One phrase of one annotator."""

    def __init__(self, habits: Annotator, generator: np.random.Generator) -> None:
        self.habits, self.generator = habits, generator

    def write(self, formula: Formula, beside: Sequence[str]) -> str:
        if formula.operator == "DEAD":
            return self.pick(EMPTY)
        if formula.operator == "RANDOM":
            # half of the time something is seen in the clouds
            if self.chance(0.5) or not beside:
                return self.pick(NOTHING)
            formula = Formula.of("IS", beside[0])
        elif self.chance(self.habits.stock):
            return self.pick(ANY_STOCK)
        elif beside and self.chance(self.habits.strays):
            formula = Formula.of("IS", self.pick(tuple(beside[:3])))
        elif self.chance(self.habits.confuses):
            formula = self.confused(formula)
        return self.dress(lambda: self.say(formula))

    def chance(self, share: float) -> bool:
        return bool(self.generator.random() < share)

    def pick(self, choices: Sequence[str]) -> str:
        return choices[int(self.generator.integers(len(choices)))]

    def word(self, names: Sequence[str]) -> str:
        """Return one of several synonyms: the annotator's own first, then others more rarely."""
        step = 0
        while self.chance(self.habits.words) and step < len(names) - 1:
            step += 1
        return names[(self.habits.first + step) % len(names)]

    def confused(self, formula: Formula) -> Formula:
        place = int(self.generator.integers(len(formula.concepts)))
        concepts = list(formula.concepts)
        concepts[place] = self.pick(LOOKALIKES[concepts[place]])
        try:
            return Formula.of(formula.operator, *concepts)
        except InputError:  # what it took it for cannot be joined so
            return Formula.of("IS", concepts[place])

    def dress(self, say: Callable[[], str]) -> str:
        """Put something before or after where the words are too few; now and then, anyway."""
        fewest, most = LENGTHS
        for _ in range(40):
            text = say()
            more = self.chance(self.habits.padding)
            if more or len(text.split()) < fewest:
                text = self.pick(self.habits.leads) + text
            if len(text.split()) < fewest:
                text += self.pick(self.habits.tails)
            if fewest <= len(text.split()) <= most:
                return text
        return self.pick(ANY_STOCK)

    def say(self, formula: Formula) -> str:
        """Return the bare words for a formula, with or without all of its parts."""
        operator, concepts = formula
        omitted = operator != "IS" and self.chance(self.habits.omits)
        if operator in HALVES:
            place = "" if omitted else " " + self.word(PLACES[operator])
            return self.thing(concepts[0]) + place
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
        if operator == "POLY" and self.chance(0.4):  # one sense is all that it noticed
            return self.thing(one)
        if {CATEGORY[one], CATEGORY[two]} <= {"color", "texture"} and CATEGORY[one] == CATEGORY[
            two
        ]:
            joint = self.pick((" or ", " and "))
            return self.property(one) + joint + self.property(two) + " " + self.pick(_THINGS)
        return f"{self.thing(one)} or {self.thing(two)}"

    def both(self, one: str, two: str) -> str:
        """Return words for something that is both."""
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
        return self.word(ADJECTIVES[concept])

    def thing(self, concept: str) -> str:
        """Return words for whatever has the concept."""
        if concept in NOUNS:
            more = concept in ("eye", "mouth", "hair") and self.chance(0.3)
            return self.word(NOUNS[concept]) + (" of faces" if more else "")
        if CATEGORY[concept] in ("background", "light"):
            return f"{self.property(concept)} {self.word(BACKGROUND)}"
        choices = _SURFACES if CATEGORY[concept] == "texture" else _THINGS
        return f"{self.property(concept)} {self.word(choices)}"
