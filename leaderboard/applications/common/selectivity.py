"""Selectivity of units for a region that is known on every image."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import Tensor, nn

    from milannotations.exemplars import Layer, NetworkExemplars, RunConfig


class ImagesWithRegions:
    """Images with one region each, as a dataset for `exemplars.compute`.

    Args:
        images: a dataset.
        regions: bool (image, height, width).
    """

    def __init__(self, images: Any, regions: Tensor) -> None:
        self.images, self.regions = images, regions

    def __len__(self) -> int:
        return len(self.regions)

    def __getitem__(self, index: int) -> dict[str, Any]:
        item = self.images[index]
        image = item["image"] if isinstance(item, dict) else item
        return {"image": image, "concepts": self.regions[index][None]}

    def source_id(self, index: int) -> str:
        """Return an image's name."""
        return str(self.images.source_id(index))


def compute_selectivity(
    model: nn.Module,
    images: ImagesWithRegions,
    layers: Sequence[str | Layer],
    computed: NetworkExemplars,
    run: RunConfig | None = None,
) -> dict[str, list[float]]:
    """Compute each unit's selectivity: the fraction of its active pixels inside the region.

    All images count, not the exemplars alone. A unit is active where its upsampled activation map
    is above its quantile threshold (Bau et al. 2017, section 3).

    Args:
        model: the network.
        images: images with regions.
        layers: layers of the network.
        computed: exemplars of those layers on those images, for the thresholds.
        run: batches and device of the pass.

    Returns:
        Selectivity of each unit in order, by layer; 0 for a unit that is nowhere active.
    """
    from milannotations.exemplars import Overlap, compute

    # k=1: the engine keeps exemplars too, which are not needed here
    tallies = {"region": lambda label: Overlap(computed.layers[label].thresholds)}
    overlaps = compute(model, images, layers, k=1, tallies=tallies, run=run)
    return {
        label: layer.tallies["region"].inside[:, 0].tolist()
        for label, layer in overlaps.layers.items()
    }
