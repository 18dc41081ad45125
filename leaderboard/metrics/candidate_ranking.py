"""Metrics that rank candidates by another metric: retrieval and identification."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Literal

import numpy as np

from leaderboard import statistics
from leaderboard.metrics.base import Floats, PairMetric, ReferenceSets, distinct


class RankingMetric(PairMetric):
    """A monotone view of another metric's S, fitted as that metric is.

    Args:
        base: the metric that compares texts.
    """

    def __init__(self, base: PairMetric) -> None:
        self._base = base

    def fit(self, corpus: Sequence[str]) -> None:
        self._base.fit(corpus)

    def signature(self) -> str:
        return f"{self.spec.name}|{self._base.signature()}"

    def rows(self, predictions: Sequence[str], references: ReferenceSets) -> Floats:
        # ranks are among all the references given: no block of them will do
        return np.diagonal(self.pairs(predictions, references)).copy()


class Retrieval(RankingMetric):
    """How well a prediction finds its own unit among the units of the layer.

    A monotone view of another metric's S: `auc` is the share of other candidates
    that fit worse (ties half), `top1` the chance that none of 99 drawn candidates
    fits better (ties split).

    Args:
        base: the metric that compares texts.
        what: "auc" or "top1".
    """

    def __init__(self, base: PairMetric, what: Literal["auc", "top1"]) -> None:
        super().__init__(base)
        self._what = what
        family, _, model = base.spec.name.partition("@")
        self.spec = replace(
            base.spec,
            name=f"retrieval-{family}-{what}" + (f"@{model}" if model else ""),
            family="retrieval",
            title={
                "auc": f"chance that another unit of the layer fits worse, by {family}",
                "top1": f"chance to find the unit among 100 of its layer, by {family}",
            }[what],
            low=0.0,
            high=1.0,
            source=f"this suite, over {base.spec.source}",
            chance={"auc": 0.5, "top1": 1 / statistics.RETRIEVAL_POOL}[what],
        )

    def pairs(
        self,
        predictions: Sequence[str],
        references: ReferenceSets,
        groups: Sequence[int] | None = None,
    ) -> Floats:
        """Return the score of every prediction for every candidate as its target.

        Args:
            predictions: n texts.
            references: the candidates' references, those of the whole layer.
            groups: candidates with the same number are duplicates of one another
                and never each other's distractors; None where there are none.
        """
        texts, at = distinct(predictions)
        scores = self._base.pairs(texts, references)
        rank = statistics.retrieval_auc if self._what == "auc" else statistics.retrieval_top1
        return rank(scores, groups)[at]


class Identification(RankingMetric):
    """Which of the truths of the layer a description fits best.

    Candidates are the distinct truths of the layer, so that units of the same truth are
    nobody's distractors. `first` is whether the unit's own fits best (ties split), `auc` the
    share of the others that fit worse (ties half).

    Args:
        base: the metric that compares texts.
        what: "first" or "auc".
    """

    def __init__(self, base: PairMetric, what: Literal["first", "auc"]) -> None:
        super().__init__(base)
        self._what = what
        family, _, model = base.spec.name.partition("@")
        by = "" if base.spec.needs else f"-{family}"
        self.spec = replace(
            base.spec,
            name=f"identification{by}{'-auc' * (what == 'auc')}" + (f"@{model}" if model else ""),
            family="identification",
            title={
                "first": f"share of units whose truth fits best of their layer's, by {family}",
                "auc": f"chance that another truth of the layer fits worse, by {family}",
            }[what],
            low=0.0,
            high=1.0,
            source=f"this suite, over {base.spec.source}",
            chance={"first": None, "auc": 0.5}[what],
            against="truth",
        )

    def pairs(self, predictions: Sequence[str], references: ReferenceSets) -> Floats:
        """Return the score of every prediction for every unit's truth as its target.

        Args:
            predictions: n texts.
            references: the truths of the layer's units, as often as there are units.
        """
        texts, at = distinct(predictions)
        truths, own = distinct([tuple(members) for members in references])
        scores = self._base.pairs(texts, truths)
        rank = statistics.retrieval_auc if self._what == "auc" else statistics.best_of_all
        return rank(scores)[at][:, own]
