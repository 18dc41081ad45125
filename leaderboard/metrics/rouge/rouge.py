"""Module of the `evaluate` library: metrics of the family rouge."""

from typing import Any

import evaluate

from leaderboard.metrics import evaluate_modules


class RougeModule(evaluate.Metric):  # type: ignore[misc]
    """Metrics of the family rouge; see `leaderboard.metrics.evaluate_modules`."""

    def _info(self) -> Any:
        return evaluate_modules.info("rouge")

    def _compute(self, predictions: Any, references: Any, **options: Any) -> dict[str, Any]:
        return evaluate_modules.compute(
            "rouge", self.config_name, predictions, references, **options
        )
