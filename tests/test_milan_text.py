"""Tokens, vocabularies and texts, beside those that the code of 2022 made."""

import csv
import json

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from milan.tokenizer import SPECIALS, Vocabulary, detokenize, tokenize
from milannotations.errors import InputError


@pytest.fixture(scope="module")
def language(parity):
    return json.loads((parity / "a1_language.json").read_text())


@pytest.mark.parametrize("part", ["annotations", "descriptions", "tricky"])
def test_tokens_are_those_of_2022(language, part):
    texts, tokens = zip(*language[part], strict=True)
    assert tokenize(texts) == [tuple(each) for each in tokens]


def test_vocabulary_is_that_of_2022(language, real):
    """The commonest first; as first seen where as common."""
    facts = language["vocab_all_annotations"]
    file = real / "annotations" / "milannotations_resnet152_imagenet.csv"
    with open(file, newline="", encoding="utf-8") as stream:
        vocabulary = Vocabulary.of([row["summary"] for row in csv.DictReader(stream)])
    assert len(vocabulary.words) == facts["size"]
    assert list(vocabulary.words[:200]) == facts["first_200"]
    assert list(vocabulary.words[-20:]) == facts["last_20"]


def test_numbers_are_those_of_2022(language):
    vocabulary = Vocabulary(language["indexer"]["vocab"])
    cases = [case for case in language["indexer"]["cases"] if case["kwargs"] == {}]
    assert len(cases) == 3
    for case in cases:
        assert vocabulary.encode(case["texts"]).tolist() == case["ids"]


def test_texts_put_together_as_in_2022(language):
    for tokens, text in language["reconstruct_tokens"]:
        words = [*dict.fromkeys(t for t in tokens if t not in SPECIALS)]
        vocabulary = Vocabulary(words)
        numbers = dict(zip((*words, *SPECIALS), range(len(vocabulary)), strict=True))
        assert vocabulary.decode([numbers[token] for token in tokens], "2022") == text


def test_what_people_wrote_is_put_together_again(language):
    texts = [" ".join(text.lower().split()) for text, _ in language["annotations"]]
    again = [
        detokenize(tokens) == text for text, tokens in zip(texts, tokenize(texts), strict=True)
    ]
    assert sum(again) / len(again) >= 0.97


def test_numbers_there_and_back():
    texts = ["a dog's ear (left)", "red-and-white balls, 50% round", "can't be seen"]
    vocabulary = Vocabulary.of(texts)
    assert [vocabulary.decode(row) for row in vocabulary.encode(texts).tolist()] == texts
    assert vocabulary.ids(["dog", "never seen"]) == [vocabulary.words.index("dog"), vocabulary.unk]
    assert vocabulary.encode([]).shape == (0, 0)
    assert vocabulary.encode([""]).tolist() == [[vocabulary.start, vocabulary.stop]]


@pytest.mark.parametrize(
    "text",
    [
        '"quoted" \u201ccurly\u201d \u2018curly\u2019',
        "a 'single' spot, and 'two'.",
        "it\u2019s a dog\u2019s, they can\u2019t",
        "£5 €6 $7",
        "red\u2013brown, red\u2014brown",
        "a face :)",
        "a basket'",
        '(a "cap") shape',
    ],
)
def test_marks_stand_where_people_put_them(text):
    assert detokenize(tokenize([text])[0]) == text


def test_numbers_of_a_tensor():
    vocabulary = Vocabulary(["red", "ball"])
    ids = vocabulary.encode(["red ball"])[0]
    assert ids.dtype == torch.int64
    assert vocabulary.decode(ids) == "red ball"
    assert vocabulary.specials == (2, 3, 4, 5)


def test_nothing_is_no_text():
    assert detokenize([]) == detokenize([], "2022") == Vocabulary(["red"]).decode([]) == ""


def test_rare_words_can_be_left_out():
    assert Vocabulary.of(["red ball", "red cube"], least=2).words == ("red",)


@settings(max_examples=60, deadline=None)
@given(st.lists(st.text(max_size=40), max_size=4))
def test_any_text_has_tokens_and_numbers(texts):
    vocabulary = Vocabulary.of(texts)
    for text, row in zip(texts, vocabulary.encode(texts).tolist(), strict=True):
        assert vocabulary.decode(row, "2022") is not None
        assert vocabulary.decode(row) == detokenize(
            [token for token in tokenize([text])[0] if token not in SPECIALS]
        )


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["red", "red"], "come twice in a vocabulary: red"),
        (["<pad>"], "'<pad>' is no word"),
    ],
)
def test_words_that_are_none(words, says):
    with pytest.raises(InputError, match=says):
        Vocabulary(words)


def test_words_that_are_no_strings():
    with pytest.raises(InputError, match="3 is no word"):
        Vocabulary(iter([3]))


def test_one_text_is_not_several():
    with pytest.raises(InputError, match=r"write \['red'\]"):
        tokenize("red")


def test_numbers_that_no_token_has_and_other_years():
    with pytest.raises(InputError, match="id 6; there are 5"):
        Vocabulary(["red"]).decode([6])
    with pytest.raises(InputError, match="expected '2022' or None"):
        detokenize(["red"], "2021")
