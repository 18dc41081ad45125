"""Tallies: statistics of one layer over a stream of activations.

All give the same bits for any order of the images, any batch size, any split into parts that
are merged in any order, and on any device, given the same activations. They are made without
knowing the layer, and take its shape from the first batch.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol, Self

import torch
from torch import Tensor

from milannotations.errors import InputError
from milannotations.exemplars.tallies.overlap import Overlap, Overlaps
from milannotations.exemplars.tallies.quantile import Quantile
from milannotations.exemplars.tallies.validation import (
    Nonfinite,
    Shape,
    blocks,
    check_once,
    check_settings,
    check_shape,
    received,
    shape_of,
)

__all__ = [
    "Nonfinite",
    "Overlap",
    "Overlaps",
    "Pooled",
    "PooledActivations",
    "Quantile",
    "Tally",
    "Top",
    "TopK",
]

LOW = (1 << 32) - 1
EMPTY = -(1 << 63)
"""The key of a slot that holds no image: below that of any activation."""


class Tally(Protocol):
    """A statistic of one layer over a stream of activations."""

    def update(self, ids: Tensor, activations: Tensor, concepts: Tensor | None = None) -> None:
        """Take in a batch.

        Args:
            ids: int64 (image,), places of the images in the data set, each once in the stream.
            activations: (image, unit, h, w), on any device; taken as float32.
            concepts: bool (image, concept, H, W), where concepts are in the images, or label
                planes (image, plane, H, W); see `Overlap`.

        Raises:
            Nonfinite: NaN or an infinity.
            InputError: anything else that this tally cannot take in.
        """

    def merge(self, other: Self) -> None:
        """Take in what another tally, asked for the same, has seen of other images.

        Raises:
            InputError: it was asked for something else, or saw another layer.
        """

    def result(self) -> Any:
        """Return the statistic, on the CPU. The tally can go on afterwards.

        Raises:
            InputError: nothing was seen.
        """

    def state_dict(self) -> dict[str, Any]:
        """Return all of it as CPU tensors and plain values.

        `torch.save` writes it, `torch.load(..., weights_only=True)` reads it.
        """

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from a state, in place of what this tally has seen.

        Raises:
            InputError: it is that of a tally that was asked for something else.
        """

    @property
    def nbytes(self) -> int:
        """Bytes that it holds now, between batches."""

    def estimate(self, units: int, h: int, w: int, images: int = 0, concepts: int = 0) -> int:
        """Return the most bytes that it will hold, between batches, for a layer of this shape.

        Within a batch it needs some times `4 * BLOCK` bytes more (on CUDA `WIDE` times as many),
        or some times the maps of one unit in the batch where that is more; and a copy of the
        batch if that is not float32.
        """


@dataclass(frozen=True)
class Top:
    """The images that excite each unit most, strongest first.

    Attributes:
        ids: int64 (unit, k), places in the data set; the smaller first where two are equal.
        activations: float32 (unit, k), the largest on each image.
        maps: float32 (unit, k, h, w), the activations on each.
    """

    ids: Tensor
    activations: Tensor
    maps: Tensor


class TopK:
    """The k images with the largest activation of each unit, and their maps.

    Hernandez et al. 2022, section 3. Ties go to the smaller id, and -0 ties with 0, so that the
    order of arrival is irrelevant. Maps lie in slots; only those of newcomers are copied. An
    image that came twice is an error where it is among the first k of some unit, and within a
    batch; elsewhere it is not looked for.

    It holds units * k * (4 * h * w + 8) bytes, whatever the number of images.

    Args:
        k: how many; fewer images give as many as there are.

    Example:
        >>> tally = TopK(k=2)
        >>> tally.update(torch.arange(3), torch.tensor([1.0, 3.0, 3.0]).view(3, 1, 1, 1))
        >>> tally.result().ids, tally.result().activations
        (tensor([[1, 2]]), tensor([[3., 3.]]))
    """

    def __init__(self, k: int = 15) -> None:
        if k < 1:
            raise InputError(f"{k} exemplars of a unit were asked for; expected at least 1.")
        self.k = k
        self._shape: Shape | None = None
        self._seen = 0
        # an activation and its image in one number, so that one comparison settles ties
        self._keys = torch.empty(0, k, dtype=torch.int64)
        self._maps = torch.empty(0, k, 0, 0)

    def update(self, ids: Tensor, activations: Tensor, concepts: Tensor | None = None) -> None:
        """Take in a batch; see `Tally.update`."""
        ids, activations = received(ids, activations, self._shape)
        self._settle(shape_of(activations), activations.device)
        keys = _keys(activations.amax((2, 3)), ids.to(activations.device)[:, None])
        self._offer(keys.t(), lambda units, places: activations[places, units])
        self._seen += len(ids)

    def merge(self, other: Self) -> None:
        """Take in what another tally has seen; see `Tally.merge`."""
        check_settings(self._settings, other._settings)
        if other._shape is None:
            return
        check_shape(self._shape, other._shape)
        own, theirs = self._keys.device, other._keys.device
        self._settle(other._shape, own if self._shape else theirs)
        self._offer(
            other._keys.to(self._keys.device),
            lambda units, places: other._maps[units.to(theirs), places.to(theirs)],
        )
        self._seen += other._seen

    def result(self) -> Top:
        """Return the exemplars of every unit; see `Tally.result`."""
        if self._shape is None:
            raise InputError("No image was seen, so there are no exemplars.")
        keys, maps = self._sorted()
        return Top(LOW - (keys & LOW), _activations(keys), maps)

    def state_dict(self) -> dict[str, Any]:
        """Return all of it; the same for the same images. See `Tally.state_dict`."""
        state: dict[str, Any] = {"settings": self._settings, "shape": None}
        if self._shape is not None:
            keys, maps = self._sorted()
            state |= {"shape": list(self._shape), "seen": self._seen, "keys": keys, "maps": maps}
        return state

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from a state; see `Tally.load_state_dict`."""
        check_settings(self._settings, state["settings"])
        self._shape, self._seen = None, 0
        if state["shape"] is not None:
            units, h, w = state["shape"]
            self._settle((units, h, w), torch.device("cpu"))
            count = state["keys"].shape[1]
            self._keys[:, :count] = state["keys"]
            self._maps[:, :count] = state["maps"]
            self._seen = state["seen"]

    @property
    def nbytes(self) -> int:
        """Bytes that it holds now."""
        return 0 if self._shape is None else self.estimate(*self._shape)

    def estimate(self, units: int, h: int, w: int, images: int = 0, concepts: int = 0) -> int:
        """Return the bytes that it will hold; see `Tally.estimate`."""
        return units * self.k * (4 * h * w + 8)

    @property
    def _settings(self) -> dict[str, Any]:
        return {"k": self.k}

    def _settle(self, shape: Shape, device: torch.device) -> None:
        """Make room at the first batch; follow the activations to another device."""
        if self._shape is None:
            units, h, w = self._shape = shape
            self._keys = torch.full((units, self.k), EMPTY, dtype=torch.int64, device=device)
            self._maps = torch.zeros(units, self.k, h, w, device=device)
        elif self._keys.device != device:
            self._keys, self._maps = self._keys.to(device), self._maps.to(device)

    def _offer(self, keys: Tensor, maps_of: Callable[[Tensor, Tensor], Tensor]) -> None:
        """Take the candidates (unit, candidate) that are among the first k now."""
        if not bool((keys > self._keys.amin(1, keepdim=True)).any()):
            return
        both = torch.cat([self._keys, keys], dim=1)
        first = both.topk(self.k, dim=1, sorted=False).indices
        stays = torch.zeros_like(both, dtype=torch.bool).scatter_(1, first, True)
        # a unit has as many free slots as newcomers, and both lists go by unit, so they pair up
        units, slots = (~stays[:, : self.k]).nonzero(as_tuple=True)
        places = stays[:, self.k :].nonzero(as_tuple=True)[1]
        self._keys[units, slots] = keys[units, places]
        size = self._maps[0, 0].numel()
        for some in blocks(len(units), size, units.device):
            maps = maps_of(units[some], places[some])
            self._maps[units[some], slots[some]] = maps.to(self._maps.device)

    def _sorted(self) -> tuple[Tensor, Tensor]:
        """Return keys and maps on the CPU, strongest first, without empty slots."""
        keys, order = self._keys.sort(dim=1, descending=True)
        count = min(self.k, self._seen)
        keys, order = keys[:, :count].contiguous(), order[:, :count]
        check_once((LOW - (keys & LOW)).sort(dim=1).values)
        units = torch.arange(len(keys), device=keys.device)[:, None]
        return keys.cpu(), self._maps[units, order].cpu()


def _keys(activations: Tensor, ids: Tensor) -> Tensor:
    """Return int64 keys: larger for a larger activation, and for a smaller id where equal."""
    bits = (activations + 0.0).view(torch.int32)  # -0 + 0 is 0
    # the bits of floats below 0 fall as the floats rise; the others' are in order
    ordered = bits ^ ((bits >> 31) & 0x7FFFFFFF)
    return ordered.to(torch.int64) * (LOW + 1) + (LOW - ids)


def _activations(keys: Tensor) -> Tensor:
    ordered = (keys >> 32).to(torch.int32)
    return (ordered ^ ((ordered >> 31) & 0x7FFFFFFF)).view(torch.float32)


@dataclass(frozen=True)
class PooledActivations:
    """One number for an image and a unit.

    Attributes:
        ids: int64 (image,), places in the data set, ascending.
        values: float32 (image, unit).
    """

    ids: Tensor
    values: Tensor


class Pooled:
    """The mean or the largest of each unit's activations on each image.

    The mean is a sum in float64, halves added to halves, so that its bits do not depend on how a
    machine would order a sum. It holds 4 * images * units bytes, unlike the other tallies, whose
    size does not grow with the images (and 8 * images for ids). An image that came twice is an
    error.

    Args:
        how: `mean` or `max`.

    Example:
        >>> tally = Pooled("mean")
        >>> tally.update(torch.tensor([4]), torch.arange(8.0).view(1, 2, 2, 2))
        >>> tally.result().values
        tensor([[1.5000, 5.5000]])
    """

    def __init__(self, how: str = "mean") -> None:
        if how not in ("mean", "max"):
            raise InputError(f"No pooling '{how}'; expected mean or max.")
        self.how = how
        self._shape: Shape | None = None
        self._ids: list[Tensor] = []
        self._values: list[Tensor] = []

    def update(self, ids: Tensor, activations: Tensor, concepts: Tensor | None = None) -> None:
        """Take in a batch; see `Tally.update`."""
        ids, activations = received(ids, activations, self._shape)
        self._shape = shape_of(activations)
        if self.how == "max":
            values = (activations.amax((2, 3)) + 0.0).cpu()
        else:
            values = _means(activations.flatten(2))
        self._ids.append(ids.clone())
        self._values.append(values)

    def merge(self, other: Self) -> None:
        """Take in what another tally has seen; see `Tally.merge`."""
        check_settings(self._settings, other._settings)
        if other._shape is None:
            return
        check_shape(self._shape, other._shape)
        self._shape = other._shape
        self._ids += other._ids
        self._values += other._values

    def result(self) -> PooledActivations:
        """Return the pooled activations; see `Tally.result`."""
        if self._shape is None:
            raise InputError("No image was seen, so there are no activations.")
        ids, order = torch.cat(self._ids).sort()
        check_once(ids)
        return PooledActivations(ids, torch.cat(self._values)[order])

    def state_dict(self) -> dict[str, Any]:
        """Return all of it; the same for the same images. See `Tally.state_dict`."""
        state: dict[str, Any] = {"settings": self._settings, "shape": None}
        if self._shape is not None:
            found = self.result()
            state |= {"shape": list(self._shape), "ids": found.ids, "values": found.values}
        return state

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from a state; see `Tally.load_state_dict`."""
        check_settings(self._settings, state["settings"])
        self._shape, self._ids, self._values = None, [], []
        if state["shape"] is not None:
            units, h, w = state["shape"]
            self._shape, self._ids, self._values = (units, h, w), [state["ids"]], [state["values"]]

    @property
    def nbytes(self) -> int:
        """Bytes that it holds now."""
        return sum(8 * each.numel() for each in self._ids) + sum(
            4 * each.numel() for each in self._values
        )

    def estimate(self, units: int, h: int, w: int, images: int = 0, concepts: int = 0) -> int:
        """Return the bytes that it will hold, of that many images; see `Tally.estimate`."""
        return images * (4 * units + 8)

    @property
    def _settings(self) -> dict[str, Any]:
        return {"how": self.how}


def _means(maps: Tensor) -> Tensor:
    """Return the means of maps (image, unit, position), on the CPU, float32 (image, unit)."""
    count, units, positions = maps.shape
    found = torch.empty(count, units)
    for some in blocks(units, count * positions, maps.device):
        sums = maps[:, some].double()
        while sums.shape[2] > 1:
            half = sums.shape[2] // 2
            rest = sums[..., 2 * half :]
            sums = sums[..., :half] + sums[..., half : 2 * half]
            sums[..., : rest.shape[2]] += rest  # the last of an odd number
        # a device may multiply by an inverse where it should divide
        found[:, some] = (sums[..., 0].cpu() / positions).float()
    return found
