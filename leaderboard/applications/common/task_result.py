"""Result of a task: its record, the table behind its figure, and how both are saved."""

from __future__ import annotations

import os
import time
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from leaderboard.applications.common.figures import encode_figure
from leaderboard.evaluation.predictions import Predictions
from leaderboard.record_format import application_record
from leaderboard.record_format.application_record import ApplicationRecord, Number, Task
from milannotations.schema import Unit

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.figure import Figure


@dataclass(frozen=True)
class TaskInfo:
    """Facts about a run, for the record of a task: everything besides settings and results."""

    method: str = "descriptions"
    """Name, or name@version, of the method that described the units."""

    data: str = ""
    """Data set of the networks."""

    asked: Mapping[str, Any] = field(default_factory=dict)
    """Options that the run was asked for."""

    synthetic: bool = False
    """The networks are those of the mini world."""

    seconds: Mapping[str, float] = field(default_factory=dict)
    """Wall time of the steps before the task, such as `describe`."""


def create_record(
    task: Task,
    predictions: Predictions,
    units: Sequence[Unit],
    info: TaskInfo,
    *,
    start: float,
    number: Number,
    settings: Mapping[str, Any],
    networks: Mapping[str, Mapping[str, Any]],
    images: Mapping[str, Mapping[str, Any]],
    results: Mapping[str, Any],
    warnings: Sequence[str],
    footnote: str,
) -> ApplicationRecord:
    """Create the record of a task.

    Args:
        task: `analyze`, `audit` or `edit`.
        predictions: descriptions that the task was run on.
        units: units of the task, of which the record counts the described ones.
        info: see `TaskInfo`.
        start: start of the task, in seconds of `time.perf_counter`.
        number, settings, networks, images, results, warnings, footnote: fields of the record.
    """
    return application_record.create(
        task,
        method=info.method,
        data=info.data,
        number=number,
        asked=info.asked,
        settings=settings,
        networks=networks,
        images=images,
        results=results,
        seconds={**info.seconds, task: time.perf_counter() - start},
        predictions=application_record.Described(**predictions.counts(units)),
        synthetic=info.synthetic,
        warnings=warnings,
        footnote=footnote,
    )


@dataclass(frozen=True)
class TaskResult(ABC):
    """Result of a task on some networks.

    Attributes:
        record: the record.
        curves: points of the figure, `curves.csv`.
        predictions: descriptions that the task was run on.
    """

    record: ApplicationRecord
    curves: pd.DataFrame
    predictions: Predictions

    @abstractmethod
    def draw(self) -> Figure:
        """Draw the figure of the record."""

    def files(self) -> dict[str, bytes]:
        """Return the content of files beside the figure, by name."""
        return {}

    def save(self, folder: str | os.PathLike[str]) -> ApplicationRecord:
        """Write the record's folder, and return the record as written.

        Args:
            folder: the folder; a record of the same task in it is replaced.

        Raises:
            InputError: the folder holds something else.
        """
        return application_record.save(
            folder,
            self.record,
            curves=self.curves,
            predictions=self.predictions,
            files={**encode_figure(self.draw()), **self.files()},
        )
