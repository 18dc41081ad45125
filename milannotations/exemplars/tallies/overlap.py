"""How far each unit's activations overlap with each concept of annotated images."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple, Self

import torch
from torch import Tensor
from torch.nn import functional as nnf

from milannotations.errors import InputError
from milannotations.exemplars.tallies.masks import masks
from milannotations.exemplars.tallies.validation import (
    Shape,
    blocks,
    check_settings,
    check_shape,
    received,
    shape_of,
)

EXACT = 1 << 24
"""Up to here float32 counts without error, and so does a matmul of zeros and ones."""

MANY = 8
"""A unit that is above its threshold at more than one in so many old pixels gets a whole mask: it
is quicker then than looking around each."""


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

    @property
    def inside(self) -> Tensor:
        """Share of where a unit is active that lies in a concept, float64 (unit, concept).

        0 where it is active nowhere.
        """
        return self.intersection.double() / self.unit[:, None].clamp(min=1).double()


class Overlap:
    """How far each unit, where it is above its threshold, overlaps with each concept.

    Bau et al. 2017, Network Dissection, section 3: activations are upsampled to the size of the
    concepts' maps (bilinear, half-pixel, edges clamped), a unit is active where they are above
    its threshold, and units and concepts are compared by intersection over union over all
    images. Thresholds come from an earlier pass (`Quantile`). An image that came twice counts
    twice; only within a batch it is an error.

    Masks are those of `masks.masks`, to the bit, but where few values are above the threshold
    they are made and counted only around these.

    It holds 8 * (units * concepts + units + concepts) bytes.

    Args:
        thresholds: (unit,), finite.
        concepts: how many there are, where they come as label planes: whole numbers (image,
            plane, H, W) from 1, 0 for none; a pixel is of the concepts that any plane says. None:
            they come as bool (image, concept, H, W).

    Example:
        >>> tally = Overlap(torch.tensor([0.5]))
        >>> concepts = torch.tensor([[True, False], [True, True]]).view(1, 2, 1, 2)
        >>> tally.update(torch.tensor([0]), torch.tensor([0.0, 1.0]).view(1, 1, 1, 2), concepts)
        >>> tally.result().iou
        tensor([[0.0000, 0.5000]], dtype=torch.float64)
        >>> tally.result().inside
        tensor([[0., 1.]], dtype=torch.float64)
        >>> tally = Overlap(torch.tensor([0.5]), concepts=3)
        >>> planes = torch.tensor([2, 3]).view(1, 1, 1, 2)
        >>> tally.update(torch.tensor([0]), torch.tensor([0.0, 1.0]).view(1, 1, 1, 2), planes)
        >>> tally.result().iou
        tensor([[0., 0., 1.]], dtype=torch.float64)
    """

    def __init__(self, thresholds: Tensor, concepts: int | None = None) -> None:
        thresholds = thresholds.detach().to("cpu", torch.float32)
        if thresholds.dim() != 1 or not bool(thresholds.isfinite().all()):
            raise InputError(
                f"Thresholds {tuple(thresholds.shape)} came; expected a finite one a unit (unit,)."
            )
        if concepts is not None and concepts < 1:
            raise InputError(f"{concepts} concepts were announced; expected at least 1.")
        self.thresholds, self.concepts = thresholds, concepts
        self._shape: Shape | None = None
        self._intersection = torch.empty(0, 0, dtype=torch.int64)
        self._unit = torch.empty(0, dtype=torch.int64)
        self._concept = torch.empty(0, dtype=torch.int64)
        self._positions = 0

    def update(self, ids: Tensor, activations: Tensor, concepts: Tensor | None = None) -> None:
        """Take in a batch; see `Tally.update`. Concepts are needed.

        Raises:
            InputError: no concepts, or of another kind or number than announced or before; another
                number of units than thresholds.
        """
        ids, activations = received(ids, activations, self._shape)
        shape = shape_of(activations)
        if shape[0] != len(self.thresholds):
            raise InputError(
                f"{shape[0]:,} units came with {len(self.thresholds):,} thresholds; expected one "
                "for each."
            )
        concepts = self._checked(concepts, len(ids))
        count = self.concepts or concepts.shape[1]
        self._check_count(count)
        self._settle(shape, count, activations.device)
        thresholds = self.thresholds.to(activations.device)
        for maps, where in zip(activations, concepts.to(activations.device), strict=True):
            self._add(maps, thresholds, where)

    def merge(self, other: Self) -> None:
        """Take in what another tally has seen; see `Tally.merge`."""
        check_settings(self._settings, other._settings)
        if other._shape is None:
            return
        check_shape(self._shape, other._shape)
        self._check_count(len(other._concept))
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
        return {"thresholds": self.thresholds.tolist(), "concepts": self.concepts}

    def _checked(self, concepts: Tensor | None, images: int) -> Tensor:
        """Return concepts, if they are what was announced."""
        planes = self.concepts is not None
        kind = "whole numbers (image, plane, H, W)" if planes else "bool (image, concept, H, W)"
        if (
            concepts is None
            or concepts.dim() != 4
            or (concepts.dtype == torch.bool) == planes
            or concepts.is_floating_point()
        ):
            came = "none" if concepts is None else f"{concepts.dtype} {tuple(concepts.shape)}"
            raise InputError(f"Concepts: {came} came; expected {kind}.")
        if len(concepts) != images or 0 in concepts.shape[1:]:
            raise InputError(
                f"Concepts {tuple(concepts.shape)} came with {images:,} maps of images."
            )
        if planes and images:
            least, most = (int(each) for each in concepts.aminmax())
            if not 0 <= least <= most <= (self.concepts or 0):
                raise InputError(
                    f"Concepts: numbers from {least:,} to {most:,} came; expected 0 for none, and "
                    f"from 1 to {self.concepts:,}."
                )
        return concepts

    def _check_count(self, concepts: int) -> None:
        if self._shape is not None and len(self._concept) != concepts:
            raise InputError(f"{concepts:,} concepts came after {len(self._concept):,}.")

    def _settle(self, shape: Shape, concepts: int, device: torch.device) -> None:
        """Make room at the first batch; follow the activations to another device."""
        if self._shape is None:
            self._shape = shape
            whole = {"dtype": torch.int64, "device": device}
            self._intersection = torch.zeros(shape[0], concepts, **whole)
            self._unit = torch.zeros(shape[0], **whole)
            self._concept = torch.zeros(concepts, **whole)
        elif self._unit.device != device:
            self._intersection = self._intersection.to(device)
            self._unit, self._concept = self._unit.to(device), self._concept.to(device)

    def _add(self, maps: Tensor, thresholds: Tensor, where: Tensor) -> None:
        """Count one image's positions: maps (unit, h, w), concepts (concept or plane, H, W)."""
        size = int(where.shape[1]), int(where.shape[2])
        present, inside = _one_hot(where, len(self._concept))
        self._concept[present] += inside.sum(0)[1:].to(torch.int64)
        self._positions += len(inside)
        highs = (maps > thresholds[:, None, None]).flatten(1).sum(1)
        many = highs * MANY > maps.shape[1] * maps.shape[2]
        with torch.autocast(maps.device.type, enabled=False):  # half floats cannot count
            few = ((highs > 0) & ~many).nonzero()[:, 0]
            for at, pixels in active(maps[few], thresholds[few], size):
                units, lengths = at.unique_consecutive(return_counts=True)
                starts = lengths.cumsum(0) - lengths
                counts = nnf.embedding_bag(pixels, inside, starts, mode="sum")
                self._count(few[units], present, counts)
            dense = many.nonzero()[:, 0]
            for some in blocks(len(dense), len(inside), maps.device):
                units = dense[some]
                above = masks(maps[units], thresholds[units], size).flatten(1)
                self._count(units, present, above.to(inside.dtype) @ inside)

    def _count(self, units: Tensor, present: Tensor, counts: Tensor) -> None:
        """Add counts (unit, 1 + concept), the first of all positions, of different units."""
        whole = counts.to(torch.int64)
        self._unit[units] += whole[:, 0]
        self._intersection[units[:, None], present] += whole[:, 1:]


def _one_hot(where: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """Return which concepts are in an image, and where.

    Args:
        where: bool (concept, H, W), or label planes (plane, H, W).
        count: of concepts.

    Returns:
        int64 (n,), concepts; and floats (H * W, 1 + n): 1 everywhere, then where each of them is.
        The floats are such as count the positions exactly.
    """
    flat = where.flatten(1)
    kind = torch.float32 if flat.shape[1] <= EXACT else torch.float64
    if where.dtype == torch.bool:
        present = flat.any(1).nonzero()[:, 0]
        found = nnf.pad(flat[present], (0, 0, 1, 0), value=1).t()
        return present, found.to(kind, memory_format=torch.contiguous_format)
    flat = flat.to(torch.int64)
    seen = torch.bincount(flat.view(-1), minlength=count + 1) > 0
    present = seen[1:].nonzero()[:, 0]
    places = torch.zeros(count + 1, dtype=torch.int64, device=where.device)
    places[present + 1] = torch.arange(1, len(present) + 1, device=where.device)
    found = torch.zeros(flat.shape[1], 1 + len(present), dtype=kind, device=where.device)
    columns = places.index_select(0, flat.view(-1)).view_as(flat).t()
    found.scatter_(1, columns, 1)  # a concept in two planes is there once
    found[:, 0] = 1
    return present, found


class Axis(NamedTuple):
    """How one side of a map becomes longer or shorter, gap by gap.

    Gap g lies between the centres of old pixels g - 1 and g; the first and the last are the
    outer halves of the outermost pixels, where values are clamped.

    Attributes:
        start: int64 (gap,), the first new pixel whose centre is in each.
        count: int64 (gap,), how many are.
        shares: float32 (gap, most), how far each is on the way to pixel g; 0 beyond `count`.
        apart: whether a value of pixel g counts in gap g. It does not where the side stays.
    """

    start: Tensor
    count: Tensor
    shares: Tensor
    apart: bool

    @classmethod
    def of(cls, old: int, side: int, device: torch.device) -> Axis:
        """Return it from one side to another, with the places of `masks.upsample`."""
        places = (2 * torch.arange(side) + 1) * old - side  # in 1 / (2 side); see there
        gaps = places.div(2 * side, rounding_mode="floor") + 1
        count = torch.bincount(gaps, minlength=old + 1)
        start = count.cumsum(0) - count
        shares = torch.zeros(old + 1, int(count.max()))
        shares[gaps, torch.arange(side) - start[gaps]] = (
            (places % (2 * side)).double() / (2 * side)
        ).float()
        return cls(start.to(device), count.to(device), shares.to(device), old != side)


def active(
    maps: Tensor, thresholds: Tensor, size: tuple[int, int]
) -> Iterator[tuple[Tensor, Tensor]]:
    """Yield where upsampled maps are above, not at, their thresholds.

    The pixels are those of `masks.masks`, to the bit: values are made by the same operations,
    but only between old pixels of which one is above the threshold at least, as no value leaves
    the range of the four it lies between.

    Args:
        maps: float32 (n, h, w), finite.
        thresholds: float32 (n,), one for each map.
        size: (height, width) of the masks.

    Yields:
        int64 (k,) each: maps, in order, and pixels (y * width + x); each pixel once.

    Example:
        >>> maps = torch.tensor([[[0.0, 4.0]]])
        >>> [pixels.tolist() for _, pixels in active(maps, torch.tensor([1.0]), (1, 4))]
        [[2, 3]]
    """
    h, w = maps.shape[1:]
    high = maps > thresholds[:, None, None]
    if (h, w) == size:
        for some in blocks(len(maps), h * w, maps.device):
            at, pixels = _places(high[some].flatten(1))
            yield at + some.start, pixels
        return
    down, across = Axis.of(h, size[0], maps.device), Axis.of(w, size[1], maps.device)
    most = down.shares.shape[1], across.shares.shape[1]
    step_y, step_x = (torch.arange(each, device=maps.device) for each in most)
    offsets = (step_y[:, None] * size[1] + step_x).view(-1)
    values = maps.reshape(-1)
    for part in blocks(len(maps), (h + 1) * (w + 1), maps.device):
        owner, gap_y, gap_x = _gaps(_gaps(high[part], 1, down), 2, across).nonzero(as_tuple=True)
        owner += part.start
        for some in blocks(len(owner), most[0] * most[1], maps.device):
            at, y, x = owner[some], gap_y[some], gap_x[some]
            above, below = ((each.clamp(0, h - 1) + at * h) * w for each in (y - 1, y))
            left, right = (each.clamp(0, w - 1) for each in (x - 1, x))
            shares = across.shares[x]
            # across first, and in three steps each, as `masks.upsample` goes
            first = _between(values[above + left, None], values[above + right, None], shares)
            last = _between(values[below + left, None], values[below + right, None], shares)
            between = _between(first[:, None], last[:, None], down.shares[y][:, :, None])
            found = between > thresholds[at][:, None, None]
            found &= (step_y < down.count[y, None])[:, :, None]
            found &= (step_x < across.count[x, None])[:, None]
            tile, offset = _places(found.flatten(1))
            first_pixels = down.start[y] * size[1] + across.start[x]
            yield at[tile], first_pixels[tile] + offsets[offset]


def _places(flags: Tensor) -> tuple[Tensor, Tensor]:
    """Return rows and columns of what is true, in bool (row, column)."""
    found = flags.view(-1).nonzero()[:, 0]
    row = found // flags.shape[1]
    return row, found - row * flags.shape[1]


def _between(low: Tensor, high: Tensor, shares: Tensor) -> Tensor:
    steps = (high - low).clamp_(torch.finfo().min, torch.finfo().max)
    return (steps * shares).add_(low)


def _gaps(high: Tensor, dim: int, axis: Axis) -> Tensor:
    """Return which gaps have new pixels and a value above the threshold on either side."""
    before = nnf.pad(high, (0, 0) * (2 - dim) + (1, 0))
    if axis.apart:
        before = before | nnf.pad(high, (0, 0) * (2 - dim) + (0, 1))
    return before & (axis.count > 0).view([-1 if i == dim else 1 for i in range(3)])
