"""Statistics of a network on a probe dataset, for all methods in two passes at most.

The first pass gives pooled activations and quantiles of all layers. The second, which needs the
quantiles as thresholds, counts where units are active among the concepts. Both are passes of the
exemplar engine with its tallies, whatever the number of methods, layers and units. Results are
kept in memory and, if there is a cache folder, on disk under a digest of all that decides them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import cache, cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from milannotations.errors import InputError
from milannotations.schema import Unit
from milannotations.utils.cache import Cache, CacheEntry

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from PIL import Image
    from torch import Tensor, nn

    from milannotations.exemplars import Layer, RunConfig, Tally
    from milannotations.probes import Concept, Probe

QUANTILE = 0.995
"""Quantile of a unit's activations that is its threshold (Bau et al. 2017, section 3)."""


class ProbeStatistics:
    """Statistics of a network's units on the images of a probe dataset.

    Args:
        network: name of the network in the edition.
        model: the network.
        items: dataset for `exemplars.compute` whose items have an `image` and label planes in
            `concepts` (`probes.ProbeItems`), with a `source` for records.
        probe: the probe images with their concepts.
        layers: layers to compute; their labels are those of the edition.
        run: settings of the passes.
        cache: folder for the statistics; None keeps them in memory only.
    """

    def __init__(
        self,
        network: str,
        model: nn.Module,
        items: Any,
        probe: Probe,
        layers: Sequence[str | Layer],
        *,
        run: RunConfig | None = None,
        cache: Path | None = None,
    ) -> None:
        self.network, self.model, self.items, self.probe = network, model, items, probe
        self.layers, self.run, self.cache = list(layers), run, Cache(cache)
        self._results: dict[str, dict[str, Any]] = {}

    @cached_property
    def source(self) -> dict[str, Any]:
        """Digests of network and probe images, for records and as part of cache keys."""
        from milannotations.exemplars.networks.digest import network_digest

        return {
            "network": self.network,
            "model": network_digest(self.model),
            "images": self.items.source,
        }

    @property
    def concepts(self) -> tuple[Concept, ...]:
        """Concepts of the probe dataset; label planes number them from 1.

        Raises:
            InputError: the probe dataset has no labels.
        """
        if not self.probe.concepts:
            raise InputError(
                f"{self.probe.name} are images without labels. Give a probe dataset with "
                "labels (--probe broden:DIR, coco:DIR, segments:DIR), or a list of concepts "
                "to a method that takes one (--set concepts=FILE)."
            )
        return self.probe.concepts

    def image(self, i: int) -> Image.Image:
        """Return a probe image, without preprocessing."""
        return self.probe.image(i)

    @cached_property
    def presence(self) -> NDArray[np.bool_]:
        """Presence of concepts in images: bool (image, concept)."""
        import numpy as np

        # from the label planes that the network's images come with, so that both agree
        presence = np.zeros((len(self.items), len(self.concepts)), bool)
        for i in range(len(self.items)):
            numbers = np.unique(self.items[i]["concepts"].numpy())
            presence[i, numbers[numbers > 0] - 1] = True
        return presence

    def pooled_activations(self, how: str = "mean") -> dict[str, Tensor]:
        """Return activations pooled over positions: by layer, float32 (image, unit).

        Args:
            how: `mean` or `max`.
        """
        return {label: results[how].values for label, results in self._first_pass().items()}

    def thresholds(self, quantile: float = QUANTILE) -> dict[str, Tensor]:
        """Return a quantile of each unit over all positions of all images: by layer, (unit,)."""
        return {label: results["quantile"] for label, results in self._first_pass(quantile).items()}

    def run_thresholded_tally(
        self, name: str, make: Callable[[Tensor], Tally], quantile: float = QUANTILE
    ) -> dict[str, Any]:
        """Return the results of a tally that needs thresholds, by layer, from one pass.

        Args:
            name: name of the tally with all its settings, which is part of the cache key.
            make: returns an empty tally for a layer's thresholds.
            quantile: quantile that is a unit's threshold.
        """
        thresholds = self.thresholds(quantile)  # the first pass, unless its results are known
        results = self._pass(
            f"{name}@{quantile}", {name: lambda label: make(thresholds[label])}, quantile
        )
        return {label: tallies[name] for label, tallies in results.items()}

    def run_tally(self, name: str, make: Callable[[str], Tally]) -> dict[str, Any]:
        """Return the results of a tally that needs no thresholds, by layer, from one pass.

        Args:
            name: name of the tally with all its settings, which is part of the cache key.
            make: returns an empty tally for a layer's label.
        """
        results = self._pass(name, {name: make}, QUANTILE)
        return {label: tallies[name] for label, tallies in results.items()}

    def locate(self, units: Sequence[Unit]) -> list[tuple[str, int]]:
        """Return each unit's layer and its index among the units of the layer's statistics.

        Raises:
            InputError: unknown network, layer or index.
        """
        known = {label: len(values) for label, values in self.thresholds().items()}
        for unit in units:
            if unit.network != self.network or unit.unit >= known.get(unit.layer, 0):
                raise InputError(
                    f"{unit} is not among the units that were probed: {self.network}, layers "
                    f"{', '.join(f'{label} (0-{n - 1})' for label, n in known.items())}."
                )
        return [(unit.layer, unit.unit) for unit in units]

    # ---- passes

    def _first_pass(self, quantile: float = QUANTILE) -> dict[str, dict[str, Any]]:
        from milannotations.exemplars import Pooled

        # Both poolings and the quantile in one pass, though a method may need only one of them:
        # a forward pass costs far more than these tallies, and they serve the other methods.
        return self._pass(
            f"pooled@{quantile}",
            {"mean": lambda _: Pooled("mean"), "max": lambda _: Pooled("max")},
            quantile,
        )

    def _pass(
        self, name: str, tallies: Mapping[str, Callable[[str], Tally]], quantile: float
    ) -> dict[str, dict[str, Any]]:
        """Return the results of tallies by layer and name: from memory, the cache, or a pass."""
        if name not in self._results:
            results = self._load(name, tallies)
            if results is None:
                results = self._compute(name, tallies, quantile)
            self._results[name] = results
        return self._results[name]

    def _compute(
        self, name: str, tallies: Mapping[str, Callable[[str], Tally]], quantile: float
    ) -> dict[str, dict[str, Any]]:
        import torch

        from milannotations.exemplars import compute

        # `compute` makes the tallies and returns their results. The cache holds their states, so
        # keep the tallies as they are made.
        made: dict[str, dict[str, Tally]] = {}

        def recording(name: str, make: Callable[[str], Tally]) -> Callable[[str], Tally]:
            def make_and_keep(label: str) -> Tally:
                made.setdefault(label, {})[name] = make(label)
                return made[label][name]

            return make_and_keep

        computed = compute(
            self.model,
            self.items,
            self.layers,
            k=1,
            quantile=quantile,
            tallies={tally: recording(tally, make) for tally, make in tallies.items()},
            run=self.run,
        )
        entry = self._entry(name)
        if entry.path is not None:
            # states and not results, which may be of any class: a file of tensors and plain
            # values can be loaded without running code
            state = {
                label: {
                    "quantile": layer.thresholds,
                    **{tally: made[label][tally].state_dict() for tally in tallies},
                }
                for label, layer in computed.layers.items()
            }
            entry.write(lambda path: torch.save(state, path))
        return {
            label: {"quantile": layer.thresholds, **layer.tallies}
            for label, layer in computed.layers.items()
        }

    def _load(
        self, name: str, tallies: Mapping[str, Callable[[str], Tally]]
    ) -> dict[str, dict[str, Any]] | None:
        import torch

        state = self._entry(name).read(lambda path: torch.load(path, weights_only=True))
        if state is None:
            return None
        results: dict[str, dict[str, Any]] = {}
        for label, states in state.items():
            results[label] = {"quantile": states["quantile"]}
            for tally_name, make in tallies.items():
                tally = make(label)
                tally.load_state_dict(states[tally_name])
                results[label][tally_name] = tally.result()
        return results

    def _entry(self, name: str) -> CacheEntry:
        if self.cache.folder is None:  # do not compute the network's digest, which takes time
            return CacheEntry(None)
        layers = list(map(str, self.layers))
        return self.cache.entry("statistics", self.source, layers, name, suffix=".pt")


def mini_probe_statistics(networks: Sequence[str] = ()) -> dict[str, ProbeStatistics]:
    """Return the statistics of the mini world's networks on its probe dataset, by name.

    Args:
        networks: names of networks; all of them if empty. Statistics are kept between calls.

    Raises:
        InputError: unknown network.
    """
    from milannotations.synthetic.unit_plan import NETWORKS

    return {name: _mini(name) for name in networks or NETWORKS}


@cache
def _mini(name: str) -> ProbeStatistics:
    from milannotations.exemplars import RunConfig
    from milannotations.synthetic.networks import network
    from milannotations.synthetic.unit_plan import NETWORKS

    model = network(name)
    items = _mini_items()
    layers = list(NETWORKS[name])
    return ProbeStatistics(name, model, items, items.probe, layers, run=RunConfig(batch_size=64))


@cache
def _mini_items() -> Any:
    from milannotations.probes.mini import ConceptItems, MiniProbe

    return ConceptItems(MiniProbe())
