"""Module of `evaluate`: evaluate.load(leaderboard.metrics.path("diversity"))."""

from typing import Any

import evaluate

from leaderboard.metrics import modules


class Diversity(evaluate.Metric):  # type: ignore[misc]
    """The metrics of this family; see `leaderboard.metrics.modules`."""

    def _info(self) -> Any:
        return modules.info("diversity")

    def _compute(self, predictions: Any, **options: Any) -> dict[str, Any]:
        return modules.compute("diversity", self.config_name, predictions, None, **options)
