"""Estimates of a score: means, intervals, lift, slices and comparisons, computed once."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from leaderboard import statistics
from leaderboard.evaluation.metric_values import Evaluation, MetricValues, UnitValues, text_values
from leaderboard.evaluation.references import Mask
from leaderboard.evaluation.score_config import ScoreConfig
from leaderboard.metrics.base import Floats, TextMetric
from leaderboard.record_format.score_record import (
    CONSTANT_FLOOR,
    HUMAN,
    SHUFFLED_FLOOR,
    Comparison,
    Curve,
    Estimate,
    ScoreEstimates,
)

METHOD = "method"
"""Name of the method that is scored among the systems."""


def estimate(evaluation: Evaluation, config: ScoreConfig, confidence: Floats) -> ScoreEstimates:
    """Compute all estimates of a score.

    Args:
        evaluation: values of all systems under all metrics.
        config: random seed, resamples and level of the intervals.
        confidence: the method's score of each description (n,), nan where it gave none.
    """
    n_scope = int(evaluation.scope.sum())
    weights = np.zeros((config.draws, len(evaluation.scope)))
    # one set of resamples for everything in a record, so that differences are paired
    weights[:, evaluation.scope] = statistics.bootstrap_weights(n_scope, config.draws, config.seed)
    estimator = _Estimator(evaluation, weights, config.level)
    floors: dict[str, dict[str, Estimate]] = {SHUFFLED_FLOOR: {}}
    for name, systems in evaluation.values.items():
        if (shuffled := estimator.shuffled(name)) is not None:
            floors[SHUFFLED_FLOOR][name] = shuffled
        for system in systems:
            if system != METHOD:
                floors.setdefault(system, {})[name] = estimator.estimate(system, name)
    return ScoreEstimates(
        scores={name: estimator.estimate(METHOD, name) for name in evaluation.metrics},
        floors=floors,
        versus_person=estimator.versus_human(),
        neighbours=_neighbours(evaluation),
        slices=estimator.slices(),
        person_slices=estimator.human_slices(),
        risk_coverage=_risk_coverage(evaluation, confidence),
        left_out_of_lift=_layers_without_lift(evaluation),
    )


@dataclass
class _Estimator:
    """Means, intervals and lifts of one evaluation.

    Attributes:
        evaluation: what is estimated.
        weights: how often each unit is in each resample (draws, n); 0 out of scope.
        level: level of the intervals.
    """

    evaluation: Evaluation
    weights: Floats
    level: float

    def estimate(
        self,
        system: str,
        name: str,
        within: Mask | None = None,
        values: MetricValues | None = None,
    ) -> Estimate:
        """Estimate a system's score under a metric.

        Args:
            system: "method", a floor or the human.
            name: name of the metric.
            within: units (n,) to use (default: all).
            values: values to use instead of those in the evaluation.
        """
        values = values or self.evaluation.values[name][system]
        reported = self._reported(name) if within is None else within & self._reported(name)
        # every system is shown on the units that the method answered
        compared = reported & self.evaluation.answered
        scored, lifted = compared & values.scored, compared & values.lifted
        fields: dict[str, float | None] = dict.fromkeys(
            ("mean", "mean_all", "low", "high", "lift", "lift_low", "lift_high")
        )
        worst = self.evaluation.metrics[name].spec.worst
        expected = reported & self._expected(name)
        if expected.any() and (worst is not None or (expected <= values.scored).all()):
            fields["mean_all"] = values.mean_all(expected, worst or 0.0)
        if scored.any():
            fields["mean"] = values.mean(compared)
            resampled = values.resampled_means(compared, self.weights)
            fields["low"], fields["high"] = self._interval(resampled)
            if lifted.any():
                fields["lift"] = values.lift(compared)
                resampled = values.resampled_lifts(compared, self.weights)
                fields["lift_low"], fields["lift_high"] = self._interval(resampled)
        return Estimate(**fields, n_scored=int(scored.sum()), n_units=int(reported.sum()))

    def shuffled(self, name: str) -> Estimate | None:
        """Estimate the method's own descriptions, shuffled within each layer.

        It follows from the values and their lifts, over the units that have a lift.
        """
        values = self.evaluation.values[name][METHOD]
        lifted = self.evaluation.answered & values.lifted
        if not lifted.any():
            return None
        resampled = values.resampled_means(lifted, self.weights)
        resampled = resampled - values.resampled_lifts(lifted, self.weights)
        low, high = self._interval(resampled)
        worst = self.evaluation.metrics[name].spec.worst
        return Estimate(
            mean=values.mean(lifted) - values.lift(lifted),
            low=low,
            high=high,
            mean_all=(
                None if worst is None else values.shuffled_mean_all(self._expected(name), worst)
            ),
            lift=0.0,
            lift_low=0.0,
            lift_high=0.0,
            n_scored=int(lifted.sum()),
            n_units=int(self._reported(name).sum()),
        )

    def versus_human(self) -> dict[str, Comparison]:
        """Compare the method with the human, paired by unit; Holm over the metrics shown."""
        differences: dict[str, dict[str, Any]] = {}
        for name, systems in self.evaluation.values.items():
            metric = self.evaluation.metrics[name]
            # without a direction, neither sign of a difference is better
            if HUMAN not in systems or isinstance(metric, TextMetric) or not metric.spec.direction:
                continue
            method, human = systems[METHOD], systems[HUMAN]
            both = self.evaluation.answered & method.scored & human.scored
            if not both.any():
                continue
            resampled = method.resampled_means(both, self.weights)
            resampled = resampled - human.resampled_means(both, self.weights)
            low, high = self._interval(resampled)
            differences[name] = {
                "difference": method.mean(both) - human.mean(both),
                "low": low,
                "high": high,
                "p": statistics.two_sided_p(resampled),
                "n": int(both.sum()),
            }
        adjusted = statistics.holm([fields["p"] for fields in differences.values()])
        return {
            name: Comparison(**fields, p_holm=p)
            for (name, fields), p in zip(differences.items(), adjusted, strict=True)
        }

    def slices(self) -> dict[str, dict[str, Estimate]]:
        """Estimate the method within each network, each layer, and seen and unseen formulas.

        Lift within a slice is the mean of its units' lifts, each among the unit's whole layer.
        """
        references, scope = self.evaluation.references, self.evaluation.scope
        masks: dict[str, Mask] = {}
        for (network, layer), members in references.layers.items():
            for key in (network, f"{network}/{layer}"):
                masks.setdefault(key, np.zeros(len(scope), dtype=bool))[members] = True
        masks |= self._seen()
        return {
            key: {name: self._in_slice(name, mask & scope) for name in self.evaluation.metrics}
            for key, mask in masks.items()
            if (mask & scope).any()
        }

    def human_slices(self) -> dict[str, dict[str, Estimate]]:
        """Estimate the simulated annotator against the truth, within seen and unseen formulas.

        A simulated annotator learned nothing, so what it loses on unseen formulas shows how much
        harder they are in themselves.
        """
        names = [
            name
            for name, metric in self.evaluation.metrics.items()
            if metric.spec.against != "descriptions"
        ]
        return {
            key: {
                name: self.estimate(HUMAN, name, mask)
                for name in names
                if HUMAN in self.evaluation.values[name]
            }
            for key, mask in self._seen().items()
            if names and (mask & self.evaluation.scope).any()
        }

    def _in_slice(self, name: str, within: Mask) -> Estimate:
        metric = self.evaluation.metrics[name]
        if not isinstance(metric, TextMetric):
            return self.estimate(METHOD, name, within)
        # such a value depends on the other descriptions, so it is computed within the slice
        reported = within & self._reported(name)
        values = text_values(metric, self.evaluation.descriptions, reported)
        return self.estimate(METHOD, name, within, values)

    def _seen(self) -> dict[str, Mask]:
        return {
            key: np.array([seen is value for seen in self.evaluation.references.seen], dtype=bool)
            for key, value in (("seen", True), ("unseen", False))
        }

    def _reported(self, name: str) -> Mask:
        """Return the units in scope that a metric is about (see `References.reported`)."""
        against = self.evaluation.metrics[name].spec.against
        return self.evaluation.scope & self.evaluation.references.reported(against)

    def _expected(self, name: str) -> Mask:
        """Return the units in scope that a metric can score: those on which a floor has a value.

        Matched scores need two references, top-1 retrieval a layer of 100 units.
        """
        return self.evaluation.scope & self.evaluation.values[name][CONSTANT_FLOOR].scored

    def _interval(self, resampled: Floats) -> tuple[float, float]:
        low, high = statistics.interval(resampled, self.level)
        return float(low), float(high)


def _risk_coverage(evaluation: Evaluation, confidence: Floats) -> dict[str, Curve]:
    if np.isnan(confidence[evaluation.answered]).all():
        return {}
    curves = {}
    for name, systems in evaluation.values.items():
        values = systems[METHOD]
        if isinstance(values, UnitValues) and values.scored.any():
            answered = np.where(evaluation.answered, values.values, np.nan)
            curves[name] = Curve(**statistics.risk_coverage(answered, confidence))
    return curves


def _neighbours(evaluation: Evaluation) -> dict[str, dict[str, float]]:
    return {
        name: values.neighbour_lift
        for name, systems in evaluation.values.items()
        if isinstance(values := systems[METHOD], UnitValues) and values.neighbour_lift
    }


def _layers_without_lift(evaluation: Evaluation) -> list[str]:
    """Return the layers (network/layer) that are left out of the lift of some metric."""
    compared = [
        systems[METHOD]
        for name, systems in evaluation.values.items()
        if not isinstance(evaluation.metrics[name], TextMetric)
    ]
    names = []
    for (network, layer), members in evaluation.references.layers.items():
        few = evaluation.answered[members].sum() < statistics.MIN_LAYER
        left_out = any(
            values.scored[members].any() and not values.lifted[members].any() for values in compared
        )
        if evaluation.scope[members].any() and (few or left_out):
            names.append(f"{network}/{layer}")
    return names
