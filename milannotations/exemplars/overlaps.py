"""How far each unit's activations overlap with each concept of annotated images."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple, Self

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

    Masks are those of `masks.masks`, to the bit, but made only around values above the
    threshold, and counted pixel by pixel: the time is that of what is active.

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
        labels = Labels.of(concepts.to(activations.device), count)
        self._settle(shape, count, activations.device)
        self._positions += len(ids) * concepts.shape[2] * concepts.shape[3]
        self._concept += labels.totals
        size = int(concepts.shape[2]), int(concepts.shape[3])
        for image, unit, pixel in active(activations, self.thresholds, size):
            place = image * (size[0] * size[1]) + pixel
            for some in blocks(len(place), labels.pixels.shape[1]):
                counts = labels.counted(place[some], unit[some], shape[0])
                self._unit += counts.sum(1) // labels.pixels.shape[1]  # a pixel is in every plane
                self._intersection[:, labels.present] += counts[:, 1:]

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


class Labels(NamedTuple):
    """A batch's concepts as they are counted.

    Attributes:
        present: int64 (n,), which concepts are anywhere in the batch.
        totals: int64 (concept,), positions of each.
        pixels: int32 (image * H * W, plane), i + 1 for `present[i]`, 0 for none; each concept at
            most once a pixel.
    """

    present: Tensor
    totals: Tensor
    pixels: Tensor

    @classmethod
    def of(cls, concepts: Tensor, count: int) -> Labels:
        """Return them of bool (image, concept, H, W), or of label planes with `count` concepts."""
        numbers = _stacked(concepts) if concepts.dtype == torch.bool else concepts
        planes = numbers.to(torch.int32, copy=True).flatten(2).permute(1, 0, 2).flatten(1)
        found = torch.stack([torch.bincount(plane, minlength=count + 1) for plane in planes])
        for later in range(1, len(planes)):
            for earlier in range(later):
                if bool((found[later, 1:] * found[earlier, 1:]).any()):  # the same concept twice?
                    twice = planes[later] == planes[earlier]
                    planes[later].masked_fill_(twice, 0)
                    found[later] = torch.bincount(planes[later], minlength=count + 1)
        totals = found.sum(0)[1:]
        present = totals.nonzero()[:, 0]
        places = torch.zeros(count + 1, dtype=torch.int32, device=planes.device)
        places[present + 1] = torch.arange(
            1, len(present) + 1, dtype=torch.int32, device=planes.device
        )
        return cls(present, totals, places[planes.long()].t().contiguous())

    def counted(self, places: Tensor, units: Tensor, count: int) -> Tensor:
        """Return how often units are active where labels are: int64 (unit, 1 + n), none first.

        Args:
            places: int64 (k,), rows of `pixels` at which a unit is active.
            units: int64 (k,), which unit.
            count: how many units there are.
        """
        width = len(self.present) + 1
        pairs = units[:, None] * width + self.pixels[places]
        return torch.bincount(pairs.view(-1), minlength=count * width).view(count, width)


def _stacked(concepts: Tensor) -> Tensor:
    """Return bool (image, concept, H, W) as label planes (image, plane, H, W)."""
    images, _, h, w = concepts.shape
    ranks = concepts.cumsum(1, dtype=torch.int32)  # at a pixel, its first concept is in plane 1
    deepest = int(ranks[:, -1].max()) if images else 0
    planes = torch.zeros(images, max(deepest, 1), h, w, dtype=torch.int32, device=concepts.device)
    image, concept, y, x = concepts.nonzero(as_tuple=True)
    planes[image, ranks[image, concept, y, x].long() - 1, y, x] = concept.int() + 1
    return planes


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
    activations: Tensor, thresholds: Tensor, size: tuple[int, int]
) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
    """Yield where upsampled activations are above, not at, their units' thresholds.

    The pixels are those of `masks.masks`, to the bit: values are made by the same operations,
    but only between old pixels of which one is above the threshold at least, as no value leaves
    the range of the four it lies between.

    Args:
        activations: float32 (image, unit, h, w), finite.
        thresholds: float32 (unit,).
        size: (height, width) of the masks.

    Yields:
        int64 (n,) each: images, units, pixels (y * width + x), each pixel once.

    Example:
        >>> maps = torch.tensor([0.0, 4.0]).view(1, 1, 1, 2)
        >>> [pixel.tolist() for _, _, pixel in active(maps, torch.tensor([1.0]), (1, 4))]
        [[2, 3]]
    """
    images, units, h, w = activations.shape
    device = activations.device
    thresholds = thresholds.to(device)
    flat = activations.reshape(images * units, h, w)
    limits = thresholds.repeat(images)
    high = flat > limits[:, None, None]
    rows = high.flatten(1).any(1).nonzero()[:, 0]
    if (h, w) == size:
        for some in blocks(len(rows), h * w):
            owner, pixel = _places(high[rows[some]].flatten(1))
            yield rows[some][owner] // units, rows[some][owner] % units, pixel
        return
    down, across = Axis.of(h, size[0], device), Axis.of(w, size[1], device)
    most = down.shares.shape[1], across.shares.shape[1]
    step_y, step_x = (torch.arange(each, device=device) for each in most)
    offsets = (step_y[:, None] * size[1] + step_x).view(-1)
    corners = flat.view(-1)
    for part in blocks(len(rows), (h + 1) * (w + 1)):
        near = _gaps(_gaps(high[rows[part]], 1, down), 2, across)
        row, i, j = near.nonzero(as_tuple=True)
        row = rows[part][row]
        for some in blocks(len(row), most[0] * most[1]):
            at, y, x = row[some], i[some], j[some]
            above, below = ((each.clamp(0, h - 1) + at * h) * w for each in (y - 1, y))
            left, right = (each.clamp(0, w - 1) for each in (x - 1, x))
            shares = across.shares[x]
            # across first, and in three steps each, as `masks.upsample` goes
            first = _between(corners[above + left, None], corners[above + right, None], shares)
            last = _between(corners[below + left, None], corners[below + right, None], shares)
            values = _between(first[:, None], last[:, None], down.shares[y][:, :, None])
            is_above = values > limits[at][:, None, None]
            is_above &= (step_y < down.count[y, None])[:, :, None]
            is_above &= (step_x < across.count[x, None])[:, None]
            found, offset = _places(is_above.flatten(1))
            owner = at[found]
            pixel = (down.start[y] * size[1] + across.start[x])[found] + offsets[offset]
            yield owner // units, owner % units, pixel


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
