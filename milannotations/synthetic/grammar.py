"""Grammar of the mini world: from formulas to phrases, and back.

`phrase` expresses a formula in plain words; `parse` reads any description as far as the
world's vocabulary goes. Synonyms are known, so that the same meaning in other words is the
same formula; an unknown word counts as a wrong concept, because a reader of "a dog with a
red collar" does not learn that the unit responds to red.
"""

from __future__ import annotations

import re
from functools import cache
from typing import NamedTuple

from milannotations.synthetic.concepts import CATEGORIES, CATEGORY
from milannotations.synthetic.formulas import HALVES, Formula

NOUNS: dict[str, tuple[str, ...]] = {
    "circle": ("circles", "round shapes", "discs", "circular shapes", "round objects", "balls"),
    "square": ("squares", "square shapes", "boxes", "square objects", "blocks"),
    "triangle": ("triangles", "triangular shapes", "triangular objects", "wedges"),
    "star": ("stars", "star shapes", "starry shapes", "star shaped objects"),
    "cross": ("crosses", "cross shapes", "plus signs", "plus shapes"),
    "ring": ("rings", "hoops", "ring shapes", "donuts", "hollow circles"),
    "diamond": ("diamonds", "diamond shapes", "rhombuses", "kites"),
    "moon": ("moons", "crescents", "crescent shapes", "half moons"),
    "text": ("text", "words", "letters", "writing", "printed words", "lettering"),
    "face": ("faces", "heads", "human faces", "people"),
    "edge": ("edges", "outlines", "borders", "contours"),
    "hair": ("hair", "hairlines", "haircuts"),
    "eye": ("eyes", "pairs of eyes", "eyeballs"),
    "mouth": ("mouths", "lips"),
}
"""Nouns for concepts; the first is the standard one."""

ADJECTIVES: dict[str, tuple[str, ...]] = {
    "red": ("red", "reddish", "crimson"),
    "orange": ("orange", "tangerine"),
    "yellow": ("yellow", "yellowish", "golden"),
    "green": ("green", "greenish"),
    "blue": ("blue", "bluish"),
    "purple": ("purple", "violet"),
    "white": ("white", "whitish"),
    "plain": ("plain", "solid", "unpatterned", "uniform"),
    "striped": ("striped", "stripy", "barred"),
    "dotted": ("dotted", "spotted", "speckled"),
    "checkered": ("checkered", "checked", "chessboard"),
    "plain_background": ("plain", "empty", "flat", "uniform"),
    "gradient_background": ("shaded", "fading", "gradient"),
    "noisy_background": ("noisy", "grainy", "rough"),
    "lined_background": ("striped", "lined", "barred"),
    "dark_background": ("dark", "black", "dim"),
    "light_background": ("light", "bright", "pale"),
}
"""Adjectives for concepts; those of backgrounds precede a word of `BACKGROUND`."""

_COLOR_WORDS = [word for c in CATEGORIES["color"] for word in ADJECTIVES[c]]
BACKGROUND = ("backgrounds", "backdrops", "scenery")
PARTS_OF_FACES = ("hair", "eye", "mouth")

_NOTHING = frozenset(
    ("nothing", "random", "meaningless", "unclear", "unrelated", "noise", "never", "blank")
)
_FILLERS = frozenset(
    re.findall(
        r"\S+",
        """a an the of in on at with that which is are and or all any some many mostly often very
        also only both either kind kinds sort sorts object objects thing things shape shapes
        shaped item items figure figures form forms color colors colored colour coloured pattern
        patterns patterned texture textures textured surface surfaces area areas part parts
        region regions image images picture pictures scene scenes various several other others
        behind above below written drawn cartoon their its them to from into for by as like look
        looks looking see seen there here it these those this have has being bigger small large
        big little side common but one two polka multi each more along around between inside
        outside outer inner near next beside close together half upper lower top bottom left
        right hand can be particular anything anywhere everywhere unit unit's responds respond
        highlighted i we you what something somewhere ones pieces piece bits bit whole entire
        lots lot full against set up out where sitting placed located lying standing showing
        shown show general geometric simple mixed mix group groups collection abstract assorted
        places middle stand stands wherever they over size sizes think else among most less
        clearly views view mainly seems colorful different""",
    )
)
"""Words without a concept, which `parse` ignores."""

_PLACES = {
    "TOP": r"(?:upper half|upper part|top half|top part|the top|upper side)",
    "BOTTOM": r"(?:lower half|lower part|bottom half|bottom part|the bottom|lower side)",
    "LEFT": r"(?:left half|left part|left side|left hand side|the left)",
    "RIGHT": r"(?:right half|right part|right side|right hand side|the right)",
}
PLACES: dict[str, tuple[str, ...]] = {
    "TOP": ("in the upper half", "near the top", "at the top"),
    "BOTTOM": ("in the lower half", "near the bottom", "at the bottom"),
    "LEFT": ("in the left half", "on the left side", "on the left"),
    "RIGHT": ("in the right half", "on the right side", "on the right"),
}
_ENDS = r"(?:top|bottom|upper|lower|left|right)"
_NEAR = re.compile(rf"\b(?:next to|beside|(?:close to|near)(?! (?:the )?{_ENDS}))\b")
_FRAME = re.compile(r"\b(?:edges?|borders?|sides?) of (?:the |a )?(?:pictures?|images?|scenes?)\b")


class Meaning(NamedTuple):
    """Meaning of a description, as far as the grammar goes.

    Attributes:
        operator: as in `Formula`; OR for POLY, which has the same wording; IS for a concept in
            one half, which is in `places`; "" where nothing was understood.
        concepts: named concepts.
        places: TOP, BOTTOM, LEFT, RIGHT.
        unknown: words that are neither concepts nor fillers, negations included.
    """

    operator: str
    concepts: frozenset[str]
    places: frozenset[str] = frozenset()
    unknown: frozenset[str] = frozenset()

    @property
    def parsed(self) -> bool:
        """True if anything was understood."""
        return bool(self.operator)

    @property
    def atoms(self) -> frozenset[str]:
        """Elements that concept F1 counts: concepts, relation or place, and unknown words."""
        relation = {"NEAR"} if self.operator == "NEAR" else set()
        return self.concepts | self.places | relation | {f"?{word}" for word in self.unknown}

    def same_as(self, other: Meaning) -> bool:
        """Return whether two meanings are the same: equal atoms and operators."""
        return self.parsed and self.atoms == other.atoms and self.operator == other.operator


def meaning(formula: Formula) -> Meaning:
    """Return the meaning of a formula, to compare with that of a description.

    Example:
        >>> meaning(Formula.of("POLY", "text", "star")).operator
        'OR'
    """
    if formula.operator in HALVES:
        return Meaning("IS", frozenset(formula.concepts), frozenset({formula.operator}))
    operator = "OR" if formula.operator == "POLY" else formula.operator
    return Meaning(operator, frozenset(formula.concepts))


def phrase(formula: Formula) -> str:
    """Express a formula in 4 to 9 plain words, which `parse` reads back.

    Example:
        >>> phrase(Formula.parse("AND(circle, red)"))
        'circles that are red in color'
        >>> phrase(Formula.parse("NEAR(circle, star)"))
        'circles that are next to stars'
    """
    if formula.operator == "DEAD":
        return "nothing, the unit never responds"
    if formula.operator == "RANDOM":
        return "nothing in particular, random parts of pictures"
    first, *rest = formula.concepts
    if formula.operator == "IS":
        return _alone(first)
    if formula.operator in HALVES:
        return f"{_short(first)} {PLACES[formula.operator][0]}"
    second = rest[0]
    if formula.operator == "NEAR":
        return f"{_short(first)} that are next to {_short(second)}"
    if formula.operator in ("OR", "POLY"):
        attributes = {CATEGORY[first], CATEGORY[second]} <= {"color", "texture"}
        if attributes:
            return f"{_word(first)} or {_word(second)} objects of any shape"
        return f"{_short(first)} or {_short(second)} of any kind"
    things = [concept for concept in formula.concepts if concept in NOUNS]
    properties = [concept for concept in formula.concepts if concept not in NOUNS]
    if "edge" in things:
        other = next((concept for concept in formula.concepts if concept != "edge"), first)
        return f"the outer edges of {_short(other)}"
    if not things:
        return f"{_word(first)} objects with {_patterned(second)}"
    thing, property_ = things[0], properties[0]
    if CATEGORY[property_] == "texture":
        return f"{_word(thing)} with {_patterned(property_)}"
    if thing == "text":
        return f"words written in {_word(property_)} letters"
    return f"{_word(thing)} that are {_word(property_)} in color"


def _word(concept: str) -> str:
    """Return the standard word for a concept."""
    return (NOUNS.get(concept) or ADJECTIVES[concept])[0]


def _patterned(concept: str) -> str:
    """Express a texture as a noun."""
    return f"a {_word(concept)} {'surface' if concept == 'plain' else 'pattern'}"


def _short(concept: str) -> str:
    """Express a concept as a noun, in one or two words."""
    if concept in NOUNS:
        return NOUNS[concept][0]
    if CATEGORY[concept] in ("background", "light"):
        return f"{_word(concept)} backgrounds"
    return f"{_word(concept)} objects"


def _alone(concept: str) -> str:
    """Express a single concept, in at least four words."""
    known = {
        "text": "words written in the picture",
        "face": "the face of a person",
        "edge": "the outer edges of objects",
        "hair": "the hair of a person",
        "eye": "the eyes in a face",
        "mouth": "the mouth in a face",
    }
    if concept in known:
        return known[concept]
    category = CATEGORY[concept]
    if category == "shape":
        return f"{_word(concept)} of any color"
    if category == "color":
        return f"{_word(concept)} objects of any shape"
    if category == "texture":
        return f"objects with {_patterned(concept)}"
    return f"{_word(concept)} backgrounds behind the objects"


_SHADE = re.compile(rf"\b(?:light|dark|bright|pale|deep) (?=(?:{'|'.join(_COLOR_WORDS)})\b)")


@cache
def _lexicon() -> tuple[re.Pattern[str], dict[str, str]]:
    """Return a pattern of all nouns, longest first, and the concept of each."""
    words: dict[str, str] = {}
    for concept, names in NOUNS.items():
        for name in names:
            words[name] = concept
            head, _, tail = name.rpartition(" ")
            words[" ".join(filter(None, (head, _singular(tail))))] = concept
    # adjectives of shapes without a noun, such as "round" and "circular"; and more forms
    words |= {
        "round": "circle", "circular": "circle", "triangular": "triangle", "starry": "star",
        "rhombus": "diamond", "lip": "mouth", "person's face": "face", "faces of people": "face",
        "a person's": "face", "person": "face", "persons": "face",
    }  # fmt: skip
    pattern = re.compile(
        r"\b(?:" + "|".join(sorted(map(re.escape, words), key=len, reverse=True)) + r")\b"
    )
    return pattern, words


def _singular(word: str) -> str:
    irregular = {"boxes": "box", "crosses": "cross", "people": "person's", "rhombuses": "rhombus"}
    if word in irregular:
        return irregular[word]
    return word[:-1] if word.endswith("s") else word


@cache
def _properties() -> tuple[dict[str, str], dict[str, str]]:
    """Return the adjectives of objects, and those of backgrounds, each with its concept."""
    objects: dict[str, str] = {}
    backgrounds: dict[str, str] = {}
    for concept, names in ADJECTIVES.items():
        target = backgrounds if concept.endswith("_background") else objects
        target |= dict.fromkeys(names, concept)
    nouns = {
        "stripes": "striped", "lines": "striped", "dots": "dotted", "spots": "dotted",
        "checks": "checkered",
    }  # fmt: skip
    return objects | nouns, backgrounds | {
        "stripes": "lined_background",
        "lines": "lined_background",
    }


def parse(description: str) -> Meaning:
    """Parse a description into its meaning in the mini world.

    Example:
        >>> parse("round things that are reddish") == meaning(Formula.parse("AND(circle, red)"))
        True
        >>> sorted(parse("a dog with a red collar").atoms)
        ['?collar', '?dog', 'red']
        >>> parse("animals").parsed
        False
    """
    # 1. Lower-case words without punctuation; "edges of the image" names no concept, and "light
    # red" is red.
    text = " ".join(re.findall(r"[a-z']+", description.lower().replace("-", " ")))
    text = _SHADE.sub("", _FRAME.sub(" ", text))
    near = _NEAR.search(text) is not None
    # 2. Places, which are removed: their words could be read as others.
    places: set[str] = set()
    for place, pattern in _PLACES.items():
        text, count = re.subn(rf"\b{pattern}\b", " ", text)
        if count:
            places.add(place)
    # 3. Concepts and unknown words of each alternative.
    named: list[str] = []
    unknown: set[str] = set()
    clauses = re.split(r"\bor\b", text)
    for clause in clauses:
        clause_concepts, clause_unknown = _parse_clause(clause)
        named += clause_concepts
        unknown |= clause_unknown
    # 4. Words such as "nothing" mean RANDOM where there is no other content.
    is_nothing = bool(unknown & _NOTHING)
    unknown -= _NOTHING
    concepts = frozenset(named)
    if not concepts:
        return Meaning(
            "RANDOM" if is_nothing and not unknown else "", concepts, unknown=frozenset(unknown)
        )
    operator = _operator(concepts, near, len(clauses) > 1)
    return Meaning(operator, concepts, frozenset(places), frozenset(unknown))


def _parse_clause(clause: str) -> tuple[list[str], set[str]]:
    """Return the concepts and the unknown words of a clause."""
    pattern, nouns = _lexicon()
    objects, backgrounds = _properties()
    named: list[str] = []

    def take_background(match: re.Match[str]) -> str:
        # only adjectives next to the word belong to the background
        for word in re.findall(r"\w+", f"{match['before']} {match['after'] or ''}"):
            if word in backgrounds:
                named.append(backgrounds[word])
        return " "

    rest = _backgrounds().sub(take_background, clause)
    things = [nouns[word] for word in pattern.findall(rest)]
    if set(things) & set(PARTS_OF_FACES):  # "the eyes in a face" means the eyes
        things = [thing for thing in things if thing != "face"]
    named += things
    unknown = set()
    for word in pattern.sub(" ", rest).split():
        if word in objects:
            named.append(objects[word])
        elif word not in _FILLERS:
            unknown.add(word.removesuffix("'s"))
    return named, unknown


@cache
def _backgrounds() -> re.Pattern[str]:
    """Return a pattern of a background with the adjectives before and after it."""
    words = "|".join(sorted(map(re.escape, _properties()[1])))
    names = "|".join({*BACKGROUND, *map(_singular, BACKGROUND)})
    return re.compile(
        rf"(?P<before>(?:\b(?:{words})\b(?: and)? )*)\b(?:{names})\b"
        rf"(?P<after> (?:that are|which are|with|of) (?:{words})\b(?: and (?:{words})\b)?)?"
    )


def _operator(concepts: frozenset[str], near: bool, either: bool) -> str:
    """Return the operator that joins concepts.

    Args:
        concepts: at least one.
        near: whether the description has a word of nearness.
        either: whether it has alternatives.
    """
    if len(concepts) == 1:
        return "IS"
    if near:
        return "NEAR"
    categories = {CATEGORY[concept] for concept in concepts}
    things = [concept for concept in concepts if concept in NOUNS and concept != "edge"]
    # two of one category, or two things, cannot be the same pixels
    if either or len(categories) < len(concepts) or len(things) > 1:
        return "OR"
    return "AND"


__all__ = [
    "ADJECTIVES",
    "BACKGROUND",
    "NOUNS",
    "PLACES",
    "Meaning",
    "meaning",
    "parse",
    "phrase",
]
