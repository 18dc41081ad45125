"""Statistics of a config: its units, and the words that people wrote of them."""

from __future__ import annotations

import os
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from itertools import combinations
from typing import Any

import numpy as np

COLUMNS = ("network", "layer", "descriptions")
"""The columns that `row_statistics` reads."""

Row = Mapping[str, Any]
Rows = Mapping[str, Iterable[Row]] | Iterable[tuple[str, Row]]


def config_statistics(edition: str | os.PathLike[str], config: str | None = None) -> dict[str, Any]:
    """Return `row_statistics` of a config, streamed from its text columns.

    Raises:
        InputError: no such edition or config.

    Example:
        >>> list(of_config("mini")["units_by_split"])
        ['train', 'validation', 'test']
    """
    from milannotations.editions.loading import load

    return row_statistics(load(edition, config, columns=list(COLUMNS), streaming=True))


def row_statistics(rows: Rows) -> dict[str, Any]:
    """Return what a config holds in numbers; one pass, memory of the distinct texts only.

    Shares and means have 4 digits; those of nothing are None.

    Args:
        rows: split to its rows (a `DatasetDict` is one), or pairs (split, row). Of a row
            only `COLUMNS` are read.

    Returns:
        units, units_by_split, units_by_layer: numbers of rows; layers as `network/layer`.
        descriptions, descriptions_by_unit: how many texts; how many units have 0, 1, ...
            (the keys are text, as in JSON).
        words: mean, median, least and most words of a description, by white space;
            vocabulary: distinct runs of letters a-z, digits and apostrophes, in lower case.
        distinct, distinct_share: different texts, as they stand.
        ten_commonest, ten_commonest_share: [text, count], the most first.
        identical_pairs_share: of all pairs of descriptions of one unit.
        rouge_l_to_others: agreement. ROUGE-L F (as rouge-score, no stemmer) of one
            description with each other of its unit, averaged over the unit, then over
            units with at least two.

    Example:
        >>> row = {"network": "n", "layer": "conv1", "descriptions": ["red cars", "cars"]}
        >>> made = of_rows({"train": [row]})
        >>> made["words"]["mean"], made["rouge_l_to_others"], made["identical_pairs_share"]
        (1.5, 0.6667, 0.0)
    """
    splits: Counter[str] = Counter()
    layers: dict[str, Counter[str]] = {}
    by_unit: Counter[int] = Counter()
    texts: Counter[str] = Counter()
    pairs = identical = compared = 0
    agreement = 0.0
    for split, row in _members(rows):
        written = row["descriptions"]
        splits[split] += 1
        layers.setdefault(f"{row['network']}/{row['layer']}", Counter())[split] += 1
        by_unit[len(written)] += 1
        texts.update(written)
        both = list(combinations(written, 2))
        if both:
            pairs += len(both)
            identical += sum(a == b for a, b in both)
            # F is the same both ways, so pairs stand for each against each other
            agreement += sum(rouge_l(a, b) for a, b in both) / len(both)
            compared += 1
    commonest = sorted(texts.items(), key=lambda item: (-item[1], item[0]))[:10]
    count = texts.total()
    return {
        "units": splits.total(),
        "units_by_split": dict(splits),
        "units_by_layer": {at: dict(sorted(n.items())) for at, n in sorted(layers.items())},
        "descriptions": count,
        "descriptions_by_unit": {str(k): n for k, n in sorted(by_unit.items())},
        "words": _words(texts),
        "distinct": len(texts),
        "distinct_share": _share(len(texts), count),
        "ten_commonest": [list(item) for item in commonest],
        "ten_commonest_share": _share(sum(n for _, n in commonest), count),
        "identical_pairs_share": _share(identical, pairs),
        "rouge_l_to_others": _share(agreement, compared),
    }


def rouge_l(one: str, other: str) -> float:
    """Return the ROUGE-L F of two texts: 2 x common subsequence / (length + length).

    Source: Lin 2004; tokens as rouge-score has them, with no stemmer.

    Example:
        >>> rouge_l("a red car", "red cars and a car")
        0.5
    """
    from rapidfuzz.distance import LCSseq

    left, right = (re.findall(r"[a-z0-9]+", text.lower()) for text in (one, other))
    total = len(left) + len(right)
    return 2 * LCSseq.similarity(left, right) / total if total else 0.0


def _members(rows: Rows) -> Iterator[tuple[str, Row]]:
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
