"""Schema of a row in every edition: a unit, its exemplars and its human descriptions.

The features are declared here once. Writers, readers, tests and dataset cards import them, so
that all shards agree.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    import datasets

COLUMNS = (
    "network",
    "layer",
    "unit",
    "images",
    "masks",
    "source_ids",
    "activations",
    "threshold",
    "descriptions",
    "annotator_ids",
    "unit_kind",
    "polarity",
    "truth",
    "truth_formula",
    "duplicate_of",
    "seen",
)
"""Columns of every edition, in order."""

TEXT_COLUMNS = (
    "network",
    "layer",
    "unit",
    "descriptions",
    "unit_kind",
    "truth",
    "truth_formula",
    "duplicate_of",
    "seen",
)
"""Columns for scoring descriptions; reading only these reads no images."""

KEYS = ("network", "layer", "unit")
"""Columns that identify a row."""

SPLITS = ("train", "validation", "test")
"""Splits that a config may have, in order."""

UNIT_KINDS = ("channel", "token", "sae_latent", "synthetic")
"""Values of the column `unit_kind`."""


class Unit(NamedTuple):
    """Key of a row: network, layer and index of a unit.

    Example:
        >>> print(Unit("resnet152-imagenet", "layer4", 7))
        resnet152-imagenet/layer4/7
    """

    network: str
    layer: str
    unit: int

    def __str__(self) -> str:
        return f"{self.network}/{self.layer}/{self.unit}"


def features() -> datasets.Features:
    """Return the `datasets.Features` of every edition.

    `images` are k images and `masks` k 1-bit images of the same size; `activations` are k
    float32, strongest first; `threshold` is the activation above which a mask is set. Absent
    exemplar lists are null, never empty; `descriptions` and `annotator_ids` are empty, never
    null; other unknown values are null.

    Example:
        >>> tuple(features()) == COLUMNS
        True
    """
    from datasets import Features, Image, List, Value

    return Features(
        {
            "network": Value("string"),
            "layer": Value("string"),
            "unit": Value("int32"),
            "images": List(Image()),
            "masks": List(Image()),
            "source_ids": List(Value("string")),
            "activations": List(Value("float32")),
            "threshold": Value("float32"),
            "descriptions": List(Value("string")),
            "annotator_ids": List(Value("string")),
            "unit_kind": Value("string"),
            "polarity": Value("string"),
            "truth": Value("string"),
            "truth_formula": Value("string"),
            "duplicate_of": Value("string"),
            "seen": Value("bool"),
        }
    )


def row(unit: Unit, **values: Any) -> dict[str, Any]:
    """Return a complete row for `unit`; columns that are not given are null or empty.

    Raises:
        TypeError: a name in `values` that is not a column.

    Example:
        >>> row(Unit("n", "conv1", 0), descriptions=["red"])["images"] is None
        True
    """
    unknown = set(values) - set(COLUMNS)
    if unknown:
        raise TypeError(f"not columns of a unit: {sorted(unknown)}")
    empty: dict[str, Any] = dict.fromkeys(COLUMNS)
    return {**empty, "descriptions": [], "annotator_ids": [], **unit._asdict(), **values}
