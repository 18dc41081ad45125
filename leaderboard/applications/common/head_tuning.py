"""The last layer of a classifier, trained on while units before it are gone."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from copy import deepcopy
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from milannotations.errors import InputError

if TYPE_CHECKING:
    from torch import nn

    from leaderboard.applications.common.ablated_accuracy import Labelled
    from milannotations.exemplars import Layer, RunConfig

RATE, BATCH = 1e-4, 128
"""Of the 2022 code."""


def head_of(model: nn.Module) -> tuple[str, nn.Linear]:
    """Return the last linear layer of a network, with its name.

    Raises:
        InputError: there is none.
    """
    from torch import nn

    found = [(name, part) for name, part in model.named_modules() if isinstance(part, nn.Linear)]
    if not found:
        raise InputError(
            f"{type(model).__name__} has no linear layer whose weights could be tuned."
        )
    return found[-1]


def features(
    model: nn.Module,
    place: str,
    shown: Labelled,
    layers: Sequence[Layer],
    run: RunConfig | None,
    sets: Sequence[Mapping[str, Sequence[int]]],
) -> NDArray[np.float32]:
    """Return what comes to the head without each set of units: float32 (set, picture, feature)."""
    from torch import nn

    from milannotations.exemplars import Ablator

    headless = deepcopy(model)
    parent, _, name = place.rpartition(".")
    setattr(headless.get_submodule(parent), name, nn.Identity())
    return Ablator(headless, shown.pictures, layers, run=run).logits(sets)


def tune(
    head: nn.Linear, given: NDArray[np.float32], labels: NDArray[np.int64], epochs: int, seed: int
) -> Callable[[NDArray[np.float32]], NDArray[Any]]:
    """Return a function from features to classes: the head, trained on.

    Args:
        head: where training begins.
        given: float32 (picture, feature).
        labels: int64 (picture,).
        epochs: over all pictures.
        seed: of their order.
    """
    import torch
    from torch.nn import functional as nnf

    own = deepcopy(head).cpu().train()
    inputs, targets = torch.from_numpy(np.ascontiguousarray(given)), torch.from_numpy(labels)
    optimizer = torch.optim.AdamW(own.parameters(), lr=RATE)
    draw = torch.Generator().manual_seed(seed)
    for _ in range(epochs):
        for rows in torch.randperm(len(inputs), generator=draw).split(BATCH):
            optimizer.zero_grad()
            nnf.cross_entropy(own(inputs[rows]), targets[rows]).backward()
            optimizer.step()

    def answers(some: NDArray[np.float32]) -> NDArray[Any]:
        with torch.no_grad():
            found: NDArray[Any] = (
                own(torch.from_numpy(np.ascontiguousarray(some))).argmax(1).numpy()
            )
        return found

    return answers
