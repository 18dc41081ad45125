"""Grounded scores: how well descriptions predict activations; and tests of such metrics.

    from leaderboard import grounding
    from leaderboard.grounding.activations import probe_mini

    grounding.score("mine.csv", probe_mini(), "grammar", references="mini", split="test")

A scorer tells in which held-out images a description holds; a metric compares that with the unit's
activations there. Everything else is shared with scores against words: `leaderboard.score`.
"""

from __future__ import annotations

from typing import Any

__all__ = ["score"]


def __getattr__(name: str) -> Any:
    # `milan --help` imports this package and must not wait for numpy and pydantic.
    if name in __all__:
        from leaderboard.grounding import scoring

        return getattr(scoring, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
