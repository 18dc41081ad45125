"""Module of `evaluate`: evaluate.load(leaderboard.metrics.path("bleu"))."""

from typing import Any

import evaluate

from leaderboard.metrics import modules


class Bleu(evaluate.Metric):  # type: ignore[misc]
    """The metrics of this family; see `leaderboard.metrics.modules`."""

    def _info(self) -> Any:
        return modules.info("bleu")

    def _compute(self, predictions: Any, references: Any, **options: Any) -> dict[str, Any]:
        return modules.compute("bleu", self.config_name, predictions, references, **options)
