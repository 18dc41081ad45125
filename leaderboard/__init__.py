"""The harness: predictions, metrics, honest scores, records, and the command `milan`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from leaderboard.evaluation.comparison import compare
    from leaderboard.evaluation.scoring import Score, score

__all__ = ["Score", "compare", "score"]


def __getattr__(name: str) -> Any:
    # looked up late, so that `milan --help` need not import pandas
    if name in __all__:
        from leaderboard.evaluation import comparison

        return getattr(comparison, name)
    raise AttributeError(f"module 'leaderboard' has no attribute '{name}'")
