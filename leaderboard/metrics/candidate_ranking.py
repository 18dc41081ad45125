"""Metrics that rank candidates by another metric: retrieval and identification."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any, Literal

import numpy as np

from leaderboard import statistics
from leaderboard.metrics.base import Floats, MetricSpec, PairMetric, ReferenceSets, distinct


class RankingMetric(PairMetric):
    """Base of metrics that rank candidates by another metric's S.

    Args:
        base: metric that compares texts; it is fitted with this one.
    """

    def __init__(self, base: PairMetric) -> None:
        self._base = base

    def _spec_of(self, name: str, **changes: Any) -> MetricSpec:
        """Return the spec of the base metric, changed to a measure between 0 and 1."""
        spec = self._base.spec
        model = spec.name.partition("@")[2]
        return replace(
            spec,
            name=f"{name}@{model}" if model else name,
            low=0.0,
            high=1.0,
            source=f"this suite, over {spec.source}",
            **changes,
        )

    def fit(self, corpus: Sequence[str]) -> None:
        self._base.fit(corpus)

    def signature(self) -> str:
        return f"{self.spec.name}|{self._base.signature()}"

    def rows(self, predictions: Sequence[str], references: ReferenceSets) -> Floats:
        # a rank is among all references, so the blocks of `PairMetric.rows` would be wrong
        return np.diagonal(self.pairs(predictions, references)).copy()


class Retrieval(RankingMetric):
    """Retrieval of a unit by its description among the units of the layer.

    `auc` is the share of other candidates that fit worse (ties count half), `top1` the chance
    that none of 99 drawn candidates fits better (ties split).

    Args:
        base: metric that compares texts.
        measure: "auc" or "top1".
    """

    def __init__(self, base: PairMetric, measure: Literal["auc", "top1"]) -> None:
        super().__init__(base)
        self._measure = measure
        family = base.spec.name.partition("@")[0]
        self.spec = self._spec_of(
            f"retrieval-{family}-{measure}",
            family="retrieval",
            title={
                "auc": f"chance that another unit of the layer fits worse, by {family}",
                "top1": f"chance to find the unit among 100 of its layer, by {family}",
            }[measure],
            chance={"auc": 0.5, "top1": 1 / statistics.RETRIEVAL_POOL}[measure],
        )

    def pairs(
        self,
        predictions: Sequence[str],
        references: ReferenceSets,
        groups: Sequence[int] | None = None,
    ) -> Floats:
        """Return the measure of every prediction with every candidate as its target.

        Args:
            predictions: n texts.
            references: references of all candidates, which are those of the whole layer.
            groups: group of each candidate; members of a group are duplicates, and no distractors
                of each other. None if there are no duplicates.

        Returns:
            (prediction, target).
        """
        texts, rows = distinct(predictions)
        scores = self._base.pairs(texts, references)
        rank = statistics.retrieval_auc if self._measure == "auc" else statistics.retrieval_top1
        return rank(scores, groups)[rows]


class Identification(RankingMetric):
    """Identification of a unit's truth among the truths of the layer.

    Candidates are the distinct truths of the layer, so units with the same truth are no
    distractors. `first` is 1 if the unit's own truth fits best (ties split), `auc` the share of
    the other truths that fit worse (ties count half).

    Args:
        base: metric that compares texts.
        measure: "first" or "auc".
    """

    def __init__(self, base: PairMetric, measure: Literal["first", "auc"]) -> None:
        super().__init__(base)
        self._measure = measure
        family = base.spec.name.partition("@")[0]
        by = "" if base.spec.needs else f"-{family}"
        suffix = "-auc" if measure == "auc" else ""
        self.spec = self._spec_of(
            f"identification{by}{suffix}",
            family="identification",
            title={
                "first": f"share of units whose truth fits best of their layer's, by {family}",
                "auc": f"chance that another truth of the layer fits worse, by {family}",
            }[measure],
            chance={"first": None, "auc": 0.5}[measure],
            against="truth",
        )

    def pairs(self, predictions: Sequence[str], references: ReferenceSets) -> Floats:
        """Return the measure of every prediction with every unit's truth as its target.

        Args:
            predictions: n texts.
            references: truths of the layer's units, one set per unit.

        Returns:
            (prediction, unit).
        """
        texts, rows = distinct(predictions)
        truths, own = distinct([tuple(members) for members in references])
        scores = self._base.pairs(texts, truths)
        rank = statistics.retrieval_auc if self._measure == "auc" else statistics.best_of_all
        return rank(scores)[rows][:, own]
