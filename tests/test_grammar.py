"""Formulas and the language of the mini world."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from milannotations import InputError
from milannotations.synthetic import CONCEPTS, Formula, parse, phrase
from milannotations.synthetic.concepts import CHANNEL
from milannotations.synthetic.grammar import ADJECTIVES, NOUNS, meaning
from milannotations.synthetic.networks import _KINDS

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
    ],
)
def test_what_is_not_the_same(said, formula):
    assert not parse(said).same_as(meaning(Formula.parse(formula)))


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
