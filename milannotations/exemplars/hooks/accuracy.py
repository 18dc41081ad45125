"""Accuracy of the class predictions of a network with ablated units."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from milannotations.errors import InputError

NO_PREDICTION = -1
"""Prediction for an image that could not be read. It counts neither as correct nor as wrong."""


def accuracy(
    predictions: NDArray[Any], labels: Sequence[int] | NDArray[Any]
) -> NDArray[np.float64]:
    """Return the accuracy with each set of units ablated, float64 (set,).

    Args:
        predictions: (set, image), as `Ablator.predictions` returns them.
        labels: class of each image (image,).

    Example:
        >>> accuracy(np.array([[0, 1, 2, -1]]), [0, 1, 1, 0])
        array([0.66666667])
    """
    correct, predicted = _compare(predictions, labels)
    return correct.sum(1) / np.maximum(predicted.sum(1), 1)


def accuracy_by_class(
    predictions: NDArray[Any], labels: Sequence[int] | NDArray[Any], classes: int
) -> NDArray[np.float64]:
    """Return the accuracy on the images of each class, float64 (set, class).

    Args:
        predictions: see `accuracy`.
        labels: see `accuracy`.
        classes: number of classes.

    Returns:
        NaN for a class without images.

    Example:
        >>> accuracy_by_class(np.array([[0, 1, 2]]), [0, 1, 1], 3)
        array([[1. , 0.5, nan]])
    """
    correct, predicted = _compare(predictions, labels)
    one_hot = (np.asarray(labels)[:, None] == np.arange(classes)).astype(np.float64)
    with np.errstate(invalid="ignore", divide="ignore"):
        return (correct @ one_hot) / (predicted @ one_hot)


def _compare(predictions: Any, labels: Any) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    """Return which predictions are correct, and which images have one; both (set, image)."""
    labels = np.asarray(labels)
    if labels.shape != predictions.shape[1:]:
        raise InputError(
            f"{len(labels):,} labels for {predictions.shape[1]:,} images were given; expected one "
            "for each image."
        )
    predicted = predictions != NO_PREDICTION
    return (predictions == labels) & predicted, predicted
