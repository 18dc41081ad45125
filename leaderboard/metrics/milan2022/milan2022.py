"""Module of `evaluate`: evaluate.load(leaderboard.metrics.path("milan2022"))."""

from typing import Any

import evaluate

from leaderboard.metrics import modules


class Milan2022(evaluate.Metric):  # type: ignore[misc]
    """The metrics of this family; see `leaderboard.metrics.modules`."""

    def _info(self) -> Any:
        return modules.info("milan2022")

    def _compute(self, predictions: Any, references: Any, **options: Any) -> dict[str, Any]:
        return modules.compute("milan2022", self.config_name, predictions, references, **options)
