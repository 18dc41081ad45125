"""BLEU and ROUGE, for all pairs at once.

Clipped n-gram counts become matrix products. The second "the" of a text is another feature than
the first, so a text is a set of (n-gram, occurrence) features. Then

    min(count in a, count in b), summed over n-grams  =  size of the intersection of a and b,
    max over several references of the count          =  their union,

and the sizes of all intersections are the product of two sparse 0/1 matrices. Tokens, smoothing
and formulas are those of sacrebleu and rouge-score; tests compare with these packages.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from functools import cache
from importlib.metadata import version
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from leaderboard.metrics.base import (
    Floats,
    MetricSpec,
    PairMetric,
    ReferenceSets,
    RowMetric,
    distinct,
    reduce_sets,
)
from leaderboard.metrics.text import RowCache

MAX_ORDER = 4
"""Longest n-grams of BLEU."""
Features = NDArray[np.int32]


class NgramSets:
    """Texts as sets of (n-gram, occurrence) features, with the intersections of all pairs.

    Args:
        tokenize: splits a text into tokens.
        n: order of the n-grams.
    """

    def __init__(self, tokenize: Callable[[str], list[str]], n: int) -> None:
        self._n = n
        self._tokenize = tokenize
        self._ids: dict[tuple[Any, ...], int] = {}
        self._cache: RowCache[str] = RowCache(lambda new: [self._features(text) for text in new])
        self._unions: RowCache[tuple[str, ...]] = RowCache(
            lambda new: [np.unique(np.concatenate(self.sets(texts))) for texts in new]
        )

    def _features(self, text: str) -> Features:
        """Return the numbers of a text's features; new features get the next numbers."""
        tokens = self._tokenize(text)
        # n shifted copies of the tokens, zipped: the i-th n-gram begins at token i
        grams = Counter(zip(*(tokens[i:] for i in range(self._n)), strict=False))
        return np.array(
            [
                self._ids.setdefault((gram, occurrence), len(self._ids))
                for gram, count in grams.items()
                for occurrence in range(count)
            ],
            dtype=np.int32,
        )

    def sets(self, texts: Sequence[str]) -> list[Features]:
        """Return the features of each text, as many as it has n-grams."""
        return self._cache.get(texts)

    def unions(self, references: ReferenceSets) -> list[Features]:
        """Return the union of the features of each set of texts."""
        return self._unions.get([tuple(texts) for texts in references])

    def matrix(self, sets: Sequence[Features]) -> Any:
        """Return feature sets as the rows of a sparse 0/1 matrix.

        Its width is the number of features so far, so call it when all texts have been seen.
        """
        from scipy.sparse import csr_matrix

        indices = np.concatenate(sets) if sets else np.empty(0, np.int32)
        ends = np.cumsum([0, *map(len, sets)])
        shape = (len(sets), max(len(self._ids), 1))
        return csr_matrix((np.ones(len(indices), np.float32), indices, ends), shape=shape)

    def intersections(self, left: Sequence[Features], right: Sequence[Features]) -> Floats:
        """Return the sizes of all intersections, (left, right)."""
        return (self.matrix(left) @ self.matrix(right).T).toarray().astype(np.float64)


@cache
def rouge_tokens(text: str) -> list[str]:
    """Tokenise like rouge-score by default: lower-case runs of a-z and 0-9, no stemming."""
    from rouge_score.tokenizers import DefaultTokenizer

    return list(DefaultTokenizer(use_stemmer=False).tokenize(text))


@cache
def bleu_tokens(text: str) -> list[str]:
    """Tokenise like sacrebleu by default ("13a")."""
    return _tokenizer_13a()(text.rstrip()).split()


@cache
def _tokenizer_13a() -> Callable[[str], str]:
    from sacrebleu.tokenizers.tokenizer_13a import Tokenizer13a

    tokenizer: Callable[[str], str] = Tokenizer13a()
    return tokenizer


class Rouge(PairMetric):
    """ROUGE F-measure of rouge-score: `rouge-1`, `rouge-2`, `rouge-l`, each also `-max`.

    Args:
        kind: "1", "2" or "l".
        how: mean or maximum over a unit's references.
    """

    def __init__(self, kind: Literal["1", "2", "l"], how: Literal["mean", "max"]) -> None:
        self._kind, self._how = kind, how
        self.spec = MetricSpec(
            name=f"rouge-{kind}" + ("-max" if how == "max" else ""),
            family="rouge",
            title=f"ROUGE-{kind.upper()} F, "
            + ("mean over references" if how == "mean" else "best reference"),
            low=0.0,
            high=1.0,
            direction="higher",
            source="Lin 2004; agrees with rouge-score",
        )
        self._ngrams = None if kind == "l" else NgramSets(rouge_tokens, int(kind))
        self._letters: dict[str, str] = {}
        self._spelled: RowCache[str] = RowCache(lambda new: [self._spell(text) for text in new])

    def signature(self) -> str:
        return (
            f"{self.spec.name}|tok:rouge-score-{version('rouge-score')}|stem:no"
            f"|refs:{self._how}|case:lc"
        )

    def pairs(self, predictions: Sequence[str], references: ReferenceSets) -> Floats:
        # each distinct pair of texts is compared once, then expanded to pairs and sets
        left, rows = distinct(predictions)
        right, columns = distinct([text for texts in references for text in texts])
        scores = self.similarity(left, right)
        return reduce_sets(scores, columns, [len(texts) for texts in references], self._how)[rows]

    def similarity(self, left: Sequence[str], right: Sequence[str]) -> Floats:
        """Return the F-measure of all pairs of texts: 2 * overlap / (length + length)."""
        if self._ngrams is None:  # ROUGE-L: the overlap is the longest common subsequence
            spelled = [self._spelled.get(side) for side in (left, right)]
            overlap = _common_subsequences(*spelled)
            sizes = [np.array([len(text) for text in side], np.float64) for side in spelled]
        else:
            sets = [self._ngrams.sets(side) for side in (left, right)]
            overlap = self._ngrams.intersections(*sets)
            sizes = [np.array([len(features) for features in side], np.float64) for side in sets]
        # two empty texts have a total of 0, and an F-measure of 0 as in rouge-score
        total = sizes[0][:, None] + sizes[1][None, :]
        return np.divide(2 * overlap, total, out=np.zeros_like(overlap), where=total > 0)

    def _spell(self, text: str) -> str:
        """Write a text with one character per token, so that string algorithms compare tokens."""
        return "".join(
            self._letters.setdefault(token, chr(0x10000 + len(self._letters)))
            for token in rouge_tokens(text)
        )


def _common_subsequences(left: Sequence[str], right: Sequence[str]) -> Floats:
    """Return the lengths of the longest common subsequences of all pairs, (left, right)."""
    from rapidfuzz.distance import LCSseq
    from rapidfuzz.process import cdist

    if len(left) == 0 or len(right) == 0:
        return np.zeros((len(left), len(right)))
    return cdist(left, right, scorer=LCSseq.similarity, dtype=np.uint16).astype(np.float64)


class NoOverlap(PairMetric):
    """`no-overlap`: 1 if no word of the prediction is in any reference, else 0."""

    spec = MetricSpec(
        name="no-overlap",
        family="rouge",
        title="share of units whose description shares no word with any reference",
        low=0.0,
        high=1.0,
        direction="lower",
        source="ROUGE-1 of exactly 0",
    )

    def __init__(self) -> None:
        self._rouge = Rouge("1", "max")

    def pairs(self, predictions: Sequence[str], references: ReferenceSets) -> Floats:
        return (self._rouge.pairs(predictions, references) == 0).astype(np.float64)


def precisions(correct: Floats, total: Floats) -> Floats:
    """Return smoothed n-gram precisions (..., n); nan for orders without n-grams.

    Exponential smoothing: the k-th order without a match counts as 0.5 ** k matches.

    Args:
        correct: clipped matches (..., n).
        total: number of n-grams (..., n).
    """
    # orders without a match, counted from the lowest order on
    halvings = np.cumsum((correct == 0) & (total > 0), axis=-1)
    with np.errstate(divide="ignore", invalid="ignore"):
        smoothed = np.where(correct > 0, correct, 0.5**halvings) / total
    return np.where(total > 0, smoothed, np.nan)


def bleu(statistics: Floats, effective_order: bool = False) -> Floats:
    """Return BLEU (0 to 100) from sufficient statistics, with exponential smoothing.

    Args:
        statistics: (..., 2 + 2n): hypothesis length, reference length, then the
            clipped matches and the totals of the n-gram orders 1 to n.
        effective_order: leave out orders longer than the hypothesis (sentence BLEU).

    Returns:
        (...).

    Source: Papineni et al. 2002; equals `sacrebleu.BLEU.compute_bleu`.

    Example:
        >>> float(bleu(np.array([4.0, 4, 4, 3, 2, 1, 4, 3, 2, 1])).round(6))
        100.0
    """
    n = (statistics.shape[-1] - 2) // 2
    length, reference = statistics[..., 0], statistics[..., 1]
    correct, total = statistics[..., 2 : 2 + n], statistics[..., 2 + n :]
    # brevity penalty: exp(1 - reference / hypothesis) if the hypothesis is shorter
    with np.errstate(divide="ignore", invalid="ignore"):
        penalty = np.where(length < reference, np.exp(1 - reference / length), 1.0)
        penalty = np.where(length > 0, penalty, 0.0)
        logs = np.log(precisions(correct, total))
    # geometric mean of the precisions
    if effective_order:
        order = np.maximum((total > 0).sum(axis=-1), 1)
        score = np.exp(np.where(total > 0, logs, 0.0).sum(axis=-1) / order)
    else:
        score = np.where((total > 0).all(axis=-1), np.exp(logs.mean(axis=-1)), 0.0)
    # without any match at all, sacrebleu does not smooth
    return np.where((correct > 0).any(axis=-1), 100 * penalty * score, 0.0)


class BleuStatistics:
    """Lengths and clipped n-gram matches, shared by all BLEU metrics of one run."""

    def __init__(self) -> None:
        self._grams = [NgramSets(bleu_tokens, n) for n in range(1, MAX_ORDER + 1)]
        self._lengths: RowCache[tuple[str, ...]] = RowCache(
            lambda new: [np.sort(self.lengths(texts)) for texts in new]
        )

    def lengths(self, texts: Sequence[str]) -> Floats:
        """Return the number of tokens of each text."""
        return np.array([len(bleu_tokens(text)) for text in texts], np.float64)

    def reference_lengths(self, references: ReferenceSets) -> Floats:
        """Return the lengths in each set in ascending order, (set, reference), padded with inf."""
        table = np.full((len(references), max(map(len, references), default=1)), np.inf)
        for row, lengths in enumerate(self._lengths.get([tuple(texts) for texts in references])):
            table[row, : len(lengths)] = lengths
        return table

    def rows(self, predictions: Sequence[str], references: ReferenceSets, order: int) -> Floats:
        """Return the statistics of each prediction with its own set, as `bleu` takes them.

        Returns:
            (prediction, 2 + 2 * order).
        """
        texts, rows = distinct(predictions)
        sets, own = distinct([tuple(texts) for texts in references])
        lengths = self.lengths(texts)[rows]
        closest = _closest(lengths, self.reference_lengths(sets)[own])
        correct = []
        for grams in self._grams[:order]:
            # only the diagonal is needed: multiply the rows of each pair and sum
            features, unions = grams.sets(texts), grams.unions(sets)
            left, right = grams.matrix(features)[rows], grams.matrix(unions)[own]
            correct.append(np.asarray(left.multiply(right).sum(axis=1), np.float64).ravel())
        return np.concatenate(
            [np.stack([lengths, closest, *correct], axis=1), _totals(lengths, order)], axis=1
        )

    def pairs(self, texts: Sequence[str], references: ReferenceSets, order: int) -> Floats:
        """Return sentence BLEU of every text with every reference set, (text, set).

        Computed in logarithms, one n-gram order after the other, so that only a few matrices of
        this shape exist at a time.
        """
        lengths, table = self.lengths(texts), self.reference_lengths(references)
        logs = np.zeros((len(texts), len(references)))
        zeros = np.zeros_like(logs)  # orders without a match so far
        any_match = np.zeros_like(logs, dtype=bool)
        for n, grams in enumerate(self._grams[:order]):
            matches = grams.intersections(grams.sets(texts), grams.unions(references))
            total = np.maximum(lengths - n, 0)[:, None]
            none = matches == 0
            any_match |= ~none
            zeros += none
            # smoothing, as in `precisions`: the k-th order without a match counts as 0.5 ** k
            with np.errstate(divide="ignore"):
                term = np.where(none, -zeros * np.log(2), np.log(matches)) - np.log(total)
            logs += np.where(total > 0, term, 0.0)
        # orders that the text is long enough for
        present = np.clip(lengths, 1, order)[:, None]
        # closest reference length, computed once for each distinct length of a text
        sizes, rows = np.unique(lengths, return_inverse=True)
        closest = np.stack([_closest(np.full(len(table), size), table) for size in sizes])[rows]
        with np.errstate(divide="ignore"):
            penalty = np.minimum(1 - closest / lengths[:, None], 0.0)
        return np.where(any_match, 100 * np.exp(penalty + logs / present), 0.0)


def _closest(lengths: Floats, table: Floats) -> Floats:
    """Return the reference length closest to each length; of two, the shorter one.

    Args:
        lengths: (row,).
        table: reference lengths in ascending order (row, reference).
    """
    # argmin takes the first of equal distances, and lengths ascend: so the shorter one
    nearest = np.abs(table - lengths[:, None]).argmin(axis=1)
    return np.take_along_axis(table, nearest[:, None], axis=1)[:, 0]


def _totals(lengths: Floats, order: int) -> Floats:
    """Return the number of n-grams of each order, (text, order)."""
    return np.maximum(lengths[:, None] - np.arange(order), 0)


class CorpusBleu(RowMetric):
    """`bleu-1` to `bleu-4`: corpus BLEU up to that n-gram order, 0 to 100.

    Its rows are sufficient statistics (hypothesis length, closest reference
    length, clipped matches, totals): the score of any resample of units is that
    of their sum.

    Args:
        order: longest n-grams.
        statistics: shared by all BLEU metrics of one run.
    """

    def __init__(self, order: int, statistics: BleuStatistics) -> None:
        self._order, self._statistics = order, statistics
        self.spec = MetricSpec(
            name=f"bleu-{order}",
            family="bleu",
            title=f"corpus BLEU, n-grams to {order}",
            low=0.0,
            high=100.0,
            direction="higher",
            source="Papineni et al. 2002; agrees with sacrebleu",
            corpus=True,
        )

    def signature(self) -> str:
        return _signature(self.spec.name, self._order, "no")

    def rows(self, predictions: Sequence[str], references: ReferenceSets) -> Floats:
        return self._statistics.rows(predictions, references, self._order)

    def aggregate(self, sums: Floats, counts: Floats) -> Floats:
        return np.where(counts > 0, bleu(sums), np.nan)


class SentenceBleu(PairMetric):
    """`bleu-1-unit` to `bleu-4-unit`: sentence BLEU of each unit, 0 to 100.

    Orders longer than the description are left out (sacrebleu's `effective_order`); orders
    without a match are smoothed exponentially.

    Args:
        order: longest n-grams.
        statistics: shared by all BLEU metrics of one run.
    """

    def __init__(self, order: int, statistics: BleuStatistics) -> None:
        self._order, self._statistics = order, statistics
        self.spec = MetricSpec(
            name=f"bleu-{order}-unit",
            family="bleu",
            title=f"sentence BLEU of each unit, n-grams to {order}",
            low=0.0,
            high=100.0,
            direction="higher",
            source="Papineni et al. 2002; agrees with sacrebleu.sentence_bleu",
        )

    def signature(self) -> str:
        return _signature(self.spec.name, self._order, "yes")

    def pairs(self, predictions: Sequence[str], references: ReferenceSets) -> Floats:
        texts, rows = distinct(predictions)
        return self._statistics.pairs(texts, references, self._order)[rows]


def _signature(name: str, order: int, effective: str) -> str:
    return (
        f"{name}|nrefs:var|case:lc|eff:{effective}|tok:13a|smooth:exp|order:{order}"
        f"|sacrebleu:{version('sacrebleu')}"
    )
