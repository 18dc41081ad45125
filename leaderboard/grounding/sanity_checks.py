"""Does a metric notice that a description is wrong? Two sanity tests and a ranking.

Oikarinen et al. 2025, section 4: of a unit with a right concept, half of the concept's labels are
taken away (*missing labels*: too narrow a description), or as many are added at random (*extra
labels*: too wide a one). A metric passes where its score falls for more than nine units of ten. Of
a unit whose truth is known, the truth should score above other truths.

Units are those of the mini world. How often a concept is in the pictures decides much, so scenes
are drawn anew, with and without the concept, until it has the prevalence that is asked for.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from leaderboard import statistics
from leaderboard.grounding.metrics import EXTRA_LABELS, MISSING_LABELS, ActivationMetric
from leaderboard.grounding.scorers import Presences
from leaderboard.grounding.scorers.grammar import GrammarScorer
from leaderboard.metrics.base import Floats
from milannotations.errors import InputError
from milannotations.synthetic.grammar import phrase

if TYPE_CHECKING:
    from leaderboard.grounding.activations import HeldOutActivations
    from milannotations.synthetic.networks import Planted

PREVALENCES = (0.001, 0.01, 0.1, 0.3)
"""Shares of samples with the concept."""

RARE_PREVALENCE = 0.01
"""Up to this prevalence, concepts are as rare as in photographs, and verdicts are published."""

SAMPLES, POSITIVES = 2_000, 4
"""Samples of a unit, or as many as have this many with the concept."""

DRAWS = 5
"""Labels are taken away, and added, so often, and the scores averaged."""

FALLS = 0.001
"""A fall counts from this share of the metric's range on, as in the code of the paper."""

INSENSITIVE = 0.005
"""A metric whose mean drop is a smaller share of its range hardly notices."""

ENOUGH = 0.9
"""The share of units whose score is to fall."""

FEWEST = 4
"""Scenes with a unit's concept, and without, that a unit takes to be tested on."""


@dataclass(frozen=True)
class UnitPool:
    """Units whose concept is known, on scenes.

    Attributes:
        activations: float64 (scene, unit).
        presence: whether the concept is there: bool (unit, scene).
    """

    activations: Floats
    presence: NDArray[np.bool_]

    @classmethod
    def of_mini(cls, held: HeldOutActivations) -> UnitPool:
        """Return the planted units that mean something, with scenes enough of both kinds.

        Args:
            held: networks of the mini world, on whole pictures.
        """
        units = [each for each in _planted(held) if each.formula.means_something]
        presences = Presences(GrammarScorer(), held.probe)
        there = presences.of([phrase(each.formula) for each in units]) > 0
        count = there.sum(1)
        enough = (count >= FEWEST) & (there.shape[1] - count >= FEWEST)
        activations = held.of([str(each.unit) for each in units])
        return cls(activations[:, enough], there[enough])

    def drawn(self, prevalence: float, seed: int) -> tuple[NDArray[np.bool_], Floats]:
        """Return samples in which every unit's concept has the same places and this prevalence.

        Returns:
            Labels, bool (sample,), the same of all units, and activations, (sample, unit).
        """
        n = max(SAMPLES, round(POSITIVES / prevalence))
        k = round(prevalence * n)
        draw = np.random.default_rng([seed, n, k])
        made = np.empty((n, self.activations.shape[1]))
        for unit, there in enumerate(self.presence):
            own = self.activations[:, unit]
            made[:k, unit] = draw.choice(own[there], k)
            made[k:, unit] = draw.choice(own[~there], n - k)
        return np.arange(n) < k, made


@dataclass(frozen=True)
class SanityVerdict:
    """What a metric did in one test at one prevalence.

    Attributes:
        metric, test: their names.
        prevalence: share of samples with the concept.
        score: mean over units, with the right labels.
        fell: share of units whose score fell.
        drop: mean drop, as a share of the metric's range: its bounds or, where it has none, what
            right, wrong and random labels have.
        verdict: `pass`, `FAIL`, or `insensitive`, which is no pass.
        units: how many.
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
    kind: ActivationMetric,
    pool: UnitPool,
    prevalences: Sequence[float] = PREVALENCES,
    seed: int = 0,
) -> list[SanityVerdict]:
    """Return what a metric does when labels are missing, and when there are too many.

    A metric that is told in what share of samples a unit is active is told the prevalence.

    Args:
        kind: the metric.
        pool: units whose concept is known.
        prevalences: shares of samples with the concept, up to a half.
        seed: of all draws.

    Raises:
        InputError: no units; a prevalence out of range; a metric that gives no finite numbers.
    """
    if not len(pool.presence):
        raise InputError("There is no unit to test a metric on.")
    made = []
    for prevalence in prevalences:
        if not 0 < prevalence <= 0.5:
            raise InputError(f"Prevalence {prevalence}; a share above 0, up to .5, was expected.")
        labels, activations = pool.drawn(prevalence, seed)
        draw = np.random.default_rng([seed, len(labels), 1])
        right = labels.astype(np.float64)
        missing = np.stack([_without_half(labels, draw) for _ in range(DRAWS)])
        extra = np.stack([_doubled(labels, draw) for _ in range(DRAWS)])
        random = np.stack([draw.permutation(right) for _ in range(DRAWS)])
        found = kind.at(prevalence)(np.vstack([right, missing, extra, random]), activations)
        if not np.isfinite(found).all():
            raise InputError(f"The metric '{kind.name}' gave numbers that are not finite.")
        width = float(found.max() - found.min()) or 1.0
        if kind.low is not None and kind.high is not None:
            width = kind.high - kind.low
        for test, rows in (
            (MISSING_LABELS, found[1 : 1 + DRAWS]),
            (EXTRA_LABELS, found[1 + DRAWS :][:DRAWS]),
        ):
            drop = (found[0] - rows.mean(0)) / width
            fell = float((drop > FALLS).mean())
            verdict = "FAIL" if fell <= ENOUGH else "pass"
            if verdict == "pass" and drop.mean() < INSENSITIVE:
                verdict = "insensitive"
            made.append(
                SanityVerdict(
                    kind.name, test, prevalence, float(found[0].mean()), fell,
                    float(drop.mean()), verdict, len(drop),
                )
            )  # fmt: skip
    return made


def _without_half(labels: NDArray[np.bool_], draw: np.random.Generator) -> Floats:
    places = np.flatnonzero(labels)
    made = labels.astype(np.float64)
    made[draw.permutation(places)[: len(places) // 2]] = 0
    return made


def _doubled(labels: NDArray[np.bool_], draw: np.random.Generator) -> Floats:
    made = labels.astype(np.float64)
    others = draw.permutation(np.flatnonzero(~labels))
    made[others[: int(labels.sum())]] = 1
    return made


@dataclass(frozen=True)
class TruthRanking:
    """How well a metric tells the truth of a unit from others' truths.

    Attributes:
        metric: its name.
        auc: chance that the truth scores above another truth of the layer, ties half.
        first: share of units whose truth scores highest of all, ties split.
        truth, best: means of the truth's score, and of the highest of any truth of the layer.
        half: means over polysemantic units of the whole truth, and of each sense alone.
        units, polysemantic: how many.
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
    kind: ActivationMetric, held: HeldOutActivations, share: float = 0.05
) -> TruthRanking:
    """Return how well a metric tells truths apart, of the planted units of the mini world.

    Candidates of a unit are the distinct truths of its layer, said in plain words.

    Args:
        kind: the metric.
        held: networks of the mini world.
        share: of samples in which a unit is active, for metrics that are to be told.
    """
    presences = Presences(GrammarScorer(), held.probe, held.grid)
    value = kind.at(share)
    aucs, firsts, truths, bests = list[Floats](), list[Floats](), list[Floats](), list[Floats]()
    whole, half = list[float](), list[float]()
    for key in held.layers:
        units = [
            each for each in _planted(held) if each.unit[:2] == key and each.formula.means_something
        ]
        activations = held.of([str(each.unit) for each in units])
        alive = activations.max(0) > activations.min(0)
        units = [each for each, lives in zip(units, alive, strict=True) if lives]
        activations = activations[:, alive]
        phrases = list(dict.fromkeys(phrase(each.formula) for each in units))
        own = np.array([phrases.index(phrase(each.formula)) for each in units])
        scores = value(presences.of(phrases), activations)
        rows = np.arange(len(units))
        aucs.append(statistics.retrieval_auc(scores.T)[rows, own])
        firsts.append(statistics.best_of_all(scores.T)[rows, own])
        truths.append(scores[own, rows])
        bests.append(scores.max(0))
        for column, each in enumerate(units):
            if len(each.formula.senses) > 1:
                senses = presences.of([phrase(sense) for sense in each.formula.senses])
                half.append(float(value(senses, activations[:, [column]]).mean()))
                whole.append(float(scores[own[column], column]))
    auc, first, truth, best = (
        float(np.concatenate(part).mean()) for part in (aucs, firsts, truths, bests)
    )
    both = (float(np.mean(whole)), float(np.mean(half))) if half else None
    n = sum(map(len, truths))
    return TruthRanking(kind.name, auc, first, truth, best, both, n, len(half))


def _planted(held: HeldOutActivations) -> list[Planted]:
    """Return the planted units of the layers that were looked at, duplicates left out."""
    from milannotations.synthetic.networks import plan

    layers = set(held.layers)
    return [each for each in plan() if each.unit[:2] in layers and each.duplicate_of is None]
