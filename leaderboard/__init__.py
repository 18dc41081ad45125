"""Harness: predictions, metrics, scores with floors, records, and the command `milan`."""

from __future__ import annotations

from typing import TYPE_CHECKING

import lazy_loader

from milannotations import __version__

if TYPE_CHECKING:
    from leaderboard.evaluation.comparison import compare
    from leaderboard.evaluation.scoring import Score, score

__all__ = ["Score", "__version__", "compare", "score"]

# Names are imported on first use, so that `milan --help` need not import pandas.
__getattr__, __dir__, _ = lazy_loader.attach(
    __name__,
    submod_attrs={"evaluation.comparison": ["compare"], "evaluation.scoring": ["Score", "score"]},
)
