"""Scorers: in which pictures, or where in them, a description's concept is.

    grammar           the mini world's: a description is a formula, scenes are known to the pixel
    labels[:LEXICON]  classes and segments of a probe data set, by their words
    clip:MODEL        a CLIP or SigLIP of transformers
    table:FILE        presences that were made elsewhere

One file a scorer. Each gives numbers from 0 to 1; a description that it cannot read is nan, and
counts as a failure.
"""

from __future__ import annotations

import importlib

from leaderboard.grounding.scorers.base import Presences, Scorer
from milannotations.errors import InputError, did_you_mean

__all__ = ["SCORER_MODULES", "Presences", "Scorer", "open_scorer"]

SCORER_MODULES = {"grammar": "grammar", "labels": "labels", "clip": "text_image", "table": "table"}
"""What stands before the colon, and which module reads it."""


def open_scorer(said: str, *, cache: str | None = None) -> Scorer:
    """Return a scorer by name.

    Args:
        said: `grammar`, `labels`, `labels:LEXICON`, `clip:MODEL` or `table:FILE`.
        cache: folder in which embeddings are kept.

    Raises:
        InputError: no such scorer, model or file.

    Example:
        >>> open_scorer("grammar").has_regions
        True
    """
    kind, _, rest = said.partition(":")
    if kind not in SCORER_MODULES:
        raise InputError(
            f"No scorer '{said}'.{did_you_mean(kind, SCORER_MODULES)} Expected grammar, labels, "
            "labels:LEXICON, clip:MODEL or table:FILE."
        )
    module = importlib.import_module(f"leaderboard.grounding.scorers.{SCORER_MODULES[kind]}")
    made: Scorer = module.create(rest, cache=cache)
    return made
