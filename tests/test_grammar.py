"""Formulas and the grammar of the mini world."""

import itertools
from collections import defaultdict

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from milannotations import InputError
from milannotations.synthetic import CONCEPTS, Formula, parse, phrase
from milannotations.synthetic.concepts import CHANNEL
from milannotations.synthetic.formulas import MEANINGLESS, OPERATORS, PAIRS
from milannotations.synthetic.grammar import ADJECTIVES, NOUNS, meaning
from milannotations.synthetic.unit_plan import _KINDS

FORMULAS = [formula for formulas in _KINDS.values() for formula in formulas]


@pytest.mark.parametrize("kind", _KINDS)
def test_every_formula_is_read_back_from_its_phrase_and_its_text(kind):
    for formula in _KINDS[kind]:
        assert Formula.parse(str(formula)) == formula
        said = phrase(formula)
        assert 4 <= len(said.split()) <= 9
        if formula.means_something:
            assert parse(said).same_as(meaning(formula)), (formula, said, parse(said))
            assert not parse(said).unknown


def allowed():
    """Yield every valid formula."""
    for operator in OPERATORS:
        for concepts in itertools.product(CONCEPTS, repeat=2 if operator in PAIRS else 1):
            try:
                yield Formula.of(operator, *(concepts if operator not in MEANINGLESS else ()))
            except InputError:
                continue


def test_whatever_can_be_planted_can_be_said_and_read_back():
    formulas = {f for f in allowed() if f.means_something}
    assert len(formulas) > 1_000
    for formula in formulas:
        assert parse(phrase(formula)).same_as(meaning(formula)), (formula, phrase(formula))
    assert {len(phrase(formula).split()) for formula in formulas} <= set(range(3, 10))
    by_phrase = defaultdict(set)
    for formula in formulas:
        by_phrase[phrase(formula)].add(str(formula).replace("POLY", "OR"))
    assert not [said for said, several in by_phrase.items() if len(several) > 1]


def test_different_formulas_have_different_phrases_and_meanings():
    assert len({phrase(formula) for formula in FORMULAS}) == len(FORMULAS)
    told_apart = {(m.operator, m.atoms) for m in map(meaning, FORMULAS)}
    alike = sum(f.operator == "POLY" for f in FORMULAS)  # may equal an OR; none does
    assert len(told_apart) == len(FORMULAS), alike


@pytest.mark.parametrize("concept", [c for c in CONCEPTS if c in NOUNS or c in ADJECTIVES])
def test_every_synonym_means_its_concept(concept):
    background = concept.endswith("_background")
    for word in NOUNS.get(concept, ()) + ADJECTIVES.get(concept, ()):
        said = f"{word} backgrounds" if background else word
        if concept in ADJECTIVES and not background:
            said = f"{word} things"
        assert parse(said).concepts == {concept}, said


@pytest.mark.parametrize(
    ("said", "formula"),
    [
        ("a red ball", "AND(circle, red)"),
        ("Red Circles.", "AND(circle, red)"),
        ("the outlines of discs", "AND(edge, circle)"),
        ("stars beside the moons", "NEAR(star, moon)"),
        ("circles near the top of the picture", "TOP(circle)"),
        ("hollow circles", "ring"),
        ("a person's eyes", "eye"),
        ("striped backgrounds", "lined_background"),
        ("stripes", "striped"),
        ("red or orange things", "OR(red, orange)"),
        ("red and orange things", "OR(red, orange)"),
        ("red and striped things", "AND(red, striped)"),
        ("words or stars", "POLY(star, text)"),
        ("words written in blue letters", "AND(blue, text)"),
        ("blue things near the bottom", "BOTTOM(blue)"),
        ("discs near the stars", "NEAR(circle, star)"),
        ("text near the edges of the pictures", "text"),
        ("a person", "face"),
        ("light blue things", "blue"),
        ("polka dots", "dotted"),
        ("backgrounds with lines", "lined_background"),
    ],
)
def test_free_wording(said, formula):
    assert parse(said).same_as(meaning(Formula.parse(formula)))


@pytest.mark.parametrize(
    ("said", "formula"),
    [
        ("red circles", "AND(circle, blue)"),
        ("circles", "AND(circle, red)"),
        ("red or circles", "AND(circle, red)"),
        ("circles and stars", "NEAR(circle, star)"),
        ("circles on the left", "RIGHT(circle)"),
        ("dog circles", "circle"),
        ("no circles", "circle"),
        ("circles on the left", "circle"),
        ("red circles at the top", "AND(circle, red)"),
        ("circles in the left half and the right half", "LEFT(circle)"),
    ],
)
def test_what_is_not_the_same(said, formula):
    assert not parse(said).same_as(meaning(Formula.parse(formula)))


def test_a_background_keeps_its_properties_to_itself():
    read = parse("striped circles on a plain background")
    assert read.concepts == {"striped", "circle", "plain_background"}
    assert parse("dark and grainy backdrops").concepts == {"dark_background", "noisy_background"}


def test_unknown_words_count_as_wrong_concepts():
    assert parse("a dog with a red collar").atoms == {"red", "?dog", "?collar"}
    assert not parse("animals and objects").parsed
    assert not parse("").parsed
    assert parse("nothing in common").operator == "RANDOM"


@given(st.text(max_size=80))
def test_any_text_can_be_read(text):
    read = parse(text)
    assert read.concepts <= set(CONCEPTS)
    assert read.parsed == bool(read.operator)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("AND(red)", "AND takes 2 concepts; got red"),
        ("AND(red, red)", "takes 2 concepts"),
        ("IF(red, blue)", "No operator 'IF'"),
        ("AND(red, cirkle)", "Did you mean 'circle'"),
        ("AND(red, blue", "is not a formula"),
        ("AND(red, blue)", "No pixel is both red and blue"),
        ("AND(face, red)", "have no color"),
        ("NEAR(red, circle)", "takes shapes, text and faces"),
        ("TOP(dark_background)", "TOP does not take backgrounds"),
        ("", "is not a formula"),
    ],
)
def test_bad_formulas(text, says):
    with pytest.raises(InputError, match=says.replace("(", r"\(").replace(")", r"\)")):
        Formula.parse(text)


def _maps(**places):
    maps = torch.zeros(1, len(CONCEPTS), 64, 64, dtype=torch.bool)
    for concept, (top, left, side) in places.items():
        maps[0, CHANNEL[concept], top : top + side, left : left + side] = True
    return maps


def test_regions_of_every_operator():
    maps = _maps(circle=(0, 0, 16), red=(8, 8, 16), star=(40, 40, 8), square=(0, 20, 8))

    def area(text):
        return int(Formula.parse(text).regions(maps).sum())

    assert area("circle") == 256
    assert area("AND(circle, red)") == 64
    assert area("OR(circle, star)") == 256 + 64
    assert area("POLY(circle, star)") == 256 + 64
    assert area("TOP(star)") == 0
    assert area("BOTTOM(star)") == 64
    assert area("LEFT(circle)") == 256
    assert area("RIGHT(circle)") == 0
    assert area("NEAR(circle, star)") == 0  # 24 pixels apart
    assert area("NEAR(circle, square)") == 12 * 16 + 8 * 8  # but for what is 5 cells away
    assert area("RANDOM") == area("DEAD") == 0
