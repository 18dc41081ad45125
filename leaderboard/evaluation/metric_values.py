"""Values of one system under one metric: per unit or on a corpus, with lift over shuffled.

A system is whatever describes the units: the method, a floor, or the leave-one-out human.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np

from leaderboard import statistics
from leaderboard.evaluation.references import Descriptions, Mask, References
from leaderboard.metrics.base import Floats, Metric, RowMetric, TextMetric


class MetricValues(Protocol):
    """Values of one system under one metric, and their means over chosen units.

    `units` are masks (n,); `weights` (draws, n) count how often each unit is in each bootstrap
    resample, and the resampled means have the shape (draws,).
    """

    @property
    def scored(self) -> Mask: ...
    @property
    def lifted(self) -> Mask: ...
    def mean(self, units: Mask) -> float: ...
    def resampled_means(self, units: Mask, weights: Floats) -> Floats: ...
    def lift(self, units: Mask) -> float: ...
    def resampled_lifts(self, units: Mask, weights: Floats) -> Floats: ...
    def mean_all(self, units: Mask, worst: float) -> float: ...
    def shuffled_mean_all(self, units: Mask, worst: float) -> float: ...


@dataclass
class UnitValues:
    """Values of a metric that has one value per unit.

    Attributes:
        values: value of each unit (n,), nan where it is not scored.
        lifts: lift over shuffled of each unit (n,), nan where there is none.
        neighbour_lift: mean lift against the next unit's references, by order of units.
    """

    values: Floats
    lifts: Floats
    neighbour_lift: dict[str, float] = field(default_factory=dict)

    @property
    def scored(self) -> Mask:
        return ~np.isnan(self.values)

    @property
    def lifted(self) -> Mask:
        return ~np.isnan(self.lifts)

    def mean(self, units: Mask) -> float:
        return float(self.values[units & self.scored].mean())

    def resampled_means(self, units: Mask, weights: Floats) -> Floats:
        return _resampled(self.values, units, weights)

    def lift(self, units: Mask) -> float:
        return float(self.lifts[units & self.lifted].mean())

    def resampled_lifts(self, units: Mask, weights: Floats) -> Floats:
        return _resampled(self.lifts, units, weights)

    def mean_all(self, units: Mask, worst: float) -> float:
        return float(np.where(self.scored, self.values, worst)[units].mean())

    def shuffled_mean_all(self, units: Mask, worst: float) -> float:
        # shuffled descriptions score what the values are without their lifts; units without a
        # description stay at the worst value
        lifted = units & self.lifted
        answered = float((units & self.scored).sum() / units.sum())
        floor = float((self.values - self.lifts)[lifted].mean())
        return floor * answered + worst * (1 - answered)


@dataclass
class CorpusValues:
    """Sufficient statistics of a corpus metric: the score of any units is that of their sum.

    Attributes:
        metric: aggregates sums of rows to scores.
        rows: statistics of each unit (n, m), nan where it is not scored.
        shuffled: the same for shuffled descriptions (derangement, n, m).
        unanswered: statistics of an empty description (n, m), which `mean_all` counts; nan
            where the unit has no reference.
    """

    metric: RowMetric
    rows: Floats
    shuffled: Floats
    unanswered: Floats

    @property
    def scored(self) -> Mask:
        return ~np.isnan(self.rows[:, 0])

    @property
    def lifted(self) -> Mask:
        return ~np.isnan(self.shuffled[0, :, 0])

    @property
    def scorable(self) -> Mask:
        return ~np.isnan(self.unanswered[:, 0])

    def mean(self, units: Mask) -> float:
        return float(self.resampled_means(units, np.ones((1, len(units))))[0])

    def resampled_means(self, units: Mask, weights: Floats) -> Floats:
        return self._score(self.rows, units & self.scored, weights)

    def lift(self, units: Mask) -> float:
        return float(self.resampled_lifts(units, np.ones((1, len(units))))[0])

    def resampled_lifts(self, units: Mask, weights: Floats) -> Floats:
        chosen = units & self.lifted
        own = self._score(self.rows, chosen, weights)
        return own - self._score(self.shuffled, chosen, weights).mean(axis=1)

    def mean_all(self, units: Mask, worst: float) -> float:
        # a corpus score is not linear, so failures enter it as empty descriptions
        rows = np.where(self.scored[:, None], self.rows, self.unanswered)
        return float(self._score(rows, units & self.scorable, np.ones((1, len(units))))[0])

    def shuffled_mean_all(self, units: Mask, worst: float) -> float:
        """Return the score of shuffled descriptions, with failed ones left empty."""
        chosen = units & self.scorable & (self.lifted | ~self.scored)
        rows = np.where(np.isnan(self.shuffled), self.unanswered, self.shuffled)
        return float(self._score(rows, chosen, np.ones((1, len(units))))[0].mean())

    def _score(self, rows: Floats, units: Mask, weights: Floats) -> Floats:
        """Score each resample.

        Args:
            rows: (n, m), or (derangement, n, m) to score all derangements at once.
            units: units to use (n,).
            weights: (draws, n).

        Returns:
            (draws,), or (draws, derangement).
        """
        # indexing copies the weights (draws, n), so skip it when all units are used
        chosen = np.flatnonzero(units)
        drawn = weights if len(chosen) == weights.shape[1] else weights[:, chosen]
        counts = drawn.sum(axis=1)
        if rows.ndim == 2:
            return self.metric.aggregate(drawn @ rows[chosen], counts)
        # the derangements become columns, so that one matrix product sums all of them
        by_unit = np.moveaxis(rows[:, chosen], 0, 1)  # (unit, derangement, m)
        sums = drawn @ by_unit.reshape(len(chosen), -1)
        return self.metric.aggregate(sums.reshape(len(drawn), *by_unit.shape[1:]), counts[:, None])


@dataclass
class MeanValues:
    """Mean of corpus values over the reference that was left out."""

    parts: list[CorpusValues]

    @property
    def scored(self) -> Mask:
        return np.any([part.scored for part in self.parts], axis=0)

    @property
    def lifted(self) -> Mask:
        return np.any([part.lifted for part in self.parts], axis=0)

    def mean(self, units: Mask) -> float:
        return float(self.resampled_means(units, np.ones((1, len(units))))[0])

    def resampled_means(self, units: Mask, weights: Floats) -> Floats:
        parts = [p.resampled_means(units, weights) for p in self.parts if (p.scored & units).any()]
        return mean_of_known(parts, len(weights))

    def lift(self, units: Mask) -> float:
        return float(self.resampled_lifts(units, np.ones((1, len(units))))[0])

    def resampled_lifts(self, units: Mask, weights: Floats) -> Floats:
        parts = [p.resampled_lifts(units, weights) for p in self.parts if (p.lifted & units).any()]
        return mean_of_known(parts, len(weights))

    def mean_all(self, units: Mask, worst: float) -> float:
        parts = [p.mean_all(units, worst) for p in self.parts if (p.scorable & units).any()]
        return float(np.mean(parts))

    def shuffled_mean_all(self, units: Mask, worst: float) -> float:
        parts = [
            p.shuffled_mean_all(units, worst) for p in self.parts if (p.scorable & units).any()
        ]
        return float(np.mean(parts))


@dataclass(frozen=True)
class Evaluation:
    """Values of all systems under all metrics, and the units that they are about.

    Attributes:
        metrics: metric of each name.
        values: values by metric and system; a system is "method", a floor, or the human.
        references: all units of the config.
        descriptions: the method's normalised description of each unit, or None.
        scope: units (n,) to be described (split, layers).
        answered: units (n,) in scope that the method described.
    """

    metrics: dict[str, Metric]
    values: dict[str, dict[str, MetricValues]]
    references: References
    descriptions: Descriptions
    scope: Mask
    answered: Mask


def text_values(metric: TextMetric, descriptions: Descriptions, units: Mask) -> UnitValues:
    """Return the values of a metric of the descriptions alone, over those of `units`; no lift."""
    texts = {i: text for i, text in enumerate(descriptions) if units[i] and text is not None}
    values = np.full(len(descriptions), np.nan)
    values[list(texts)] = metric.values(list(texts.values()))
    return UnitValues(values, np.full(len(descriptions), np.nan))


def mean_of_known(parts: Sequence[Floats], n: int) -> Floats:
    """Return the mean over parts (n,), ignoring nan; nan where every part is nan."""
    if not parts:
        return np.full(n, np.nan)
    stacked = np.stack(parts)
    known = ~np.isnan(stacked)
    total = np.where(known, stacked, 0.0).sum(axis=0)
    count = known.sum(axis=0)
    return np.divide(total, count, out=np.full(n, np.nan), where=count > 0)


def _resampled(values: Floats, units: Mask, weights: Floats) -> Floats:
    chosen = np.flatnonzero(units & ~np.isnan(values))
    drawn = weights if len(chosen) == weights.shape[1] else weights[:, chosen]
    return statistics.resampled_means(values[chosen], drawn)
