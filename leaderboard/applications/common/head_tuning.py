"""Fine-tuning of the last layer of a classifier while units before it are ablated."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from copy import deepcopy
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from milannotations.errors import InputError

if TYPE_CHECKING:
    from torch import nn

    from leaderboard.applications.common.labelled_images import LabelledImages
    from milannotations.exemplars import Layer, RunConfig

RATE, BATCH = 1e-4, 128
"""Learning rate and batch size of the 2022 code."""


def last_linear(model: nn.Module) -> tuple[str, nn.Linear]:
    """Return the name of a network's last linear layer, and the layer.

    Raises:
        InputError: the network has no linear layer.
    """
    from torch import nn

    layers = [(name, part) for name, part in model.named_modules() if isinstance(part, nn.Linear)]
    if not layers:
        raise InputError(f"{type(model).__name__} has no linear layer to fine-tune.")
    return layers[-1]


def compute_features(
    model: nn.Module,
    head_name: str,
    labelled: LabelledImages,
    layers: Sequence[Layer],
    run: RunConfig | None,
    sets: Sequence[Mapping[str, Sequence[int]]],
) -> NDArray[np.float32]:
    """Compute the inputs of the last layer under ablation of each set of units.

    Returns:
        float32 (set, image, feature).
    """
    from torch import nn

    from milannotations.exemplars import Ablator

    # With the head replaced by the identity, the network's output is the head's input.
    headless = deepcopy(model)
    parent, _, name = head_name.rpartition(".")
    setattr(headless.get_submodule(parent), name, nn.Identity())
    return Ablator(headless, labelled.images, layers, run=run).logits(sets)


def tune(
    head: nn.Linear,
    features: NDArray[np.float32],
    labels: NDArray[np.int64],
    epochs: int,
    seed: int,
) -> Callable[[NDArray[np.float32]], NDArray[Any]]:
    """Train a copy of the last layer on features, and return it as a function.

    Args:
        head: layer to start from; it is not changed.
        features: float32 (image, feature).
        labels: int64 (image,).
        epochs: passes over all images.
        seed: random seed of their order.

    Returns:
        A function from features (image, feature) to predicted classes (image,).
    """
    import torch
    from torch.nn import functional as nnf

    layer = deepcopy(head).cpu().train()
    inputs, targets = torch.from_numpy(np.ascontiguousarray(features)), torch.from_numpy(labels)
    optimizer = torch.optim.AdamW(layer.parameters(), lr=RATE)
    generator = torch.Generator().manual_seed(seed)
    for _ in range(epochs):
        for rows in torch.randperm(len(inputs), generator=generator).split(BATCH):
            optimizer.zero_grad()
            nnf.cross_entropy(layer(inputs[rows]), targets[rows]).backward()
            optimizer.step()

    def classify(features: NDArray[np.float32]) -> NDArray[Any]:
        with torch.no_grad():
            logits = layer(torch.from_numpy(np.ascontiguousarray(features)))
            classes: NDArray[Any] = logits.argmax(1).numpy()
        return classes

    return classify
