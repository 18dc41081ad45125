"""Which share of where units are active lies in a region that is known on every picture."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import Tensor, nn

    from milannotations.exemplars import Layer, NetworkExemplars, RunConfig


class Regions:
    """Pictures with a region each, as a data set for `exemplars.compute`.

    Args:
        pictures: a data set.
        maps: bool (picture, height, width), the region on each.
    """

    def __init__(self, pictures: Any, maps: Tensor) -> None:
        self.pictures, self.maps = pictures, maps

    def __len__(self) -> int:
        return len(self.maps)

    def __getitem__(self, i: int) -> dict[str, Any]:
        item = self.pictures[i]
        image = item["image"] if isinstance(item, dict) else item
        return {"image": image, "concepts": self.maps[i][None]}

    def source_id(self, i: int) -> str:
        """Return the picture's name."""
        return str(self.pictures.source_id(i))


def active_inside(
    model: nn.Module,
    pictures: Regions,
    layers: Sequence[str | Layer],
    computed: NetworkExemplars,
    run: RunConfig | None = None,
) -> dict[str, list[float]]:
    """Return, of each unit, which share of where it is active lies in the region.

    Over all pictures, not its exemplars alone; a unit is active where its upsampled map is above
    its threshold (Bau et al. 2017, section 3). 0 where it is active nowhere.

    Args:
        model: the network.
        pictures: with the region.
        layers: of the network.
        computed: exemplars of those layers on those pictures, for the thresholds.
        run: of the pass.

    Returns:
        By layer, of its units in order.
    """
    from milannotations.exemplars import Overlap, compute

    tallies = {"region": lambda label: Overlap(computed.layers[label].thresholds)}
    found = compute(model, pictures, layers, k=1, tallies=tallies, run=run)
    return {
        label: layer.tallies["region"].inside[:, 0].tolist()
        for label, layer in found.layers.items()
    }
