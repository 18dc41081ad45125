"""Metrics of repetition and length: of the predictions alone."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import numpy as np

from leaderboard.metrics.base import Floats, MetricSpec, TextMetric
from leaderboard.metrics.text import n_words

N_MOST_COMMON = 10
"""Number of most common descriptions in `top10-share`."""


class Distinct(TextMetric):
    """`distinct`: 1 over the number of units with the same description.

    The mean over units is the number of distinct descriptions over the number of
    descriptions.
    """

    spec = MetricSpec(
        name="distinct",
        family="diversity",
        title="distinct descriptions, as a share of all",
        low=0.0,
        high=1.0,
        direction="higher",
        source="this suite",
    )

    def values(self, predictions: Sequence[str]) -> Floats:
        counts = Counter(predictions)
        return np.array([1 / counts[text] for text in predictions])


class TopShare(TextMetric):
    """`top10-share`: 1 if the description is one of the ten most common (ties by text), else 0."""

    spec = MetricSpec(
        name="top10-share",
        family="diversity",
        title="share of units described by one of the ten most common descriptions",
        low=0.0,
        high=1.0,
        direction="lower",
        source="this suite",
    )

    def values(self, predictions: Sequence[str]) -> Floats:
        ranked = sorted(Counter(predictions).items(), key=lambda item: (-item[1], item[0]))
        common = {text for text, _ in ranked[:N_MOST_COMMON]}
        return np.array([float(text in common) for text in predictions])


class Length(TextMetric):
    """`length`: number of words in the description."""

    spec = MetricSpec(
        name="length",
        family="diversity",
        title="number of words in a description",
        low=0.0,
        high=None,
        direction=None,
        source="this suite",
    )

    def values(self, predictions: Sequence[str]) -> Floats:
        return np.array([float(n_words(text)) for text in predictions])
