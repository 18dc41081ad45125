"""A network on a probe data set: every statistic that methods ask for, in two passes at most.

The first pass gives pooled activations and quantiles of all layers; the second, which needs the
quantiles as thresholds, where units are active among the concepts. Both are passes of the
exemplar engine, with its tallies, whatever the number of methods, layers and units; what was
computed is kept, in memory and, where a folder is given, on disk, by content.
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
"""Of a unit's activations: its threshold, in Network Dissection (Bau et al. 2017, section 3)."""


class ProbeStatistics:
    """What a network's units do on the pictures of a probe data set.

    Args:
        network: its name, as the rows of the edition call it.
        model: the network.
        items: what it is shown: a data set for `exemplars.compute` whose items have `image` and
            label planes in `concepts` (`probes.ProbeItems`), with a `source` for records.
        probe: the pictures, with their concepts.
        layers: which are looked at; their labels are those of the edition's rows.
        run: of the passes.
        cache: folder in which statistics are kept; None keeps them in memory alone.
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
        self._kept: dict[str, dict[str, Any]] = {}

    @cached_property
    def source(self) -> dict[str, Any]:
        """What it is of, for records: probe images with their digest, and the network."""
        from milannotations.exemplars.networks.digest import network_digest

        return {
            "network": self.network,
            "model": network_digest(self.model),
            "images": self.items.source,
        }

    @property
    def concepts(self) -> tuple[Concept, ...]:
        """Concepts of the probe; in label planes they are numbered from 1.

        Raises:
            InputError: nothing is known of its pictures.
        """
        if not self.probe.concepts:
            raise InputError(
                f"{self.probe.name} are pictures of which nothing is known. Give a probe data set "
                "with labels (--probe broden:DIR, coco:DIR, segments:DIR), or a list of concepts "
                "to a method that takes one (--set concepts=FILE)."
            )
        return self.probe.concepts

    def image(self, i: int) -> Image.Image:
        """Return a picture of the probe, whole."""
        return self.probe.image(i)

    @cached_property
    def presence(self) -> NDArray[np.bool_]:
        """Which concepts are in which pictures: bool (image, concept)."""
        import numpy as np

        found = np.zeros((len(self.items), len(self.concepts)), bool)
        for i in range(len(self.items)):
            numbers = np.unique(self.items[i]["concepts"].numpy())
            found[i, numbers[numbers > 0] - 1] = True
        return found

    def pooled_activations(self, how: str = "mean") -> dict[str, Tensor]:
        """Return activations of whole pictures: by layer, float32 (image, unit).

        Args:
            how: `mean` or `max` over positions.
        """
        return {label: own[how].values for label, own in self._first().items()}

    def thresholds(self, quantile: float = QUANTILE) -> dict[str, Tensor]:
        """Return a quantile of each unit over all positions of all pictures: by layer, (unit,)."""
        return {label: own["quantile"] for label, own in self._first(quantile).items()}

    def run_thresholded_tally(
        self, name: str, make: Callable[[Tensor], Tally], quantile: float = QUANTILE
    ) -> dict[str, Any]:
        """Return the result of a tally that needs thresholds, of every layer, in one pass.

        Args:
            name: of the tally, settings included: what is kept is kept under it.
            make: returns an empty tally, of a layer's thresholds.
            quantile: of the thresholds.
        """
        thresholds = self.thresholds(quantile)
        found = self._pass(
            f"{name}@{quantile}", {name: lambda label: make(thresholds[label])}, quantile
        )
        return {label: own[name] for label, own in found.items()}

    def run_tally(self, name: str, make: Callable[[str], Tally]) -> dict[str, Any]:
        """Return the result of a tally that needs no thresholds, of every layer, in one pass.

        Args:
            name: of the tally, settings included: what is kept is kept under it.
            make: returns an empty tally, of a layer's label.
        """
        found = self._pass(name, {name: make}, QUANTILE)
        return {label: own[name] for label, own in found.items()}

    def locate(self, units: Sequence[Unit]) -> list[tuple[str, int]]:
        """Return each unit's layer and its row in what this object returns.

        Raises:
            InputError: a unit of another network, layer or index.
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

    def _first(self, quantile: float = QUANTILE) -> dict[str, dict[str, Any]]:
        from milannotations.exemplars import Pooled

        return self._pass(
            f"pooled@{quantile}",
            {"mean": lambda _: Pooled("mean"), "max": lambda _: Pooled("max")},
            quantile,
        )

    def _pass(
        self, name: str, tallies: Mapping[str, Callable[[str], Tally]], quantile: float
    ) -> dict[str, dict[str, Any]]:
        """Return the results of tallies by layer and name, computed once."""
        if name not in self._kept:
            found = self._load(name, tallies)
            self._kept[name] = (
                found if found is not None else self._compute(name, tallies, quantile)
            )
        return self._kept[name]

    def _compute(
        self, name: str, tallies: Mapping[str, Callable[[str], Tally]], quantile: float
    ) -> dict[str, dict[str, Any]]:
        import torch

        from milannotations.exemplars import compute

        made: dict[str, dict[str, Tally]] = {}

        def remembered(tally: str, make: Callable[[str], Tally]) -> Callable[[str], Tally]:
            def again(label: str) -> Tally:
                made.setdefault(label, {})[tally] = make(label)
                return made[label][tally]

            return again

        computed = compute(
            self.model,
            self.items,
            self.layers,
            k=1,
            quantile=quantile,
            tallies={tally: remembered(tally, make) for tally, make in tallies.items()},
            run=self.run,
        )
        entry = self._entry(name)
        if entry.path is not None:
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
        found: dict[str, dict[str, Any]] = {}
        for label, own in state.items():
            found[label] = {"quantile": own["quantile"]}
            for tally, make in tallies.items():
                empty = make(label)
                empty.load_state_dict(own[tally])
                found[label][tally] = empty.result()
        return found

    def _entry(self, name: str) -> CacheEntry:
        if self.cache.folder is None:  # the network's digest takes time
            return CacheEntry(None)
        layers = list(map(str, self.layers))
        return self.cache.entry("statistics", self.source, layers, name, suffix=".pt")


def mini_probe_statistics(networks: Sequence[str] = ()) -> dict[str, ProbeStatistics]:
    """Return the networks of the mini world on scenes of its probe data set, by name.

    Args:
        networks: those alone; made once and kept.

    Raises:
        InputError: no such network.
    """
    from milannotations.synthetic.unit_plan import NETWORKS

    return {name: _mini(name) for name in networks or NETWORKS}


@cache
def _mini(name: str) -> ProbeStatistics:
    from milannotations.exemplars import RunConfig
    from milannotations.synthetic.networks import network
    from milannotations.synthetic.unit_plan import NETWORKS

    made = network(name)
    items = _mini_items()
    layers = list(NETWORKS[name])
    return ProbeStatistics(name, made, items, items.probe, layers, run=RunConfig(batch_size=64))


@cache
def _mini_items() -> Any:
    from milannotations.probes.mini import ConceptItems, MiniProbe

    return ConceptItems(MiniProbe())
