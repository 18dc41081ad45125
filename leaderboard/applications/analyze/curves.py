"""Accuracy curves of one network as its units are ablated in the order of a score."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from leaderboard import statistics
from leaderboard.applications.analyze.config import AnalyzeConfig
from leaderboard.applications.analyze.language import Language
from leaderboard.applications.common.ablated_accuracy import TEST, AblatedNetwork
from leaderboard.evaluation.predictions import Predictions
from milannotations.errors import InputError, did_you_mean
from milannotations.schema import Unit

UnitList = list[Unit]


class NetworkCurves:
    """Scores of one network's descriptions, its accuracy curves, and the areas between them.

    Args:
        network: the network, with images of role `test`.
        predictions: descriptions of its units.
        language: counts words.
        config: see `AnalyzeConfig`.

    Attributes:
        scores: each score (described unit,) by name.
        constant: names of the scores that are equal for all units.
        accuracy: accuracy of the whole network.
        counts: units ablated after each step; `reached` are those with enough described units.
        undescribed: number of units without a description.
        curves, layers, classes: rows of the tables that the record shows.
        areas: area between curve and control, by `score/order`; see `measure_area`.
    """

    def __init__(
        self,
        network: AblatedNetwork,
        predictions: Predictions,
        language: Language,
        config: AnalyzeConfig,
    ) -> None:
        self.network, self.config = network, config
        rows = {unit: predictions.first(unit) for unit in network.units}
        texts = {unit: row.description for unit, row in rows.items() if row and row.description}
        self.undescribed = len(rows) - len(texts)
        self.units = list(texts)
        scores = language.scores(list(texts.values()), config.similar_to) if texts else {}
        self.scores = _select_scores(scores, config.scores)
        self.constant = [name for name, values in self.scores.items() if np.ptp(values) == 0]
        self.accuracy = self._accuracies([[]])[0]
        # Steps are shares of all units, not of the described ones, so that methods compare.
        self.counts = [round(share * len(rows)) for share in config.shares]
        if texts and self.counts[0] < 1:
            raise InputError(
                f"{config.step:.3g} of {len(rows)} units is less than one; take a larger --step."
            )
        self.reached = [count for count in self.counts if count <= len(texts)]
        self.curves: list[dict[str, Any]] = []
        self.layers = self._layer_rows()
        self.classes: list[dict[str, Any]] = []
        self.areas: dict[str, dict[str, Any]] = {}
        self._measure()

    def _accuracies(self, sets: Sequence[UnitList]) -> list[float]:
        return self.network.accuracies(TEST, sets, self.config.how)

    def _measure(self) -> None:
        config = self.config
        plans = {
            (name, order): [self._plan(name, order, draw) for draw in range(config.draws)]
            for name in self.scores
            if name not in self.constant
            for order in config.orders
        }
        unmatched_sets = [self._random_sets(draw) for draw in range(config.draws)]
        # One pass measures every set; the calls below then look accuracies up.
        planned = [
            units
            for plan in plans.values()
            for ordered, controls in plan
            for units in (*ordered, *controls)
        ]
        self._accuracies([[], *planned, *(units for sets in unmatched_sets for units in sets)])
        unmatched = np.array([self._accuracies(sets) for sets in unmatched_sets])
        self._add_curve("random", "any layer", unmatched, "control")
        self._add_classes("none", "", [[]])
        for (name, order), plan in plans.items():
            values = np.array([self._accuracies(ordered) for ordered, _ in plan])
            matched = np.array([self._accuracies(controls) for _, controls in plan])
            self._add_curve(name, order, values, "score")
            self._add_curve(name, order, matched, "control")
            self._add_classes(name, order, [ordered[-1] for ordered, _ in plan if ordered])
            self.areas[f"{name}/{order}"] = measure_area(values, matched, unmatched)

    def _plan(self, name: str, order: str, draw: int) -> tuple[list[UnitList], list[UnitList]]:
        """Return the units ablated after each step, and as many random units of each layer."""
        seed = (self.config.seed, draw)
        # Ties are broken anew in each draw: lexsort orders by the last key first.
        ties = np.random.default_rng([*seed, 0]).permutation(len(self.units))
        values = self.scores[name] if order == "increasing" else -self.scores[name]
        ranked = np.lexsort((ties, values))
        # The control takes each layer's units in one random order, so that its sets grow as the
        # ordered ones do.
        pools: dict[str, UnitList] = {}
        for i in np.random.default_rng([*seed, 1]).permutation(len(self.units)):
            pools.setdefault(self.units[i].layer, []).append(self.units[i])
        sets = [[self.units[i] for i in ranked[:count]] for count in self.reached]
        controls = []
        for units in sets:
            layers = [unit.layer for unit in units]
            controls.append(
                [
                    unit
                    for layer in dict.fromkeys(layers)
                    for unit in pools[layer][: layers.count(layer)]
                ]
            )
        return sets, controls

    def _random_sets(self, draw: int) -> list[UnitList]:
        """Return random units of any layer after each step: the control of 2022."""
        order = np.random.default_rng([self.config.seed, draw, 2]).permutation(len(self.units))
        return [[self.units[i] for i in order[:count]] for count in self.reached]

    def _add_curve(self, name: str, order: str, values: NDArray[np.float64], kind: str) -> None:
        """Add the mean and the range over draws of accuracies (draw, step)."""
        common = {"network": self.network.name, "score": name, "order": order, "curve": kind}
        self.curves.append(
            {**common, "ablated": 0, "share": 0.0, "accuracy": self.accuracy,
             "low": self.accuracy, "high": self.accuracy}
        )  # fmt: skip
        for step, count in enumerate(self.reached):
            draws = values[:, step]
            self.curves.append(
                {**common, "ablated": count, "share": self.config.shares[step],
                 "accuracy": draws.mean(), "low": draws.min(), "high": draws.max()}
            )  # fmt: skip

    def _add_classes(self, name: str, order: str, sets: Sequence[UnitList]) -> None:
        """Add the accuracy of each class at the last step, averaged over draws."""
        if not sets:
            return
        means = self.network.class_accuracies(TEST, sets, self.config.how).mean(0)
        for index in np.flatnonzero(~np.isnan(means)).tolist():
            self.classes.append(
                {"network": self.network.name, "score": name, "order": order,
                 "ablated": len(sets[0]), "class": self.network.classes[index],
                 "accuracy": means[index]}
            )  # fmt: skip

    def _layer_rows(self) -> list[dict[str, Any]]:
        """Return the mean of each score by layer, and the share of units above 0."""
        rows = []
        for name, values in self.scores.items():
            for layer in self.network.widths:
                selected = values[[unit.layer == layer for unit in self.units]]
                low, high = statistics.mean_interval(selected)
                rows.append(
                    {"network": self.network.name, "score": name, "layer": layer,
                     "units": len(selected),
                     "mean": selected.mean() if len(selected) else np.nan,
                     "low": low, "high": high,
                     "any": (selected > 0).mean() if len(selected) else np.nan}
                )  # fmt: skip
        return rows


def measure_area(
    values: NDArray[np.float64], matched: NDArray[np.float64], unmatched: NDArray[np.float64]
) -> dict[str, Any]:
    """Return the area between the curve of a score and its control, with interval and p.

    The interval is that of one more draw of the control (a prediction interval): t with draws - 1
    degrees of freedom.

    Args:
        values: accuracies of the score's order (draw, step).
        matched: those of random units of the same layers.
        unmatched: those of random units of any layer.
    """
    from scipy.stats import t

    level, controls = values.mean(), matched.mean(1)
    area, spread = level - controls.mean(), controls.std(ddof=1) * np.sqrt(1 + 1 / len(controls))
    freedom = len(controls) - 1
    half = t.ppf(0.975, freedom) * spread
    # Controls that are all equal, as on a handful of images, say nothing about chance.
    p = float(2 * t.sf(abs(area) / spread, freedom)) if spread > 1e-12 else float("nan")
    return {
        "area": float(area),
        "low": float(area - half),
        "high": float(area + half),
        "p": p,
        "accuracy": float(level),
        "control": float(controls.mean()),
        "controls": controls.tolist(),
        "area_unmatched": float(level - unmatched.mean()),
    }


def _select_scores(
    scores: Mapping[str, NDArray[np.float64]], names: Sequence[str] | None
) -> dict[str, NDArray[np.float64]]:
    if names is None or not scores:
        return dict(scores)
    for name in names:
        if name not in scores:
            raise InputError(
                f"No score '{name}' (scores: {', '.join(scores)}).{did_you_mean(name, scores)} "
                "word-difference and similarity need a language with word vectors."
            )
    return {name: scores[name] for name in names}
