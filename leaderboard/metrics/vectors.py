"""Metrics of texts as vectors: TF-IDF and sentence embeddings."""

from __future__ import annotations

import hashlib
from abc import abstractmethod
from collections.abc import Sequence
from functools import cached_property
from importlib.metadata import version
from typing import Any

import numpy as np

from leaderboard.metrics.base import (
    Floats,
    MetricSpec,
    PairMetric,
    ReferenceSets,
    distinct,
)
from leaderboard.metrics.text import RowCache
from leaderboard.metrics.text_models import TextModel


class VectorMetric(PairMetric):
    """Base of metrics by cosine similarity with each reference, mean over the references.

    The mean of dot products is the dot product with the mean vector, so all pairs take one matrix
    product.
    """

    def __init__(self) -> None:
        self._cache = RowCache(self._encode)

    @abstractmethod
    def _encode(self, texts: list[str]) -> Any:
        """Return one vector of length 1 per text (rows of an array or a sparse matrix)."""

    def vectors(self, texts: Sequence[str]) -> Floats:
        """Return the vector of each text (text, dimension)."""
        return np.stack(self._cache.get(texts)).astype(np.float64)

    def pairs(self, predictions: Sequence[str], references: ReferenceSets) -> Floats:
        # encode everything in one call, then read the cache
        self._cache.rows([*predictions, *(text for texts in references for text in texts)])
        means = np.stack([self.vectors(texts).mean(axis=0) for texts in references])
        # equal predictions must be equal to the last bit, so each is multiplied once
        texts, rows = distinct(predictions)
        scores: Floats = self.vectors(texts) @ means.T
        return scores[rows]


class Tfidf(VectorMetric):
    """`tfidf`: cosine of scikit-learn's default TF-IDF vectors.

    Fitted once on all references of the config, each reference one document.
    """

    spec = MetricSpec(
        name="tfidf",
        family="tfidf",
        title="cosine of TF-IDF vectors, mean over references",
        low=0.0,
        high=1.0,
        direction="higher",
        source="scikit-learn's TfidfVectorizer",
    )

    def __init__(self) -> None:
        super().__init__()
        self._vectorizer: Any = None
        self._digest = "unfitted"

    def fit(self, corpus: Sequence[str]) -> None:
        from sklearn.feature_extraction.text import TfidfVectorizer

        self._cache = RowCache(self._encode)
        self._vectorizer = TfidfVectorizer()
        try:
            self._vectorizer.fit(corpus)
        except ValueError:  # the references have no word of two letters, so nothing can match
            self._vectorizer.fit(["nothing"])
        table = sorted(self._vectorizer.vocabulary_.items())
        digest = hashlib.sha256(repr(table).encode())
        digest.update(self._vectorizer.idf_.astype("<f8").round(12).tobytes())
        self._digest = digest.hexdigest()[:12]

    def signature(self) -> str:
        return f"{self.spec.name}|scikit-learn:{version('scikit-learn')}|idf:{self._digest}"

    def _encode(self, texts: list[str]) -> Any:
        """Return (columns, values) of each text's row of the sparse TF-IDF matrix."""
        rows = self._vectorizer.transform(texts)
        ends = rows.indptr[1:-1]
        return zip(np.split(rows.indices, ends), np.split(rows.data, ends), strict=True)

    def _matrix(self, texts: Sequence[str]) -> Any:
        """Return the TF-IDF vectors of texts as the rows of a sparse matrix."""
        from scipy.sparse import csr_matrix

        columns, values = zip(*self._cache.get(texts), strict=True)
        ends = np.cumsum([0, *map(len, columns)])
        shape = (len(texts), len(self._vectorizer.vocabulary_))
        return csr_matrix((np.concatenate(values), np.concatenate(columns), ends), shape=shape)

    def pairs(self, predictions: Sequence[str], references: ReferenceSets) -> Floats:
        from scipy.sparse import csr_matrix

        texts, rows = distinct(predictions)
        known, columns = distinct([text for texts in references for text in texts])
        # the mean over references is a sparse matrix too: one row per reference set, with 1/size
        # at its references
        weights = [1 / len(texts) for texts in references for _ in texts]
        ends = np.cumsum([0, *map(len, references)])
        average = csr_matrix((weights, columns, ends), shape=(len(references), len(known)))
        scores = (self._matrix(texts) @ (average @ self._matrix(known)).T).toarray()
        return scores[rows]


class Embedding(VectorMetric):
    """`embedding@MODEL`: cosine of sentence embeddings, mean over references.

    Any sentence-transformers model or folder.
    """

    def __init__(self, model: TextModel) -> None:
        super().__init__()
        self._model = model
        self.spec = MetricSpec(
            name=f"embedding@{model.label}",
            family="embedding",
            title="cosine of sentence embeddings, mean over references",
            low=-1.0,
            high=1.0,
            direction="higher",
            source="Reimers and Gurevych 2019; sentence-transformers",
            needs="model",
        )

    @cached_property
    def _encoder(self) -> Any:
        return self._model.sentence_encoder()

    def signature(self) -> str:
        return (
            f"{self.spec.name}|sentence-transformers:{version('sentence-transformers')}"
            f"|weights:{self._model.digest}"
        )

    def _encode(self, texts: list[str]) -> Any:
        return self._encoder.encode(
            texts, batch_size=64, normalize_embeddings=True, show_progress_bar=False
        )
