"""Who is better, and who cannot be told apart: the order of a track's table.

Entries are ordered by `mean_all` of the track's `ranked_by` (failed and abstained units at the
metric's worst value); of equal ones, the higher lift of `ties_by` comes first. Neighbours are
compared by a paired bootstrap over units. Those that cannot be told apart share a rank.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import numpy as np

from leaderboard import records, tracks
from leaderboard.records import Record
from leaderboard.tracks import Track
from milannotations.errors import InputError

if TYPE_CHECKING:
    import pandas as pd

DRAWS = 1000
LEVEL = 0.05
"""Below this, Holm-adjusted, two neighbours are told apart."""

Kind = Literal["method", "floor", "reference", "person"]


@dataclass(frozen=True)
class Run:
    """A record, and the values of its units under the metrics that order tables.

    Attributes:
        record: as it was written.
        units: DataFrame of network, layer, unit, metric, value, lift.
        folder: where it lies, or None.
    """

    record: Record
    units: pd.DataFrame
    folder: Path | None = None


@dataclass(frozen=True)
class Pair:
    """An entry less the next one below, paired by unit.

    Attributes:
        difference, low, high: of the means over the units that both describe (95 %).
        n: how many these are; 0 where there are none, and then the three are None.
        p, p_holm: bootstrap p, and Holm's over all comparisons of the table.
        difference_all, p_all_holm: the same over all units, failures at the metric's worst value;
            what the table is ordered by. Equal to the first three where both describe the same.
        detectable: smallest difference that would be significant, over the units both describe.
        tied: neither comparison tells the upper one from the lower one.
    """

    difference: float | None
    low: float | None
    high: float | None
    n: int
    p: float | None
    p_holm: float | None
    difference_all: float
    p_all_holm: float
    detectable: float | None
    tied: bool


@dataclass(frozen=True)
class Standing:
    """A row of a table.

    Attributes:
        rank: from 1; those that are tied share one. None for floors, references and one person.
        name, version: of the entry.
        kind: "method", "floor", "reference" or "person".
        score, low, high: mean over seeds of `mean_all` of the track's `ranked_by`, and its 95 %
            bootstrap interval over units (and seeds, where there are several).
        spread: standard deviation of `score` over seeds; None where there is only one.
        lift: mean over seeds of the lift of the track's `ties_by`.
        coverage: share of the units in question that are described, the least of the seeds.
        below: how it compares with the next method below; None for the last, and for all that
            have no rank.
        records: of each seed, in order; of floors and one person the record that they stand in.
    """

    rank: int | None
    name: str
    version: str | None
    kind: Kind
    score: float | None
    low: float | None
    high: float | None
    spread: float | None
    lift: float | None
    coverage: float
    below: Pair | None = None
    records: tuple[Record, ...] = field(default=(), repr=False)


def load(folders: Iterable[str | os.PathLike[str]]) -> list[Run]:
    """Return the runs whose records lie in, or anywhere under, these folders, in sorted order.

    Raises:
        InputError: a folder without a record; a record or its units that cannot be read.
    """
    raise NotImplementedError


def standings(
    runs: Sequence[Run], track: Track, *, seed: int = 0, draws: int = DRAWS
) -> list[Standing]:
    """Return the rows of a track's table, best first.

    Floors, references and one person have no rank; they stand where their score puts them.

    Args:
        runs: of this track and version, several seeds of one method as several runs.
        track: what they are compared on.
        seed: of the bootstrap.
        draws: resamples.

    Raises:
        InputError: a run of another track, version, edition or signature of the metric.
    """
    raise NotImplementedError
