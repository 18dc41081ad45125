"""Harness: predictions, metrics, scores with floors, records, and the command `milan`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from leaderboard.evaluation.comparison import compare
    from leaderboard.evaluation.scoring import Score, score

__all__ = ["Score", "compare", "score"]


def __getattr__(name: str) -> Any:
    # imported on first use, so that `milan --help` need not import pandas
    if name in __all__:
        from leaderboard.evaluation import comparison, scoring

        return getattr(comparison if name == "compare" else scoring, name)
    raise AttributeError(f"module 'leaderboard' has no attribute '{name}'")
