"""Module of the `evaluate` library: metrics of the family identification."""

from typing import Any

import evaluate

from leaderboard.metrics import evaluate_modules


class IdentificationModule(evaluate.Metric):  # type: ignore[misc]
    """Metrics of the family identification; see `leaderboard.metrics.evaluate_modules`."""

    def _info(self) -> Any:
        return evaluate_modules.info("identification")

    def _compute(self, predictions: Any, references: Any, **options: Any) -> dict[str, Any]:
        return evaluate_modules.compute(
            "identification", self.config_name, predictions, references, **options
        )
