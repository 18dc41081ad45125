"""Concepts of the mini world, and label maps and concept maps of a scene's pixels.

Concepts come in categories, as in the Broden dataset (Bau et al. 2017): a pixel has at most one
label of each category. Label maps are uint8, one per category, 0 for none; concept maps are their
one-hot form, in the order of `CONCEPTS`.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

CATEGORIES: dict[str, tuple[str, ...]] = {
    "shape": ("circle", "square", "triangle", "star", "cross", "ring", "diamond", "moon"),
    "color": ("red", "orange", "yellow", "green", "blue", "purple", "white"),
    "texture": ("plain", "striped", "dotted", "checkered"),
    "object": ("text", "face"),
    "part": ("edge", "hair", "eye", "mouth"),
    "background": (
        "plain_background",
        "gradient_background",
        "noisy_background",
        "lined_background",
    ),
    "light": ("dark_background", "light_background"),
}
"""Labels of each category; label 0 is none, label i is the i-th from 1."""

CONCEPTS: tuple[str, ...] = tuple(name for names in CATEGORIES.values() for name in names)
"""All concepts; the index of a concept is its channel in concept maps."""

CATEGORY: dict[str, str] = {
    name: category for category, names in CATEGORIES.items() for name in names
}
"""The category of each concept."""

CHANNEL: dict[str, int] = {name: i for i, name in enumerate(CONCEPTS)}
"""The channel of each concept in concept maps."""

_INDEX = {category: i for i, category in enumerate(CATEGORIES)}
_LABELS = np.array(
    [i + 1 for names in CATEGORIES.values() for i in range(len(names))], dtype=np.uint8
)
_ROWS = np.array([_INDEX[CATEGORY[name]] for name in CONCEPTS])


def label(concept: str) -> tuple[int, int]:
    """Return a concept's label map and label: (index of its category, label in it).

    Example:
        >>> label("red")
        (1, 1)
    """
    channel = CHANNEL[concept]
    return int(_ROWS[channel]), int(_LABELS[channel])


def one_hot(labels: NDArray[np.uint8]) -> NDArray[np.bool_]:
    """Return concept maps, bool (..., concept, h, w), of label maps, uint8 (..., category, h, w).

    Example:
        >>> one_hot(np.zeros((7, 64, 64), dtype=np.uint8)).shape
        (31, 64, 64)
    """
    maps: NDArray[np.bool_] = labels[..., _ROWS, :, :] == _LABELS[:, None, None]
    return maps
