"""Skeleton of a task on networks of the mini world, run for any number of methods."""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any, Generic, TypeVar

from leaderboard.applications.common.mini_networks import (
    MiniNetwork,
    MiniNetworkFactory,
    method_title,
)
from leaderboard.applications.common.task_result import TaskInfo, TaskResult
from leaderboard.evaluation.predictions import Predictions
from milannotations.synthetic.subjects import SubjectWorld

Config = TypeVar("Config")
Result = TypeVar("Result", bound=TaskResult)


class MiniTask(ABC, Generic[Config, Result]):
    """Task on networks of the mini world.

    What does not depend on the method is made once: networks, exemplars, and accuracies under
    ablation. A subclass says which networks there are, and runs the task on predictions.

    Args:
        factory: makes networks, exemplars and descriptions.
        networks: networks of the task.
        exemplar_world: world of the scenes that exemplars are drawn from.
    """

    def __init__(
        self,
        factory: MiniNetworkFactory,
        networks: Sequence[MiniNetwork],
        exemplar_world: SubjectWorld,
    ) -> None:
        self.factory, self.networks, self.exemplar_world = factory, networks, exemplar_world

    def run(
        self,
        method: str,
        predictions: Predictions | None = None,
        config: Config | None = None,
        asked: Mapping[str, Any] | None = None,
    ) -> Result:
        """Run the task on a method's descriptions.

        Args:
            method: name or path of a method; with `predictions`, a name, or name@version, for
                the record.
            predictions: descriptions of the units of all networks; None lets the method describe
                them.
            config: configuration of the task.
            asked: options of the run, for the record.
        """
        start = time.perf_counter()
        title = method
        if predictions is None:
            predictions = self.describe(method)
            title = method_title(method)
        seconds = {"describe": time.perf_counter() - start}
        info = TaskInfo(title, "mini", asked or {}, synthetic=True, seconds=seconds)
        return self.run_on(predictions, config, info)

    def describe(self, method: str, seed: int = 0) -> Predictions:
        """Return a method's descriptions of the units of all networks."""
        return self.factory.describe_all(method, self.networks, self.exemplar_world, seed)

    @abstractmethod
    def run_on(self, predictions: Predictions, config: Config | None, info: TaskInfo) -> Result:
        """Run the task on descriptions of the units of all networks."""
