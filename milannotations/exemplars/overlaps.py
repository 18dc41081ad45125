"""How far each unit's activations overlap with each concept of annotated images."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Self

import torch
from torch import Tensor
from torch.nn import functional as nnf

from milannotations.errors import InputError
from milannotations.exemplars.incoming import (
    Shape,
    blocks,
    check_settings,
    check_shape,
    received,
    shape_of,
)
from milannotations.exemplars.masks import upsample

EXACT = 1 << 24
"""Up to here float32 counts without error, and so does a matmul of zeros and ones."""


@dataclass(frozen=True)
class Overlaps:
    """Counts of positions of all images.

    Attributes:
        intersection: int64 (unit, concept), where the unit is active and the concept is.
        unit: int64 (unit,), where the unit is active.
        concept: int64 (concept,), where the concept is.
        positions: all of them.
    """

    intersection: Tensor
    unit: Tensor
    concept: Tensor
    positions: int

    @property
    def iou(self) -> Tensor:
        """Intersection over union, float64 (unit, concept); 0 where both are nowhere."""
        union = self.unit[:, None] + self.concept - self.intersection
        return self.intersection.double() / union.clamp(min=1).double()


class Overlap:
    """How far each unit, where it is above its threshold, overlaps with each concept.

    Bau et al. 2017, Network Dissection, section 3: activations are upsampled to the size of the
    concepts' maps (bilinear, half-pixel, edges clamped), a unit is active where they are above
    its threshold, and units and concepts are compared by intersection over union over all
    images. Thresholds come from an earlier pass (`Quantile`). An image that came twice counts
    twice; only within a batch it is an error.

    It holds 8 * (units * concepts + units + concepts) bytes.

    Args:
        thresholds: (unit,), finite.

    Example:
        >>> tally = Overlap(torch.tensor([0.5]))
        >>> concepts = torch.tensor([[True, False], [True, True]]).view(1, 2, 1, 2)
        >>> tally.update(torch.tensor([0]), torch.tensor([0.0, 1.0]).view(1, 1, 1, 2), concepts)
        >>> tally.result().iou
        tensor([[0.0000, 0.5000]], dtype=torch.float64)
    """

    def __init__(self, thresholds: Tensor) -> None:
        thresholds = thresholds.detach().to("cpu", torch.float32)
        if thresholds.dim() != 1 or not bool(thresholds.isfinite().all()):
            raise InputError(
                f"Thresholds {tuple(thresholds.shape)} came; expected a finite one a unit (unit,)."
            )
        self.thresholds = thresholds
        self._shape: Shape | None = None
        self._intersection = torch.empty(0, 0, dtype=torch.int64)
        self._unit = torch.empty(0, dtype=torch.int64)
        self._concept = torch.empty(0, dtype=torch.int64)
        self._positions = 0

    def update(self, ids: Tensor, activations: Tensor, concepts: Tensor | None = None) -> None:
        """Take in a batch; see `Tally.update`. Concepts are needed.

        Raises:
            InputError: no concepts, or not bool (image, concept, H, W); another number of them
                than before; another number of units than thresholds.
        """
        ids, activations = received(ids, activations, self._shape)
        shape = shape_of(activations)
        if shape[0] != len(self.thresholds):
            raise InputError(
                f"{shape[0]:,} units came with {len(self.thresholds):,} thresholds; expected one "
                "for each."
            )
        if concepts is None or concepts.dim() != 4 or concepts.dtype != torch.bool:
            came = "none" if concepts is None else f"{concepts.dtype} {tuple(concepts.shape)}"
            raise InputError(f"Concepts: {came} came; expected bool (image, concept, H, W).")
        if len(concepts) != len(ids) or 0 in concepts.shape[2:]:
            raise InputError(
                f"Concepts {tuple(concepts.shape)} came with {len(ids):,} maps of images."
            )
        self._settle(shape, concepts.shape[1], activations.device)
        thresholds = self.thresholds.to(activations.device)
        for maps, where in zip(activations, concepts.to(activations.device), strict=True):
            self._add(maps, thresholds, where)

    def merge(self, other: Self) -> None:
        """Take in what another tally has seen; see `Tally.merge`."""
        check_settings(self._settings, other._settings)
        if other._shape is None:
            return
        check_shape(self._shape, other._shape)
        device = self._unit.device if self._shape else other._unit.device
        self._settle(other._shape, len(other._concept), device)
        self._intersection += other._intersection.to(device)
        self._unit += other._unit.to(device)
        self._concept += other._concept.to(device)
        self._positions += other._positions

    def result(self) -> Overlaps:
        """Return the counts; see `Tally.result`."""
        if self._shape is None:
            raise InputError("No image was seen, so there are no overlaps.")
        intersection, unit, concept = (
            each.cpu().clone() for each in (self._intersection, self._unit, self._concept)
        )
        return Overlaps(intersection, unit, concept, self._positions)

    def state_dict(self) -> dict[str, Any]:
        """Return all of it; the same for the same images. See `Tally.state_dict`."""
        state: dict[str, Any] = {"settings": self._settings, "shape": None}
        if self._shape is not None:
            state |= {"shape": list(self._shape), **vars(self.result())}
        return state

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from a state; see `Tally.load_state_dict`."""
        check_settings(self._settings, state["settings"])
        self._shape, self._positions = None, 0
        if state["shape"] is not None:
            units, h, w = state["shape"]
            self._settle((units, h, w), len(state["concept"]), torch.device("cpu"))
            self._intersection += state["intersection"]
            self._unit += state["unit"]
            self._concept += state["concept"]
            self._positions = state["positions"]

    @property
    def nbytes(self) -> int:
        """Bytes that it holds now."""
        if self._shape is None:
            return 0
        return self.estimate(*self._shape, concepts=len(self._concept))

    def estimate(self, units: int, h: int, w: int, images: int = 0, concepts: int = 0) -> int:
        """Return the bytes that it will hold, of that many concepts; see `Tally.estimate`."""
        return 8 * (units * concepts + units + concepts)

    @property
    def _settings(self) -> dict[str, Any]:
        return {"thresholds": self.thresholds.tolist()}

    def _settle(self, shape: Shape, concepts: int, device: torch.device) -> None:
        """Make room at the first batch; follow the activations to another device."""
        if self._shape is None:
            self._shape = shape
            whole = {"dtype": torch.int64, "device": device}
            self._intersection = torch.zeros(shape[0], concepts, **whole)
            self._unit = torch.zeros(shape[0], **whole)
            self._concept = torch.zeros(concepts, **whole)
        elif len(self._concept) != concepts:
            raise InputError(f"{concepts:,} concepts came after {len(self._concept):,}.")
        elif self._unit.device != device:
            self._intersection = self._intersection.to(device)
            self._unit, self._concept = self._unit.to(device), self._concept.to(device)

    def _add(self, maps: Tensor, thresholds: Tensor, where: Tensor) -> None:
        """Count one image's positions: maps (unit, h, w), concepts (concept, H, W)."""
        size = where.shape[1:]
        totals = where.sum((1, 2))
        self._concept += totals
        self._positions += size[0] * size[1]
        present = totals.nonzero()[:, 0]
        # a concept that is everywhere, before the others, counts where the unit is
        inside = nnf.pad(where[present].flatten(1), (0, 0, 1, 0), value=1).float()
        # what is between two values is not above both, so no other unit is active anywhere
        active = (maps.amax((1, 2)) > thresholds).nonzero()[:, 0]
        for some in blocks(len(active), size[0] * size[1]):
            units = active[some]
            above = upsample(maps[units], (size[0], size[1])) > thresholds[units, None, None]
            above = above.flatten(1)
            for start in range(0, above.shape[1], EXACT):
                part = slice(start, start + EXACT)
                with torch.autocast(maps.device.type, enabled=False):  # half floats cannot count
                    both = (above[:, part].float() @ inside[:, part].t()).to(torch.int64)
                self._unit[units] += both[:, 0]
                self._intersection[units[:, None], present] += both[:, 1:]
