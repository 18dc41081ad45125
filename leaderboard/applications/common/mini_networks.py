"""Subject networks of the mini world, made once and shared by the tasks.

A network is trained, shown scenes, its exemplars are written as an edition, and what its units
respond to is measured against the scenes' maps; methods describe it like any other network.
Everything goes by what was asked, so that tasks and methods share it, and a folder keeps it.
"""

from __future__ import annotations

import hashlib
import tempfile
from collections.abc import Iterator, Sequence
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
from baselines.framework.run import unit_keys
from baselines.shared.probe_statistics import ProbeStatistics
from leaderboard.applications.common.selectivity import Regions, active_inside
from leaderboard.evaluation import predictions
from milannotations import exemplars
from milannotations.editions import loading
from milannotations.errors import InputError
from milannotations.probes import ProbeItems
from milannotations.probes.mini import MiniProbe
from milannotations.schema import Unit
from milannotations.synthetic.concepts import CHANNEL
from milannotations.synthetic.subjects import (
    CLASSES,
    TEST_SCENES,
    VALIDATION_SCENES,
    Subject,
    SubjectWorld,
    train,
)
from milannotations.synthetic.training import Settings, write_weights
from milannotations.utils.cache import Cache, CacheEntry
from milannotations.utils.files import sha256

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from leaderboard.evaluation.predictions import Predictions

LAYERS = ("layer1", "layer2", "layer3", "layer4")

SETTINGS = Settings(steps=450, batch=32, rate=4e-3, decay=1e-2)
"""Half of the steps of `milannotations.synthetic.subjects`, for several networks are needed; those
that learn from pictures with text take all of them."""

PASS = exemplars.RunConfig(batch_size=64, device="cpu")

EXEMPLAR_SCENES = 1024
"""Scenes that exemplars are drawn from."""


class Scenes(torch.utils.data.Dataset[dict[str, Any]]):
    """Scenes of a world, drawn once and kept: for the exemplar engine and the ablation engine.

    Args:
        world: what is drawn.
        count: of scenes.
        seed: of the stream.

    Attributes:
        labels: int64 (scene,), places in `CLASSES`.

    Example:
        >>> scenes = Scenes(SubjectWorld(), 3)
        >>> tuple(scenes[2]["image"].shape), scenes.source_id(2), len(scenes.labels)
        ((3, 64, 64), 'subject-4-000002', 3)
    """

    def __init__(self, world: SubjectWorld, count: int, seed: int = TEST_SCENES) -> None:
        self.world, self.seed = world, seed
        drawn = [world.scene(seed, index) for index in range(count)]
        self.scenes = [scene for scene, _ in drawn]
        self.labels: NDArray[np.int64] = np.array([label for _, label in drawn], dtype=np.int64)

    def __len__(self) -> int:
        return len(self.scenes)

    def __getitem__(self, i: int) -> dict[str, Any]:
        return {"image": torch.from_numpy(self.scenes[i].image).permute(2, 0, 1).float() / 255}

    def source_id(self, i: int) -> str:
        """Return the scene's name."""
        return self.scenes[i].source_id

    def pictures(self, ids: Sequence[int], workers: int | None = None) -> Iterator[Any]:
        """Yield pictures, uint8 (64, 64, 3); see `exemplars.Pictures`."""
        return (self.scenes[int(i)].image for i in ids)

    @property
    def source(self) -> dict[str, Any]:
        """What they are, for a record."""
        digest = hashlib.sha256()
        for scene in self.scenes:
            digest.update(scene.image.tobytes())
        return {
            "kind": "subject scenes",
            "world": asdict(self.world),
            "seed": self.seed,
            "images": len(self),
            "sha256": digest.hexdigest(),
        }

    @property
    def preprocessing(self) -> dict[str, Any]:
        """What was done to them, for a record."""
        return {"transform": "none: values from 0 to 1"}


@dataclass(frozen=True)
class MiniNetwork:
    """A trained subject network with what is known of it.

    Attributes:
        name: of the network, in predictions.
        model: in evaluation mode.
        world: what it learned from.
        seed: of its weights and pictures.
    """

    name: str
    model: Subject
    world: SubjectWorld
    seed: int

    @property
    def units(self) -> list[Unit]:
        """Its units, in order."""
        widths = zip(LAYERS, Subject.widths, strict=True)
        return [Unit(self.name, layer, i) for layer, width in widths for i in range(width)]

    def quick(self) -> Subject:
        """Return a copy of the network, in the form in which small convolutions take half the time.

        For ablations: exemplars are of the network as it is, to the last bits.
        """
        return deepcopy(self.model).to(memory_format=torch.channels_last)

    @cached_property
    def source(self) -> dict[str, Any]:
        """What it is, for a record."""
        from milannotations.exemplars.networks.digest import network_digest

        return {
            "kind": "subject network",
            "world": asdict(self.world),
            "seed": self.seed,
            "sha256": network_digest(self.model),
            "units": dict(zip(LAYERS, Subject.widths, strict=True)),
        }


@dataclass
class Workshop:
    """Makes networks, exemplars, overlaps and descriptions, each once.

    Args:
        folder: where they are kept; None keeps them for this run alone.
        settings: how networks are trained.
        scenes: that exemplars are drawn from.
        tell: is called with a line of progress.
    """

    folder: Path | None = None
    settings: Settings = SETTINGS
    scenes: int = EXEMPLAR_SCENES
    tell: Any = field(default=lambda line: None, repr=False)

    def __post_init__(self) -> None:
        self._made: dict[Any, Any] = {}
        if self.folder is None:
            self._temporary = tempfile.TemporaryDirectory(prefix="milan-subjects-")
            self.folder = Path(self._temporary.name)
        self.folder.mkdir(parents=True, exist_ok=True)

    def network(self, world: SubjectWorld, seed: int) -> MiniNetwork:
        """Return the network that a world and a seed make; trained unless the folder has it."""
        return self._once(("network", world, seed), lambda: self._network(world, seed))

    def shown(self, world: SubjectWorld) -> Scenes:
        """Return the scenes that exemplars of networks are drawn from."""
        return self._once(("shown", world), lambda: Scenes(world, self.scenes, VALIDATION_SCENES))

    def units(self, network: MiniNetwork, shown: SubjectWorld) -> Any:
        """Return a network's units with exemplars of scenes of a world: a `datasets.Dataset`."""
        return self._once(("units", network.name, shown), lambda: self._units(network, shown))

    def write(self, network: MiniNetwork, shown: SubjectWorld, out: Path) -> None:
        """Write a network's exemplars of scenes of a world as a config of an edition."""
        exemplars.write(
            self._computed(network, shown),
            self.shown(shown),
            out,
            network.name,
            made_from={
                "model": network.source,
                "images": self.shown(shown).source,
                "preprocessing": self.shown(shown).preprocessing,
            },
        )

    def inside(
        self, network: MiniNetwork, shown: SubjectWorld, concept: str, *, each: bool = False
    ) -> dict[Unit, float]:
        """Return, of each unit, which share of its exemplars' masks lies in a concept.

        Where the unit is active above its .99 quantile, on the scenes that excite it most. 0 where
        the masks are empty.

        Args:
            network: whose units.
            shown: what their exemplars are of.
            concept: of the mini world.
            each: the mean over exemplars of each one's share, so that all count alike; else the
                share of all masks together, in which large ones count more.
        """
        found = self._once(
            ("inside", network.name, shown, concept),
            lambda: self.entry(
                "shares", network.source, asdict(shown), concept, suffix=".json"
            ).get_json(lambda: self._shares(network, shown, concept)),
        )
        return {
            Unit(network.name, layer, i): value
            for layer, shares in found.items()
            for i, value in enumerate(shares["each" if each else "pooled"])
        }

    def selectivity(
        self, network: MiniNetwork, shown: SubjectWorld, concept: str
    ) -> dict[Unit, float]:
        """Return, of each unit, which share of where it is active lies in a concept.

        On all scenes, where `inside` looks at exemplars; see `regions.active_inside`.

        Args:
            network: whose units.
            shown: the scenes.
            concept: of the mini world.
        """
        found = self._once(
            ("selectivity", network.name, shown, concept),
            lambda: self.entry(
                "selectivity", network.source, asdict(shown), concept, suffix=".json"
            ).get_json(lambda: self._selectivity(network, shown, concept)),
        )
        return {
            Unit(network.name, layer, i): value
            for layer, values in found.items()
            for i, value in enumerate(values)
        }

    def describe(
        self, method: str, network: MiniNetwork, shown: SubjectWorld, seed: int = 0
    ) -> Predictions:
        """Return a method's descriptions of a network's units; see `check_describer`.

        Args:
            method: name or path; see `describers`.
            network: whose units.
            shown: what their exemplars are of.
            seed: of the method's draws.
        """
        return self._once(
            ("describe", method, network.name, shown, seed),
            lambda: self._describe(method, network, shown, seed),
        )

    def describe_all(
        self, method: str, networks: Sequence[MiniNetwork], shown: SubjectWorld, seed: int = 0
    ) -> Predictions:
        """Return a method's descriptions of the units of several networks; see `describe`."""
        parts = [self.describe(method, network, shown, seed) for network in networks]
        return predictions.Predictions(tuple(row for part in parts for row in part.rows))

    # ---- made

    def _once(self, key: Any, make: Any) -> Any:
        if key not in self._made:
            self._made[key] = make()
        return self._made[key]

    def entry(self, kind: str, *parts: Any, suffix: str = "") -> CacheEntry:
        """Return the cache entry of something that is made with these settings."""
        key = (asdict(self.settings), self.scenes, *parts)
        return Cache(self.folder).entry(kind, *key, suffix=suffix)

    def _network(self, world: SubjectWorld, seed: int) -> MiniNetwork:
        from safetensors.torch import load_file

        name = f"mini-{world.name}-{seed}".replace(".", "")
        entry = self.entry("network", asdict(world), seed, suffix=".safetensors")
        model = Subject()
        if (weights := entry.read(load_file)) is not None:
            model.load_state_dict(weights)
        else:
            self.tell(f"{name}: training")
            # one that learns to read as well takes longer: with fewer steps it tells half of the
            # pictures without text, and too little is left that an edit could bring back
            steps = self.settings.steps * (2 if world.text else 1)
            settings = replace(self.settings, steps=steps)
            model = train(world, seed, settings)
            made_from = {"world": asdict(world), "seed": seed, **asdict(settings)}
            entry.write(lambda path: write_weights(model, path, made_from))
        return MiniNetwork(name, model.eval(), world, seed)

    def _computed(self, network: MiniNetwork, shown: SubjectWorld) -> Any:
        make = lambda: exemplars.compute(  # noqa: E731
            network.model, self.shown(shown), list(LAYERS), run=PASS
        )
        return self._once(("computed", network.name, shown), make)

    def _units(self, network: MiniNetwork, shown: SubjectWorld) -> Any:
        entry = self.entry("edition", network.source, asdict(shown))
        assert entry.path is not None
        if not entry.path.is_dir():
            self.tell(f"{network.name}: exemplars of {self.scenes:,} scenes")
            entry.write(lambda folder: self.write(network, shown, folder))
        return loading.load(entry.path, network.name, "test")

    def _maps(self, shown: SubjectWorld, concept: str) -> Tensor:
        """Return where a concept is on the scenes: bool (scene, height, width)."""
        scenes = self.shown(shown).scenes
        return torch.from_numpy(np.stack([scene.concepts[CHANNEL[concept]] for scene in scenes]))

    def _selectivity(
        self, network: MiniNetwork, shown: SubjectWorld, concept: str
    ) -> dict[str, list[float]]:
        pictures = Regions(self.shown(shown), self._maps(shown, concept))
        computed = self._computed(network, shown)
        return active_inside(network.model, pictures, LAYERS, computed, PASS)

    def _shares(
        self, network: MiniNetwork, shown: SubjectWorld, concept: str
    ) -> dict[str, dict[str, list[float]]]:
        maps = self._maps(shown, concept)
        found = {}
        for label, layer in self._computed(network, shown).layers.items():
            both, whole = layer.inside(maps)
            found[label] = {
                "pooled": (both.sum(1).double() / whole.sum(1).clamp(min=1)).tolist(),
                "each": (both.double() / whole.clamp(min=1)).mean(1).tolist(),
            }
        return found

    def _describe(
        self, method: str, network: MiniNetwork, shown: SubjectWorld, seed: int
    ) -> Predictions:
        made = baselines.get(method)
        file = sha256(method) if Path(method).is_file() else None
        what = (made.spec.to_dict(), file, network.source, asdict(shown), seed)
        entry = self.entry("predictions", *what, suffix=".csv")
        assert entry.path is not None
        if (known := entry.read(predictions.read)) is None:
            entry.write(self._answers(method, network, shown, seed).write)
            known = predictions.read(entry.path)
        return known

    def _answers(
        self, method: str, network: MiniNetwork, shown: SubjectWorld, seed: int
    ) -> Predictions:
        spec = baselines.get(method).spec
        # the model that ships says of itself that it is of this world; it must be asked for
        options = {"model": "mini"} if "trained model" in spec.requires else {}
        made = self._once(("method", method), lambda: baselines.get(method, **options))
        units = self.units(network, shown)
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
        answers = baselines.run(made, units, context)
        return predictions.from_descriptions(zip(unit_keys(units), answers, strict=True))

    def _probing(self, network: MiniNetwork) -> ProbeStatistics:
        probe = self._once("probe", MiniProbe)
        identity = exemplars.Preprocessing(_scaled, (0, 0, 0), (1, 1, 1))
        items = ProbeItems(probe, identity, size=(64, 64), side=64)
        return self._once(
            ("probing", network.name),
            lambda: ProbeStatistics(
                network.name, network.model, items, probe, list(LAYERS), run=PASS
            ),
        )


def titled(method: str) -> str:
    """Return name@version of a method."""
    spec = baselines.get(method).spec
    return f"{spec.name}@{spec.version}"


AT_HAND = frozenset(("training", "activations", "trained model"))
"""What methods may require of a subject network."""


def describers() -> list[str]:
    """Return the methods that can describe a subject network with nothing but what ships."""
    return [spec.name for spec in baselines.specs() if set(spec.requires) <= AT_HAND]


def check_describer(method: str) -> None:
    """Raise InputError unless a method can describe a subject network with what ships."""
    spec = baselines.get(method).spec
    if lacking := sorted(set(spec.requires) - AT_HAND):
        raise InputError(
            f"'{spec.name}' requires the {' and the '.join(lacking)}, which there is not for these "
            f"networks. Methods that can describe them: {', '.join(describers())}."
        )


def _scaled(picture: Any) -> Tensor:
    pixels = torch.from_numpy(np.array(picture)).permute(2, 0, 1)
    return pixels.float() / 255


__all__ = [
    "CLASSES",
    "LAYERS",
    "MiniNetwork",
    "Scenes",
    "Workshop",
    "check_describer",
    "describers",
    "titled",
]
