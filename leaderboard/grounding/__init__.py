"""Grounded scores: how well descriptions predict activations; and tests of such metrics.

    from leaderboard import grounding
    from leaderboard.grounding.activations import probe_mini

    grounding.score("mine.csv", probe_mini(), "grammar", references="mini", split="test")

A scorer tells in which held-out images a description holds; a metric compares that with the unit's
activations there. Everything else is shared with scores against words: `leaderboard.score`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import lazy_loader

if TYPE_CHECKING:
    from leaderboard.grounding.scoring import score

__all__ = ["score"]

# Names are imported on first use, so that `milan --help` need not import numpy and pydantic.
__getattr__, __dir__, _ = lazy_loader.attach(__name__, submod_attrs={"scoring": ["score"]})
