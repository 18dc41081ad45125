"""Module of `evaluate`: evaluate.load(leaderboard.metrics.path("bertscore"))."""

from typing import Any

import evaluate

from leaderboard.metrics import modules


class Bertscore(evaluate.Metric):  # type: ignore[misc]
    """The metrics of this family; see `leaderboard.metrics.modules`."""

    def _info(self) -> Any:
        return modules.info("bertscore")

    def _compute(self, predictions: Any, references: Any, **options: Any) -> dict[str, Any]:
        return modules.compute("bertscore", self.config_name, predictions, references, **options)
