"""Module of the `evaluate` library: metrics of the family concepts."""

from typing import Any

import evaluate

from leaderboard.metrics import evaluate_modules


class ConceptsModule(evaluate.Metric):  # type: ignore[misc]
    """Metrics of the family concepts; see `leaderboard.metrics.evaluate_modules`."""

    def _info(self) -> Any:
        return evaluate_modules.info("concepts")

    def _compute(self, predictions: Any, references: Any, **options: Any) -> dict[str, Any]:
        return evaluate_modules.compute(
            "concepts", self.config_name, predictions, references, **options
        )
