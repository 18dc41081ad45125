"""Scores grounded in activations, and tests of the metrics themselves.

    from leaderboard import grounding
    from leaderboard.grounding import held

    grounding.score("mine.csv", held.of_mini(), "grammar", references="mini", split="test")

A scorer says in which held-out pictures a description holds, a metric how well that goes with what
the unit does there, and everything else is as for words: `leaderboard.score`.
"""

from __future__ import annotations

from typing import Any

__all__ = ["score"]


def __getattr__(name: str) -> Any:
    # listing commands must not wait for numpy and pydantic
    if name in __all__:
        from leaderboard.grounding import scoring

        return getattr(scoring, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
