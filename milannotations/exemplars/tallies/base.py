"""Interface of tallies, and the state handling that they share.

A tally is a statistic of one layer over a stream of activations. All tallies give the same bits
for any order of the images, any batch size, any split into parts that are merged in any order, and
on any device, given the same activations. They are made without knowing the layer, and take its
shape from the first batch.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from typing import Any, Protocol, Self

import torch
from torch import Tensor

from milannotations.exemplars.tallies.validation import (
    Shape,
    check_settings,
    check_shape,
    layer_shape,
    validate_batch,
)


class Tally(Protocol):
    """Statistic of one layer over a stream of activations."""

    def update(self, ids: Tensor, activations: Tensor, concepts: Tensor | None = None) -> None:
        """Update the statistic with a batch.

        Args:
            ids: int64 (image,), indices of the images in the dataset, each once in the stream.
            activations: (image, unit, h, w), on any device; taken as float32.
            concepts: bool (image, concept, H, W), where concepts are in the images, or label
                planes (image, plane, H, W); see `Overlap`.

        Raises:
            NonFiniteError: NaN or an infinity.
            InputError: any other batch that this tally cannot count.
        """

    def merge(self, other: Self) -> None:
        """Merge a tally with the same settings that has seen other images.

        Raises:
            InputError: its settings differ, or it has seen another layer.
        """

    def result(self) -> Any:
        """Return the statistic, on the CPU. The tally may be updated afterwards.

        Raises:
            InputError: no image was seen.
        """

    def state_dict(self) -> dict[str, Any]:
        """Return the state as CPU tensors and plain values; the same for the same images.

        `torch.save` writes it, `torch.load(..., weights_only=True)` reads it.
        """

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Replace the state of this tally.

        Raises:
            InputError: the state is that of a tally with other settings.
        """

    @property
    def nbytes(self) -> int:
        """Bytes held now, between batches."""

    def estimate(self, units: int, h: int, w: int, images: int = 0, concepts: int = 0) -> int:
        """Return the most bytes that it will hold, between batches, for a layer of this shape.

        Within a batch it needs a few times `4 * BLOCK` bytes more (on CUDA `CUDA_BLOCKS` times as
        many), or a few times the maps of one unit in the batch where that is more; and a copy of
        the batch if that is not float32.
        """


class BaseTally(ABC):
    """Base class that allocates, moves, merges, saves and loads the states of a tally.

    Subclasses declare their states with `add_state`, as in torchmetrics, and implement `_update`,
    `result`, `estimate` and `_settings`. They override the other hooks (`_check_update`,
    `_check_merge`, `_merge`, `_export`, `_import`) only where the defaults do not fit.
    """

    def __init__(self) -> None:
        self._shape: Shape | None = None  # of the layer; None until the first batch
        self._tensors: dict[str, Callable[[Shape], Tensor]] = {}
        self._counters: list[str] = []
        self._lists: list[str] = []

    def add_state(self, name: str, initial: Callable[[Shape], Tensor] | int | list[Tensor]) -> None:
        """Declare a state; it is the attribute `_<name>`.

        Args:
            name: its key in `state_dict`.
            initial: a function that makes the tensor for the shape of a layer: it is called at
                the first batch, and the tensor follows the activations to their device. Or 0, for
                a counter. Or an empty list, for tensors on the CPU, one per batch. By default
                tensors and counters of merged tallies are added, lists are concatenated.
        """
        if isinstance(initial, int):
            self._counters.append(name)
            setattr(self, f"_{name}", initial)
        elif isinstance(initial, list):
            self._lists.append(name)
            setattr(self, f"_{name}", initial)
        else:
            self._tensors[name] = initial

    # ---- the interface; see `Tally`

    def update(self, ids: Tensor, activations: Tensor, concepts: Tensor | None = None) -> None:
        """Update the statistic with a batch; see `Tally.update`."""
        ids, activations = validate_batch(ids, activations, self._shape)
        shape = layer_shape(activations)
        self._check_update(shape, len(ids), concepts)
        self._allocate(shape, activations.device)
        self._update(ids, activations, concepts)

    def merge(self, other: Self) -> None:
        """Merge a tally that has seen other images; see `Tally.merge`."""
        check_settings(self._settings, other._settings)
        if other._shape is None:
            return
        check_shape(self._shape, other._shape)
        self._check_merge(other)
        self._allocate(other._shape, self._device if self._shape else other._device)
        self._merge(other)

    @abstractmethod
    def result(self) -> Any:
        """Return the statistic; see `Tally.result`."""

    def state_dict(self) -> dict[str, Any]:
        """Return the state; see `Tally.state_dict`."""
        state: dict[str, Any] = {"settings": self._settings, "shape": None}
        if self._shape is not None:
            state |= {"shape": list(self._shape), **self._export()}
        return state

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Replace the state; see `Tally.load_state_dict`."""
        check_settings(self._settings, state["settings"])
        self._reset()
        if state["shape"] is not None:
            units, h, w = state["shape"]
            self._import((units, h, w), state)

    @property
    def nbytes(self) -> int:
        """Bytes held now, between batches."""
        if self._shape is None:
            return 0
        tensors: list[Tensor] = [getattr(self, f"_{name}") for name in self._tensors]
        for name in self._lists:
            tensors += getattr(self, f"_{name}")
        return sum(tensor.nbytes for tensor in tensors)

    @abstractmethod
    def estimate(self, units: int, h: int, w: int, images: int = 0, concepts: int = 0) -> int:
        """Return the most bytes that it will hold; see `Tally.estimate`."""

    # ---- hooks of subclasses

    @property
    @abstractmethod
    def _settings(self) -> dict[str, Any]:
        """Settings that tallies must share to be merged, as plain values."""

    def _check_update(  # noqa: B027 (most tallies need no further check)
        self, shape: Shape, images: int, concepts: Tensor | None
    ) -> None:
        """Raise InputError for a batch that cannot be counted, before anything changes."""

    @abstractmethod
    def _update(self, ids: Tensor, activations: Tensor, concepts: Tensor | None) -> None:
        """Count a validated batch; all tensor states are on its device."""

    def _check_merge(self, other: Self) -> None:  # noqa: B027
        """Raise InputError for a tally that cannot be merged, before anything changes."""

    def _merge(self, other: Self) -> None:
        """Merge the states of a tally of the same settings and shape that is not empty."""
        for name in self._tensors:
            tensor = getattr(self, f"_{name}")
            tensor += getattr(other, f"_{name}").to(tensor.device)
        for name in (*self._counters, *self._lists):
            setattr(self, f"_{name}", getattr(self, f"_{name}") + getattr(other, f"_{name}"))

    def _export(self) -> dict[str, Any]:
        """Return the states for `state_dict`."""
        state = {name: getattr(self, f"_{name}") for name in self._counters}
        # copied: the tally may be updated while the state is in use
        state |= {name: getattr(self, f"_{name}").cpu().clone() for name in self._tensors}
        return state | {name: torch.cat(getattr(self, f"_{name}")) for name in self._lists}

    def _import(self, shape: Shape, state: Mapping[str, Any]) -> None:
        """Take the states of a `state_dict`, after `_reset`."""
        self._shape = shape
        for name in self._counters:
            setattr(self, f"_{name}", state[name])
        for name in self._tensors:
            setattr(self, f"_{name}", state[name].clone())
        for name in self._lists:
            setattr(self, f"_{name}", [state[name]])

    # ---- state handling

    @property
    def _device(self) -> torch.device:
        """Device of the tensor states; the CPU where there are none."""
        for name in self._tensors if self._shape is not None else ():
            device: torch.device = getattr(self, f"_{name}").device
            return device
        return torch.device("cpu")

    def _allocate(self, shape: Shape, device: torch.device) -> None:
        """Make the tensors at the first batch; later, move them to the batch's device."""
        if self._shape is None:
            self._shape = shape
            for name, make in self._tensors.items():
                setattr(self, f"_{name}", make(shape).to(device))
        elif self._device != device:
            for name in self._tensors:
                setattr(self, f"_{name}", getattr(self, f"_{name}").to(device))

    def _reset(self) -> None:
        """Return to the state before the first batch."""
        self._shape = None
        for name in self._counters:
            setattr(self, f"_{name}", 0)
        for name in self._lists:
            setattr(self, f"_{name}", [])
