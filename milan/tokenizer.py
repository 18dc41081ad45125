"""Tokens of descriptions: spaCy's English rules, a vocabulary, and detokenization.

Tokens are in lower case, as in the code of Hernandez et al. 2022. The rules need no model, so
nothing is downloaded.
"""

import re
from collections import Counter
from collections.abc import Iterable, Sequence
from functools import lru_cache
from itertools import takewhile
from typing import Any

import torch
from jaxtyping import Int64
from torch import Tensor

from milannotations.errors import InputError, some

SPECIALS = ("<start>", "<stop>", "<pad>", "<unk>")
"""Special tokens, numbered after the words of a vocabulary."""

_DETOKENIZATION = [
    # Pairs of (pattern, replacement), applied in this order to tokens joined by spaces.
    # closing punctuation and contractions: "dog 's" -> "dog's", "ball ." -> "ball."
    (
        re.compile(
            r" (?=(?:[.,;:!?)\]}%\u201d]|\.{2,}|['\u2019](?:s|re|ve|ll|d|m)|n['\u2019]t)(?: |$))"
        ),
        "",
    ),
    # opening brackets, quotes, currency signs: "( text" -> "(text"
    (re.compile(r"(?<![^ ])([(\[{#$\u00a3\u20ac\u201c\u2018]) "), r"\1"),
    # possessives of plurals: "dogs ' ears" -> "dogs' ears"
    (re.compile(r"(?<=s) (['\u2019])(?= |$)"), r"\1"),
    # hyphens, dashes and slashes between words: "red - brown" -> "red-brown"
    (re.compile(r"(?<=\w) ?([-\u2013\u2014/]) ?(?=\w)"), r"\1"),
    # words that spaCy cuts in two: "can not" -> "cannot"
    (re.compile(r"\b(can|gon|wan|got) (?=not\b|na\b|ta\b)"), r"\1"),
    # words in straight quotes: "' text '" -> "'text'"
    (re.compile(r"(?<![^ ])(['\"]) ([^'\"]*) \1(?= |$|[.,;:!?)\]}])"), r"\1\2\1"),
    # a closing quote at an end or before punctuation
    (re.compile(r" (['\u2019])(?=$|[.,;:!?)\]}])"), r"\1"),
]
_NO_SPACE_2022 = re.compile(r" (?=[.,;:])")


@lru_cache(maxsize=1)
def _tokenizer() -> Any:
    import spacy

    return spacy.blank("en").tokenizer


def tokenize(texts: Sequence[str]) -> list[tuple[str, ...]]:
    """Return the tokens of texts, in lower case; stop words and punctuation are tokens too.

    Raises:
        InputError: one text where several were expected.

    Example:
        >>> tokenize(["The dog's ear", "red-and-white"])
        [('the', 'dog', "'s", 'ear'), ('red', '-', 'and', '-', 'white')]
    """
    if isinstance(texts, str):
        raise InputError(f"Expected a list of texts, not one text: write [{texts!r}].")
    split = _tokenizer()
    return [
        tuple(token.text.lower() for token in split(text) if not token.text.isspace())
        for text in texts
    ]


def detokenize(tokens: Sequence[str], compat: str | None = None) -> str:
    """Return tokens as a readable text.

    Args:
        tokens: of one text.
        compat: `2022` joins them as the code of 2022 did: sentences begin with a capital, and
            `'s` and brackets stand apart.

    Raises:
        InputError: `compat` is neither `2022` nor None.

    Example:
        >>> detokenize(["the", "dog", "'s", "ear", ",", "red", "-", "brown"])
        "the dog's ear, red-brown"
        >>> detokenize(["the", "dog", "'s", "ear", ",", "red", "-", "brown"], "2022")
        "The dog 's ear, red-brown"
    """
    text = " ".join(tokens)
    if compat is None:
        for pattern, replacement in _DETOKENIZATION:
            text = pattern.sub(replacement, text)
        return text.strip()
    if compat != "2022":
        raise InputError(f"compat={compat!r}; expected '2022' or None.")
    text = _NO_SPACE_2022.sub("", text).replace(" -", "-").replace("- ", "-")
    sentences = [sentence.strip().capitalize() for sentence in text.split(".")]
    return ". ".join(sentences).strip()


class Vocabulary:
    """Token ids: words in their order from 0, then start, stop, pad and unk.

    Args:
        words: distinct words.

    Raises:
        InputError: a word comes twice, or is a special token.

    Example:
        >>> Vocabulary(["red", "ball"]).encode(["red ball", "ball"]).tolist()
        [[2, 0, 1, 3], [2, 1, 3, 4]]
    """

    def __init__(self, words: Iterable[str]) -> None:
        self.words = tuple(words)
        wrong = [word for word in self.words if not isinstance(word, str) or word in SPECIALS]
        if wrong:
            raise InputError(f"{wrong[0]!r} is no word; special tokens are added by themselves.")
        self._ids = {word: i for i, word in enumerate(self.words)}
        count = len(self.words)
        if len(self._ids) != count:
            raise InputError(f"Words come twice in a vocabulary: {some(_repeated(self.words))}.")
        self.specials = (count, count + 1, count + 2, count + 3)
        self.start, self.stop, self.pad, self.unk = self.specials

    @classmethod
    def of(cls, texts: Iterable[str], least: int = 1) -> "Vocabulary":
        """Return the vocabulary of texts: most frequent words first, ties in order of appearance.

        Args:
            texts: any.
            least: smallest number of times that a word must occur.
        """
        counts = Counter(token for tokens in tokenize(list(texts)) for token in tokens)
        return cls(word for word, n in counts.most_common() if n >= least and word not in SPECIALS)

    def __len__(self) -> int:
        return len(self.words) + len(SPECIALS)

    def ids(self, tokens: Sequence[str]) -> list[int]:
        """Return the id of each token, unk for unknown ones."""
        return [self._ids.get(token, self.unk) for token in tokens]

    def encode(self, texts: Sequence[str]) -> Int64[Tensor, "text time"]:
        """Return the ids of texts, from start to stop, filled up with pad."""
        rows = [[self.start, *self.ids(tokens), self.stop] for tokens in tokenize(texts)]
        filled = torch.full((len(rows), max(map(len, rows), default=0)), self.pad)
        for index, row in enumerate(rows):
            filled[index, : len(row)] = torch.tensor(row)
        return filled

    def decode(self, ids: Sequence[int] | Int64[Tensor, " time"], compat: str | None = None) -> str:
        """Return the text of ids, up to the first stop, without special tokens.

        Args:
            ids: of one text, a list or a tensor.
            compat: see `detokenize`.

        Raises:
            InputError: an id that no token has.
        """
        numbers = [int(i) for i in ids]
        wrong = [i for i in numbers if not 0 <= i < len(self)]
        if wrong:
            raise InputError(f"No token has the id {wrong[0]}; there are {len(self):,} tokens.")
        before_stop = takewhile(lambda number: number != self.stop, numbers)
        return detokenize([self.words[i] for i in before_stop if i < len(self.words)], compat)


def _repeated(words: Sequence[str]) -> list[str]:
    return [word for word, n in Counter(words).items() if n > 1]
