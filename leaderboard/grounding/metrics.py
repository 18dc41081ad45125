"""Registry of the metrics of activations; each scores all pairs of descriptions and units.

The headline metrics pass both sanity tests (`sanity_checks`): a wrong description, which names half
of what excites a unit or twice as much, scores lower than a right one. The others are here for
comparison with the literature, and `fails` names the tests that they fail.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from leaderboard.grounding import functional
from leaderboard.grounding.functional import MetricFunction
from leaderboard.grounding.simulation import SIMULATION, Simulation
from leaderboard.metrics.base import (
    Floats,
    Metric,
    MetricSpec,
    PairMetric,
    ReferenceSets,
    distinct,
)
from milannotations.errors import InputError, did_you_mean
from milannotations.utils import python_file

if TYPE_CHECKING:
    from leaderboard.grounding.activations import HeldOutActivations
    from leaderboard.grounding.scorers import Presences

HEADLINE = ("pearson", "auprc", "f1", "iou", "cosine")
"""Default metrics of a score on activations."""

SUPPLEMENT = ("auprc-above", "prevalence")
"""Metrics shown beside the headline: AUPRC cannot be read without the concept's prevalence."""

ACTIVE_SHARE = 0.05
"""Share of samples in which a unit counts as active, for metrics that need one."""

EXTRA_LABELS, MISSING_LABELS = "extra labels", "missing labels"
"""Names of the two sanity tests."""

_OIKARINEN = "Oikarinen et al. 2025, Evaluating Neuron Explanations"


@dataclass(frozen=True)
class ActivationMetric:
    """A metric of activations: its function and what a number under its name means.

    Attributes:
        name: unique name.
        title: one line on what is measured.
        value: function of presence and activations (`leaderboard.grounding.functional`).
        low, high: range of the values.
        chance: value of an uninformative description, if that is not the lowest value.
        source: publication, and the implementation that it agrees with.
        fails: names of the sanity tests that it fails at a prevalence of .01.
        takes_share: True if `value` takes the share of samples in which a unit is active.
    """

    name: str
    title: str
    value: Callable[..., Floats]
    low: float | None
    high: float | None
    source: str
    chance: float | None = None
    fails: tuple[str, ...] = ()
    takes_share: bool = False

    def at(self, share: float) -> MetricFunction:
        """Return the function with the share of active samples bound, if it takes one."""
        return partial(self.value, share=share) if self.takes_share else self.value

    @property
    def spec(self) -> MetricSpec:
        """Specification of the metric, as every metric of the suite has one."""
        return MetricSpec(
            name=self.name,
            family="grounding",
            title=self.title,
            low=self.low,
            high=self.high,
            direction=None if self.name == "prevalence" else "higher",
            source=self.source,
            chance=self.chance,
            against="activations",
        )


_M = ActivationMetric

ACTIVATION_METRICS: tuple[ActivationMetric, ...] = (
    _M("pearson", "correlation of presence and activation", functional.pearson, -1.0, 1.0,
       "scipy.stats.pearsonr", 0.0),
    _M("auprc", "average precision: activations find the concept", functional.auprc, 0.0, 1.0,
       "sklearn.metrics.average_precision_score"),
    _M("auprc-above", "(AUPRC - prevalence) / (1 - prevalence)",
       functional.auprc_above_prevalence, None, 1.0,
       "sklearn.metrics.average_precision_score", 0.0),
    _M("f1", "F1 of concept and active unit", functional.f1, 0.0, 1.0,
       "sklearn.metrics.f1_score"),
    _M("iou", "IoU of concept and active unit", functional.iou, 0.0, 1.0,
       "sklearn.metrics.jaccard_score"),
    _M("cosine", "cosine of presence and activation", functional.cosine, -1.0, 1.0,
       "scipy.spatial.distance.cosine", 0.0),
    _M("prevalence", "share of samples that have the concept", functional.prevalence, 0.0, 1.0,
       "this suite"),
    _M("auroc-invert", "AUROC, activation as score", functional.auroc_invert, 0.0, 1.0,
       "Bykov et al. 2023; sklearn.metrics.roc_auc_score", 0.5, (MISSING_LABELS,)),
    _M("auroc", "AUROC, concept as predictor of an active unit", functional.auroc, 0.0, 1.0,
       f"{_OIKARINEN}; sklearn.metrics.roc_auc_score", 0.5, (EXTRA_LABELS,), True),
    _M("auprc-predictor", "average precision, concept as predictor of an active unit",
       functional.auprc_predictor, 0.0, 1.0,
       f"{_OIKARINEN}; sklearn.metrics.average_precision_score", takes_share=True),
    _M("recall", "share of active samples that have the concept", functional.recall, 0.0, 1.0,
       f"{_OIKARINEN}; sklearn.metrics.recall_score", None, (EXTRA_LABELS,), True),
    _M("precision", "share of samples with the concept that are active", functional.precision,
       0.0, 1.0, f"{_OIKARINEN}; sklearn.metrics.precision_score", None, (MISSING_LABELS,), True),
    _M("accuracy", "share of samples in which both agree", functional.accuracy, 0.0, 1.0,
       f"{_OIKARINEN}; sklearn.metrics.accuracy_score", None, (MISSING_LABELS,), True),
    _M("balanced-accuracy", "the same, of active and idle samples alike",
       functional.balanced_accuracy, 0.0, 1.0,
       f"{_OIKARINEN}; sklearn.metrics.balanced_accuracy_score", 0.5, (EXTRA_LABELS,), True),
    _M("mad", "mean activation with the concept less without, in deviations", functional.mad,
       None, None, "Kopf et al. 2024, CoSy; numpy", 0.0, (MISSING_LABELS,)),
    _M("wpmi", "log p(concept | active) - .1 log p(concept)", functional.wpmi, None, None,
       f"{_OIKARINEN}; Oikarinen and Weng 2023", None, (EXTRA_LABELS,), True),
    _M("spearman", "rank correlation of presence and activation", functional.spearman, -1.0, 1.0,
       "scipy.stats.spearmanr", 0.0),
    _M("top-recall", "mean presence in the 10 samples that excite most", functional.top_recall,
       0.0, 1.0, "Zhou et al. 2015; numpy", None, (EXTRA_LABELS,)),
    _M("pearson-top-random", "correlation over strongest and random samples",
       functional.pearson_top_random, -1.0, 1.0, "Bills et al. 2023; scipy.stats.pearsonr", 0.0,
       (EXTRA_LABELS,)),
)  # fmt: skip
"""Every metric of activations but `simulation`: headline, supplement, and the literature's."""


def specs() -> list[MetricSpec]:
    """Return the specification of every metric of activations, including `simulation`."""
    return [*(metric.spec for metric in ACTIVATION_METRICS), Simulation.spec]


class GroundedMetric(PairMetric):
    """A metric of activations, bound to a network's activations; reference sets are unit keys.

    Args:
        definition: the metric.
        held_out: activations of the units.
        presences: presence of the descriptions in the same images.
        share: share of samples in which a unit counts as active, if the metric takes one.
    """

    def __init__(
        self,
        definition: ActivationMetric,
        held_out: HeldOutActivations,
        presences: Presences,
        share: float = ACTIVE_SHARE,
    ) -> None:
        self.definition, self.held_out = definition, held_out
        self.presences, self.share = presences, share
        self.spec = definition.spec

    def pairs(self, predictions: Sequence[str], references: ReferenceSets) -> Floats:
        """Return S, float64 (prediction, unit).

        Values are nan for a description that the scorer cannot read, for a unit whose activation
        is the same in every image, and for a unit without activations.
        """
        texts, rows = distinct(predictions)
        scores = np.full((len(texts), len(references)), np.nan)
        activations = self.held_out.of([members[0] for members in references])
        varying = np.isfinite(activations).all(0) & (activations.max(0) > activations.min(0))
        presence = self.presences.of(texts)
        readable = np.isfinite(presence).all(1)
        if readable.any() and varying.any():
            function = self.definition.at(self.share)
            values = function(presence[readable], activations[:, varying])
            scores[np.ix_(readable, varying)] = values
        return scores[rows]

    def signature(self) -> str:
        """Return everything but the texts that the values depend on."""
        parts = [self.spec.name, self.presences.digest, self.held_out.digest]
        if self.definition.takes_share:
            parts.append(f"share {self.share}")
        return "|".join(parts)


def get(name: str) -> ActivationMetric:
    """Return a metric by name, or a third-party metric by the path of its file.

    The file defines `metric(presence, activations)`: it takes arrays (description, sample) and
    (sample, unit) and returns (description, unit).

    Raises:
        InputError: unknown metric; a file without that function.

    Example:
        >>> get("mad").fails
        ('missing labels',)
    """
    known = {metric.name: metric for metric in ACTIVATION_METRICS}
    if name in known:
        return known[name]
    if name.endswith(".py"):
        return _from_file(Path(name))
    raise InputError(
        f"No metric of activations '{name}'.{did_you_mean(name, known)} Available: "
        f"{', '.join(known)} (and {SIMULATION}, in milan score only); or path/to/file.py with a "
        "function metric(presence, activations)."
    )


def _from_file(path: Path) -> ActivationMetric:
    """Return the metric that a Python file defines; its result is checked for its shape."""
    if not path.is_file():
        raise InputError(
            f"No file {path}. Expected a Python file with metric(presence, activations)."
        )
    function = getattr(python_file.load_module(path), "metric", None)
    if not callable(function):
        raise InputError(
            f"{path} has no function 'metric'. Expected metric(presence, activations): takes "
            "arrays (description, sample) and (sample, unit), returns (description, unit)."
        )

    def value(presence: Floats, activations: Floats) -> Floats:
        with python_file.run_user_code(path):
            values = np.asarray(function(presence, activations), dtype=np.float64)
        expected = (len(presence), activations.shape[1])
        if values.shape != expected:
            raise InputError(
                f"{path}: metric(...) returned {values.shape} for presence {presence.shape} "
                f"and activations {activations.shape}; expected (description, unit): {expected}."
            )
        return values

    return ActivationMetric(path.stem, f"of {path.name}", value, None, None, str(path.name))


def build(
    names: Iterable[str],
    held_out: HeldOutActivations,
    presences: Presences,
    share: float = ACTIVE_SHARE,
) -> dict[str, Metric]:
    """Build metrics by name, over one scorer and one set of held-out images.

    Args:
        names: names of metrics; `headline` means `HEADLINE` and `SUPPLEMENT`, `all` means all but
            `simulation`, which runs the network many times.
        held_out: activations of the units.
        presences: presence of the descriptions in the same images.
        share: see `GroundedMetric`.

    Raises:
        InputError: unknown metric.
    """
    sets = {
        "headline": [*HEADLINE, *SUPPLEMENT],
        "all": [metric.name for metric in ACTIVATION_METRICS],
    }
    metrics: dict[str, Metric] = {}
    for name in dict.fromkeys(member for given in names for member in sets.get(given, [given])):
        if name == SIMULATION:
            metrics[name] = Simulation(held_out, presences)
        else:
            definition = get(name)
            metrics[definition.name] = GroundedMetric(definition, held_out, presences, share)
    return metrics
