"""Module of the `evaluate` library: metrics of the family milan2022."""

from typing import Any

import evaluate

from leaderboard.metrics import evaluate_modules


class Milan2022Module(evaluate.Metric):  # type: ignore[misc]
    """Metrics of the family milan2022; see `leaderboard.metrics.evaluate_modules`."""

    def _info(self) -> Any:
        return evaluate_modules.info("milan2022")

    def _compute(self, predictions: Any, references: Any, **options: Any) -> dict[str, Any]:
        return evaluate_modules.compute(
            "milan2022", self.config_name, predictions, references, **options
        )
