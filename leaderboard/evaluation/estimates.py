"""From outcomes to estimates: means, intervals, lift, slices, comparisons."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from leaderboard import statistics
from leaderboard.evaluation.evaluator import Outcome, UnitOutcome, text_outcome
from leaderboard.evaluation.reference_views import Answers, Mask
from leaderboard.evaluation.references import References
from leaderboard.evaluation.score_config import ScoreConfig
from leaderboard.metrics.base import Floats, Metric, TextMetric

if TYPE_CHECKING:
    import pandas as pd

METHOD, PERSON, FLOOR = "method", "one-person", "constant"


@dataclass
class Summary:
    """Turns outcomes into estimates: means, intervals, lift, slices, comparisons."""

    metrics: dict[str, Metric]
    outcomes: dict[str, dict[str, Outcome]]
    references: References
    answers: Answers
    scope: Mask
    answered: Mask
    weights: Floats
    settings: ScoreConfig

    def about(self, name: str) -> Mask:
        """Return the units in question that a metric is about (see `References.about`)."""
        return self.scope & self.references.about(self.metrics[name].spec.against)

    def expected(self, name: str) -> Mask:
        """Return the units that a metric can score: those on which a floor has a value.

        Matched scores need two references, top-1 retrieval a layer of 100 units.
        """
        return self.scope & self.outcomes[name][FLOOR].scored

    def estimate(
        self,
        system: str,
        name: str,
        within: Mask | None = None,
        outcome: Outcome | None = None,
    ) -> dict[str, Any]:
        """Return what a record says of a system under a metric, over `within` (all units)."""
        outcome = outcome or self.outcomes[name][system]
        within = self.about(name) if within is None else within & self.about(name)
        compared = within & self.answered
        expected = within & self.expected(name)
        scored = compared & outcome.scored
        lifted = compared & outcome.lifted
        made: dict[str, Any] = dict.fromkeys(
            ("mean", "mean_all", "low", "high", "lift", "lift_low", "lift_high")
        )
        made["n_scored"], made["n_units"] = int(scored.sum()), int(within.sum())
        worst = self.metrics[name].spec.worst
        if expected.any() and (worst is not None or (expected <= outcome.scored).all()):
            made["mean_all"] = outcome.mean_all(expected, worst or 0.0)
        if not scored.any():
            return made
        made["mean"] = outcome.mean(compared)
        made["low"], made["high"] = self._interval(outcome.means(compared, self.weights))
        if lifted.any():
            made["lift"] = outcome.lift(compared)
            made["lift_low"], made["lift_high"] = self._interval(
                outcome.lifts(compared, self.weights)
            )
        return made

    def shuffled(self, name: str) -> dict[str, Any] | None:
        """Return the estimate of the method's own answers, shuffled within each layer."""
        outcome = self.outcomes[name][METHOD]
        lifted = self.answered & outcome.lifted
        if not lifted.any():
            return None
        # over the units that have a lift: what they score less what they score above shuffle
        floor = outcome.mean(lifted) - outcome.lift(lifted)
        resampled = outcome.means(lifted, self.weights) - outcome.lifts(lifted, self.weights)
        low, high = self._interval(resampled)
        worst = self.metrics[name].spec.worst
        mean_all = None if worst is None else outcome.floor_all(self.expected(name), worst)
        return {
            "mean": floor,
            "low": low,
            "high": high,
            "mean_all": mean_all,
            "lift": 0.0,
            "lift_low": 0.0,
            "lift_high": 0.0,
            "n_scored": int(lifted.sum()),
            "n_units": int(self.about(name).sum()),
        }

    def versus_person(self) -> dict[str, dict[str, Any]]:
        """Return method minus one person, paired by unit, Holm over the metrics shown."""
        made: dict[str, dict[str, Any]] = {}
        for name, systems in self.outcomes.items():
            metric = self.metrics[name]
            if PERSON not in systems or isinstance(metric, TextMetric):
                continue
            if metric.spec.direction is None:  # neither way is better
                continue
            ours, theirs = systems[METHOD], systems[PERSON]
            both = self.answered & ours.scored & theirs.scored
            if not both.any():
                continue
            drawn = ours.means(both, self.weights) - theirs.means(both, self.weights)
            low, high = self._interval(drawn)
            made[name] = {
                "difference": ours.mean(both) - theirs.mean(both),
                "low": low,
                "high": high,
                "p": statistics.two_sided_p(drawn),
                "n": int(both.sum()),
            }
        adjusted = statistics.holm([entry["p"] for entry in made.values()])
        for entry, p in zip(made.values(), adjusted, strict=True):
            entry["p_holm"] = p
        return made

    def slices(self) -> dict[str, dict[str, dict[str, Any]]]:
        """Return the method's estimates within each layer (network/layer) and network.

        Where it is known whether a unit's formula was seen in training, also within `seen` and
        `unseen`. Lift within a slice is the mean of the units' lifts, each among its layer.
        """
        cuts: dict[str, Mask] = {}
        n = len(self.references.units)
        for (network, layer), members in self.references.layers.items():
            for key in (network, f"{network}/{layer}"):
                cuts.setdefault(key, np.zeros(n, dtype=bool))[members] = True
        cuts |= self._seen()
        cuts = {key: mask & self.scope for key, mask in cuts.items() if (mask & self.scope).any()}
        return {
            key: {name: self._sliced(name, mask) for name in self.metrics}
            for key, mask in cuts.items()
        }

    def person_slices(self) -> dict[str, dict[str, dict[str, Any]]]:
        """Return one person's estimates against the truth, within `seen` and `unseen`.

        Whether a combination was seen is nothing to a simulated annotator, so what it loses on
        unseen ones is what makes them harder for anybody.
        """
        names = [n for n, m in self.metrics.items() if m.spec.against != "descriptions"]
        return {
            key: {n: self.estimate(PERSON, n, mask) for n in names if PERSON in self.outcomes[n]}
            for key, mask in self._seen().items()
            if names and (mask & self.scope).any()
        }

    def _seen(self) -> dict[str, Mask]:
        return {
            key: np.array([seen is value for seen in self.references.seen], dtype=bool)
            for key, value in (("seen", True), ("unseen", False))
        }

    def _sliced(self, name: str, within: Mask) -> dict[str, Any]:
        """Return the method's estimate within a slice; diversity is the slice's own."""
        metric = self.metrics[name]
        if not isinstance(metric, TextMetric):
            return self.estimate(METHOD, name, within)
        own = text_outcome(metric, self.answers, within & self.about(name))
        return self.estimate(METHOD, name, within, own)

    def risk_coverage(self, confidence: Floats) -> dict[str, dict[str, Any]]:
        """Return how values rise when only the most confident answers are kept."""
        if np.isnan(confidence[self.answered]).all():
            return {}
        return {
            name: statistics.risk_coverage(
                np.where(self.answered, outcome.values, np.nan), confidence
            )
            for name, systems in self.outcomes.items()
            if isinstance(outcome := systems[METHOD], UnitOutcome) and outcome.scored.any()
        }

    def neighbours(self) -> dict[str, dict[str, float]]:
        """Return the lift of each unit's answer against the next unit's references."""
        return {
            name: outcome.neighbour
            for name, systems in self.outcomes.items()
            if isinstance(outcome := systems[METHOD], UnitOutcome) and outcome.neighbour
        }

    def small_layers(self) -> list[str]:
        """Return the layers (network/layer) left out of the lift of some metric."""
        compared = [
            systems[METHOD]
            for name, systems in self.outcomes.items()
            if not isinstance(self.metrics[name], TextMetric)
        ]
        small = []
        for (network, layer), members in self.references.layers.items():
            few = self.answered[members].sum() < statistics.MIN_LAYER
            left_out = any(
                outcome.scored[members].any() and not outcome.lifted[members].any()
                for outcome in compared
            )
            if self.scope[members].any() and (few or left_out):
                small.append(f"{network}/{layer}")
        return small

    def units(self) -> pd.DataFrame:
        """Return the method's values as a DataFrame; lift is missing where there is none."""
        import pandas as pd

        parts = []
        keys = pd.DataFrame(self.references.units, columns=["network", "layer", "unit"])
        for name, systems in self.outcomes.items():
            outcome = systems[METHOD]
            if isinstance(outcome, UnitOutcome):
                chosen = self.answered & outcome.scored
                part = keys[chosen].copy()
                part["metric"] = name
                part["value"], part["lift"] = outcome.values[chosen], outcome.above[chosen]
                parts.append(part)
        if not parts:
            parts = [keys[:0].assign(metric="", value=0.0, lift=0.0)]
        return pd.concat(parts, ignore_index=True)

    def _interval(self, drawn: Floats) -> tuple[float, float]:
        low, high = statistics.interval(drawn, self.settings.level)
        return float(low), float(high)
