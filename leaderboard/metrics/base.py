"""Base classes of metrics: a spec, and one value per unit.

There are three kinds, by what they can afford:

- `PairMetric`: all pairs of a prediction and a reference set, S (float64).
- `RowMetric`: given pairs only, row by row; S is sampled by seeded derangements.
- `TextMetric`: the predictions alone.

Means, intervals, lift and slices are computed from these values by `leaderboard.statistics`, by
one function each.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
ReferenceSets = Sequence[Sequence[str]]
Against = Literal["descriptions", "truth", "formula", "senses", "activations"]


@dataclass(frozen=True)
class MetricSpec:
    """Meaning of the numbers of a metric.

    Attributes:
        name: name with its variant; no two metrics share one.
        family: `evaluate` module that holds the metric (`leaderboard.metrics.path`).
        title: what it measures, in one line.
        low, high: range of values; None for no bound.
        direction: which values are better; None if neither.
        source: who defined it, and which implementation it agrees with.
        needs: what it needs besides the texts ("" or "model").
        corpus: whether the mean is computed on the corpus, not over units.
        chance: value of a description that knows nothing, if that is not a bound of the range.
        against: content of a reference set: the unit's annotations ("descriptions"); for synthetic
            units its truth as a phrase, as a formula, or as the formulas of its senses; or the
            key of the unit, whose activations the metric knows.
        reads: whether a prediction is the first rank alone, or all ranks, one per line.
    """

    name: str
    family: str
    title: str
    low: float | None
    high: float | None
    direction: Literal["higher", "lower"] | None
    source: str
    needs: Literal["", "model"] = ""
    corpus: bool = False
    chance: float | None = None
    against: Against = "descriptions"
    reads: Literal["first", "all"] = "first"

    @property
    def worst(self) -> float | None:
        """Value of a failed or abstained unit in `mean_all`; None if there is none."""
        if self.chance is not None:
            return self.chance
        return {"higher": self.low, "lower": self.high, None: None}[self.direction]

    @property
    def reads_formulas(self) -> bool:
        """True if references are formulas, which must not be normalised like text."""
        return self.against in ("formula", "senses")

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)


class Metric(ABC):
    """Base of all metrics: a spec, and what is fitted on references.

    Attributes:
        spec: meaning of the numbers.
        fits_on: references that `fit` is called with: all of the config, or only those that are
            evaluated (as the 2022 paper did).
    """

    spec: MetricSpec
    fits_on: Literal["config", "evaluated"] = "config"

    def fit(self, corpus: Sequence[str]) -> None:  # noqa: B027 - most metrics learn nothing
        """Fit on references, each one document (IDF tables); called before scoring."""

    def signature(self) -> str:
        """Return settings, versions and digests; numbers with equal signatures are comparable."""
        return self.spec.name


class PairMetric(Metric):
    """Base of metrics that can afford to score all pairs."""

    @abstractmethod
    def pairs(self, predictions: Sequence[str], references: ReferenceSets) -> Floats:
        """Score every prediction against every reference set.

        Args:
            predictions: normalised texts.
            references: sets of normalised texts, or of formulas.

        Returns:
            S (prediction, reference set), float64.
        """

    def rows(self, predictions: Sequence[str], references: ReferenceSets) -> Floats:
        """Score each prediction against its own reference set; return (prediction,)."""
        # the diagonals of small squares, so that few other pairs are computed
        size = 128
        blocks = [slice(start, start + size) for start in range(0, len(predictions), size)]
        values = [np.diagonal(self.pairs(predictions[b], references[b])) for b in blocks]
        return np.concatenate(values) if values else np.empty(0)


class RowMetric(Metric):
    """Base of metrics that score given pairs only.

    `rows` returns values (n,) or, for a metric of a corpus, sufficient statistics (n, m).
    """

    @abstractmethod
    def rows(self, predictions: Sequence[str], references: ReferenceSets) -> Floats:
        """Score each prediction against its own reference set."""

    def defined(self, predictions: Sequence[str], references: ReferenceSets) -> NDArray[np.bool_]:
        """Return the predictions that have a value with their own reference set, (prediction,)."""
        return np.ones(len(predictions), dtype=bool)

    def aggregate(self, sums: Floats, counts: Floats) -> Floats:
        """Compute the score of a corpus from summed rows (..., m) and numbers of rows (...)."""
        with np.errstate(invalid="ignore", divide="ignore"):
            return np.where(counts > 0, sums[..., 0] / counts, np.nan)


class TextMetric(Metric):
    """Base of metrics of the predictions alone."""

    @abstractmethod
    def values(self, predictions: Sequence[str]) -> Floats:
        """Return one value per prediction; it may depend on the other predictions."""


def distinct(items: Sequence[Any]) -> tuple[list[Any], Any]:
    """Return the distinct items, and the index of each item among them."""
    index = {item: i for i, item in enumerate(dict.fromkeys(items))}
    return list(index), np.array([index[item] for item in items], dtype=np.intp)


def reduce_sets(
    scores: Floats, columns: NDArray[np.intp], sizes: Sequence[int], how: Literal["mean", "max"]
) -> Floats:
    """Reduce columns of single references to columns of reference sets.

    Args:
        scores: (prediction, distinct reference).
        columns: column of every reference, set after set.
        sizes: number of references in each set; no set may be empty.
        how: mean or maximum over the references of a set.

    Returns:
        (prediction, set).
    """
    starts = np.cumsum([0, *sizes[:-1]]).astype(np.intp)
    reduced = np.empty((len(scores), len(sizes)))
    ufunc = np.add if how == "mean" else np.maximum
    # in blocks of rows, because gathering the columns copies them
    for start in range(0, len(scores), 256):
        block = slice(start, start + 256)
        reduced[block] = ufunc.reduceat(scores[block][:, columns], starts, axis=1)
    return reduced / np.asarray(sizes) if how == "mean" else reduced
