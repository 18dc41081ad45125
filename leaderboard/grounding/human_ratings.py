"""Agreement of metrics with human ratings of descriptions of the same unit.

The published file (Bai et al. 2024, Describe-and-Dissect) has one row per unit, several labels of
the unit, and two humans' ratings of each label from 1 to 5: columns `NAME Label`,
`NAME E1 Rating` and `NAME E2 Rating`. Labels are compared within a unit, never between units: of
two labels that humans rated differently, does the metric prefer the same one?
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

LABEL_SUFFIX = " Label"
RATING_SUFFIXES = (" E1 Rating", " E2 Rating")


@dataclass(frozen=True)
class RatedUnit:
    """Labels of a unit with their ratings: `ratings[label][rater]`."""

    unit: Unit
    ratings: Mapping[str, tuple[float, ...]]


@dataclass(frozen=True)
class RatingAgreement:
    """Share of label pairs on which a metric and human ratings have the same preference.

    Attributes:
        metric: name of the metric.
        share: share of pairs of labels with different ratings, ties half; mean over units.
        low, high: ends of the 95 % bootstrap interval over units.
        people: the same share for one rater against the other.
        n_pairs, n_units: pairs and units compared.
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
    """Read rated labels of units; labels without ratings are left out.

    Args:
        path: CSV file in the layout of Describe-and-Dissect.
        network: name of the network of all units.
        layer: format of a layer's name, filled with the column `Layer`.

    Raises:
        InputError: no such file, other columns, a rating that is no number.
    """
    with check_is_file(path).open(encoding="utf-8-sig", newline="") as stream:
        reader = csv.DictReader(stream)
        columns = reader.fieldnames or ()
        names = [c.removesuffix(LABEL_SUFFIX) for c in columns if c.endswith(LABEL_SUFFIX)]
        rated_names = {name: _rated_name(name, columns) for name in names}
        if not names or not {"Layer", "Unit"} <= set(columns):
            raise InputError(
                f"{path} has the columns {', '.join(columns)[:200]}; expected "
                "Layer, Unit, and 'NAME Label', 'NAME E1 Rating', 'NAME E2 Rating' for each label."
            )
        units = []
        for row in reader:
            ratings: dict[str, tuple[float, ...]] = {}
            for name in names:
                label = normalise(row[name + LABEL_SUFFIX] or "")
                cells = [row.get(rated_names[name] + suffix) or "" for suffix in RATING_SUFFIXES]
                if label and all(cells):
                    ratings[label] = tuple(_number(cell, path) for cell in cells)
            unit = Unit(network, layer.format(row["Layer"]), int(row["Unit"]))
            units.append(RatedUnit(unit, ratings))
    return units


def rating_agreement(
    metric: GroundedMetric, rated: Sequence[RatedUnit], seed: int = 0
) -> RatingAgreement:
    """Compute how often a metric and human ratings prefer the same label of a unit.

    Args:
        metric: metric of the network's activations.
        rated: rated labels of the network's units.
        seed: random seed of the interval.
    """
    shares, human_shares = list[float](), list[float]()
    n_pairs = n_unreadable = 0
    for member in rated:
        labels = list(member.ratings)
        scores = metric.pairs(labels, [(str(member.unit),)])[:, 0] if labels else np.empty(0)
        n_unreadable += int(np.isnan(scores).sum())
        means = [float(np.mean(member.ratings[label])) for label in labels]
        agreements = [
            _agreement(scores[i] - scores[j], means[i] - means[j])
            for i, j in combinations(range(len(labels)), 2)
            if means[i] != means[j] and np.isfinite(scores[i] - scores[j])
        ]
        if agreements:
            shares.append(float(np.mean(agreements)))
            n_pairs += len(agreements)
        if between_raters := _between_raters(member):
            human_shares.append(float(np.mean(between_raters)))
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
        float(np.mean(human_shares)) if human_shares else None,
        n_pairs,
        len(shares),
        n_unreadable,
    )


def _between_raters(rated: RatedUnit) -> list[float]:
    """Return the second rater's agreement on each pair that the first rater rated differently."""
    return [
        _agreement(one[1] - other[1], one[0] - other[0])
        for one, other in combinations(rated.ratings.values(), 2)
        if one[0] != other[0]
    ]


def _agreement(difference: float, reference: float) -> float:
    """Return 1 if two differences have the same sign, 0 if not, .5 if the first is 0."""
    return 0.5 if difference == 0 else float((difference > 0) == (reference > 0))


def _rated_name(name: str, columns: Sequence[str]) -> str:
    """Return the name in the rating columns: `Mean Caption Label` is rated as `Mean Caption`."""
    for candidate in (name, name.rpartition(" ")[0]):
        if candidate + RATING_SUFFIXES[0] in columns:
            return candidate
    return name


def _number(text: str, path: str | Path) -> float:
    try:
        return float(text)
    except ValueError:
        raise InputError(f"{path}: rating {text[:40]!r} is no number; expected 1 to 5.") from None
