"""What a system scores under a metric: unit by unit, or on a corpus, and above shuffle."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from leaderboard import statistics
from leaderboard.evaluation.reference_views import Answers, Mask, Side, View, side
from leaderboard.evaluation.references import References
from leaderboard.evaluation.score_config import ScoreConfig
from leaderboard.metrics.base import Against, Floats, Metric, PairMetric, RowMetric, TextMetric
from leaderboard.metrics.vectors import Retrieval


class Outcome(Protocol):
    """A system under a metric: what it scored on which units, and above shuffle."""

    @property
    def scored(self) -> Mask: ...
    @property
    def lifted(self) -> Mask: ...
    def mean(self, units: Mask) -> float: ...
    def means(self, units: Mask, weights: Floats) -> Floats: ...
    def lift(self, units: Mask) -> float: ...
    def lifts(self, units: Mask, weights: Floats) -> Floats: ...
    def mean_all(self, units: Mask, worst: float) -> float: ...
    def floor_all(self, units: Mask, worst: float) -> float: ...


@dataclass
class UnitOutcome:
    """Values of units (n,), nan where not scored; so with the lifts."""

    values: Floats
    above: Floats
    neighbour: dict[str, float] = field(default_factory=dict)

    @property
    def scored(self) -> Mask:
        return ~np.isnan(self.values)

    @property
    def lifted(self) -> Mask:
        return ~np.isnan(self.above)

    def mean(self, units: Mask) -> float:
        return float(self.values[units & self.scored].mean())

    def means(self, units: Mask, weights: Floats) -> Floats:
        return _resampled(self.values, units, weights)

    def lift(self, units: Mask) -> float:
        return float(self.above[units & self.lifted].mean())

    def lifts(self, units: Mask, weights: Floats) -> Floats:
        return _resampled(self.above, units, weights)

    def mean_all(self, units: Mask, worst: float) -> float:
        return float(np.where(self.scored, self.values, worst)[units].mean())

    def floor_all(self, units: Mask, worst: float) -> float:
        lifted = units & self.lifted
        answered = float((units & self.scored).sum() / units.sum())
        floor = float((self.values - self.above)[lifted].mean())
        return floor * answered + worst * (1 - answered)


@dataclass
class CorpusOutcome:
    """Rows of a corpus metric (n, m), and the same with shuffled answers (derangement, n, m).

    `unanswered` are the rows of an empty answer, which `mean_all` counts; nan where the
    view has no reference for the unit.
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

    def _score(self, rows: Floats, units: Mask, weights: Floats) -> Floats:
        """Return the score of each resample: of rows (n, m), or of (derangement, n, m) at once."""
        chosen = np.flatnonzero(units)
        drawn = weights if len(chosen) == weights.shape[1] else weights[:, chosen]
        counts = drawn.sum(axis=1)
        if rows.ndim == 2:
            return self.metric.aggregate(drawn @ rows[chosen], counts)
        several = np.moveaxis(rows[:, chosen], 0, 1)  # (unit, derangement, m)
        sums = drawn @ several.reshape(len(chosen), -1)
        shaped = sums.reshape(len(drawn), *several.shape[1:])
        return self.metric.aggregate(shaped, counts[:, None])

    def mean(self, units: Mask) -> float:
        return float(self.means(units, np.ones((1, len(units))))[0])

    def means(self, units: Mask, weights: Floats) -> Floats:
        return self._score(self.rows, units & self.scored, weights)

    def lift(self, units: Mask) -> float:
        return float(self.lifts(units, np.ones((1, len(units))))[0])

    def lifts(self, units: Mask, weights: Floats) -> Floats:
        chosen = units & self.lifted
        own = self._score(self.rows, chosen, weights)
        return own - self._score(self.shuffled, chosen, weights).mean(axis=1)

    @property
    def scorable(self) -> Mask:
        return ~np.isnan(self.unanswered[:, 0])

    def mean_all(self, units: Mask, worst: float) -> float:
        rows = np.where(self.scored[:, None], self.rows, self.unanswered)
        return float(self._score(rows, units & self.scorable, np.ones((1, len(units))))[0])

    def floor_all(self, units: Mask, worst: float) -> float:
        """Return the score of shuffled answers, those that failed left empty."""
        chosen = units & self.scorable & (self.lifted | ~self.scored)
        rows = np.where(np.isnan(self.shuffled), self.unanswered, self.shuffled)
        return float(self._score(rows, chosen, np.ones((1, len(units))))[0].mean())


@dataclass
class MeanOutcome:
    """The mean of corpus outcomes, over which reference was left out."""

    parts: list[CorpusOutcome]

    @property
    def scored(self) -> Mask:
        return np.any([part.scored for part in self.parts], axis=0)

    @property
    def lifted(self) -> Mask:
        return np.any([part.lifted for part in self.parts], axis=0)

    def mean(self, units: Mask) -> float:
        return float(self.means(units, np.ones((1, len(units))))[0])

    def means(self, units: Mask, weights: Floats) -> Floats:
        parts = [part.means(units, weights) for part in self.parts if (part.scored & units).any()]
        return _known_mean(parts, len(weights))

    def lift(self, units: Mask) -> float:
        return float(self.lifts(units, np.ones((1, len(units))))[0])

    def lifts(self, units: Mask, weights: Floats) -> Floats:
        parts = [part.lifts(units, weights) for part in self.parts if (part.lifted & units).any()]
        return _known_mean(parts, len(weights))

    def mean_all(self, units: Mask, worst: float) -> float:
        parts = [p.mean_all(units, worst) for p in self.parts if (p.scorable & units).any()]
        return float(np.mean(parts))

    def floor_all(self, units: Mask, worst: float) -> float:
        parts = [p.floor_all(units, worst) for p in self.parts if (p.scorable & units).any()]
        return float(np.mean(parts))


def text_outcome(metric: TextMetric, answers: Answers, units: Mask) -> UnitOutcome:
    """Return a metric of the answers alone, over the answers of `units`; it has no lift."""
    said = {i: text for i, text in enumerate(answers) if units[i] and text is not None}
    values = np.full(len(answers), np.nan)
    values[list(said)] = metric.values(list(said.values()))
    return UnitOutcome(values, np.full(len(answers), np.nan))


def _resampled(values: Floats, units: Mask, weights: Floats) -> Floats:
    chosen = np.flatnonzero(units & ~np.isnan(values))
    drawn = weights if len(chosen) == weights.shape[1] else weights[:, chosen]
    return statistics.resampled_means(values[chosen], drawn)


@dataclass
class Judge:
    """Puts answers and a view of the references through a metric.

    Attributes:
        references: all units of the config.
        scope: units that are to be described (split, layers).
        answered: units the method answered; lift is computed among these.
        settings: seeds and numbers of draws.
    """

    references: References
    scope: Mask
    answered: Mask
    settings: ScoreConfig

    def __post_init__(self) -> None:
        self._sides: dict[Against, Side] = {}

    def side(self, metric: Metric) -> Side:
        """Return what a metric holds answers against."""
        against = metric.spec.against
        if against not in self._sides:
            self._sides[against] = side(self.references, against)
        return self._sides[against]

    @cached_property
    def _orders(self) -> dict[str, NDArray[np.intp]]:
        """Return the orders in which a next unit is looked for."""
        units, file_order = self.references.units, self.references.file_order
        orders = {"index": np.array([unit.unit for unit in units], dtype=np.intp)}
        if file_order is not None:
            orders["file"] = np.array(file_order, dtype=np.intp)
        return orders

    def judge(self, metric: Metric, answers: Answers, allref: bool) -> Outcome:
        """Return how `answers` (one a unit) do, on matched references or on all of them."""
        held = self.side(metric)
        if isinstance(metric, TextMetric):
            return text_outcome(metric, answers, self.scope & held.about)
        views = [held.everything] if allref else held.matched
        return self._mean([self._view(metric, answers, view) for view in views], held.about)

    def person(self, metric: Metric) -> Outcome | None:
        """Return how people do, each in turn; None where there is nothing to hold them against."""
        held = self.side(metric)
        if not held.people:
            return None
        if isinstance(metric, TextMetric):
            units = self.scope & held.about
            parts = [text_outcome(metric, said, units) for said, _ in held.people]
            return self._mean(parts, held.about)
        return self._mean(
            [self._view(metric, said, view) for said, view in held.people], held.about
        )

    def _mean(self, parts: Sequence[UnitOutcome | CorpusOutcome], about: Mask) -> Outcome:
        corpora = [part for part in parts if isinstance(part, CorpusOutcome)]
        if corpora:
            return corpora[0] if len(corpora) == 1 else MeanOutcome(corpora)
        units = [part for part in parts if isinstance(part, UnitOutcome)]
        neighbour: dict[str, list[float]] = {}
        for part in units:
            for order, value in part.neighbour.items():
                neighbour.setdefault(order, []).append(value)
        n = len(self.references.units)
        return UnitOutcome(
            np.where(about, _known_mean([part.values for part in units], n), np.nan),
            np.where(about, _known_mean([part.above for part in units], n), np.nan),
            {order: float(np.mean(values)) for order, values in neighbour.items()},
        )

    def _view(self, metric: Metric, answers: Answers, view: View) -> UnitOutcome | CorpusOutcome:
        if metric.fits_on == "evaluated":
            evaluated = np.flatnonzero(self.scope & view.targets).tolist()
            metric.fit([text for i in evaluated for text in view.sets[i]])
        if isinstance(metric, PairMetric):
            return self._all_pairs(metric, answers, view)
        if isinstance(metric, RowMetric):
            return self._derangements(metric, answers, view)
        raise TypeError(f"{metric.spec.name} is no kind of metric that can be scored")

    def _rows(self, members: Iterable[int], answers: Answers, view: View) -> NDArray[np.intp]:
        """Return the units of a layer that have both an answer and references."""
        wanted = self.scope & view.targets
        return np.array([i for i in members if wanted[i] and answers[i] is not None], dtype=np.intp)

    def _all_pairs(self, metric: PairMetric, answers: Answers, view: View) -> UnitOutcome:
        n, sets = len(answers), view.sets
        values, above = np.full(n, np.nan), np.full(n, np.nan)
        beside: dict[str, list[Floats]] = {order: [] for order in self._orders}
        for members in self.references.layers.values():
            rows = self._rows(members, answers, view)
            if len(rows) == 0:
                continue
            candidates = np.array([i for i in members if sets[i]], dtype=np.intp)
            own = np.searchsorted(candidates, rows)
            texts = [answers[i] or "" for i in rows]
            among = [sets[i] for i in candidates]
            if isinstance(metric, Retrieval):
                groups = [self.references.duplicate_groups[i] for i in candidates]
                repeated = len(set(groups)) < len(groups)
                scores = metric.pairs(texts, among, groups if repeated else None)
            else:
                scores = metric.pairs(texts, among)
            values[rows] = scores[np.arange(len(rows)), own]
            # a unit without a value (top-1 among too few) is nobody's shuffled target either
            inside = self.answered[rows] & ~np.isnan(values[rows])
            if inside.sum() < statistics.MIN_LAYER:
                continue
            whole = inside.all() and len(rows) == len(candidates)
            square = scores if whole else scores[np.ix_(inside, own[inside])]
            above[rows[inside]] = statistics.lift(square)
            for order, places in self._orders.items():
                ranked = np.argsort(places[candidates])
                following = np.empty_like(ranked)
                following[ranked] = np.roll(ranked, -1)
                nexts = following[own[inside]]
                # above what the same answers score with the same units, dealt at random: a
                # constant has 0 here too
                dealt = scores[np.ix_(inside, nexts)]
                leaked = np.diagonal(dealt)
                shuffled = dealt[:, ~np.isnan(leaked)].mean()
                beside[order].append(leaked[~np.isnan(leaked)] - shuffled)
        return UnitOutcome(
            values,
            above,
            {order: float(np.concatenate(rows).mean()) for order, rows in beside.items() if rows},
        )

    def _derangements(
        self, metric: RowMetric, answers: Answers, view: View
    ) -> UnitOutcome | CorpusOutcome:
        """Score each answer with its own references and with those that derangements give it."""
        n, count, sets = len(answers), self.settings.derangements, view.sets
        layers = [self._rows(members, answers, view) for members in self.references.layers.values()]
        for number, layer in enumerate(layers):
            own = [answers[i] or "" for i in layer], [sets[i] for i in layer]
            layers[number] = layer[metric.defined(*own)]
        rows = np.concatenate(layers)
        targets = [rows]
        drawn: list[tuple[NDArray[np.intp], NDArray[np.intp]]] = []
        for number, layer in enumerate(layers):
            inside = layer[self.answered[layer]]
            if len(inside) >= statistics.MIN_LAYER:
                seed = (self.settings.seed, number)
                drawn.append((inside, statistics.derangements(len(inside), count, seed)))
        sources = [rows]
        for inside, permutations in drawn:
            sources.append(np.tile(inside, count))
            targets.append(inside[permutations].ravel())
        source, target = np.concatenate(sources), np.concatenate(targets)
        texts = [answers[i] or "" for i in source]
        empty = np.flatnonzero(self.scope & view.targets) if metric.spec.corpus else rows[:0]
        if len(rows) + len(empty) == 0:
            return UnitOutcome(np.full(n, np.nan), np.full(n, np.nan))
        # one call, so that a pair of strings met twice is compared once
        made = metric.rows(
            [*texts, *[""] * len(empty)], [sets[i] for i in np.append(target, empty).tolist()]
        )
        made = made.reshape(len(texts) + len(empty), -1)
        values = np.full((n, made.shape[1]), np.nan)
        values[rows] = made[: len(rows)]
        shuffled = np.full((count, n, made.shape[1]), np.nan)
        above = np.full(n, np.nan)
        start = len(rows)
        for inside, permutations in drawn:
            part = made[start : start + permutations.size].reshape(count, len(inside), -1)
            shuffled[:, inside] = part
            start += permutations.size
            if not metric.spec.corpus:
                above[inside] = statistics.lift_sampled(
                    values[inside, 0], part[:, :, 0], permutations
                )
        if not metric.spec.corpus:
            return UnitOutcome(values[:, 0], above)
        unanswered = np.full_like(values, np.nan)
        unanswered[empty] = made[len(texts) :]
        return CorpusOutcome(metric, values, shuffled, unanswered)


def _known_mean(parts: Sequence[Floats], n: int) -> Floats:
    """Return the mean over parts of what is known of each unit; nan where nothing is."""
    if not parts:
        return np.full(n, np.nan)
    stacked = np.stack(parts)
    known = ~np.isnan(stacked)
    total = np.where(known, stacked, 0.0).sum(axis=0)
    count = known.sum(axis=0)
    return np.divide(total, count, out=np.full(n, np.nan), where=count > 0)
