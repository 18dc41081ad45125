"""What is counted in a description: its words by class, its length, its depth, its spread.

Hernandez et al. 2022, section 5, parsed descriptions with a spaCy pipeline. Where one is installed
it is used; otherwise a list of words with their classes, of the mini world or the user's own, with
a rule for how deep words stand. One run goes by one of the two, and its record says which: their
counts are not the same and are never mixed.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from milannotations.errors import InputError, did_you_mean
from milannotations.utils.files import TextTable, sha256

CLASSES = ("NOUN", "VERB", "ADP", "ADJ", "DET", "ADV", "PRON", "NUM", "CCONJ", "SCONJ", "X")
"""Classes of words, as universal parts of speech call them; X is a word that is not known."""

COUNTED = {"nouns": "NOUN", "verbs": "VERB", "adpositions": "ADP", "adjectives": "ADJ"}

SCORES = (*COUNTED, "length", "parse-depth", "word-difference")
"""What is counted; `similarity:WORD` is added for given words.

`length` is in tokens, punctuation among them; `parse-depth` counts the levels below the root;
`word-difference` is the largest squared distance between the vectors of two words (2022's).
"""

MINI = Path(__file__).with_name("mini_words.csv")
SPACY = ("en_core_web_lg", "en_core_web_md", "en_core_web_sm")
"""Pipelines in the order in which they are looked for; the paper's first."""


class Language(Protocol):
    """Counts words in descriptions, in one way."""

    @property
    def source(self) -> dict[str, Any]:
        """What it is, for records."""

    def scores(
        self, texts: Sequence[str], similar_to: Sequence[str] = ()
    ) -> dict[str, NDArray[np.float64]]:
        """Return the scores of descriptions by name, each (text,); those that it can give.

        Args:
            texts: descriptions.
            similar_to: words that descriptions are compared with.
        """


def open_language(name: str | None = None) -> Language:
    """Return a way to count words.

    Args:
        name: of an installed spaCy pipeline, or its folder; `mini`, the words of the mini world;
            a CSV with the columns `word` and `class`; None takes the first of `SPACY` that is
            installed.

    Raises:
        InputError: none is installed; no such pipeline or file; a file of something else.
    """
    if name is None:
        name = next((each for each in SPACY if find_spec(each)), None)
        if name is None:
            raise InputError(
                f"No spaCy pipeline is installed ({', '.join(SPACY)}). Install one (python -m "
                "spacy download en_core_web_sm), or give a list of words: --language words.csv "
                "with the columns word,class, or --language mini for the mini world."
            )
    if name == "mini":
        return WordList("mini", MINI, vectors=_mini_vectors())
    if name.endswith(".csv"):
        return WordList(Path(name).name, Path(name))
    return Parser(name)


# ---- spaCy


class Parser:
    """A spaCy pipeline with tagger and parser.

    Args:
        name: of an installed package, or a folder that spaCy wrote.

    Raises:
        InputError: it cannot be opened, or tags no parts of speech or parses nothing.
    """

    def __init__(self, name: str) -> None:
        import spacy

        try:
            self.nlp = spacy.load(name)
        except (OSError, ValueError, ImportError) as error:
            raise InputError(
                f"No spaCy pipeline '{name}' can be opened: {str(error).splitlines()[0]}"
                f"{did_you_mean(name, (*SPACY, 'mini'))} A list of words ends in .csv."
            ) from None
        first = self.nlp("the red face of a dog")
        if not first.has_annotation("DEP") or not any(token.pos_ for token in first):
            raise InputError(
                f"The spaCy pipeline '{name}' ({', '.join(self.nlp.pipe_names) or 'empty'}) gives "
                "no parts of speech and dependencies; one with a tagger and a parser was expected."
            )

    @property
    def source(self) -> dict[str, Any]:
        meta = self.nlp.meta
        return {
            "kind": "spacy",
            "name": f"{meta['lang']}_{meta['name']}",
            "version": meta["version"],
            "vectors": len(self.nlp.vocab.vectors),
        }

    def scores(
        self, texts: Sequence[str], similar_to: Sequence[str] = ()
    ) -> dict[str, NDArray[np.float64]]:
        parsed = dict.fromkeys(texts)
        docs = dict(zip(parsed, self.nlp.pipe(parsed), strict=True))
        rows = [docs[text] for text in texts]
        made = {
            name: np.array([sum(t.pos_ == kind for t in doc) for doc in rows], dtype=np.float64)
            for name, kind in COUNTED.items()
        }
        made["length"] = np.array([len(doc) for doc in rows], dtype=np.float64)
        made["parse-depth"] = np.array([_tree_depth(doc) for doc in rows], dtype=np.float64)
        if len(self.nlp.vocab.vectors):
            vectors = [[t.vector for t in doc if t.has_vector] for doc in rows]
            made["word-difference"] = np.array([_largest_difference(own) for own in vectors])
            for word in similar_to:
                target = self.nlp(word).vector
                made[f"similarity:{word}"] = np.array([_cosine(own, target) for own in vectors])
        return made


def _tree_depth(doc: Any) -> int:
    """Return the number of levels below the last root, as 2022's."""
    roots = [token for token in doc if token.head == token]

    def below(token: Any) -> int:
        return max((1 + below(child) for child in token.children), default=0)

    return below(roots[-1]) if roots else 0


# ---- words of a list


@dataclass(frozen=True)
class WordList:
    """Words with their classes, and a rule for how deep each stands.

    The rule is of English noun phrases that branch to the right: the first noun is the root; an
    adposition stands below the noun before it and its noun below the adposition; a verb, and what
    follows it, likewise; all other words stand below the noun that follows them, or else the one
    before.

    Args:
        name: for records.
        path: CSV with `word` and `class`, which is one of `CLASSES`.
        vectors: of words; without them there is no `word-difference` and no similarity.

    Raises:
        InputError: a file of something else, or an unknown class.

    Example:
        >>> words = open_language("mini")
        >>> {name: float(v[0]) for name, v in words.scores(["red circles next to a star"]).items()
        ...  if name in ("nouns", "adjectives", "adpositions", "parse-depth")}
        {'nouns': 2.0, 'adpositions': 2.0, 'adjectives': 1.0, 'parse-depth': 3.0}
    """

    name: str
    path: Path
    vectors: Mapping[str, NDArray[np.float64]] | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "_classes", _read(self.path))

    @property
    def classes(self) -> dict[str, str]:
        """The class of each word."""
        found: dict[str, str] = self._classes  # type: ignore[attr-defined]
        return found

    @property
    def source(self) -> dict[str, Any]:
        return {
            "kind": "words",
            "name": self.name,
            "sha256": sha256(self.path),
            "words": len(self.classes),
            "vectors": len(self.vectors or ()),
        }

    def scores(
        self, texts: Sequence[str], similar_to: Sequence[str] = ()
    ) -> dict[str, NDArray[np.float64]]:
        rows = [tokens(text) for text in texts]
        kinds = [[self.classes.get(token, "X") for token in row if token.isalnum() or "'" in token]
                 for row in rows]  # fmt: skip
        made = {
            name: np.array([row.count(kind) for row in kinds], dtype=np.float64)
            for name, kind in COUNTED.items()
        }
        made["length"] = np.array([len(row) for row in rows], dtype=np.float64)
        made["parse-depth"] = np.array([_depth(row) for row in kinds], dtype=np.float64)
        if self.vectors is not None:
            known = [[self.vectors[t] for t in row if t in self.vectors] for row in rows]
            made["word-difference"] = np.array([_largest_difference(own) for own in known])
            for word in similar_to:
                if word not in self.vectors:
                    raise InputError(
                        f"The words of '{self.name}' lack '{word}', which descriptions were to be "
                        f"compared with.{did_you_mean(word, self.vectors)}"
                    )
                target = self.vectors[word]
                made[f"similarity:{word}"] = np.array([_cosine(own, target) for own in known])
        return made

    def unknown(self, texts: Iterable[str]) -> list[str]:
        """Return words that the list lacks, the commonest first."""
        counts = Counter(
            token
            for text in texts
            for token in tokens(text)
            if token.isalnum() and token not in self.classes
        )
        return [word for word, _ in counts.most_common()]


def tokens(text: str) -> list[str]:
    """Return words and marks of punctuation, in lower case.

    Example:
        >>> tokens("Eyes, and a person's nose")
        ['eyes', ',', 'and', 'a', "person's", 'nose']
    """
    return re.findall(r"[^\W_]+(?:'[^\W_]+)?|[^\w\s]", text.lower())


def _depth(kinds: Sequence[str]) -> int:
    """Return the number of levels below the root, by the rule of `WordList`."""
    deepest = level = 0  # where the next noun stands
    seen = False  # any noun yet
    for place, kind in enumerate(kinds):
        if kind in ("NOUN", "PRON"):
            deepest, seen = max(deepest, level), True
        elif kind == "ADP" and place and kinds[place - 1] == "ADP":
            continue  # "next to" is one
        elif kind in ("ADP", "VERB"):
            # below the noun before it, or below the verb right before it
            level += 1 if (seen or level) and kinds[place - 1] != "VERB" else 0
            deepest = max(deepest, level)
            level += 1
        else:
            following = any(k in ("NOUN", "PRON") for k in kinds[place + 1 :])
            deepest = max(deepest, level + (1 if following or seen else 0))
    return deepest


def _read(path: Path) -> dict[str, str]:
    table = TextTable(path)
    if not {"word", "class"} <= set(table.columns):
        raise InputError(
            f"{path} has the columns {', '.join(table.columns)}; word,class was expected."
        )
    found = {}
    for line, row in table:
        word, kind = row["word"].strip().lower(), row["class"].strip().upper()
        if kind not in CLASSES:
            raise InputError(
                f"{path}, line {line}: class '{row['class']}'; expected one of "
                f"{', '.join(CLASSES)}."
            )
        found[word] = kind
    return found


@cache
def _mini_vectors() -> dict[str, NDArray[np.float64]]:
    """Return vectors of the mini world's words: what they stand beside in training descriptions.

    Positive pointwise mutual information with every other word, of unit length (Bullinaria and
    Levy 2007): the mini world has no corpus to learn others from.
    """
    from milannotations.editions import loading

    rows = loading.load("mini", split="train", columns=["descriptions"])["descriptions"]
    documents = [sorted(set(tokens(text))) for texts in rows for text in texts]
    counts = Counter(word for document in documents for word in document if word.isalpha())
    words = sorted(word for word, count in counts.items() if count > 1)
    place = {word: i for i, word in enumerate(words)}
    present = np.zeros((len(documents), len(words)))
    for i, document in enumerate(documents):
        present[i, [place[word] for word in document if word in place]] = 1
    together = present.T @ present
    np.fill_diagonal(together, 0)
    alone = present.sum(0)
    with np.errstate(divide="ignore"):
        information = np.log(together * len(documents) / np.outer(alone, alone))
    vectors = np.maximum(information, 0)
    lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
    vectors /= np.where(lengths > 0, lengths, 1)
    return dict(zip(words, vectors, strict=True))


def _largest_difference(vectors: Sequence[NDArray[Any]]) -> float:
    """Return the largest squared distance between two vectors; 0 of fewer than two."""
    if len(vectors) < 2:
        return 0.0
    own = np.asarray(vectors, dtype=np.float64)
    lengths = (own**2).sum(1)
    between = lengths[:, None] + lengths[None] - 2 * own @ own.T
    return float(np.maximum(between, 0).max().round(9))


def _cosine(vectors: Sequence[NDArray[Any]], target: NDArray[Any]) -> float:
    """Return the cosine of the mean of vectors with another; 0 of none."""
    if not len(vectors):
        return 0.0
    mean = np.mean(np.asarray(vectors, dtype=np.float64), axis=0)
    size = float(np.linalg.norm(mean) * np.linalg.norm(target))
    return round(float(mean @ target) / size, 9) if size > 0 else 0.0
