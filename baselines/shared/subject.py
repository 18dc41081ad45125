"""The network that is described, with a probe data set: what methods that need activations take."""

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
    """A network by name, and the pictures that methods may choose on.

    Args:
        model: as of `milan exemplars`: `torchvision:resnet18@DEFAULT`, `path/to/file.py:factory`.
        probe: `broden:DIR`, `coco:DIR`, `segments:DIR`, `images:DIR` (`probes.open_probe`).
        weights: file of weights, safetensors or .pth.
        random: random weights, of a fixed seed.
        preprocess: `imagenet[:SIDE]` or `file.py:name`, instead of the model's own.
        cache: folder in which what the passes found is kept, by content.
        batch_size: pictures that go through the network together.
        device: `cpu`, `cuda`, `mps`; None takes the best there is.
        progress: show a bar for each pass.
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
        """Return the network on the probe data set, under the name that the units have for it.

        Args:
            units: that are to be described: their layers are looked at.
            sampling: returns those of the pictures that are shown; None shows all.

        Raises:
            InputError: units of several networks; no such network, weights or probe data set.
        """
        from milannotations.exemplars import RunConfig
        from milannotations.exemplars.networks.loading import load_model
        from milannotations.exemplars.networks.preprocessing import Preprocessing
        from milannotations.probes import ProbeItems, open_probe

        networks = list(dict.fromkeys(unit.network for unit in units))
        if len(networks) != 1:
            raise InputError(
                f"{self.model} is one network, and the units are of {len(networks)} "
                f"({', '.join(networks) or 'none'}). Say which it is: --network NAME."
            )
        if self.cache is not None and Path(self.cache).is_file():
            raise InputError(f"{self.cache} is a file; the cache is a folder.")
        loaded = load_model(
            self.model, weights=self.weights, random=self.random, preprocess=self.preprocess
        )
        probe = open_probe(self.probe)
        if sampling is not None:
            probe = sampling(probe)
        items = ProbeItems(probe, loaded.preprocessing or Preprocessing.imagenet())
        run = RunConfig(
            batch_size=self.batch_size,
            device=self.device,
            missing=loaded.missing,
            prefix=loaded.prefix,
            progress=self.progress,
        )
        layers = list(dict.fromkeys(unit.layer for unit in units))
        cache = None if self.cache is None else Path(self.cache)
        made = ProbeStatistics(
            networks[0], loaded.model, items, items.probe, layers, run=run, cache=cache
        )
        return {networks[0]: made}
