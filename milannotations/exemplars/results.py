"""Results of a pass: the exemplars of each unit, by layer."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from milannotations.exemplars.tallies.masks import masks

if TYPE_CHECKING:
    from torch import Tensor

MASK_UNITS = 16
"""Units whose masks `LayerExemplars.inside` makes at a time: masks of images are large."""


@dataclass(frozen=True)
class SkippedImage:
    """An image that could not be read.

    Attributes:
        id: its index in the dataset.
        source_id: where it came from.
        why: the error.
    """

    id: int
    source_id: str
    why: str


@dataclass(frozen=True)
class LayerExemplars:
    """Exemplars of the units of one layer.

    Attributes:
        layer: label of the layer.
        unit_kind: channel, token or sae_latent.
        units: int64 (unit,), indices of the units; the first axis of all tensors below.
        ids: int64 (unit, k), indices of the exemplars in the dataset, strongest first, the
            smaller first where two are equal. With fewer images than k, one column per image.
        activations: float32 (unit, k), the largest activation on each exemplar.
        maps: float32 (unit, k, h, w), the activation map on each exemplar.
        thresholds: float32 (unit,), the quantile over all positions of all images.
        tallies: results of the further tallies, by name.
    """

    layer: str
    unit_kind: str
    units: Tensor
    ids: Tensor
    activations: Tensor
    maps: Tensor
    thresholds: Tensor
    tallies: dict[str, Any]

    @property
    def dead(self) -> Tensor:
        """Units without any activation above their threshold: bool (unit,). Masks are empty."""
        return self.thresholds >= self.activations[:, 0]

    @property
    def silent(self) -> Tensor:
        """Units without any activation above 0: bool (unit,)."""
        return self.activations[:, 0] <= 0

    def masks(self, rows: slice, size: tuple[int, int], how: str = "clamped") -> Tensor:
        """Return the masks of some units' exemplars.

        Args:
            rows: rows of `units`.
            size: (height, width) of the masks.
            how: `clamped` or `2022`; see `milannotations.exemplars.tallies.masks`.

        Returns:
            bool (unit, k, height, width).
        """
        maps = self.maps[rows]
        thresholds = self.thresholds[rows].repeat_interleave(maps.shape[1])
        # (unit, k, h, w) -> (unit * k, h, w), and back
        return masks(maps.flatten(0, 1), thresholds, size, how).unflatten(0, maps.shape[:2])

    def inside(self, regions: Tensor) -> tuple[Tensor, Tensor]:
        """Return how many pixels of each exemplar's mask lie in a region.

        Args:
            regions: bool (image, height, width), the region on every image of the dataset.

        Returns:
            Pixels of masks inside the region, and pixels of masks: int64 (unit, k) both.
        """
        import torch

        inside, areas = [], []
        size = (int(regions.shape[1]), int(regions.shape[2]))
        for start in range(0, len(self.units), MASK_UNITS):
            rows = slice(start, start + MASK_UNITS)
            masks = self.masks(rows, size)
            inside.append((masks & regions[self.ids[rows]]).sum((2, 3)))
            areas.append(masks.sum((2, 3)))
        return torch.cat(inside), torch.cat(areas)


@dataclass(frozen=True)
class NetworkExemplars:
    """Exemplars of several layers of a network, from one pass.

    Attributes:
        layers: exemplars by layer label, in the order of the request.
        images: number of images read.
        skipped: images that could not be read.
        forwards: images that went through the network; equal to `images`, unless some were
            run again.
        input_size: (height, width) of the network's input; None where it is not an image.
        settings: the settings of the pass, for the record.
    """

    layers: dict[str, LayerExemplars]
    images: int
    skipped: tuple[SkippedImage, ...]
    forwards: int
    input_size: tuple[int, int] | None
    settings: dict[str, Any]

    def image_ids(self) -> list[int]:
        """Return the ids of the images that are an exemplar of some unit, ascending."""
        return sorted(
            {id_ for layer in self.layers.values() for id_ in layer.ids.unique().tolist()}
        )
