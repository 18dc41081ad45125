"""Module of `evaluate`: evaluate.load(leaderboard.metrics.path("identification"))."""

from typing import Any

import evaluate

from leaderboard.metrics import modules


class Identification(evaluate.Metric):  # type: ignore[misc]
    """The metrics of this family; see `leaderboard.metrics.modules`."""

    def _info(self) -> Any:
        return modules.info("identification")

    def _compute(self, predictions: Any, references: Any, **options: Any) -> dict[str, Any]:
        return modules.compute(
            "identification", self.config_name, predictions, references, **options
        )
