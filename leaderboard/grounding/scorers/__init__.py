"""Scorers: estimate in which images, or regions of images, a description's concept is present.

    grammar           the mini world's grammar: a description is parsed into a formula, and scenes
                      are annotated for every pixel
    labels[:LEXICON]  classes and segments of a probe dataset, matched by their words
    clip:MODEL        a CLIP or SigLIP model of transformers
    table:FILE        presences that were computed elsewhere

One file per scorer. Each returns values from 0 to 1; a description that a scorer cannot read
gets nan and counts as a failure.
"""

from __future__ import annotations

import importlib

from leaderboard.grounding.scorers.base import Presences, Scorer
from milannotations.errors import InputError, did_you_mean

__all__ = ["SCORER_MODULES", "Presences", "Scorer", "open_scorer"]

SCORER_MODULES = {"grammar": "grammar", "labels": "labels", "clip": "text_image", "table": "table"}
"""Module of each scorer, by the name before the colon."""


def open_scorer(name: str, *, cache: str | None = None) -> Scorer:
    """Open a scorer by name.

    Args:
        name: `grammar`, `labels`, `labels:LEXICON`, `clip:MODEL` or `table:FILE`.
        cache: cache folder for embeddings.

    Raises:
        InputError: unknown scorer, model or file.

    Example:
        >>> open_scorer("grammar").has_regions
        True
    """
    kind, _, argument = name.partition(":")
    if kind not in SCORER_MODULES:
        raise InputError(
            f"No scorer '{name}'.{did_you_mean(kind, SCORER_MODULES)} Expected --scorer grammar, "
            "labels, labels:LEXICON, clip:MODEL or table:FILE."
        )
    module = importlib.import_module(f"leaderboard.grounding.scorers.{SCORER_MODULES[kind]}")
    scorer: Scorer = module.create(argument, cache=cache)
    return scorer
