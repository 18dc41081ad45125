"""Scores of the 2022 paper, exactly as its code computed them.

Their names end in `-2022`. They differ from the suite's own metrics in the tokens (ROUGE by the
`rouge` package, on sets of n-grams), in the IDF table (refitted on what is evaluated) and in the
references (BLEU drops references beyond the smallest number that any unit has).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import cache
from importlib.metadata import version
from typing import Literal

import numpy as np

from leaderboard.metrics.base import Floats, MetricSpec, ReferenceSets, RowMetric
from leaderboard.metrics.bert import BertScore, Part, TokenVectors
from leaderboard.metrics.overlap import (
    MAX_ORDER,
    BleuStatistics,
    CorpusBleu,
    bleu,
    precisions,
)
from leaderboard.metrics.text import RowCache, normalise
from leaderboard.metrics.text_models import TextModel

SOURCE = "Hernandez et al. 2022, code of the paper"
KINDS = ("1", "2", "l")
PARTS: tuple[Part, ...] = ("r", "p", "f")


class Bleu2022(CorpusBleu):
    """`bleu-2022`, and its n-gram precisions `bleu-1-2022` to `bleu-4-2022`, 0 to 100.

    References beyond the smallest number that any unit has are dropped.

    Args:
        precision: order of the n-gram precision; None for BLEU itself.
        statistics: shared by all BLEU metrics of one run.
    """

    def __init__(self, precision: int | None, statistics: BleuStatistics) -> None:
        super().__init__(MAX_ORDER, statistics)
        self._precision = precision
        what = "corpus BLEU" if precision is None else f"{precision}-gram precision of corpus BLEU"
        self.spec = MetricSpec(
            name="bleu-2022" if precision is None else f"bleu-{precision}-2022",
            family="milan2022",
            title=f"{what}, as in 2022",
            low=0.0,
            high=100.0,
            direction="higher",
            source=SOURCE,
            corpus=True,
        )

    def rows(self, predictions: Sequence[str], references: ReferenceSets) -> Floats:
        fewest = min(map(len, references))
        return super().rows(predictions, [texts[:fewest] for texts in references])

    def aggregate(self, sums: Floats, counts: Floats) -> Floats:
        if self._precision is None:
            return super().aggregate(sums, counts)
        correct, total = sums[..., 2:6], sums[..., 6:10]
        # 0 for an order without n-grams, and if nothing matches at all
        matched = (correct > 0).any(axis=-1, keepdims=True)
        values = np.where(matched & (total > 0), 100 * precisions(correct, total), 0.0)
        return np.where(counts > 0, values[..., self._precision - 1], np.nan)


class Rouge2022(RowMetric):
    """`rouge-1-f-2022` and others: ROUGE of the `rouge` package, mean over all pairs.

    Args:
        kind: "1", "2" or "l".
        part: recall, precision or F-measure.
    """

    def __init__(self, kind: str, part: Part) -> None:
        self._kind, self._part = kind, part
        self._cache = RowCache(self._score)
        self.spec = MetricSpec(
            name=f"rouge-{kind}-{part}-2022",
            family="milan2022",
            title=f"ROUGE-{kind.upper()} {part.upper()}, as in 2022",
            low=0.0,
            high=1.0,
            direction="higher",
            source=SOURCE + "; the rouge package",
            corpus=True,
        )

    def signature(self) -> str:
        return f"{self.spec.name}|rouge:{version('rouge')}|case:lc"

    def rows(self, predictions: Sequence[str], references: ReferenceSets) -> Floats:
        """Return (sum over the unit's pairs, number of pairs): the paper averaged over pairs."""
        pairs = [
            f"{prediction}\0{text}"
            for prediction, texts in zip(predictions, references, strict=True)
            for text in texts
        ]
        scores = np.array(self._cache.get(pairs))
        sizes = np.array([len(texts) for texts in references])
        starts = np.concatenate([[0], np.cumsum(sizes)[:-1]]).astype(np.intp)
        return np.stack([np.add.reduceat(scores, starts), sizes.astype(np.float64)], axis=1)

    def aggregate(self, sums: Floats, counts: Floats) -> Floats:
        with np.errstate(divide="ignore", invalid="ignore"):
            return np.where(counts > 0, sums[..., 0] / sums[..., 1], np.nan)

    def _score(self, pairs: list[str]) -> list[float]:
        return [_rouge(*pair.split("\0"))[f"rouge-{self._kind}"][self._part] for pair in pairs]


@cache
def _rouge(prediction: str, reference: str) -> dict[str, dict[str, float]]:
    from rouge import Rouge

    if not prediction.replace(".", "") or not reference.replace(".", ""):
        return {f"rouge-{kind}": dict.fromkeys(PARTS, 0.0) for kind in KINDS}
    scores: dict[str, dict[str, float]] = Rouge().get_scores(prediction, reference)[0]
    return scores


class BertScore2022(BertScore):
    """`bertscore-f-2022@MODEL` (also `-p-`, `-r-`): idf-weighted, rescaled, best reference.

    The IDF table is fitted on the references that are evaluated.

    Args:
        encoder: token vectors; the paper used layer 17 of roberta-large.
        part: precision, recall or F-measure, each the best over references.
    """

    fits_on = "evaluated"

    def __init__(self, encoder: TokenVectors, part: Part) -> None:
        super().__init__(encoder, idf=True, rescaled=True, how="max")
        self.part = part
        self.spec = replace(
            self.spec,
            name=f"bertscore-{part}-2022@{encoder.model.label}",
            family="milan2022",
            title=f"BERTScore {part.upper()}, as in 2022",
            source=SOURCE,
        )


def scores(
    predictions: Sequence[str],
    references: ReferenceSets,
    model: TextModel | Literal[False] | None = None,
) -> dict[str, float]:
    """Compute everything that the 2022 code logged for a set of predictions, under its keys.

    Args:
        predictions: one text per unit, as written; empty ones count in BLEU and are
            left out of ROUGE.
        references: annotations of each unit, as written.
        model: model of BERTScore (None: the default); False leaves BERTScore out.

    Returns:
        `bleu`, `bleu-1` .. `bleu-4` (0 to 100), `rouge-{1,2,l}-{r,p,f}` and
        `bert_score-{p,r,f}`.

    Example:
        >>> values = scores(["Red balls."], [["red balls", "a ball"]], model=False)
        >>> round(values["rouge-1-f"], 3), round(values["bleu-1"], 1)
        (0.5, 100.0)
    """
    texts = [normalise(text) for text in predictions]
    sets = [[normalise(text) for text in members] for members in references]
    result: dict[str, float] = {}
    count = np.array(float(len(texts)))
    shared = BleuStatistics()
    sums = Bleu2022(None, shared).rows(texts, sets).sum(axis=0)
    result["bleu"] = float(bleu(sums))
    for order in range(1, MAX_ORDER + 1):
        result[f"bleu-{order}"] = float(Bleu2022(order, shared).aggregate(sums, count))
    # ROUGE leaves out empty references, and units without a description or a reference
    filled = [
        (text, [reference for reference in members if reference])
        for text, members in zip(texts, sets, strict=True)
    ]
    kept = [(text, members) for text, members in filled if text and members]
    for kind in KINDS:
        for part in PARTS:
            rouge = Rouge2022(kind, part)
            sums = rouge.rows([t for t, _ in kept], [members for _, members in kept]).sum(axis=0)
            result[f"rouge-{kind}-{part}"] = float(rouge.aggregate(sums, count))
    if model is not False:
        encoder = TokenVectors(model or TextModel.parse(None))
        for part in PARTS:
            metric = BertScore2022(encoder, part)
            metric.fit([text for members in sets for text in members])
            values = metric.rows(texts, sets)
            result[f"bert_score-{part}"] = float(values.mean())
    return result
