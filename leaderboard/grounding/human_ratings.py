"""How well a metric agrees with people who rated descriptions of the same unit.

The published file (Bai et al. 2024, Describe-and-Dissect) has a unit a row, several labels of it
and two people's ratings of each, from 1 to 5: columns `NAME Label`, `NAME E1 Rating`,
`NAME E2 Rating`. What a unit's labels share is compared, never units: of two labels of a unit that
people rated differently, does the metric prefer the one that they did?
"""

from __future__ import annotations

import csv
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np

from leaderboard import statistics
from leaderboard.grounding.metrics import GroundedMetric
from leaderboard.metrics.text import normalise
from milannotations.errors import InputError
from milannotations.schema import Unit
from milannotations.utils.files import check_is_file

LABEL, RATERS = " Label", (" E1 Rating", " E2 Rating")


@dataclass(frozen=True)
class RatedUnit:
    """Labels of a unit and what people gave each: ratings[label][rater]."""

    unit: Unit
    ratings: Mapping[str, tuple[float, ...]]


@dataclass(frozen=True)
class RatingAgreement:
    """Of pairs of labels that were rated differently, how often the preference is the same.

    Attributes:
        metric: its name.
        share: of pairs, ties half; mean over units.
        low, high: of its interval, over units.
        people: the same of one rater with the other.
        n_pairs, n_units: how many were compared.
        n_unreadable: labels that the scorer could not read.
    """

    metric: str
    share: float | None
    low: float | None
    high: float | None
    people: float | None
    n_pairs: int
    n_units: int
    n_unreadable: int

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)


def read_ratings(path: str | Path, network: str, layer: str = "layer{}") -> list[RatedUnit]:
    """Return rated labels of units; those that nobody rated are left out.

    Args:
        path: the file.
        network: whose units they are.
        layer: what the column `Layer` is put into.

    Raises:
        InputError: no such file, other columns, a rating that is no number.
    """
    with check_is_file(path).open(encoding="utf-8-sig", newline="") as stream:
        reader = csv.DictReader(stream)
        names = [
            name.removesuffix(LABEL) for name in reader.fieldnames or () if name.endswith(LABEL)
        ]
        short = {name: _rated_as(name, reader.fieldnames or ()) for name in names}
        if not names or not {"Layer", "Unit"} <= set(reader.fieldnames or ()):
            raise InputError(
                f"{path} has the columns {', '.join(reader.fieldnames or ())[:200]}; expected "
                "Layer, Unit, and 'NAME Label', 'NAME E1 Rating', 'NAME E2 Rating' of each label."
            )
        found = []
        for row in reader:
            ratings: dict[str, tuple[float, ...]] = {}
            for name in names:
                label = normalise(row[name + LABEL] or "")
                given = [row.get(short[name] + rater) or "" for rater in RATERS]
                if label and all(given):
                    ratings[label] = tuple(_number(one, path) for one in given)
            found.append(
                RatedUnit(Unit(network, layer.format(row["Layer"]), int(row["Unit"])), ratings)
            )
    return found


def rating_agreement(
    metric: GroundedMetric, rated: Sequence[RatedUnit], seed: int = 0
) -> RatingAgreement:
    """Return how well a metric agrees with people on which of a unit's labels is better.

    Args:
        metric: of the network's activations.
        rated: labels of its units.
        seed: of the interval's draws.
    """
    shares, people = list[float](), list[float]()
    pairs = unreadable = 0
    for each in rated:
        labels = list(each.ratings)
        scores = metric.pairs(labels, [(str(each.unit),)])[:, 0] if labels else np.empty(0)
        unreadable += int(np.isnan(scores).sum())
        means = [float(np.mean(each.ratings[label])) for label in labels]
        same = [
            _alike(scores[i] - scores[j], means[i] - means[j])
            for i, j in combinations(range(len(labels)), 2)
            if means[i] != means[j] and np.isfinite(scores[i] - scores[j])
        ]
        if same:
            shares.append(float(np.mean(same)))
            pairs += len(same)
        if own := _between_raters(each):
            people.append(float(np.mean(own)))
    low = high = None
    if shares:
        weights = statistics.bootstrap_weights(len(shares), 1000, seed)
        low, high = map(
            float, statistics.interval(statistics.resampled_means(np.array(shares), weights))
        )
    return RatingAgreement(
        metric.spec.name,
        float(np.mean(shares)) if shares else None,
        low,
        high,
        float(np.mean(people)) if people else None,
        pairs,
        len(shares),
        unreadable,
    )


def _between_raters(each: RatedUnit) -> list[float]:
    """Return, of pairs that the first rater rated differently, how alike the second did."""
    given = list(each.ratings.values())
    return [
        _alike(one[1] - other[1], one[0] - other[0])
        for one, other in combinations(given, 2)
        if one[0] != other[0]
    ]


def _alike(one: float, other: float) -> float:
    return 0.5 if one == 0 else float((one > 0) == (other > 0))


def _rated_as(name: str, columns: Sequence[str]) -> str:
    """Return the name that ratings have: `Mean Caption Label` is rated as `Mean Caption`."""
    for candidate in (name, name.rpartition(" ")[0]):
        if candidate + RATERS[0] in columns:
            return candidate
    return name


def _number(text: str, path: str | Path) -> float:
    try:
        return float(text)
    except ValueError:
        raise InputError(f"{path}: the rating {text[:40]!r} is no number.") from None
