"""Module of the `evaluate` library: metrics of the family retrieval."""

from typing import Any

import evaluate

from leaderboard.metrics import evaluate_modules


class RetrievalModule(evaluate.Metric):  # type: ignore[misc]
    """Metrics of the family retrieval; see `leaderboard.metrics.evaluate_modules`."""

    def _info(self) -> Any:
        return evaluate_modules.info("retrieval")

    def _compute(self, predictions: Any, references: Any, **options: Any) -> dict[str, Any]:
        return evaluate_modules.compute(
            "retrieval", self.config_name, predictions, references, **options
        )
