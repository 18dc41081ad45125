"""What a metric is: a spec, and one value per unit.

Three kinds, by what they can afford:

- `PairMetric`: all pairs of a prediction and a reference set, S (float64).
- `RowMetric`: given pairs only, row by row; S is sampled by seeded derangements.
- `TextMetric`: looks at the predictions alone.

Means, intervals, lift and slices are made elsewhere, from these values, by one
function each (`leaderboard.statistics`).
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
    """What a number under this name means.

    Attributes:
        name: name with its variant; two metrics never share one.
        family: the `evaluate` module that holds it (`leaderboard.metrics.path`).
        title: what it measures, in a line.
        low, high: the range; None where there is no bound.
        direction: which way is better; None for a plain description.
        source: who defined it, and whose implementation it agrees with.
        needs: what must be at hand beyond the texts ("" or "model").
        corpus: True if its mean is computed on the corpus, not over units.
        chance: what not knowing scores, where that is not an end of the range.
        against: what a reference set is: a unit's descriptions; of synthetic units alone, its
            truth as a phrase, as a formula, or as the formulas of its senses; or the key of the
            unit, of which the metric knows the activations.
        reads: whether a prediction is the first rank alone or all of them, a line each.
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
        """Value of a failed or abstained unit in `mean_all`; None where there is none."""
        if self.chance is not None:
            return self.chance
        return {"higher": self.low, "lower": self.high, None: None}[self.direction]

    @property
    def reads_formulas(self) -> bool:
        """Whether references are formulas, which are no text to normalise."""
        return self.against in ("formula", "senses")

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)


class Metric(ABC):
    """A spec beside a function; `fit` freezes what is learned from references.

    `fits_on` says from which: all of the config, or those that are evaluated (2022).
    """

    spec: MetricSpec
    fits_on: Literal["config", "evaluated"] = "config"

    def fit(self, corpus: Sequence[str]) -> None:  # noqa: B027 - most metrics learn nothing
        """Learn from references, each one document (IDF tables); called before scoring."""

    def signature(self) -> str:
        """Return settings, versions and digests: equal signatures, comparable numbers."""
        return self.spec.name


class PairMetric(Metric):
    """A metric that can afford every prediction against every reference set."""

    @abstractmethod
    def pairs(self, predictions: Sequence[str], references: ReferenceSets) -> Floats:
        """Return S, float64, prediction x reference set. Texts are normalised already."""

    def rows(self, predictions: Sequence[str], references: ReferenceSets) -> Floats:
        """Return S_ii, one value per prediction and its own reference set."""
        size = 128  # the diagonal of small squares: little is computed beside it
        blocks = [slice(start, start + size) for start in range(0, len(predictions), size)]
        values = [np.diagonal(self.pairs(predictions[b], references[b])) for b in blocks]
        return np.concatenate(values) if values else np.empty(0)


class RowMetric(Metric):
    """A metric of given pairs: `rows` are values (n,) or, on a corpus, statistics (n, m)."""

    @abstractmethod
    def rows(self, predictions: Sequence[str], references: ReferenceSets) -> Floats:
        """Return one row per prediction and its own reference set."""

    def defined(self, predictions: Sequence[str], references: ReferenceSets) -> NDArray[np.bool_]:
        """Return which predictions can have a value with their own reference set: (prediction,)."""
        return np.ones(len(predictions), dtype=bool)

    def aggregate(self, sums: Floats, counts: Floats) -> Floats:
        """Return the score of a corpus from its summed rows (..., m) and counts (...)."""
        with np.errstate(invalid="ignore", divide="ignore"):
            return np.where(counts > 0, sums[..., 0] / counts, np.nan)


class TextMetric(Metric):
    """A metric of the predictions alone."""

    @abstractmethod
    def values(self, predictions: Sequence[str]) -> Floats:
        """Return one value per prediction, given all of them."""


def distinct(items: Sequence[Any]) -> tuple[list[Any], Any]:
    """Return the distinct items and, for each item, its place among them."""
    place = {item: i for i, item in enumerate(dict.fromkeys(items))}
    return list(place), np.array([place[item] for item in items], dtype=np.intp)


def reduce_sets(
    scores: Floats, columns: NDArray[np.intp], sizes: Sequence[int], how: Literal["mean", "max"]
) -> Floats:
    """Reduce columns of single references to columns of reference sets.

    Args:
        scores: (prediction, distinct reference).
        columns: the column of every reference, set after set.
        sizes: number of references in each set; none may be empty.
        how: mean over a set's references, or their maximum.

    Returns:
        (prediction, set).
    """
    starts = np.cumsum([0, *sizes[:-1]]).astype(np.intp)
    reduced = np.empty((len(scores), len(sizes)))
    ufunc = np.add if how == "mean" else np.maximum
    for start in range(0, len(scores), 256):  # bounds the gathered copy
        block = slice(start, start + 256)
        reduced[block] = ufunc.reduceat(scores[block][:, columns], starts, axis=1)
    return reduced / np.asarray(sizes) if how == "mean" else reduced
