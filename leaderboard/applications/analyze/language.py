"""Scores of descriptions: counts of word classes, length, parse depth, and spread of words.

Hernandez et al. 2022, section 5, parsed descriptions with a spaCy pipeline. Where one is installed
it is used; otherwise a list of words with their classes, of the mini world or the user's own, with
a rule for the depth of words. A run uses one of the two, and its record says which: their counts
differ and cannot be compared.
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
"""Word classes, named as universal parts of speech; X is an unknown word."""

COUNTED = {"nouns": "NOUN", "verbs": "VERB", "adpositions": "ADP", "adjectives": "ADJ"}
"""Scores that count the words of a class."""

SCORES = (*COUNTED, "length", "parse-depth", "word-difference")
"""Scores of a description; `similarity:WORD` is added for given words.

`length` is in tokens, including punctuation; `parse-depth` counts the levels below the root;
`word-difference` is the largest squared distance between the vectors of two words (as in 2022).
"""

MINI = Path(__file__).with_name("mini_words.csv")
"""Word list of the mini world."""

SPACY = ("en_core_web_lg", "en_core_web_md", "en_core_web_sm")
"""spaCy pipelines in order of preference; the first is the paper's."""


class Language(Protocol):
    """Protocol of a way to score descriptions."""

    @property
    def source(self) -> dict[str, Any]:
        """Name, version and digest, for the record."""

    def scores(
        self, texts: Sequence[str], similar_to: Sequence[str] = ()
    ) -> dict[str, NDArray[np.float64]]:
        """Return the available scores of descriptions by name, each float64 (text,).

        Args:
            texts: descriptions.
            similar_to: words to compare descriptions with.
        """


def open_language(name: str | None = None) -> Language:
    """Open a spaCy pipeline or a word list.

    Args:
        name: name of an installed spaCy pipeline, or its folder; `mini`, the words of the mini
            world; a CSV with the columns `word` and `class`; None takes the first of `SPACY` that
            is installed.

    Raises:
        InputError: no pipeline is installed; no such pipeline or file; another file format.
    """
    if name is None:
        name = next((package for package in SPACY if find_spec(package)), None)
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
    return SpacyLanguage(name)


class SpacyLanguage:
    """Scores from a spaCy pipeline with tagger and parser.

    Args:
        name: name of an installed package, or a folder that spaCy wrote.

    Raises:
        InputError: the pipeline cannot be opened, or lacks a tagger or a parser.
    """

    def __init__(self, name: str) -> None:
        import spacy

        try:
            self.nlp = spacy.load(name)
        except (OSError, ValueError, ImportError) as error:
            raise InputError(
                f"No spaCy pipeline '{name}' can be opened: {str(error).splitlines()[0]}"
                f"{did_you_mean(name, (*SPACY, 'mini'))} The file of a word list ends in .csv."
            ) from None
        probe = self.nlp("the red face of a dog")
        if not probe.has_annotation("DEP") or not any(token.pos_ for token in probe):
            raise InputError(
                f"The spaCy pipeline '{name}' ({', '.join(self.nlp.pipe_names) or 'empty'}) gives "
                "no parts of speech and dependencies; expected one with a tagger and a parser."
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
        distinct = dict.fromkeys(texts)  # many units share a description, and parsing is slow
        docs_by_text = dict(zip(distinct, self.nlp.pipe(distinct), strict=True))
        docs = [docs_by_text[text] for text in texts]
        scores = {
            name: np.array([sum(t.pos_ == kind for t in doc) for doc in docs], dtype=np.float64)
            for name, kind in COUNTED.items()
        }
        scores["length"] = np.array([len(doc) for doc in docs], dtype=np.float64)
        scores["parse-depth"] = np.array([_tree_depth(doc) for doc in docs], dtype=np.float64)
        if len(self.nlp.vocab.vectors):
            vectors = [[t.vector for t in doc if t.has_vector] for doc in docs]
            targets = {word: self.nlp(word).vector for word in similar_to}
            scores |= _vector_scores(vectors, targets)
        return scores


def _tree_depth(doc: Any) -> int:
    """Return the number of levels below the last root, as in 2022."""
    roots = [token for token in doc if token.head == token]

    def below(token: Any) -> int:
        return max((1 + below(child) for child in token.children), default=0)

    return below(roots[-1]) if roots else 0


@dataclass(frozen=True)
class WordList:
    """Scores from a list of words with their classes, and a rule for the depth of each word.

    The rule is that of English noun phrases which branch to the right: the first noun is the root;
    an adposition is below the noun before it, and its noun below the adposition; the same for a
    verb and what follows it; every other word is below the noun that follows it, or else the one
    before.

    Args:
        name: name for the record.
        path: CSV with columns `word` and `class`, one of `CLASSES`.
        vectors: vectors of words; without them there is no `word-difference` and no similarity.

    Raises:
        InputError: a file of other columns, or an unknown class.

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
        object.__setattr__(self, "_classes", _read_classes(self.path))

    @property
    def classes(self) -> dict[str, str]:
        """Class of each word."""
        classes: dict[str, str] = self._classes  # type: ignore[attr-defined]
        return classes

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
        rows = [tokenize(text) for text in texts]
        # the classes of words; punctuation has none
        kinds = [
            [self.classes.get(token, "X") for token in row if token.isalnum() or "'" in token]
            for row in rows
        ]
        scores = {
            name: np.array([row.count(kind) for row in kinds], dtype=np.float64)
            for name, kind in COUNTED.items()
        }
        scores["length"] = np.array([len(row) for row in rows], dtype=np.float64)
        scores["parse-depth"] = np.array([_phrase_depth(row) for row in kinds], dtype=np.float64)
        if self.vectors is not None:
            for word in similar_to:
                if word not in self.vectors:
                    raise InputError(
                        f"The words of '{self.name}' lack '{word}', which descriptions were to be "
                        f"compared with.{did_you_mean(word, self.vectors)}"
                    )
            vectors = [[self.vectors[t] for t in row if t in self.vectors] for row in rows]
            scores |= _vector_scores(vectors, {word: self.vectors[word] for word in similar_to})
        return scores

    def unknown(self, texts: Iterable[str]) -> list[str]:
        """Return the words of texts that the list lacks, the most frequent first."""
        counts = Counter(
            token
            for text in texts
            for token in tokenize(text)
            if token.isalnum() and token not in self.classes
        )
        return [word for word, _ in counts.most_common()]


def tokenize(text: str) -> list[str]:
    """Split a text into words and punctuation marks, in lower case.

    Example:
        >>> tokenize("Eyes, and a person's nose")
        ['eyes', ',', 'and', 'a', "person's", 'nose']
    """
    return re.findall(r"[^\W_]+(?:'[^\W_]+)?|[^\w\s]", text.lower())


def _phrase_depth(kinds: Sequence[str]) -> int:
    """Return the number of levels below the root, by the rule of `WordList`.

    Args:
        kinds: class of each word.
    """
    deepest = level = 0  # `level` is the depth of the next noun
    seen_noun = False
    for i, kind in enumerate(kinds):
        if kind in ("NOUN", "PRON"):
            deepest, seen_noun = max(deepest, level), True
        elif kind == "ADP" and i and kinds[i - 1] == "ADP":
            continue  # "next to" counts as one adposition
        elif kind in ("ADP", "VERB"):
            # One level below the noun before it. After a verb, the level is already that of what
            # the verb governs.
            level += 1 if (seen_noun or level) and kinds[i - 1] != "VERB" else 0
            deepest = max(deepest, level)
            level += 1  # its own noun is below it
        else:
            has_noun_after = any(k in ("NOUN", "PRON") for k in kinds[i + 1 :])
            deepest = max(deepest, level + (1 if has_noun_after or seen_noun else 0))
    return deepest


def _read_classes(path: Path) -> dict[str, str]:
    table = TextTable(path)
    if not {"word", "class"} <= set(table.columns):
        raise InputError(f"{path} has the columns {', '.join(table.columns)}; expected word,class.")
    classes = {}
    for line, row in table:
        word, kind = row["word"].strip().lower(), row["class"].strip().upper()
        if kind not in CLASSES:
            raise InputError(
                f"{path}, line {line}: class '{row['class']}'; expected one of "
                f"{', '.join(CLASSES)}."
            )
        classes[word] = kind
    return classes


@cache
def _mini_vectors() -> dict[str, NDArray[np.float64]]:
    """Return vectors of the mini world's words from their co-occurrence in training descriptions.

    Positive pointwise mutual information with every other word, normalized to unit length
    (Bullinaria and Levy 2007): the mini world has no corpus to train other vectors on.
    """
    from milannotations.editions import loading

    rows = loading.load("mini", split="train", columns=["descriptions"])["descriptions"]
    documents = [sorted(set(tokenize(text))) for texts in rows for text in texts]
    counts = Counter(word for document in documents for word in document if word.isalpha())
    words = sorted(word for word, count in counts.items() if count > 1)
    index = {word: i for i, word in enumerate(words)}
    present = np.zeros((len(documents), len(words)))
    for i, document in enumerate(documents):
        present[i, [index[word] for word in document if word in index]] = 1
    together = present.T @ present  # documents with both words (word, word)
    np.fill_diagonal(together, 0)
    alone = present.sum(0)
    with np.errstate(divide="ignore"):  # log 0 of words that are never together: -inf, then 0
        information = np.log(together * len(documents) / np.outer(alone, alone))
    vectors = np.maximum(information, 0)
    lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
    vectors /= np.where(lengths > 0, lengths, 1)
    return dict(zip(words, vectors, strict=True))


def _vector_scores(
    vectors: Sequence[Sequence[NDArray[Any]]], targets: Mapping[str, NDArray[Any]]
) -> dict[str, NDArray[np.float64]]:
    """Return the scores from word vectors.

    Args:
        vectors: vectors of the words of each text.
        targets: vectors of words to compare texts with.
    """
    return {
        "word-difference": np.array([_largest_difference(words) for words in vectors]),
        **{
            f"similarity:{word}": np.array([_cosine(words, target) for words in vectors])
            for word, target in targets.items()
        },
    }


def _largest_difference(vectors: Sequence[NDArray[Any]]) -> float:
    """Return the largest squared distance between two vectors; 0 for fewer than two."""
    if len(vectors) < 2:
        return 0.0
    matrix = np.asarray(vectors, dtype=np.float64)
    # |a - b|^2 = |a|^2 + |b|^2 - 2 a.b for all pairs at once
    squares = (matrix**2).sum(1)
    distances = squares[:, None] + squares[None] - 2 * matrix @ matrix.T
    return float(np.maximum(distances, 0).max().round(9))


def _cosine(vectors: Sequence[NDArray[Any]], target: NDArray[Any]) -> float:
    """Return the cosine of the mean of vectors with a target; 0 without vectors."""
    if not len(vectors):
        return 0.0
    mean = np.mean(np.asarray(vectors, dtype=np.float64), axis=0)
    lengths = float(np.linalg.norm(mean) * np.linalg.norm(target))
    return round(float(mean @ target) / lengths, 9) if lengths > 0 else 0.0
