"""Tally of the images that activate each unit most."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Self

import torch
from torch import Tensor

from milannotations.errors import InputError
from milannotations.exemplars.tallies.base import BaseTally
from milannotations.exemplars.tallies.validation import Shape, blocks, check_unique

LOW = (1 << 32) - 1
"""The lower 32 bits of a key."""

EMPTY = -(1 << 63)
"""Key of a slot that holds no image: below the key of any activation."""


@dataclass(frozen=True)
class TopImages:
    """Images that activate each unit most, strongest first.

    Attributes:
        ids: int64 (unit, k), indices in the dataset; the smaller first where two are equal.
        activations: float32 (unit, k), the largest activation on each image.
        maps: float32 (unit, k, h, w), the activation map on each image.
    """

    ids: Tensor
    activations: Tensor
    maps: Tensor


class TopK(BaseTally):
    """The k images with the largest activation of each unit, and their activation maps.

    Hernandez et al. 2022, section 3. Ties go to the smaller id, and -0 ties with 0, so that the
    order of arrival is irrelevant. Maps lie in slots in no particular order; only the maps of
    newcomers are copied. An image that came twice is an error where it is among the first k of some
    unit, and within a batch; elsewhere it is not detected.

    It holds units * k * (4 * h * w + 8) bytes, whatever the number of images.

    Args:
        k: images per unit. With fewer images, all of them are kept.

    Raises:
        InputError: k is below 1.

    Example:
        >>> tally = TopK(k=2)
        >>> tally.update(torch.arange(3), torch.tensor([1.0, 3.0, 3.0]).view(3, 1, 1, 1))
        >>> tally.result().ids, tally.result().activations
        (tensor([[1, 2]]), tensor([[3., 3.]]))
    """

    _keys: Tensor  # int64 (unit, k); see `_pack_keys`
    _maps: Tensor  # float32 (unit, k, h, w), in the order of `_keys`
    _seen: int  # images

    def __init__(self, k: int = 15) -> None:
        super().__init__()
        if k < 1:
            raise InputError(f"{k} exemplars per unit were requested; expected at least 1.")
        self.k = k
        self.add_state("keys", lambda shape: torch.full((shape[0], k), EMPTY, dtype=torch.int64))
        self.add_state("maps", lambda shape: torch.zeros(shape[0], k, *shape[1:]))
        self.add_state("seen", 0)

    def result(self) -> TopImages:
        """Return the exemplars of every unit; see `Tally.result`."""
        if self._shape is None:
            raise InputError("No image was seen, so there are no exemplars.")
        keys, maps = self._sorted()
        return TopImages(LOW - (keys & LOW), _unpack_activations(keys), maps)

    def estimate(self, units: int, h: int, w: int, images: int = 0, concepts: int = 0) -> int:
        """Return the bytes that it will hold; see `Tally.estimate`."""
        return units * self.k * (4 * h * w + 8)

    @property
    def _settings(self) -> dict[str, Any]:
        return {"k": self.k}

    def _update(self, ids: Tensor, activations: Tensor, concepts: Tensor | None) -> None:
        # largest activation per image and unit: (image, unit)
        keys = _pack_keys(activations.amax((2, 3)), ids.to(activations.device)[:, None])
        self._keep_largest(keys.t(), lambda units, images: activations[images, units])
        self._seen += len(ids)

    def _merge(self, other: Self) -> None:
        device = other._device
        self._keep_largest(
            other._keys.to(self._keys.device),
            lambda units, slots: other._maps[units.to(device), slots.to(device)],
        )
        self._seen += other._seen

    def _export(self) -> dict[str, Any]:
        # sorted, because the order of slots depends on the order of arrival
        keys, maps = self._sorted()
        return {"seen": self._seen, "keys": keys, "maps": maps}

    def _import(self, shape: Shape, state: Mapping[str, Any]) -> None:
        self._allocate(shape, torch.device("cpu"))
        count = state["keys"].shape[1]
        self._keys[:, :count] = state["keys"]
        self._maps[:, :count] = state["maps"]
        self._seen = state["seen"]

    def _keep_largest(self, keys: Tensor, maps_of: Callable[[Tensor, Tensor], Tensor]) -> None:
        """Replace exemplars by candidates that now are among the first k.

        Args:
            keys: int64 (unit, candidate).
            maps_of: returns the maps (n, h, w) of n pairs of a unit and one of its candidates.
        """
        # In most batches no candidate exceeds any unit's weakest exemplar.
        if not bool((keys > self._keys.amin(1, keepdim=True)).any()):
            return
        # Find the first k among exemplars and candidates together; no two keys of a unit are equal.
        both = torch.cat([self._keys, keys], dim=1)  # (unit, k + candidate)
        first = both.topk(self.k, dim=1, sorted=False).indices
        stays = torch.zeros_like(both, dtype=torch.bool).scatter_(1, first, True)
        # A unit has as many exemplars that leave as candidates that enter, and both lists are in
        # order of units, so they pair up: the n-th newcomer takes the n-th free slot.
        units, slots = (~stays[:, : self.k]).nonzero(as_tuple=True)
        candidates = stays[:, self.k :].nonzero(as_tuple=True)[1]
        self._keys[units, slots] = keys[units, candidates]
        size = self._maps[0, 0].numel()
        for part in blocks(len(units), size, units.device):
            maps = maps_of(units[part], candidates[part])
            self._maps[units[part], slots[part]] = maps.to(self._maps.device)

    def _sorted(self) -> tuple[Tensor, Tensor]:
        """Return keys and maps on the CPU, strongest first, without empty slots.

        Raises:
            InputError: an image came twice.
        """
        keys, order = self._keys.sort(dim=1, descending=True)
        count = min(self.k, self._seen)
        keys, order = keys[:, :count].contiguous(), order[:, :count]
        check_unique((LOW - (keys & LOW)).sort(dim=1).values)
        units = torch.arange(len(keys), device=keys.device)[:, None]
        return keys.cpu(), self._maps[units, order].cpu()


def _pack_keys(activations: Tensor, ids: Tensor) -> Tensor:
    """Return int64 keys: larger for a larger activation, and for a smaller id where equal.

    The upper 32 bits hold the activation, the lower 32 bits the id, so that one comparison of
    whole numbers orders by activation and settles ties.

    Args:
        activations: float32, finite.
        ids: int64, from 0 to `MAX_ID`; broadcast against activations.
    """
    # 1. The bits of a float32 as an int32. Adding 0 turns -0 into 0, so that both tie.
    bits = (activations + 0.0).view(torch.int32)
    # 2. As whole numbers, the bits of floats from 0 up rise with the float. Those below 0 fall as
    # the float rises; flipping all bits but the sign (the mask is 0 for positive numbers, since
    # `>> 31` copies the sign bit) reverses them.
    ordered = bits ^ ((bits >> 31) & 0x7FFFFFFF)
    # 3. Shift into the upper half, and add what remains of the id from the largest: smaller ids
    # make larger keys.
    return ordered.to(torch.int64) * (LOW + 1) + (LOW - ids)


def _unpack_activations(keys: Tensor) -> Tensor:
    """Return the activations in keys, float32; the inverse of `_pack_keys`."""
    ordered = (keys >> 32).to(torch.int32)
    return (ordered ^ ((ordered >> 31) & 0x7FFFFFFF)).view(torch.float32)
