"""Evaluation of descriptions with a metric: own references, shuffled ones, and the next unit's."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from leaderboard import statistics
from leaderboard.evaluation.metric_values import (
    CorpusValues,
    MeanValues,
    MetricValues,
    UnitValues,
    mean_of_known,
    text_values,
)
from leaderboard.evaluation.reference_views import ReferenceView, ReferenceViews, build_views
from leaderboard.evaluation.references import Descriptions, Mask, References
from leaderboard.evaluation.score_config import ScoreConfig
from leaderboard.metrics.base import Against, Floats, Metric, PairMetric, RowMetric, TextMetric
from leaderboard.metrics.candidate_ranking import Retrieval


@dataclass
class Evaluator:
    """Evaluates descriptions against the references with any metric.

    Attributes:
        references: all units of the config.
        scope: units (n,) to be described (split, layers).
        answered: units (n,) that the method described; lift is computed among these.
        config: random seed and number of derangements.
    """

    references: References
    scope: Mask
    answered: Mask
    config: ScoreConfig

    def __post_init__(self) -> None:
        self._views: dict[Against, ReferenceViews] = {}

    def evaluate(self, metric: Metric, descriptions: Descriptions, allref: bool) -> MetricValues:
        """Evaluate one description per unit, on all references or on matched ones.

        Args:
            metric: fitted already, unless it is refitted on what is evaluated (2022).
            descriptions: normalised description of each unit (n), or None.
            allref: score against all references of a unit; otherwise the mean over views that
                leave one reference out, which is comparable with `evaluate_human`.
        """
        views = self._views_of(metric)
        if isinstance(metric, TextMetric):
            return text_values(metric, descriptions, self.scope & views.reported)
        chosen = [views.allref] if allref else views.matched
        return self._mean([self._on_view(metric, descriptions, v) for v in chosen], views.reported)

    def evaluate_human(self, metric: Metric) -> MetricValues | None:
        """Evaluate each annotation against the others; None if there is nothing to compare."""
        views = self._views_of(metric)
        if not views.humans:
            return None
        if isinstance(metric, TextMetric):
            units = self.scope & views.reported
            parts = [text_values(metric, annotations, units) for annotations, _ in views.humans]
            return self._mean(parts, views.reported)
        return self._mean(
            [self._on_view(metric, annotations, view) for annotations, view in views.humans],
            views.reported,
        )

    def _views_of(self, metric: Metric) -> ReferenceViews:
        against = metric.spec.against
        if against not in self._views:
            self._views[against] = build_views(self.references, against)
        return self._views[against]

    def _mean(self, parts: Sequence[UnitValues | CorpusValues], reported: Mask) -> MetricValues:
        """Average the values over views."""
        corpora = [part for part in parts if isinstance(part, CorpusValues)]
        if corpora:
            return corpora[0] if len(corpora) == 1 else MeanValues(corpora)
        per_unit = [part for part in parts if isinstance(part, UnitValues)]
        neighbours: dict[str, list[float]] = {}
        for part in per_unit:
            for order, value in part.neighbour_lift.items():
                neighbours.setdefault(order, []).append(value)
        n = len(self.references.units)
        return UnitValues(
            np.where(reported, mean_of_known([part.values for part in per_unit], n), np.nan),
            np.where(reported, mean_of_known([part.lifts for part in per_unit], n), np.nan),
            {order: float(np.mean(values)) for order, values in neighbours.items()},
        )

    def _on_view(
        self, metric: Metric, descriptions: Descriptions, view: ReferenceView
    ) -> UnitValues | CorpusValues:
        if metric.fits_on == "evaluated":
            evaluated = np.flatnonzero(self.scope & view.targets).tolist()
            metric.fit([text for i in evaluated for text in view.sets[i]])
        if isinstance(metric, PairMetric):
            return self._all_pairs(metric, descriptions, view)
        if isinstance(metric, RowMetric):
            return self._derangements(metric, descriptions, view)
        raise TypeError(f"{metric.spec.name} is neither a PairMetric, RowMetric nor TextMetric")

    def _rows(
        self, members: Iterable[int], descriptions: Descriptions, view: ReferenceView
    ) -> NDArray[np.intp]:
        """Return the units among `members` that have both a description and references."""
        wanted = self.scope & view.targets
        return np.array(
            [i for i in members if wanted[i] and descriptions[i] is not None], dtype=np.intp
        )

    def _all_pairs(
        self, metric: PairMetric, descriptions: Descriptions, view: ReferenceView
    ) -> UnitValues:
        """Score every description of a layer against the references of every unit of the layer."""
        n, sets = len(descriptions), view.sets
        values, lifts = np.full(n, np.nan), np.full(n, np.nan)
        neighbours: dict[str, list[Floats]] = {order: [] for order in self._orders}
        for members in self.references.layers.values():
            rows = self._rows(members, descriptions, view)
            if len(rows) == 0:
                continue
            # S (described unit, candidate). Candidates are all units with references, of every
            # split; `own` is the column of each described unit among them.
            candidates = np.array([i for i in members if sets[i]], dtype=np.intp)
            own = np.searchsorted(candidates, rows)
            texts = [descriptions[i] or "" for i in rows]
            candidate_sets = [sets[i] for i in candidates]
            if isinstance(metric, Retrieval):
                groups = [self.references.duplicate_groups[i] for i in candidates]
                repeated = len(set(groups)) < len(groups)
                scores = metric.pairs(texts, candidate_sets, groups if repeated else None)
            else:
                scores = metric.pairs(texts, candidate_sets)
            values[rows] = scores[np.arange(len(rows)), own]
            # Lift is computed on the square of the units answered. A unit without a value (top-1
            # among too few candidates) is not a shuffled target of others either.
            inside = self.answered[rows] & ~np.isnan(values[rows])
            if inside.sum() < statistics.MIN_LAYER:
                continue
            whole = inside.all() and len(rows) == len(candidates)
            square = scores if whole else scores[np.ix_(inside, own[inside])]
            lifts[rows[inside]] = statistics.lift(square)
            for order, values_lift in self._neighbour_lifts(
                scores, candidates, own[inside], inside
            ):
                neighbours[order].append(values_lift)
        return UnitValues(
            values,
            lifts,
            {
                order: float(np.concatenate(parts).mean())
                for order, parts in neighbours.items()
                if parts
            },
        )

    def _neighbour_lifts(
        self, scores: Floats, candidates: NDArray[np.intp], own: NDArray[np.intp], inside: Mask
    ) -> Iterable[tuple[str, Floats]]:
        """Yield, for each order, the lift of descriptions against the next unit's references.

        Args:
            scores: S (described unit, candidate).
            candidates: index of each candidate.
            own: column of each described unit that is `inside`.
            inside: rows of `scores` to use.
        """
        for order, positions in self._orders.items():
            # following[c]: column of the candidate after c in this order; the last is followed
            # by the first
            ranked = np.argsort(positions[candidates])
            following = np.empty_like(ranked)
            following[ranked] = np.roll(ranked, -1)
            next_columns = following[own]
            # compared with the mean over the same descriptions and the same next units, shuffled,
            # so that a constant has 0 here as well
            square = scores[np.ix_(inside, next_columns)]
            leaked = np.diagonal(square)
            shuffled = square[:, ~np.isnan(leaked)].mean()
            yield order, leaked[~np.isnan(leaked)] - shuffled

    @cached_property
    def _orders(self) -> dict[str, NDArray[np.intp]]:
        """Return the position of each unit in the orders in which a next unit is defined."""
        units, file_order = self.references.units, self.references.file_order
        orders = {"index": np.array([unit.unit for unit in units], dtype=np.intp)}
        if file_order is not None:
            orders["file"] = np.array(file_order, dtype=np.intp)
        return orders

    def _derangements(
        self, metric: RowMetric, descriptions: Descriptions, view: ReferenceView
    ) -> UnitValues | CorpusValues:
        """Score descriptions against their own references and against seeded derangements.

        For metrics that cannot afford all pairs. Everything is scored in a single call of
        `metric.rows`, so that a pair of strings that occurs twice is compared once.
        """
        n, count, sets = len(descriptions), self.config.derangements, view.sets
        # 1. Units of each layer with a description and references, if the metric is defined.
        layers = [
            self._rows(members, descriptions, view) for members in self.references.layers.values()
        ]
        for number, layer in enumerate(layers):
            texts, own_sets = [descriptions[i] or "" for i in layer], [sets[i] for i in layer]
            layers[number] = layer[metric.defined(texts, own_sets)]
        rows = np.concatenate(layers)
        # 2. Derangements within each layer with enough answered units.
        drawn: list[tuple[NDArray[np.intp], NDArray[np.intp]]] = []
        for number, layer in enumerate(layers):
            inside = layer[self.answered[layer]]
            if len(inside) >= statistics.MIN_LAYER:
                seed = (self.config.seed, number)
                drawn.append((inside, statistics.derangements(len(inside), count, seed)))
        # 3. One list of (description, reference set): own pairs first, then the deranged pairs
        # layer by layer. A corpus metric also needs an empty description for each unit in scope.
        sources, targets = [rows], [rows]
        for inside, permutations in drawn:
            sources.append(np.tile(inside, count))
            targets.append(inside[permutations].ravel())
        source, target = np.concatenate(sources), np.concatenate(targets)
        empty = np.flatnonzero(self.scope & view.targets) if metric.spec.corpus else rows[:0]
        if len(rows) + len(empty) == 0:
            return UnitValues(np.full(n, np.nan), np.full(n, np.nan))
        scores = metric.rows(
            [*(descriptions[i] or "" for i in source), *[""] * len(empty)],
            [sets[i] for i in np.append(target, empty).tolist()],
        )
        scores = scores.reshape(len(source) + len(empty), -1)
        # 4. Take the list apart again: (n, m) own rows, (count, n, m) shuffled rows.
        values = np.full((n, scores.shape[1]), np.nan)
        values[rows] = scores[: len(rows)]
        shuffled = np.full((count, n, scores.shape[1]), np.nan)
        lifts = np.full(n, np.nan)
        start = len(rows)
        for inside, permutations in drawn:
            part = scores[start : start + permutations.size].reshape(count, len(inside), -1)
            shuffled[:, inside] = part
            start += permutations.size
            if not metric.spec.corpus:
                lifts[inside] = statistics.lift_sampled(
                    values[inside, 0], part[:, :, 0], permutations
                )
        if not metric.spec.corpus:
            return UnitValues(values[:, 0], lifts)
        unanswered = np.full_like(values, np.nan)
        unanswered[empty] = scores[len(source) :]
        return CorpusValues(metric, values, shuffled, unanswered)
