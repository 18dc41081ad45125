"""What one row of every edition holds: a unit, its exemplars and what people wrote.

The features are declared here once. Builders, readers, tests and the dataset
cards import them, so that no two shards can disagree.
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
"""The columns of every edition, in order."""

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
"""What scoring words needs: no pixels are read when only these are asked for."""

KEYS = ("network", "layer", "unit")
"""Columns that identify a row."""

SPLITS = ("train", "validation", "test")
"""Splits that a config may have, in order."""

UNIT_KINDS = ("channel", "token", "sae_latent", "synthetic")


class Unit(NamedTuple):
    """The key of a row: which unit of which layer of which network.

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

    `images` are k pictures and `masks` k 1-bit pictures of the same size;
    `activations` are k float32, strongest first; `threshold` is the activation
    above which a mask is set. Absent exemplar lists are null, never empty;
    `descriptions` and `annotator_ids` are empty, never null; other unknowns are
    null.

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
    """Return a complete row for `unit`; what is not given is absent in the schema's way.

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
