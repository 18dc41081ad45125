"""Module of `evaluate`: evaluate.load(leaderboard.metrics.path("concepts"))."""

from typing import Any

import evaluate

from leaderboard.metrics import modules


class Concepts(evaluate.Metric):  # type: ignore[misc]
    """The metrics of this family; see `leaderboard.metrics.modules`."""

    def _info(self) -> Any:
        return modules.info("concepts")

    def _compute(self, predictions: Any, references: Any, **options: Any) -> dict[str, Any]:
        return modules.compute("concepts", self.config_name, predictions, references, **options)
