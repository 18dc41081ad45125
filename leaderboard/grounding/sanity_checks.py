"""Sanity tests of metrics: does a metric notice that a description is wrong?

Oikarinen et al. 2025, section 4. A unit has a right concept; half of the concept's labels are
removed (*missing labels*: the description is too narrow), or as many are added at random (*extra
labels*: it is too wide). A metric passes if its score falls for more than nine in ten units.

`rank_truths` tests the opposite direction: a unit's known truth should score above other truths.

The units are those of the mini world. Verdicts depend on how common a concept is, so scenes are
redrawn, with and without the concept, until it has a given prevalence.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from leaderboard import statistics
from leaderboard.grounding.metrics import EXTRA_LABELS, MISSING_LABELS, ActivationMetric
from leaderboard.grounding.scorers.base import Presences
from leaderboard.grounding.scorers.grammar import GrammarScorer
from leaderboard.metrics.base import Floats
from milannotations.errors import InputError
from milannotations.synthetic.grammar import phrase

if TYPE_CHECKING:
    from leaderboard.grounding.activations import HeldOutActivations
    from milannotations.synthetic.unit_plan import PlantedUnit

PREVALENCES = (0.001, 0.01, 0.1, 0.3)
"""Shares of samples with the concept."""

RARE_PREVALENCE = 0.01
"""Highest prevalence at which concepts are as rare as in photographs; `fails` is for this range."""

MIN_SAMPLES = 2_000
"""Samples per unit, or more, until `MIN_POSITIVES` of them have the concept."""

MIN_POSITIVES = 4
"""Fewest samples with the concept."""

DRAWS = 5
"""Repetitions of each random change of the labels; scores are averaged."""

MIN_DROP = 0.001
"""Smallest fall that counts, as a share of the metric's range; from the code of the paper."""

MIN_MEAN_DROP = 0.005
"""Mean drop, as a share of the metric's range, below which a metric is insensitive."""

PASSING_SHARE = 0.9
"""Share of units that must be exceeded by those whose score falls."""

MIN_SCENES = 4
"""Fewest scenes with the concept, and without it, for a unit to be tested."""


@dataclass(frozen=True)
class UnitPool:
    """Units with a known concept, on scenes.

    Attributes:
        activations: float64 (scene, unit).
        presence: presence of each unit's concept, bool (unit, scene).
    """

    activations: Floats
    presence: NDArray[np.bool_]

    @classmethod
    def of_mini(cls, held_out: HeldOutActivations) -> UnitPool:
        """Return the planted units with a meaning and with enough scenes of both kinds.

        Args:
            held_out: activations of the mini networks, on whole images.
        """
        units = [planted for planted in _planted(held_out) if planted.formula.means_something]
        presences = Presences(GrammarScorer(), held_out.probe)
        presence = presences.of([phrase(planted.formula) for planted in units]) > 0
        count = presence.sum(1)
        enough = (count >= MIN_SCENES) & (presence.shape[1] - count >= MIN_SCENES)
        activations = held_out.of([str(planted.unit) for planted in units])
        return cls(activations[:, enough], presence[enough])

    def drawn(self, prevalence: float, seed: int) -> tuple[NDArray[np.bool_], Floats]:
        """Draw samples with a given prevalence of every unit's concept.

        Each unit's own scenes are drawn with replacement, so that the samples with the concept are
        the same rows for every unit.

        Returns:
            Labels, bool (sample,), the same for all units; activations, float64 (sample, unit).
        """
        # Rare concepts need more samples, so that some of them are positive.
        n = max(MIN_SAMPLES, round(MIN_POSITIVES / prevalence))
        k = round(prevalence * n)
        rng = np.random.default_rng([seed, n, k])
        activations = np.empty((n, self.activations.shape[1]))
        for unit, presence in enumerate(self.presence):
            values = self.activations[:, unit]
            activations[:k, unit] = rng.choice(values[presence], k)
            activations[k:, unit] = rng.choice(values[~presence], n - k)
        return np.arange(n) < k, activations


@dataclass(frozen=True)
class SanityVerdict:
    """Result of one metric in one sanity test at one prevalence.

    Attributes:
        metric: name of the metric.
        test: name of the sanity test.
        prevalence: share of samples with the concept.
        score: mean over units, with the right labels.
        fell: share of units whose score fell.
        drop: mean drop, as a share of the metric's range. The range is given by the metric's bounds
            or, if it has none, by the scores of right, wrong and random labels.
        verdict: `pass`, `FAIL`, or `insensitive`, which is not a pass.
        units: number of units.
    """

    metric: str
    test: str
    prevalence: float
    score: float
    fell: float
    drop: float
    verdict: str
    units: int

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)


def run_sanity_tests(
    metric: ActivationMetric,
    pool: UnitPool,
    prevalences: Sequence[float] = PREVALENCES,
    seed: int = 0,
) -> list[SanityVerdict]:
    """Run both sanity tests on a metric, at each prevalence.

    A metric that takes the share of active samples is given the prevalence.

    Args:
        metric: the metric.
        pool: units with a known concept.
        prevalences: shares of samples with the concept, above 0 and up to .5.
        seed: random seed of all draws.

    Raises:
        InputError: no units; a prevalence out of range; values of the metric that are not finite.
    """
    if not len(pool.presence):
        raise InputError(
            "No unit can be tested: none has enough scenes with and without its concept. Test "
            "other networks: --network NAME."
        )
    verdicts = []
    for prevalence in prevalences:
        if not 0 < prevalence <= 0.5:
            raise InputError(
                f"Prevalence {prevalence} is out of range; expected above 0, up to .5."
            )
        labels, activations = pool.drawn(prevalence, seed)
        # The labels are the same for all units, so each change of them is scored for all at once.
        rng = np.random.default_rng([seed, len(labels), 1])
        right = labels.astype(np.float64)
        missing = np.stack([_halve(labels, rng) for _ in range(DRAWS)])
        extra = np.stack([_double(labels, rng) for _ in range(DRAWS)])
        random = np.stack([rng.permutation(right) for _ in range(DRAWS)])
        # One call for all label rows: 0 is right, then DRAWS rows each of missing, extra, random.
        scores = metric.at(prevalence)(np.vstack([right, missing, extra, random]), activations)
        if not np.isfinite(scores).all():
            raise InputError(f"The metric '{metric.name}' returned values that are not finite.")
        # Drops are shares of the metric's range, so that metrics of any scale can be compared.
        width = float(scores.max() - scores.min()) or 1.0
        if metric.low is not None and metric.high is not None:
            width = metric.high - metric.low
        changed = {
            MISSING_LABELS: scores[1 : 1 + DRAWS],
            EXTRA_LABELS: scores[1 + DRAWS : 1 + 2 * DRAWS],
        }
        for test, rows in changed.items():
            drop = (scores[0] - rows.mean(0)) / width
            fell = float((drop > MIN_DROP).mean())
            verdict = "FAIL" if fell <= PASSING_SHARE else "pass"
            if verdict == "pass" and drop.mean() < MIN_MEAN_DROP:
                verdict = "insensitive"
            verdicts.append(
                SanityVerdict(
                    metric=metric.name,
                    test=test,
                    prevalence=prevalence,
                    score=float(scores[0].mean()),
                    fell=fell,
                    drop=float(drop.mean()),
                    verdict=verdict,
                    units=len(drop),
                )
            )
    return verdicts


def _halve(labels: NDArray[np.bool_], rng: np.random.Generator) -> Floats:
    """Return labels with a random half of the positives removed."""
    positives = np.flatnonzero(labels)
    halved = labels.astype(np.float64)
    halved[rng.permutation(positives)[: len(positives) // 2]] = 0
    return halved


def _double(labels: NDArray[np.bool_], rng: np.random.Generator) -> Floats:
    """Return labels with as many random positives added as there are."""
    doubled = labels.astype(np.float64)
    negatives = rng.permutation(np.flatnonzero(~labels))
    doubled[negatives[: int(labels.sum())]] = 1
    return doubled


@dataclass(frozen=True)
class TruthRanking:
    """Separation by a metric of the truth of a unit from the truths of other units.

    Attributes:
        metric: name of the metric.
        auc: probability that the truth scores above another truth of the layer, ties half.
        first: share of units whose truth scores highest of all, ties split.
        truth: mean score of the truth.
        best: mean of the highest score of any truth of the layer.
        half: for polysemantic units, the mean score of the whole truth and of one sense alone;
            None without such units.
        units, polysemantic: number of units, and of polysemantic units.
    """

    metric: str
    auc: float
    first: float
    truth: float
    best: float
    half: tuple[float, float] | None
    units: int
    polysemantic: int

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)


def rank_truths(
    metric: ActivationMetric, held_out: HeldOutActivations, share: float = 0.05
) -> TruthRanking:
    """Rank the truth of each planted unit of the mini world among the truths of its layer.

    Candidates are the distinct truths of the layer, in plain words.

    Args:
        metric: the metric.
        held_out: activations of the mini networks.
        share: share of samples in which a unit is active, for metrics that take one.
    """
    presences = Presences(GrammarScorer(), held_out.probe, held_out.grid)
    function = metric.at(share)
    aucs, firsts, truths, bests = list[Floats](), list[Floats](), list[Floats](), list[Floats]()
    whole, half = list[float](), list[float]()
    for layer in held_out.layers:
        units = [
            planted
            for planted in _planted(held_out)
            if planted.unit[:2] == layer and planted.formula.means_something
        ]
        activations = held_out.of([str(planted.unit) for planted in units])
        varying = activations.max(0) > activations.min(0)
        units = [planted for planted, varies in zip(units, varying, strict=True) if varies]
        activations = activations[:, varying]
        # Units may share a truth: each distinct phrase is one candidate.
        candidates = list(dict.fromkeys(phrase(planted.formula) for planted in units))
        truth_of = np.array([candidates.index(phrase(planted.formula)) for planted in units])
        scores = function(presences.of(candidates), activations)  # (candidate, unit)
        columns = np.arange(len(units))
        aucs.append(statistics.retrieval_auc(scores.T)[columns, truth_of])
        firsts.append(statistics.best_of_all(scores.T)[columns, truth_of])
        truths.append(scores[truth_of, columns])
        bests.append(scores.max(0))
        # What a description loses that names only one sense of a polysemantic unit.
        for column, planted in enumerate(units):
            if len(planted.formula.senses) > 1:
                senses = presences.of([phrase(sense) for sense in planted.formula.senses])
                half.append(float(function(senses, activations[:, [column]]).mean()))
                whole.append(float(scores[truth_of[column], column]))
    auc, first, truth, best = (
        float(np.concatenate(part).mean()) for part in (aucs, firsts, truths, bests)
    )
    both = (float(np.mean(whole)), float(np.mean(half))) if half else None
    return TruthRanking(
        metric=metric.name,
        auc=auc,
        first=first,
        truth=truth,
        best=best,
        half=both,
        units=sum(map(len, truths)),
        polysemantic=len(half),
    )


def _planted(held_out: HeldOutActivations) -> list[PlantedUnit]:
    """Return the planted units of the probed layers, without duplicates."""
    from milannotations.synthetic.unit_plan import plan

    layers = set(held_out.layers)
    return [
        planted for planted in plan() if planted.unit[:2] in layers and planted.duplicate_of is None
    ]
