"""The described network with a probe dataset, for methods that need activations."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from baselines.shared.probe_statistics import ProbeStatistics
from milannotations.errors import InputError
from milannotations.schema import Unit

if TYPE_CHECKING:
    from milannotations.probes import Probe


@dataclass(frozen=True)
class Subject:
    """The described network and the probe images that methods may choose descriptions on.

    Attributes:
        model: network as in `milan exemplars`: `torchvision:resnet18@DEFAULT`,
            `path/to/file.py:factory`.
        probe: `broden:DIR`, `coco:DIR`, `segments:DIR` or `images:DIR` (`probes.open_probe`).
        weights: file of weights, safetensors or .pth.
        random: random weights with a fixed seed.
        preprocess: `imagenet[:SIDE]` or `file.py:name`, instead of the network's own.
        cache: folder for the statistics of a pass over the probe images.
        batch_size: images per forward pass.
        device: `cpu`, `cuda` or `mps`; None is the best one available.
        progress: show a progress bar for each pass.
    """

    model: str
    probe: str
    weights: str | None = None
    random: bool = False
    preprocess: str | None = None
    cache: str | None = None
    batch_size: int = 32
    device: str | None = None
    progress: bool = field(default=False, repr=False)

    def probe_statistics(
        self, units: Sequence[Unit], sampling: Callable[[Probe], Probe] | None = None
    ) -> dict[str, ProbeStatistics]:
        """Open the network and the probe dataset.

        Args:
            units: units to describe; activations of their layers are computed.
            sampling: returns a subset of the probe images; None uses all.

        Returns:
            {network: statistics}, with the network's name in the units.

        Raises:
            InputError: units of several networks; unknown network, weights or probe dataset.
        """
        from milannotations.exemplars import RunConfig
        from milannotations.exemplars.networks.loading import load_model, resolve_preprocessing
        from milannotations.probes import ProbeItems, open_probe

        networks = list(dict.fromkeys(unit.network for unit in units))
        if len(networks) != 1:
            raise InputError(
                f"{self.model} is one network, and the units are of {len(networks)} "
                f"({', '.join(networks) or 'none'}). Choose one: --network NAME."
            )
        if self.cache is not None and Path(self.cache).is_file():
            raise InputError(f"{self.cache} is a file; the cache is a folder.")
        loaded = load_model(
            self.model, weights=self.weights, random=self.random, preprocess=self.preprocess
        )
        probe = open_probe(self.probe)
        if sampling is not None:
            probe = sampling(probe)
        items = ProbeItems(probe, resolve_preprocessing(loaded))
        run = RunConfig(
            batch_size=self.batch_size,
            device=self.device,
            missing=loaded.missing,
            prefix=loaded.prefix,
            progress=self.progress,
        )
        layers = list(dict.fromkeys(unit.layer for unit in units))
        cache = None if self.cache is None else Path(self.cache)
        statistics = ProbeStatistics(
            networks[0], loaded.model, items, items.probe, layers, run=run, cache=cache
        )
        return {networks[0]: statistics}
