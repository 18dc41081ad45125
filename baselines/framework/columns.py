"""Columns that methods see of the units they describe, and of the training units."""

from __future__ import annotations

from milannotations import schema

HIDDEN_COLUMNS = (
    "descriptions",
    "annotator_ids",
    "truth",
    "truth_formula",
    "duplicate_of",
    "seen",
)
"""Columns of the units to describe that hold or give away the answer; methods do not see them."""

VISIBLE_COLUMNS = tuple(name for name in schema.COLUMNS if name not in HIDDEN_COLUMNS)
"""Columns of the units to describe that methods see."""

TRAINING_COLUMNS = (*VISIBLE_COLUMNS, "descriptions", "annotator_ids")
"""Columns of training units: with annotations, without planted truths."""
