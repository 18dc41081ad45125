"""Synthetic networks: modules whose units compute known formulas over concept maps.

The input is the concept maps that `SceneDataset` yields beside each image. A unit's
activation is the share of each cell that its formula covers, made uneven, leaky, blurred
and noisy as a network's would be, and rectified. All values are multiples of powers of
two and every sum is exact in float32, so that an activation has the same bits whatever
the machine, the batch or the number of threads.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as nnf

from milannotations.errors import InputError, did_you_mean
from milannotations.synthetic.concepts import CHANNEL, CONCEPTS
from milannotations.synthetic.formulas import Formula
from milannotations.synthetic.scenes import World
from milannotations.synthetic.unit_plan import NETWORKS, SEED, LayerSettings, PlantedUnit, plan

BANK = 1021
"""Noise fields of a layer; which one a unit sees depends on the content of the image. A prime, so
that steps of any size go through all of them."""


class ConceptLayer(nn.Module):
    """Layer of units that compute formulas: concept maps in, activation maps out.

    Args:
        settings: resolution, noise, leak, blur.
        units: the layer's units, in order of their index.
        seed: random seed of the noise fields.
    """

    def __init__(self, settings: LayerSettings, units: Sequence[PlantedUnit], seed: Sequence[int]):
        super().__init__()
        self.settings, self.units = settings, tuple(units)
        self.formulas = tuple(dict.fromkeys(planted.formula for planted in units))
        generator = np.random.default_rng(seed)
        grid = settings.grid
        # Fields (field, grid, grid): what an area is multiplied by, in 32nds; what random units
        # respond to, in 32nds; and noise, in 512ths.
        self._buffer("uneven", _smooth(generator, BANK, grid, 12, 40))
        self._buffer("blobs", _smooth(generator, BANK, grid, -40, 28))
        grain = generator.integers(-8, 9, (3, BANK, grid, grid)).sum(0) * settings.noise
        self._buffer("grain", grain)
        # Hashes of image content, and the first field and step of each unit; see `_fields`.
        self._buffer("weights", generator.integers(1, 1 << 15, (len(CONCEPTS), 64)))
        draws = np.array([planted.draw for planted in units])
        self._buffer("steps", 1 + draws * 37 % (BANK - 1))
        self._buffer("starts", draws * 101 % BANK)
        # Units with the same formula share its area: the index of each unit's formula.
        self._buffer("at", np.array([self.formulas.index(u.formula) for u in units]))
        self._buffer("reach", _reach(grid, settings.blur, seed[0]))
        self._buffer("gains", np.array([planted.gain for planted in units]))
        kinds = np.array([u.formula.operator for u in units])
        self._buffer("random", kinds == "RANDOM")
        self._buffer("dead", kinds == "DEAD")
        leaky = [
            CHANNEL[u.formula.concepts[u.leaks]] if u.formula.operator == "AND" else -1
            for u in units
        ]  # channel of the concept that leaks; -1 for none
        self._buffer("leaky", np.array(leaky))

    def _buffer(self, name: str, values: NDArray[np.generic]) -> None:
        self.register_buffer(name, torch.from_numpy(np.ascontiguousarray(values)))

    def forward(self, concepts: Tensor) -> Tensor:
        """Return the units' activation maps.

        Args:
            concepts: (n, concept, 64, 64), bool, or 0 and 1 of any type.

        Returns:
            float32 (n, unit, grid, grid), multiples of 1/1024 from 0.

        Raises:
            InputError: maps of another shape.
        """
        if concepts.dim() != 4 or concepts.shape[1] != len(CONCEPTS):
            raise InputError(
                f"Concept maps have the shape {tuple(concepts.shape)}; expected (n, "
                f"{len(CONCEPTS)}, 64, 64), as SceneDataset yields them (one scene: maps[None])."
            )
        maps = concepts.bool()
        cells = _pool(maps, self.settings.grid)  # (n, concept, grid, grid)
        # 1. The share of each cell that each unit's formula covers, (n, unit, grid, grid).
        area = torch.stack([self._area(f, maps, cells) for f in self.formulas], dim=1)[:, self.at]
        # 2. A conjunction also responds, weakly, to one of its concepts alone.
        if self.settings.leak:
            leak = cells[:, self.leaky.clamp(min=0)] * (self.leaky >= 0)[:, None, None]
            area = torch.maximum(area, leak * (self.settings.leak / 16))
        # 3. Unevenness; units of RANDOM respond to blobs instead. Then blur.
        field, blob, grain = self._fields(maps)
        signal = torch.where(self.random[:, None, None], blob.clamp(min=0), area * field)
        for _ in range(self.settings.blur):
            signal = _blur(signal)
        # 4. Noise and bias, then rectify and scale. Rounding to 1/1024 hides the order of sums.
        signal = signal + grain - self.settings.noise * self.settings.bias / 512
        signal = torch.round(signal.clamp(min=0) * (self.gains[:, None, None] / 32) * 1024) / 1024
        return signal * ~self.dead[:, None, None]

    def _area(self, formula: Formula, maps: Tensor, cells: Tensor) -> Tensor:
        """Return the share of each cell that a formula covers.

        Of two alternative concepts, each counts relative to the most it can cover: otherwise
        rings would never be among the exemplars of a unit for circles or rings.
        """
        if formula.operator in ("OR", "POLY"):
            channels = [CHANNEL[concept] for concept in formula.concepts]
            evened = cells[:, channels] * self.reach[channels][:, None, None] / 32
            return evened.amax(1)
        return _pool(formula.regions(maps)[:, None], self.settings.grid)[:, 0]

    def _fields(self, maps: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return unevenness, blobs and noise, each (n, unit, grid, grid), by image content.

        An image is hashed by the weighted sum of how many pixels of each row have each concept: the
        same image has the same noise, in any batch. From there a unit steps to a field of its own.
        """
        keys = (maps.sum(-1) * self.weights).sum((1, 2))
        at = (keys[:, None] * self.steps + self.starts) % BANK
        return self.uneven[at] / 32, self.blobs[at] / 32, self.grain[at] / 512


@cache
def _reach(grid: int, blur: int, seed: int) -> NDArray[np.int64]:
    """Return the factor that evens out each concept's highest activations, in 32nds.

    The inverse of the level that a concept's signal exceeds in one scene of two hundred, at most 4,
    measured on another stream of scenes. With the two senses of a unit multiplied by it, each
    accounts for about half of the exemplars.
    """
    scenes = World().scenes(seed + 1_000, 1024)
    maps = torch.from_numpy(np.stack([scene.concepts for scene in scenes]))
    fields = _smooth(np.random.default_rng([seed, 4, grid, blur]), len(maps), grid, 12, 40)
    signal = torch.cat([_pool(part, grid) for part in maps.split(64)])
    signal = signal * torch.from_numpy(fields)[:, None] / 32
    for _ in range(blur):
        signal = _blur(signal)
    levels = signal.amax((2, 3)).sort(0, descending=True).values[len(maps) // 200]
    return np.array([min(128, round(32 / max(float(level), 0.25))) for level in levels])


def _pool(maps: Tensor, grid: int) -> Tensor:
    """Return the share of each cell that each map (..., 64, 64) covers."""
    return nnf.avg_pool2d(maps.float(), maps.shape[-1] // grid)


def _smooth(
    generator: np.random.Generator, count: int, grid: int, low: int, high: int
) -> NDArray[np.int64]:
    """Return smooth fields of whole numbers: linear interpolation between 5 x 5 random knots.

    The grid begins and ends half-way between knots, so that extremes lie inside.

    Returns:
        int64 (count, grid, grid), from `low` to `high`.
    """
    knots = generator.integers(low, high + 1, (count, 5, 5))
    step = grid - 1
    # the grid spans 3 of the 4 gaps between knots: positions in units of 1 / step of a gap
    position = np.arange(grid) * 3 + step // 2
    left, part = position // step, position % step

    def between(values: NDArray[np.int64], axis: int) -> NDArray[np.int64]:
        share = part.reshape([-1 if i == axis else 1 for i in range(3)])
        one, two = values.take(left, axis), values.take(left + 1, axis)
        return (one * (step - share) + two * share) // step

    return between(between(knots, 1), 2)


def _blur(maps: Tensor) -> Tensor:
    """Return maps after one pass of the filter 1 2 1 in both directions, edges clamped."""
    for axis in (-1, -2):
        first, last = maps.narrow(axis, 0, 1), maps.narrow(axis, maps.shape[axis] - 1, 1)
        before = torch.cat([first, maps.narrow(axis, 0, maps.shape[axis] - 1)], axis)
        after = torch.cat([maps.narrow(axis, 1, maps.shape[axis] - 1), last], axis)
        maps = (before + after + maps * 2) / 4
    return maps


class ConceptNetwork(nn.Module):
    """Synthetic network: all layers read the same concept maps, the output reads all layers.

    Attributes:
        name: `mini-sharp`, `mini-leaky` or `mini-coarse`.
        units: its units, by layer and index.

    Example:
        >>> output = network("mini-sharp")(torch.zeros(1, len(CONCEPTS), 64, 64))
        >>> tuple(output.shape)  # evidence for each concept
        (1, 31)
    """

    def __init__(self, name: str, seed: int = SEED) -> None:
        super().__init__()
        self.name = name
        self.units = tuple(planted for planted in plan(seed) if planted.unit.network == name)
        network_index = list(NETWORKS).index(name)
        for layer_index, (layer, settings) in enumerate(NETWORKS[name].items()):
            units = [planted for planted in self.units if planted.unit.layer == layer]
            layer_seed = [seed, 2, network_index, layer_index]
            self.add_module(layer, ConceptLayer(settings, units, layer_seed))
        readers = torch.zeros(len(CONCEPTS), len(self.units), dtype=torch.float64)
        for column, planted in enumerate(self.units):
            for concept in planted.formula.concepts:
                readers[CHANNEL[concept], column] = 1
        self.register_buffer("readers", readers)

    def forward(self, concepts: Tensor) -> Tensor:
        """Return the evidence for each concept, (n, concept): the mean of the units that read it.

        Args:
            concepts: (n, concept, 64, 64), as `SceneDataset` yields them.
        """
        pooled = [layer(concepts).double().mean((-2, -1)) for layer in self.children()]
        # in float64 these sums are exact, whatever the batch
        evidence = torch.cat(pooled, dim=1) @ self.readers.T / self.readers.sum(1).clamp(min=1)
        return evidence.float()


def network(name: str, seed: int = SEED) -> ConceptNetwork:
    """Build a network of the mini world, in evaluation mode.

    Raises:
        InputError: no such network.
    """
    if name not in NETWORKS:
        raise InputError(
            f"No synthetic network '{name}' (networks: {', '.join(NETWORKS)})."
            + did_you_mean(name, NETWORKS)
        )
    return ConceptNetwork(name, seed).eval()
