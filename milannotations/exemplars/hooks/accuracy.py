"""Accuracy of the predictions of a network with ablated units."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from milannotations.errors import InputError

NO_PREDICTION = -1
"""The answer to a picture that could not be read."""


def accuracy(answers: NDArray[Any], labels: Sequence[int] | NDArray[Any]) -> NDArray[np.float64]:
    """Return the share of right answers, float64 (set,).

    Args:
        answers: (set, image), as `predictions` gives them.
        labels: class of each picture (image,).

    Example:
        >>> accuracy(np.array([[0, 1, 2, -1]]), [0, 1, 1, 0])
        array([0.66666667])
    """
    right, seen = _right(answers, labels)
    return right.sum(1) / np.maximum(seen.sum(1), 1)


def accuracy_by_class(
    answers: NDArray[Any], labels: Sequence[int] | NDArray[Any], classes: int
) -> NDArray[np.float64]:
    """Return the share of right answers of each class, float64 (set, class); nan without pictures.

    Example:
        >>> accuracy_by_class(np.array([[0, 1, 2]]), [0, 1, 1], 3)
        array([[1. , 0.5, nan]])
    """
    right, seen = _right(answers, labels)
    one_hot = (np.asarray(labels)[:, None] == np.arange(classes)).astype(np.float64)
    with np.errstate(invalid="ignore", divide="ignore"):
        return (right @ one_hot) / (seen @ one_hot)


def _right(answers: Any, labels: Any) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    labels = np.asarray(labels)
    if labels.shape != answers.shape[1:]:
        raise InputError(f"{len(labels):,} labels for {answers.shape[1]:,} pictures were given.")
    seen = answers != NO_PREDICTION
    return (answers == labels) & seen, seen
