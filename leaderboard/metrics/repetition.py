"""How much a method repeats itself: metrics of the predictions alone."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import numpy as np

from leaderboard.metrics.base import Floats, MetricSpec, TextMetric
from leaderboard.metrics.text import n_words

COMMONEST = 10


class Distinct(TextMetric):
    """`distinct`: one over the number of units with the same description.

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
    """`top10-share`: 1 where the description is among the ten commonest (ties by text)."""

    spec = MetricSpec(
        name="top10-share",
        family="diversity",
        title="share of units described by one of the ten commonest descriptions",
        low=0.0,
        high=1.0,
        direction="lower",
        source="this suite",
    )

    def values(self, predictions: Sequence[str]) -> Floats:
        ranked = sorted(Counter(predictions).items(), key=lambda item: (-item[1], item[0]))
        common = {text for text, _ in ranked[:COMMONEST]}
        return np.array([float(text in common) for text in predictions])


class Length(TextMetric):
    """`length`: words in the description."""

    spec = MetricSpec(
        name="length",
        family="diversity",
        title="words in a description",
        low=0.0,
        high=None,
        direction=None,
        source="this suite",
    )

    def values(self, predictions: Sequence[str]) -> Floats:
        return np.array([float(n_words(text)) for text in predictions])
