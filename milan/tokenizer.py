"""Words: how descriptions are cut into tokens, numbered, and put together again.

Tokens are those of spaCy's English rules, in lower case, as in the code of Hernandez et al.
2022; the rules need no model and nothing is downloaded.
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

_RULES = [
    # what stands close to the word before it, and to the one after it
    (
        re.compile(
            r" (?=(?:[.,;:!?)\]}%\u201d]|\.{2,}|['\u2019](?:s|re|ve|ll|d|m)|n['\u2019]t)(?: |$))"
        ),
        "",
    ),
    (re.compile(r"(?<![^ ])([(\[{#$\u00a3\u20ac\u201c\u2018]) "), r"\1"),
    (re.compile(r"(?<=s) (['\u2019])(?= |$)"), r"\1"),
    (re.compile(r"(?<=\w) ?([-\u2013\u2014/]) ?(?=\w)"), r"\1"),
    (re.compile(r"\b(can|gon|wan|got) (?=not\b|na\b|ta\b)"), r"\1"),
    (re.compile(r"(?<![^ ])(['\"]) ([^'\"]*) \1(?= |$|[.,;:!?)\]}])"), r"\1\2\1"),
    (re.compile(r" (['\u2019])(?=$|[.,;:!?)\]}])"), r"\1"),
]
_JOINED_2022 = re.compile(r" (?=[.,;:])")


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
        raise InputError(f"Several texts were expected, not one; write [{texts!r}].")
    cut = _tokenizer()
    return [
        tuple(token.text.lower() for token in cut(text) if not token.text.isspace())
        for text in texts
    ]


def detokenize(tokens: Sequence[str], compat: str | None = None) -> str:
    """Return tokens as a text that people read.

    Args:
        tokens: of one text.
        compat: `2022` puts them together as the code of 2022 did: sentences begin with a
            capital, `'s` and brackets stand apart.

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
        for pattern, instead in _RULES:
            text = pattern.sub(instead, text)
        return text.strip()
    if compat != "2022":
        raise InputError(f"compat='{compat}' was asked for; expected 2022 or None.")
    text = _JOINED_2022.sub("", text).replace(" -", "-").replace("- ", "-")
    sentences = [sentence.strip().capitalize() for sentence in text.split(".")]
    return ". ".join(sentences).strip()


class Vocabulary:
    """Numbers of words: those of `words` in order, then start, stop, pad and unk.

    Args:
        words: each once.

    Raises:
        InputError: a word twice, or one that is a special token.

    Example:
        >>> Vocabulary(["red", "ball"]).encode(["red ball", "ball"]).tolist()
        [[2, 0, 1, 3], [2, 1, 3, 4]]
    """

    def __init__(self, words: Iterable[str]) -> None:
        self.words = tuple(words)
        wrong = [word for word in self.words if not isinstance(word, str) or word in SPECIALS]
        if wrong:
            raise InputError(f"{wrong[0]!r} is no word; special tokens follow of themselves.")
        self._ids = {word: i for i, word in enumerate(self.words)}
        count = len(self.words)
        if len(self._ids) != count:
            raise InputError(f"Words stand twice in a vocabulary: {some(_repeated(self.words))}.")
        self.specials = (count, count + 1, count + 2, count + 3)
        self.start, self.stop, self.pad, self.unk = self.specials

    @classmethod
    def of(cls, texts: Iterable[str], least: int = 1) -> "Vocabulary":
        """Return the words of texts, the commonest first, as first seen where as common.

        Args:
            texts: any.
            least: how often a word is to come.
        """
        counts = Counter(token for tokens in tokenize(list(texts)) for token in tokens)
        return cls(word for word, n in counts.most_common() if n >= least and word not in SPECIALS)

    def __len__(self) -> int:
        return len(self.words) + len(SPECIALS)

    def ids(self, tokens: Sequence[str]) -> list[int]:
        """Return the number of each token; that of unk for one that is not known."""
        return [self._ids.get(token, self.unk) for token in tokens]

    def encode(self, texts: Sequence[str]) -> Int64[Tensor, "text time"]:
        """Return the numbers of texts, from start to stop, filled up with pad."""
        rows = [[self.start, *self.ids(tokens), self.stop] for tokens in tokenize(texts)]
        filled = torch.full((len(rows), max(map(len, rows), default=0)), self.pad)
        for place, row in enumerate(rows):
            filled[place, : len(row)] = torch.tensor(row)
        return filled

    def decode(self, ids: Sequence[int] | Int64[Tensor, " time"], compat: str | None = None) -> str:
        """Return the text of numbers, up to the first stop, special tokens left out.

        Args:
            ids: of one text, a list or a tensor.
            compat: see `detokenize`.

        Raises:
            InputError: a number that no token has.
        """
        numbers = [int(i) for i in ids]
        wrong = [i for i in numbers if not 0 <= i < len(self)]
        if wrong:
            raise InputError(f"No token has the number {wrong[0]}; there are {len(self):,}.")
        said = takewhile(lambda number: number != self.stop, numbers)
        return detokenize([self.words[i] for i in said if i < len(self.words)], compat)


def _repeated(words: Sequence[str]) -> list[str]:
    return [word for word, n in Counter(words).items() if n > 1]
