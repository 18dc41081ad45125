"""Module of the `evaluate` library: metrics of the family tfidf."""

from typing import Any

import evaluate

from leaderboard.metrics import evaluate_modules


class TfidfModule(evaluate.Metric):  # type: ignore[misc]
    """Metrics of the family tfidf; see `leaderboard.metrics.evaluate_modules`."""

    def _info(self) -> Any:
        return evaluate_modules.info("tfidf")

    def _compute(self, predictions: Any, references: Any, **options: Any) -> dict[str, Any]:
        return evaluate_modules.compute(
            "tfidf", self.config_name, predictions, references, **options
        )
