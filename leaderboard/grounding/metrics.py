"""The metrics of activations, by name; each is all pairs of descriptions and units.

The headline are those that survive both sanity tests (`checks`): a wrong description cannot
score as well as a right one by naming half of what excites a unit, or twice as much. The others
are there for comparison with the literature, and `fails` says what they miss.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from leaderboard.grounding import functional
from leaderboard.grounding.functional import Floats, MetricFunction
from leaderboard.grounding.simulation import SIMULATION, Simulation
from leaderboard.metrics.base import Metric, MetricSpec, PairMetric, ReferenceSets, distinct
from milannotations.errors import InputError, did_you_mean

if TYPE_CHECKING:
    from leaderboard.grounding.activations import HeldOutActivations
    from leaderboard.grounding.scorers import Presences

HEADLINE = ("pearson", "auprc", "f1", "iou", "cosine")
"""What a score is made of unless something else is asked."""

SUPPLEMENT = ("auprc-above", "prevalence")
"""What stands beside them: average precision is nothing without the concept's own share."""

ACTIVE_SHARE = 0.05
"""Of samples in which a unit counts as active, where a metric of the literature takes a share."""

EXTRA_LABELS, MISSING_LABELS = "extra labels", "missing labels"

_OIKARINEN = "Oikarinen et al. 2025, Evaluating Neuron Explanations"


@dataclass(frozen=True)
class ActivationMetric:
    """A metric of activations.

    Attributes:
        name: under which it is found.
        title: what it measures, in a line.
        value: the function of presence and activations.
        low, high: its range.
        chance: what a description that says nothing has, where that is not the lowest value.
        source: who has it, and whose implementation it agrees with.
        fails: the sanity tests that it fails at a prevalence of .01 (`checks`).
        takes_share: whether it is to be told in what share of samples a unit is active.
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
        """Return the function, told in what share of samples a unit counts as active."""
        return partial(self.value, share=share) if self.takes_share else self.value

    @property
    def spec(self) -> MetricSpec:
        """What a number under this name means."""
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
"""Every metric of activations: the headline, what stands beside it, and the literature's."""


def specs() -> list[MetricSpec]:
    """Return what every metric of activations is, `simulation` among them."""
    return [*(kind.spec for kind in ACTIVATION_METRICS), Simulation.spec]


class GroundedMetric(PairMetric):
    """A metric of what descriptions predict and units do; its reference sets are unit keys.

    Args:
        kind: which.
        held: what the units did.
        presences: in which pictures the descriptions are.
        share: of samples in which a unit counts as active, where the metric is to be told.
    """

    def __init__(
        self,
        kind: ActivationMetric,
        held: HeldOutActivations,
        presences: Presences,
        share: float = ACTIVE_SHARE,
    ) -> None:
        self.kind, self.held, self.presences, self.share = kind, held, presences, share
        self.spec = kind.spec

    def pairs(self, predictions: Sequence[str], references: ReferenceSets) -> Floats:
        """Return S, float64 (prediction, unit).

        nan for a text that the scorer cannot read, and for a unit that does the same on every
        picture, or was not seen.
        """
        texts, rows = distinct(predictions)
        made = np.full((len(texts), len(references)), np.nan)
        activations = self.held.of([members[0] for members in references])
        alive = np.isfinite(activations).all(0) & (activations.max(0) > activations.min(0))
        presence = self.presences.of(texts)
        read = np.isfinite(presence).all(1)
        if read.any() and alive.any():
            found = self.kind.at(self.share)(presence[read], activations[:, alive])
            made[np.ix_(read, alive)] = found
        return made[rows]

    def signature(self) -> str:
        """Return everything that the numbers depend on but the texts."""
        parts = [self.spec.name, self.presences.digest, self.held.digest]
        return "|".join([*parts, f"share {self.share}"] if self.kind.takes_share else parts)


def get(name: str) -> ActivationMetric:
    """Return a metric by name, or a stranger's by the path of its file.

    A stranger's file has a function `metric(presence, activations)`, of arrays (description,
    sample) and (sample, unit), that returns (description, unit).

    Raises:
        InputError: no such metric; a file without that function.

    Example:
        >>> get("mad").fails
        ('missing labels',)
    """
    known = {kind.name: kind for kind in ACTIVATION_METRICS}
    if name in known:
        return known[name]
    if name.endswith(".py"):
        return _of_file(Path(name))
    raise InputError(
        f"No metric of activations '{name}'.{did_you_mean(name, known)} Metrics: "
        f"{', '.join(known)} (milan score knows {SIMULATION}, too); or path/to/file.py with a "
        "function metric(presence, activations)."
    )


def _of_file(path: Path) -> ActivationMetric:
    if not path.is_file():
        raise InputError(f"No file {path}. Expected one with metric(presence, activations).")
    spec = importlib.util.spec_from_file_location(f"_metric_{path.stem}", path)
    assert spec is not None
    assert spec.loader is not None
    module: Any = importlib.util.module_from_spec(spec)
    try:
        spec.loader.exec_module(module)
    except Exception as error:
        raise InputError(f"{path} cannot be run: {error!r}. Mend it, and ask again.") from error
    function = getattr(module, "metric", None)
    if not callable(function):
        raise InputError(
            f"{path} has no function 'metric'. Expected metric(presence, activations): arrays "
            "(description, sample) and (sample, unit) in, (description, unit) out."
        )

    def value(presence: Floats, activations: Floats) -> Floats:
        try:
            found = np.asarray(function(presence, activations), dtype=np.float64)
        except Exception as error:
            raise InputError(f"{path}: metric(...) raised {error!r}.") from error
        expected = (len(presence), activations.shape[1])
        if found.shape != expected:
            raise InputError(
                f"{path}: metric(...) returned {found.shape} of presence {presence.shape} and "
                f"activations {activations.shape}; (description, unit) is {expected}."
            )
        return found

    return ActivationMetric(path.stem, f"of {path.name}", value, None, None, str(path.name))


def build(
    names: Iterable[str],
    held: HeldOutActivations,
    presences: Presences,
    share: float = ACTIVE_SHARE,
) -> dict[str, Metric]:
    """Return metrics by name, over one scorer and one set of held-out pictures.

    Args:
        names: of metrics; `headline` stands for those, with what stands beside them, `all` for
            all but `simulation`, which runs the network again and again.
        held: what the units did.
        presences: in which pictures the descriptions are.
        share: see `GroundedMetric`.

    Raises:
        InputError: an unknown name.
    """
    sets = {"headline": [*HEADLINE, *SUPPLEMENT], "all": [kind.name for kind in ACTIVATION_METRICS]}
    wanted = dict.fromkeys(one for name in names for one in sets.get(name, [name]))
    made: dict[str, Metric] = {}
    for name in wanted:
        if name == SIMULATION:
            made[name] = Simulation(held, presences)
        else:
            kind = get(name)
            made[kind.name] = GroundedMetric(kind, held, presences, share)
    return made
