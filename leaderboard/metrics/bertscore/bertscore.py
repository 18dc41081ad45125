"""Module of the `evaluate` library: metrics of the family bertscore."""

from typing import Any

import evaluate

from leaderboard.metrics import evaluate_modules


class BertscoreModule(evaluate.Metric):  # type: ignore[misc]
    """Metrics of the family bertscore; see `leaderboard.metrics.evaluate_modules`."""

    def _info(self) -> Any:
        return evaluate_modules.info("bertscore")

    def _compute(self, predictions: Any, references: Any, **options: Any) -> dict[str, Any]:
        return evaluate_modules.compute(
            "bertscore", self.config_name, predictions, references, **options
        )
