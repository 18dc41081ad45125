"""Module of the `evaluate` library: metrics of the family embedding."""

from typing import Any

import evaluate

from leaderboard.metrics import evaluate_modules


class EmbeddingModule(evaluate.Metric):  # type: ignore[misc]
    """Metrics of the family embedding; see `leaderboard.metrics.evaluate_modules`."""

    def _info(self) -> Any:
        return evaluate_modules.info("embedding")

    def _compute(self, predictions: Any, references: Any, **options: Any) -> dict[str, Any]:
        return evaluate_modules.compute(
            "embedding", self.config_name, predictions, references, **options
        )
