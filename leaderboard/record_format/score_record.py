"""Record of a score: fields, reading and writing.

A record is a folder: `record.json` (strict JSON, sorted keys), `units.parquet`
(network, layer, unit, metric, value, lift) and `predictions.csv`. Two identical
runs differ only in `id`, `created` and `seconds`.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import Field, FiniteFloat

from leaderboard.record_format.base import (
    RecordBase,
    StrictModel,
    Writable,
    check_no_other_files,
    read_model,
    record_files,
    write_record,
)
from leaderboard.record_format.method_info import About
from milannotations.errors import InputError

if TYPE_CHECKING:
    import pandas as pd

SCHEMA_VERSION = 1
FILES = ("record.json", "units.parquet", "predictions.csv")

CONSTANT_FLOOR = "constant"
"""Name of the floor that answers every unit with the most common reference."""
LAYER_FLOOR = "most-common-of-layer"
"""Name of the floor that answers each unit with the most common reference of its layer."""
SHUFFLED_FLOOR = "shuffled"
"""Name of the floor that shuffles the method's own descriptions within each layer."""
HUMAN = "one-person"
"""Name of the leave-one-out human among the floors."""

FOOTNOTE = (
    "Intervals are bootstrap intervals over units, conditional on these annotators and these "
    "images. The leave-one-out human is scored against the other annotators and is no ceiling: a "
    "method that writes the consensus can beat it."
)
SYNTHETIC_FOOTNOTE = (
    "Intervals are bootstrap intervals over units, conditional on these simulated annotators and "
    "these drawn images. The simulated annotator is scored against the others, or against the "
    "truth, and is no ceiling."
)
GROUNDED_FOOTNOTE = (
    "Intervals are bootstrap intervals over units, conditional on these images and this scorer, "
    "which decides in which images a description holds. Scores of different scorers are not "
    "comparable."
)


class Estimate(StrictModel):
    """One score with its intervals and its lift over shuffled descriptions.

    Unknown is null. `mean` is over the units answered, `mean_all` over all units.
    """

    mean: FiniteFloat | None
    mean_all: FiniteFloat | None
    low: FiniteFloat | None
    high: FiniteFloat | None
    lift: FiniteFloat | None
    lift_low: FiniteFloat | None
    lift_high: FiniteFloat | None
    n_scored: int
    n_units: int


class Comparison(StrictModel):
    """Method minus leave-one-out human on matched references, paired by unit."""

    difference: FiniteFloat
    low: FiniteFloat
    high: FiniteFloat
    p: FiniteFloat
    p_holm: FiniteFloat
    n: int


class Curve(StrictModel):
    """Mean value of the most confident share of descriptions, at equal steps of coverage."""

    coverage: list[FiniteFloat]
    mean: list[FiniteFloat]
    area: FiniteFloat | None
    n: int


@dataclass(frozen=True)
class ScoreEstimates:
    """Estimates of one score: the fields of its record that are computed from unit values.

    Attributes:
        scores: the method, by metric.
        floors: floors and the leave-one-out human, by name and metric.
        versus_person: the method minus the human, by metric.
        neighbours: lift against the next unit's references, by metric and order.
        slices: the method within each network, layer, and seen or unseen, by slice and metric.
        person_slices: the simulated annotator within seen and unseen.
        risk_coverage: the most confident share of descriptions, by metric.
        left_out_of_lift: layers (network/layer) with too few units for some metric's lift.
    """

    scores: dict[str, Estimate]
    floors: dict[str, dict[str, Estimate]]
    versus_person: dict[str, Comparison]
    neighbours: dict[str, dict[str, float]]
    slices: dict[str, dict[str, Estimate]]
    person_slices: dict[str, dict[str, Estimate]]
    risk_coverage: dict[str, Curve]
    left_out_of_lift: list[str]


class Abstained(StrictModel):
    """Shares of units that are said to mean nothing, rightly and wrongly.

    `balanced_accuracy` is the mean of `right` and 1 - `wrong`. It is .5 for never abstaining,
    always abstaining and a coin toss.
    """

    right: FiniteFloat
    wrong: FiniteFloat
    balanced_accuracy: FiniteFloat


class Abstention(StrictModel):
    """Abstention on units that mean nothing, beside abstention on units that mean something.

    A description that says in words that there is nothing to describe counts as abstaining.
    `never` is the floor; `person` is one simulated annotator, averaged over annotators.
    """

    n_meaningless: int
    n_meaningful: int
    method: Abstained
    never: Abstained
    person: Abstained | None


class MetricEntry(StrictModel):
    """Spec and signature of a metric, as used."""

    title: str
    family: str
    low: FiniteFloat | None
    high: FiniteFloat | None
    direction: str | None
    source: str
    corpus: bool
    chance: FiniteFloat | None
    needs: str
    signature: str
    against: str = "descriptions"
    reads: str = "first"


class Edition(StrictModel):
    """References that descriptions were scored against."""

    edition: str
    config: str
    split: str
    layers: list[str]
    n_units: int
    n_descriptions: int
    digest: str
    synthetic: bool = False


class Answered(StrictModel):
    """Predictions that were scored, counted over the units in scope."""

    files: list[dict[str, str]]
    layouts: list[str]
    n_ok: int
    n_failed: int
    n_abstained: int
    n_missing: int
    n_not_text: int
    n_distinct: int


class Grounding(StrictModel):
    """Activations and scorer behind a grounded score.

    Attributes:
        scorer: what decided in which images a description holds, with a digest.
        images: the images: digest, number, and how they were sampled.
        networks: digest of each network's weights, by name.
        grid: regions per side of an image; None for whole images.
        n_unreadable: units whose description the scorer could not read; they count as failures.
        coverage: share of the described units whose description the scorer could read.
        held_out: whether the images played no part in choosing descriptions or exemplars, as
            far as accounts and source ids tell; None if both are unknown.
        why: reasons for `held_out`, one per line.
        same_model, same_family: whether the scorer is the text-image model that the method
            selected with, or one of the same family; None if it is unknown how the descriptions
            were made.
        fails: sanity checks that a metric fails, by metric (`milan check --metric`).
        one_picture_a_label: whether every label has one image only, so that means over units are
            valid and rankings of units are not.
    """

    scorer: dict[str, Any]
    images: dict[str, Any]
    networks: dict[str, str]
    grid: int | None
    n_unreadable: int
    coverage: FiniteFloat | None
    held_out: bool | None
    why: list[str]
    same_model: bool | None
    same_family: bool | None
    fails: dict[str, list[str]]
    one_picture_a_label: bool


class Record(RecordBase):
    """Everything needed to trust, repeat or refute a score.

    Attributes:
        kind: `agreement` (with words) or `grounding` (in activations, see `grounding`).
        accounts: how the descriptions were made (`baselines.Account`): options, seconds, tokens,
            and the probe images that a method selected on. Empty for third-party descriptions.
        versus_person: the method minus the leave-one-out human, by metric.
        neighbours: lift of each unit's description against the next unit's references.
        person_slices: the simulated annotator's estimates within slices.
    """

    edition: Edition
    predictions: Answered
    accounts: list[dict[str, Any]] = Field(default=[])
    metrics: dict[str, MetricEntry]
    scores: dict[str, Estimate]
    floors: dict[str, dict[str, Estimate]]
    versus_person: dict[str, Comparison]
    neighbours: dict[str, dict[str, FiniteFloat]]
    slices: dict[str, dict[str, Estimate]]
    person_slices: dict[str, dict[str, Estimate]] = Field(default={})
    risk_coverage: dict[str, Curve]
    abstention: Abstention | None = None
    left_out_of_lift: list[str]
    track: str | None = None
    about: About | None = None
    grounding: Grounding | None = None

    @property
    def address(self) -> tuple[str, ...]:
        """Key of the leaderboard cell that this record fills."""
        edition = self.edition
        seed = None if self.about is None else self.about.seed
        return (
            edition.edition,
            edition.config,
            edition.split,
            self.method,
            self.version or "-",
            "+".join(edition.layers),
            self.track or "-",
            "-" if seed is None else str(seed),
            # records of agreement are older than other kinds, and keep their address
            *(() if self.grounding is None else (self.kind, self.grounding.scorer["digest"])),
        )


def check_free(folder: str | os.PathLike[str]) -> Path:
    """Return the folder as a Path, after checking that a record may be saved there.

    Call it before a long run.

    Raises:
        InputError: the folder holds anything else than a record.
    """
    folder = Path(folder)
    check_no_other_files(folder, record_files(folder) - set(FILES))
    return folder


def save(
    folder: str | os.PathLike[str],
    record: Record,
    units: pd.DataFrame,
    predictions: Writable,
    *,
    overwrite: bool = False,
) -> Record:
    """Write a record's folder, whole or not at all; return the record as written.

    A record with the same address is replaced.

    Raises:
        InputError: the folder holds something else (`overwrite=True` replaces another
            method's record, but never anything that is not a record).
    """
    folder = check_free(folder)
    if (folder / "record.json").is_file():
        before = load(folder)
        if before.address != record.address and not overwrite:
            raise InputError(
                f"{folder} holds the record of {' / '.join(before.address)}. "
                "Give another --out, or --overwrite to replace it."
            )

    def write_files(temporary: Path) -> None:
        units.to_parquet(temporary / "units.parquet", index=False)
        predictions.write(temporary / "predictions.csv")

    return write_record(folder, record, write_files)


def load(folder: str | os.PathLike[str]) -> Record:
    """Return the validated record in a folder.

    Raises:
        InputError: no `record.json`, not strict JSON, an unknown schema version, or fields that
            do not fit.
    """
    return read_model(Record, Path(folder) / "record.json", SCHEMA_VERSION)
