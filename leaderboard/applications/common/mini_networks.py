"""Subject networks of the mini world, with exemplars, selectivity and descriptions.

A network is trained on scenes, its exemplars are written as an edition, the response of its units
is measured against the scenes' concept maps, and methods describe it like any other network. Each
of these is made once and cached by its content, so that tasks and methods share it.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Sequence
from copy import deepcopy
from dataclasses import asdict, dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

import baselines
from baselines import Context
from baselines.framework.units import unit_keys
from baselines.shared.probe_statistics import ProbeStatistics
from leaderboard.applications.common.mini_scenes import Scenes
from leaderboard.applications.common.selectivity import ImagesWithRegions, compute_selectivity
from leaderboard.evaluation import predictions as prediction_files
from milannotations import exemplars
from milannotations.editions import loading
from milannotations.errors import InputError
from milannotations.probes import ProbeItems
from milannotations.probes.mini import MiniProbe
from milannotations.schema import Unit
from milannotations.synthetic.concepts import CHANNEL
from milannotations.synthetic.subjects import VALIDATION_SCENES, SubjectNetwork, SubjectWorld, train
from milannotations.synthetic.training import FitConfig, write_weights
from milannotations.utils.cache import Cache, CacheEntry
from milannotations.utils.files import sha256

if TYPE_CHECKING:
    from leaderboard.evaluation.predictions import Predictions

LAYERS = ("layer1", "layer2", "layer3", "layer4")
"""Layers whose units are described."""

TEXT_WORLD = SubjectWorld(text=0.3)
"""World in which three in ten images carry the name of their class in a corner: that of analysis
and editing. Where half of the images do, half of a network's units respond to text, and random
units do as often. Chosen on networks of seeds 5 and 6, for which nothing is reported."""

SETTINGS = FitConfig(steps=450, batch=32, rate=4e-3, decay=1e-2)
"""Training settings: half of the steps of `milannotations.synthetic.subjects`, because several
networks are needed. Networks that learn from images with text take all of the steps."""

PASS = exemplars.RunConfig(batch_size=64, device="cpu")
"""Batches and device of the passes."""

EXEMPLAR_SCENES = 1024
"""Scenes that exemplars are drawn from."""

AVAILABLE = frozenset(("training", "activations", "trained model"))
"""Requirements of methods that can be met for a subject network."""


@dataclass(frozen=True)
class MiniNetwork:
    """Trained subject network.

    Attributes:
        name: name of the network in predictions.
        model: the network, in evaluation mode.
        world: world of its training images.
        seed: random seed of its weights and training images.
    """

    name: str
    model: SubjectNetwork
    world: SubjectWorld
    seed: int

    @property
    def widths(self) -> dict[str, int]:
        """Number of units of each layer."""
        return dict(zip(LAYERS, SubjectNetwork.widths, strict=True))

    @property
    def units(self) -> list[Unit]:
        """Units, in order."""
        return [
            Unit(self.name, layer, i) for layer, width in self.widths.items() for i in range(width)
        ]

    def channels_last_model(self) -> SubjectNetwork:
        """Return a copy of the model in channels-last format.

        Small convolutions take half the time in it, which counts for ablations. Exemplars are of
        the model as it is, because the last bits of activations differ between the formats.
        """
        return deepcopy(self.model).to(memory_format=torch.channels_last)

    @cached_property
    def source(self) -> dict[str, Any]:
        """Origin of the network, with a digest, for the record."""
        from milannotations.exemplars.networks.digest import network_digest

        return {
            "kind": "subject network",
            "world": asdict(self.world),
            "seed": self.seed,
            "sha256": network_digest(self.model),
            "units": self.widths,
        }


@dataclass
class MiniNetworkFactory:
    """Factory of subject networks, exemplars, selectivity and descriptions, each made once.

    Args:
        folder: cache; None takes a temporary folder.
        settings: settings of the networks' training.
        scenes: number of scenes that exemplars are drawn from.
        tell: called with each line of progress.
    """

    folder: Path | None = None
    settings: FitConfig = SETTINGS
    scenes: int = EXEMPLAR_SCENES
    tell: Callable[[str], Any] = field(default=lambda line: None, repr=False)

    def __post_init__(self) -> None:
        self._results: dict[Any, Any] = {}
        if self.folder is None:
            self._temporary = tempfile.TemporaryDirectory(prefix="milan-subjects-")
            self.folder = Path(self._temporary.name)
        self.folder.mkdir(parents=True, exist_ok=True)

    def network(self, world: SubjectWorld, seed: int) -> MiniNetwork:
        """Return the network of a world and a seed, trained unless it is in the cache."""
        return self._once(("network", world, seed), lambda: self._train(world, seed))

    def exemplar_scenes(self, world: SubjectWorld) -> Scenes:
        """Return the scenes that exemplars are drawn from."""
        return self._once(("scenes", world), lambda: Scenes(world, self.scenes, VALIDATION_SCENES))

    def units(self, network: MiniNetwork, exemplar_world: SubjectWorld) -> Any:
        """Return a network's units with exemplars, as a `datasets.Dataset`."""
        return self._once(
            ("units", network.name, exemplar_world),
            lambda: self._load_units(network, exemplar_world),
        )

    def write_exemplars(
        self, network: MiniNetwork, exemplar_world: SubjectWorld, out: Path
    ) -> None:
        """Write a network's exemplars as a config of an edition."""
        scenes = self.exemplar_scenes(exemplar_world)
        exemplars.write(
            self._compute_exemplars(network, exemplar_world),
            scenes,
            out,
            network.name,
            made_from={
                "model": network.source,
                "images": scenes.source,
                "preprocessing": scenes.preprocessing,
            },
        )

    def mask_shares(
        self,
        network: MiniNetwork,
        exemplar_world: SubjectWorld,
        concept: str,
        *,
        per_exemplar: bool = False,
    ) -> dict[Unit, float]:
        """Return the share of each unit's exemplar masks inside a concept.

        Masks are where the unit's activation is above its .99 quantile, on the scenes with its
        highest activations. The share of empty masks is 0.

        Args:
            network: network of the units.
            exemplar_world: world of their exemplars.
            concept: concept of the mini world.
            per_exemplar: average the shares of the exemplars, so that each counts the same; else
                return the share of all masks together, in which large masks count more.
        """
        layers = self._once(
            ("mask shares", network.name, exemplar_world, concept),
            lambda: self.entry(
                "shares", network.source, asdict(exemplar_world), concept, suffix=".json"
            ).get_json(lambda: self._compute_mask_shares(network, exemplar_world, concept)),
        )
        key = "each" if per_exemplar else "pooled"
        return _by_unit(network, {layer: shares[key] for layer, shares in layers.items()})

    def selectivity(
        self, network: MiniNetwork, exemplar_world: SubjectWorld, concept: str
    ) -> dict[Unit, float]:
        """Return each unit's selectivity for a concept, over all scenes.

        `mask_shares` looks at exemplars only; see `common.selectivity`.

        Args:
            network: network of the units.
            exemplar_world: world of the scenes.
            concept: concept of the mini world.
        """
        layers = self._once(
            ("selectivity", network.name, exemplar_world, concept),
            lambda: self.entry(
                "selectivity", network.source, asdict(exemplar_world), concept, suffix=".json"
            ).get_json(lambda: self._compute_selectivity(network, exemplar_world, concept)),
        )
        return _by_unit(network, layers)

    def describe(
        self, method: str, network: MiniNetwork, exemplar_world: SubjectWorld, seed: int = 0
    ) -> Predictions:
        """Return a method's descriptions of a network's units; see `check_method_available`.

        Args:
            method: name or path of the method.
            network: network of the units.
            exemplar_world: world of their exemplars.
            seed: random seed of the method.
        """
        return self._once(
            ("describe", method, network.name, exemplar_world, seed),
            lambda: self._load_descriptions(method, network, exemplar_world, seed),
        )

    def describe_all(
        self,
        method: str,
        networks: Sequence[MiniNetwork],
        exemplar_world: SubjectWorld,
        seed: int = 0,
    ) -> Predictions:
        """Return a method's descriptions of the units of several networks; see `describe`."""
        parts = [self.describe(method, network, exemplar_world, seed) for network in networks]
        return prediction_files.Predictions(tuple(row for part in parts for row in part.rows))

    def entry(self, kind: str, *parts: Any, suffix: str = "") -> CacheEntry:
        """Return the cache entry of something made with the settings of this factory."""
        key = (asdict(self.settings), self.scenes, *parts)
        return Cache(self.folder).entry(kind, *key, suffix=suffix)

    def _once(self, key: Any, make: Callable[[], Any]) -> Any:
        if key not in self._results:
            self._results[key] = make()
        return self._results[key]

    def _train(self, world: SubjectWorld, seed: int) -> MiniNetwork:
        from safetensors.torch import load_file

        name = f"mini-{world.name}-{seed}".replace(".", "")
        entry = self.entry("network", asdict(world), seed, suffix=".safetensors")
        model = SubjectNetwork()
        if (weights := entry.read(load_file)) is not None:
            model.load_state_dict(weights)
        else:
            self.tell(f"{name}: training")
            # A network that learns to read as well needs more steps: with half of them it is
            # right on half of the images without text, which leaves an edit too little to restore.
            steps = self.settings.steps * (2 if world.text else 1)
            settings = replace(self.settings, steps=steps)
            model = train(world, seed, settings)
            made_from = {"world": asdict(world), "seed": seed, **asdict(settings)}
            entry.write(lambda path: write_weights(model, path, made_from))
        return MiniNetwork(name, model.eval(), world, seed)

    def _compute_exemplars(self, network: MiniNetwork, exemplar_world: SubjectWorld) -> Any:
        return self._once(
            ("computed", network.name, exemplar_world),
            lambda: exemplars.compute(
                network.model, self.exemplar_scenes(exemplar_world), list(LAYERS), run=PASS
            ),
        )

    def _load_units(self, network: MiniNetwork, exemplar_world: SubjectWorld) -> Any:
        entry = self.entry("edition", network.source, asdict(exemplar_world))
        assert entry.path is not None
        if not entry.path.is_dir():
            self.tell(f"{network.name}: exemplars of {self.scenes:,} scenes")
            entry.write(lambda folder: self.write_exemplars(network, exemplar_world, folder))
        return loading.load(entry.path, network.name, "test")

    def _concept_maps(self, exemplar_world: SubjectWorld, concept: str) -> Tensor:
        """Return where a concept is on the scenes: bool (scene, height, width)."""
        scenes = self.exemplar_scenes(exemplar_world).scenes
        return torch.from_numpy(np.stack([scene.concepts[CHANNEL[concept]] for scene in scenes]))

    def _compute_selectivity(
        self, network: MiniNetwork, exemplar_world: SubjectWorld, concept: str
    ) -> dict[str, list[float]]:
        images = ImagesWithRegions(
            self.exemplar_scenes(exemplar_world), self._concept_maps(exemplar_world, concept)
        )
        computed = self._compute_exemplars(network, exemplar_world)
        return compute_selectivity(network.model, images, LAYERS, computed, PASS)

    def _compute_mask_shares(
        self, network: MiniNetwork, exemplar_world: SubjectWorld, concept: str
    ) -> dict[str, dict[str, list[float]]]:
        maps = self._concept_maps(exemplar_world, concept)
        shares = {}
        for label, layer in self._compute_exemplars(network, exemplar_world).layers.items():
            inside, total = layer.inside(maps)  # pixels (unit, exemplar)
            shares[label] = {
                "pooled": (inside.sum(1).double() / total.sum(1).clamp(min=1)).tolist(),
                "each": (inside.double() / total.clamp(min=1)).mean(1).tolist(),
            }
        return shares

    def _load_descriptions(
        self, method: str, network: MiniNetwork, exemplar_world: SubjectWorld, seed: int
    ) -> Predictions:
        spec = baselines.get(method).spec
        file_digest = sha256(method) if Path(method).is_file() else None
        key = (spec.to_dict(), file_digest, network.source, asdict(exemplar_world), seed)
        entry = self.entry("predictions", *key, suffix=".csv")
        assert entry.path is not None
        if (predictions := entry.read(prediction_files.read)) is None:
            entry.write(self._describe_units(method, network, exemplar_world, seed).write)
            predictions = prediction_files.read(entry.path)
        return predictions

    def _describe_units(
        self, method: str, network: MiniNetwork, exemplar_world: SubjectWorld, seed: int
    ) -> Predictions:
        spec = baselines.get(method).spec
        # The shipped model is trained on this world, so a method takes it only if it is asked to.
        options = {"model": "mini"} if "trained model" in spec.requires else {}
        instance = self._once(("method", method), lambda: baselines.get(method, **options))
        units = self.units(network, exemplar_world)
        context = Context(
            seed=seed,
            training=self._once("training", lambda: baselines.open_training("mini"))
            if "training" in spec.requires
            else None,
            probe_statistics={network.name: self._probing(network)}
            if "activations" in spec.requires
            else None,
        )
        self.tell(f"{network.name}: {spec.name} describes {len(units):,} units")
        descriptions = baselines.run(instance, units, context)
        return prediction_files.from_descriptions(zip(unit_keys(units), descriptions, strict=True))

    def _probing(self, network: MiniNetwork) -> ProbeStatistics:
        probe = self._once("probe", MiniProbe)
        identity = exemplars.Preprocessing(_as_tensor, (0, 0, 0), (1, 1, 1))
        items = ProbeItems(probe, identity, size=(64, 64), side=64)
        return self._once(
            ("probing", network.name),
            lambda: ProbeStatistics(
                network.name, network.model, items, probe, list(LAYERS), run=PASS
            ),
        )


def method_title(method: str) -> str:
    """Return name@version of a method."""
    spec = baselines.get(method).spec
    return f"{spec.name}@{spec.version}"


def available_methods() -> list[str]:
    """Return the methods that can describe a subject network with nothing but what ships."""
    return [spec.name for spec in baselines.specs() if set(spec.requires) <= AVAILABLE]


def check_method_available(method: str) -> None:
    """Raise InputError unless a method can describe a subject network with what ships."""
    spec = baselines.get(method).spec
    if lacking := sorted(set(spec.requires) - AVAILABLE):
        raise InputError(
            f"'{spec.name}' requires the {' and the '.join(lacking)}, which the networks of the "
            f"mini world do not have. Methods that can describe them: "
            f"{', '.join(available_methods())}."
        )


def _by_unit(network: MiniNetwork, layers: dict[str, list[float]]) -> dict[Unit, float]:
    """Return values by unit, from a list of each layer's units."""
    return {
        Unit(network.name, layer, i): value
        for layer, values in layers.items()
        for i, value in enumerate(values)
    }


def _as_tensor(image: Any) -> Tensor:
    pixels = torch.from_numpy(np.array(image)).permute(2, 0, 1)
    return pixels.float() / 255
