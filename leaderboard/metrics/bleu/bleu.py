"""Module of the `evaluate` library: metrics of the family bleu."""

from typing import Any

import evaluate

from leaderboard.metrics import evaluate_modules


class BleuModule(evaluate.Metric):  # type: ignore[misc]
    """Metrics of the family bleu; see `leaderboard.metrics.evaluate_modules`."""

    def _info(self) -> Any:
        return evaluate_modules.info("bleu")

    def _compute(self, predictions: Any, references: Any, **options: Any) -> dict[str, Any]:
        return evaluate_modules.compute(
            "bleu", self.config_name, predictions, references, **options
        )
