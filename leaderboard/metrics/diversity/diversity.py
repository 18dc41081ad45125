"""Module of the `evaluate` library: metrics of the family diversity."""

from typing import Any

import evaluate

from leaderboard.metrics import evaluate_modules


class DiversityModule(evaluate.Metric):  # type: ignore[misc]
    """Metrics of the family diversity; see `leaderboard.metrics.evaluate_modules`."""

    def _info(self) -> Any:
        return evaluate_modules.info("diversity")

    def _compute(self, predictions: Any, **options: Any) -> dict[str, Any]:
        return evaluate_modules.compute("diversity", self.config_name, predictions, None, **options)
