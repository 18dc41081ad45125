"""Tally of the overlap of each unit's active positions with each concept of annotated images."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Self

import torch
from torch import Tensor
from torch.nn import functional as nnf

from milannotations.errors import InputError
from milannotations.exemplars.tallies.base import BaseTally
from milannotations.exemplars.tallies.masks import masks
from milannotations.exemplars.tallies.sparse_masks import active_pixels, sparse_and_dense
from milannotations.exemplars.tallies.validation import Shape, blocks

EXACT = 1 << 24
"""Largest whole number up to which float32 counts without error, as does a product of matrices
of zeros and ones."""


@dataclass(frozen=True)
class OverlapCounts:
    """Numbers of positions over all images.

    Attributes:
        intersection: int64 (unit, concept), positions where the unit is active and the concept is.
        unit: int64 (unit,), positions where the unit is active.
        concept: int64 (concept,), positions where the concept is.
        positions: all positions.
    """

    intersection: Tensor
    unit: Tensor
    concept: Tensor
    positions: int

    @property
    def iou(self) -> Tensor:
        """Intersection over union, float64 (unit, concept); 0 where the union is empty."""
        union = self.unit[:, None] + self.concept - self.intersection
        return self.intersection.double() / union.clamp(min=1).double()

    @property
    def inside(self) -> Tensor:
        """Share of a unit's active positions that lie in a concept, float64 (unit, concept).

        0 where the unit is never active.
        """
        return self.intersection.double() / self.unit[:, None].clamp(min=1).double()


class Overlap(BaseTally):
    """Overlap of the positions where each unit is active with each concept.

    Bau et al. 2017, Network Dissection, section 3: activations are upsampled to the size of the
    concepts' maps (bilinear, half-pixel, edges clamped), a unit is active where they are above
    its threshold, and units and concepts are compared by intersection over union over all
    images. Thresholds come from an earlier pass (`Quantile`). An image that came twice counts
    twice; only within a batch it is an error.

    Masks are those of `masks.masks`, to the bit, but where few values are above the threshold
    only the pixels around these are computed and counted.

    It holds 8 * (units * concepts + units + concepts) bytes.

    Args:
        thresholds: (unit,), finite.
        concepts: number of concepts, where they come as label planes: whole numbers (image,
            plane, H, W) from 1, 0 for none; a pixel has every concept that some plane names.
            None: concepts come as bool (image, concept, H, W).

    Raises:
        InputError: thresholds that are not finite, or fewer than 1 concept.

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

    _intersection: Tensor
    _unit: Tensor
    _concept: Tensor
    _positions: int

    def __init__(self, thresholds: Tensor, concepts: int | None = None) -> None:
        super().__init__()
        self.thresholds = check_thresholds(thresholds)
        if concepts is not None and concepts < 1:
            raise InputError(f"Number of concepts is {concepts}; expected at least 1.")
        self.concepts = concepts
        self._n_concepts = concepts or 0  # of bool concepts, known from the first batch
        self.add_state(
            "intersection",
            lambda shape: torch.zeros(shape[0], self._n_concepts, dtype=torch.int64),
        )
        self.add_state("unit", lambda shape: torch.zeros(shape[0], dtype=torch.int64))
        self.add_state("concept", lambda _: torch.zeros(self._n_concepts, dtype=torch.int64))
        self.add_state("positions", 0)

    def result(self) -> OverlapCounts:
        """Return the counts; see `Tally.result`."""
        if self._shape is None:
            raise InputError("No image was seen, so there are no overlaps.")
        return OverlapCounts(**self._export())

    def estimate(self, units: int, h: int, w: int, images: int = 0, concepts: int = 0) -> int:
        """Return the bytes that it will hold, for that many concepts; see `Tally.estimate`."""
        return 8 * (units * concepts + units + concepts)

    @property
    def _settings(self) -> dict[str, Any]:
        return {"thresholds": self.thresholds.tolist(), "concepts": self.concepts}

    def _check_update(self, shape: Shape, images: int, concepts: Tensor | None) -> None:
        check_units(shape, self.thresholds)
        concepts = self._check_concepts(concepts, images)
        self._check_number(self.concepts or concepts.shape[1])

    def _update(self, ids: Tensor, activations: Tensor, concepts: Tensor | None) -> None:
        assert concepts is not None  # `_check_update` refuses None
        thresholds = self.thresholds.to(activations.device)
        for maps, labels in zip(activations, concepts.to(activations.device), strict=True):
            self._count_image(maps, thresholds, labels)

    def _check_merge(self, other: Self) -> None:
        self._check_number(len(other._concept))

    def _check_concepts(self, concepts: Tensor | None, images: int) -> Tensor:
        """Return concepts.

        Raises:
            InputError: none, or of another kind or number than announced.
        """
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
            least, most = (int(number) for number in concepts.aminmax())
            if not 0 <= least <= most <= (self.concepts or 0):
                raise InputError(
                    f"Concepts: numbers from {least:,} to {most:,} came; expected 0 for none, and "
                    f"from 1 to {self.concepts:,}."
                )
        return concepts

    def _check_number(self, concepts: int) -> None:
        """Raise InputError if another number of concepts came before."""
        if self._shape is None:
            self._n_concepts = concepts
        elif len(self._concept) != concepts:
            raise InputError(f"{concepts:,} concepts came after {len(self._concept):,}.")

    def _count_image(self, maps: Tensor, thresholds: Tensor, labels: Tensor) -> None:
        """Count one image's positions.

        Args:
            maps: float32 (unit, h, w).
            thresholds: float32 (unit,).
            labels: bool (concept, H, W) or label planes (plane, H, W).
        """
        size = int(labels.shape[1]), int(labels.shape[2])
        # Counting by matrices: with a row per unit that is 1 at its active positions, the product
        # with `inside`, (position, 1 + concept), holds the unit's positions in its first column
        # and the intersections in the others. Only concepts of this image get a column.
        present, inside = _one_hot(labels, len(self._concept))
        self._concept[present] += inside.sum(0)[1:].to(torch.int64)
        self._positions += len(inside)
        sparse, dense = sparse_and_dense(maps, thresholds)
        with torch.autocast(maps.device.type, enabled=False):  # half precision cannot count
            # Sparse units: a product with a row of few ones is a sum of the rows of `inside` at
            # its active pixels, which is what `embedding_bag` computes, one bag per unit.
            for rows, pixels in active_pixels(maps[sparse], thresholds[sparse], size):
                units, lengths = rows.unique_consecutive(return_counts=True)
                starts = lengths.cumsum(0) - lengths
                counts = nnf.embedding_bag(pixels, inside, starts, mode="sum")
                self._add(sparse[units], present, counts)
            # Dense units: whole masks, (unit, position), and the product itself.
            for part in blocks(len(dense), len(inside), maps.device):
                units = dense[part]
                above = masks(maps[units], thresholds[units], size).flatten(1)
                self._add(units, present, above.to(inside.dtype) @ inside)

    def _add(self, units: Tensor, present: Tensor, counts: Tensor) -> None:
        """Add counts (unit, 1 + concept) of distinct units, the first column of all positions."""
        whole = counts.to(torch.int64)
        self._unit[units] += whole[:, 0]
        self._intersection[units[:, None], present] += whole[:, 1:]


def check_thresholds(thresholds: Tensor) -> Tensor:
    """Return thresholds as float32 (unit,) on the CPU.

    Raises:
        InputError: another shape, or not finite.
    """
    thresholds = thresholds.detach().to("cpu", torch.float32)
    if thresholds.dim() != 1 or not bool(thresholds.isfinite().all()):
        raise InputError(
            f"Thresholds {tuple(thresholds.shape)} came; expected a finite one per unit (unit,)."
        )
    return thresholds


def check_units(shape: Shape, thresholds: Tensor) -> None:
    """Raise InputError unless a layer of this shape has as many units as there are thresholds."""
    if shape[0] != len(thresholds):
        raise InputError(
            f"{shape[0]:,} units came with {len(thresholds):,} thresholds; expected one for each."
        )


def _one_hot(labels: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """Return which concepts are in an image, and where.

    Args:
        labels: bool (concept, H, W), or label planes (plane, H, W).
        count: number of concepts.

    Returns:
        int64 (n,), the concepts that are in the image; and floats (H * W, 1 + n): a column of
        ones, then for each of these concepts 1 where it is. The floats are of a type that counts
        so many positions without error.
    """
    flat = labels.flatten(1)
    dtype = torch.float32 if flat.shape[1] <= EXACT else torch.float64
    if labels.dtype == torch.bool:
        present = flat.any(1).nonzero()[:, 0]
        inside = nnf.pad(flat[present], (0, 0, 1, 0), value=1).t()
        return present, inside.to(dtype, memory_format=torch.contiguous_format)
    flat = flat.to(torch.int64)
    occurs = torch.bincount(flat.view(-1), minlength=count + 1) > 0
    present = occurs[1:].nonzero()[:, 0]
    # label -> column: 0 stays 0, the labels that occur are numbered from 1
    columns_of = torch.zeros(count + 1, dtype=torch.int64, device=labels.device)
    columns_of[present + 1] = torch.arange(1, len(present) + 1, device=labels.device)
    inside = torch.zeros(flat.shape[1], 1 + len(present), dtype=dtype, device=labels.device)
    # (plane, position) -> (position, plane): the columns to set in each row
    columns = columns_of.index_select(0, flat.view(-1)).view_as(flat).t()
    inside.scatter_(1, columns, 1)  # set, not added: a concept in two planes is there once
    inside[:, 0] = 1
    return present, inside
