"""Statistics of a config: counts of units, lengths and repetition of human descriptions."""

from __future__ import annotations

import os
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from itertools import combinations
from typing import Any

import numpy as np

COLUMNS = ("network", "layer", "descriptions")
"""Columns that `row_statistics` reads."""

Row = Mapping[str, Any]
Rows = Mapping[str, Iterable[Row]] | Iterable[tuple[str, Row]]


def config_statistics(edition: str | os.PathLike[str], config: str | None = None) -> dict[str, Any]:
    """Compute `row_statistics` of a config, streamed from its text columns.

    Raises:
        InputError: no such edition or config.

    Example:
        >>> list(config_statistics("mini")["units_by_split"])
        ['train', 'validation', 'test']
    """
    from milannotations.editions.loading import load

    return row_statistics(load(edition, config, columns=list(COLUMNS), streaming=True))


def row_statistics(rows: Rows) -> dict[str, Any]:
    """Compute statistics of rows in one pass; memory grows with distinct descriptions only.

    Shares and means are rounded to 4 digits; those over nothing are None.

    Args:
        rows: split to its rows (a `DatasetDict` is one), or pairs (split, row). Of a row
            only `COLUMNS` are read.

    Returns:
        units, units_by_split, units_by_layer: numbers of rows; layers as `network/layer`.
        descriptions, descriptions_by_unit: number of descriptions; number of units with 0, 1,
            ... of them (keys are text, as in JSON).
        words: mean, median, least and most words of a description, split at white space;
            vocabulary: number of distinct lower-case runs of a-z, digits and apostrophes.
        distinct, distinct_share: descriptions that differ, compared verbatim.
        ten_commonest, ten_commonest_share: [description, count], most frequent first.
        identical_pairs_share: share of identical pairs among all pairs within a unit.
        rouge_l_to_others: agreement of annotators: ROUGE-L F (as rouge-score, no stemmer)
            between descriptions of one unit, averaged over its pairs, then over units with at
            least two descriptions.

    Example:
        >>> row = {"network": "n", "layer": "conv1", "descriptions": ["red cars", "cars"]}
        >>> counts = row_statistics({"train": [row]})
        >>> counts["words"]["mean"], counts["rouge_l_to_others"], counts["identical_pairs_share"]
        (1.5, 0.6667, 0.0)
    """
    splits: Counter[str] = Counter()
    layers: dict[str, Counter[str]] = {}
    by_unit: Counter[int] = Counter()
    texts: Counter[str] = Counter()
    pairs = identical = compared = 0
    agreement = 0.0
    for split, row in _pairs(rows):
        descriptions = row["descriptions"]
        splits[split] += 1
        layers.setdefault(f"{row['network']}/{row['layer']}", Counter())[split] += 1
        by_unit[len(descriptions)] += 1
        texts.update(descriptions)
        couples = list(combinations(descriptions, 2))
        if couples:
            pairs += len(couples)
            identical += sum(a == b for a, b in couples)
            # F is symmetric, so unordered pairs give the mean over ordered ones
            agreement += sum(rouge_l(a, b) for a, b in couples) / len(couples)
            compared += 1
    commonest = sorted(texts.items(), key=lambda item: (-item[1], item[0]))[:10]
    n_descriptions = texts.total()
    return {
        "units": splits.total(),
        "units_by_split": dict(splits),
        "units_by_layer": {at: dict(sorted(n.items())) for at, n in sorted(layers.items())},
        "descriptions": n_descriptions,
        "descriptions_by_unit": {str(k): n for k, n in sorted(by_unit.items())},
        "words": _words(texts),
        "distinct": len(texts),
        "distinct_share": _share(len(texts), n_descriptions),
        "ten_commonest": [list(item) for item in commonest],
        "ten_commonest_share": _share(sum(n for _, n in commonest), n_descriptions),
        "identical_pairs_share": _share(identical, pairs),
        "rouge_l_to_others": _share(agreement, compared),
    }


def rouge_l(text: str, other: str) -> float:
    """Compute the ROUGE-L F of two texts: 2 LCS / (length + length), in tokens.

    Source: Lin 2004; tokens as in rouge-score, without a stemmer.

    Example:
        >>> rouge_l("a red car", "red cars and a car")
        0.5
    """
    from rapidfuzz.distance import LCSseq

    left, right = (re.findall(r"[a-z0-9]+", text.lower()) for text in (text, other))
    total = len(left) + len(right)
    return 2 * LCSseq.similarity(left, right) / total if total else 0.0


def _pairs(rows: Rows) -> Iterator[tuple[str, Row]]:
    if isinstance(rows, Mapping):
        return ((split, row) for split, part in rows.items() for row in part)
    return iter(rows)


def _words(texts: Counter[str]) -> dict[str, Any]:
    lengths = np.array([len(text.split()) for text in texts])
    lengths = np.repeat(lengths, list(texts.values())) if texts else lengths
    words = {word for text in texts for word in re.findall(r"[a-z0-9']+", text.lower())}
    return {
        "mean": round(float(lengths.mean()), 4) if texts else None,
        "median": float(np.median(lengths)) if texts else None,
        "least": int(lengths.min()) if texts else None,
        "most": int(lengths.max()) if texts else None,
        "vocabulary": len(words),
    }


def _share(part: float, whole: int) -> float | None:
    return round(part / whole, 4) if whole else None
