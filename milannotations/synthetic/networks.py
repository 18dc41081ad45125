"""Synthetic networks: modules whose units compute known formulas over concept maps.

The input is the concept maps that `SceneDataset` yields beside each picture. A unit's
activation is the share of each cell that its formula covers, made uneven, leaky, blurred
and noisy as a network's would be, and rectified. All values are multiples of powers of
two and every sum is exact in float32, so that an activation has the same bits whatever
the machine, the batch or the number of threads.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from itertools import combinations
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as nnf

from milannotations.errors import InputError, did_you_mean
from milannotations.schema import Unit
from milannotations.synthetic.concepts import CATEGORIES, CHANNEL, CONCEPTS
from milannotations.synthetic.formulas import HALVES, Formula
from milannotations.synthetic.scenes import World

SEED = 0
"""Of the networks that the edition `mini` describes."""

BANK = 1021
"""Noise fields of a layer; which one a unit sees depends on what is in the picture. A prime, so
that steps through them meet all."""

_C = CATEGORIES
_KINDS: dict[str, tuple[Formula, ...]] = {
    "shape": tuple(Formula.of("IS", c) for c in _C["shape"]),
    "color": tuple(Formula.of("IS", c) for c in _C["color"]),
    "texture": tuple(Formula.of("IS", c) for c in _C["texture"]),
    "background": tuple(Formula.of("IS", c) for c in (*_C["background"], *_C["light"])),
    "text": (Formula.of("IS", "text"),),
    "face": (Formula.of("IS", "face"),),
    "part": tuple(Formula.of("IS", c) for c in ("hair", "eye", "mouth")),
    "color+shape": tuple(Formula.of("AND", a, b) for a in _C["shape"] for b in _C["color"]),
    "shape+texture": tuple(Formula.of("AND", a, b) for a in _C["shape"] for b in _C["texture"]),
    "color+texture": tuple(Formula.of("AND", a, b) for a in _C["color"] for b in _C["texture"]),
    "color+text": tuple(Formula.of("AND", "text", c) for c in _C["color"]),
    # of the shapes that are large enough to have an inside
    "edge": tuple(
        Formula.of("AND", "edge", c) for c in ("circle", "square", "triangle", "diamond")
    ),
    "or": tuple(
        Formula.of("OR", a, b)
        for category in ("shape", "color", "texture")
        for a, b in combinations(_C[category], 2)
    ),
    "near": tuple(
        Formula.of("NEAR", a, b) for a, b in combinations((*_C["shape"], "text", "face"), 2)
    ),
    "half": tuple(
        Formula.of(half, c) for half in HALVES for c in (*_C["shape"], *_C["color"], "text", "face")
    ),
    "poly": tuple(
        Formula.of("POLY", a, b)
        for a in ("text", "face")
        for b in (*_C["shape"], *_C["color"], "striped", "checkered")
    ),
    "random": (Formula.of("RANDOM"),),
    "dead": (Formula.of("DEAD"),),
}
"""Every formula that a unit may have, by kind."""

_SINGLE = ("shape", "color", "texture", "background", "text", "face", "part", "random", "dead")
"""Kinds of which nothing is held out: every network has all of their formulas."""

N_BASE, N_DUPLICATES = 130, 6
"""Units of a layer with a formula of their own, and copies of some of them."""

N_TEST, N_VALIDATION = 42, 14
"""Of the units of a layer with a formula of their own."""

N_MEANINGLESS = {"test": 3, "validation": 1}
"""Of these, units that mean nothing: random and dead ones."""

UNSEEN = {"test": 0.25, "validation": 0.07}
"""Share of the formulas of each compositional kind that only this split has."""


@dataclass(frozen=True)
class LayerSettings:
    """What the units of a layer are like.

    Attributes:
        grid: side of the activation map in cells.
        noise: noise of an activation, in 64ths of a fully covered cell; three draws add up.
        bias: what is taken off before rectifying, in 8ths of `noise`: from 24, noise alone
            never fires; at 18, it does in one cell of a hundred.
        leak: what leaks from one of two concepts to their conjunction, in 16ths.
        blur: passes of the filter 1 2 1.
        counts: units of each kind, in proportion.
    """

    grid: int
    noise: int
    bias: int
    leak: int
    blur: int
    counts: Mapping[str, float] = field(hash=False)


_EARLY = {
    "color": 16, "texture": 10, "background": 12, "part": 4, "edge": 6, "color+texture": 30,
    "or": 16, "half": 12, "shape": 8, "text": 2, "poly": 4, "random": 6, "dead": 4,
}  # fmt: skip
_MIDDLE = {
    "shape": 16, "color": 6, "texture": 4, "text": 3, "face": 3, "part": 6, "color+shape": 24,
    "shape+texture": 16, "color+texture": 8, "or": 12, "near": 6, "half": 8, "color+text": 5,
    "poly": 6, "random": 5, "dead": 2,
}  # fmt: skip
_LATE = {
    "shape": 8, "text": 4, "face": 5, "part": 6, "color+shape": 32, "shape+texture": 18,
    "color+text": 7, "or": 10, "near": 14, "half": 6, "poly": 12, "background": 2,
    "random": 4, "dead": 2,
}  # fmt: skip


def _mix(counts: Mapping[str, int], **times: float) -> dict[str, float]:
    """Return counts with some kinds made more or less common (`_` for `+` in names)."""
    factors = {name.replace("_", "+"): factor for name, factor in times.items()}
    return {kind: count * factors.get(kind, 1.0) for kind, count in counts.items()}


NETWORKS: dict[str, dict[str, LayerSettings]] = {
    # fine maps, little noise, nothing leaks
    "mini-sharp": {
        "layer1": LayerSettings(16, 3, 24, 0, 0, _mix(_EARLY)),
        "layer2": LayerSettings(16, 3, 24, 0, 0, _mix(_MIDDLE)),
        "layer3": LayerSettings(16, 4, 24, 0, 1, _mix(_LATE)),
    },
    # things rather than properties; conjunctions leak
    "mini-leaky": {
        "layer1": LayerSettings(
            16, 5, 20, 3, 0, _mix(_EARLY, color_texture=0.6, edge=1.6, part=2.0)
        ),
        "layer2": LayerSettings(
            16, 5, 20, 4, 1, _mix(_MIDDLE, text=2.0, color_text=1.5, color=0.5)
        ),
        "layer3": LayerSettings(8, 6, 20, 5, 0, _mix(_LATE, face=2.0, text=2.0, near=1.4)),
    },
    # coarse and noisy: properties rather than things, no edges, and at last no parts
    "mini-coarse": {
        "layer1": LayerSettings(
            16, 8, 18, 2, 1, _mix(_EARLY, background=1.6, color_texture=1.4, edge=0)
        ),
        "layer2": LayerSettings(8, 8, 18, 3, 0, _mix(_MIDDLE, texture=2.0, shape_texture=1.5)),
        "layer3": LayerSettings(
            8, 8, 18, 4, 1, _mix(_LATE, shape_texture=1.5, poly=1.4, face=0.5, part=0)
        ),
    },
}
"""The three networks of the mini world, layer by layer."""


class Planted(NamedTuple):
    """A unit whose answer is known, and what makes its activations its own.

    `split` is where it belongs; `seen` whether its formula is among the training units'
    (None where it means nothing); `leaks` which of two concepts leaks; `draw` seeds its
    unevenness and noise, so that a duplicate, which has the same, has the same activations.
    """

    unit: Unit
    formula: Formula
    split: str
    seen: bool | None
    duplicate_of: Unit | None
    leaks: int
    gain: int
    draw: int


@cache
def plan(seed: int = SEED) -> tuple[Planted, ...]:
    """Return every unit of the three networks, in order of network, layer and index.

    Of each compositional kind, some formulas occur in test units alone, some in
    validation units alone. Duplicates are in the split of the unit that they repeat.
    """
    generator = np.random.default_rng([seed, 1])
    pools = _pools(generator)
    drawn = [
        (network, layer, formula, side)
        for network, layers in NETWORKS.items()
        for layer, settings in layers.items()
        for formula, side in _formulas(settings, pools, generator)
    ]
    sides = _split(drawn, generator)
    trained = {f for (_, _, f, _), side in zip(drawn, sides, strict=True) if side == "train"}
    planted: list[Planted] = []
    for network, layers in NETWORKS.items():
        for layer in layers:
            own = [
                (formula, side)
                for (at, deep, formula, _), side in zip(drawn, sides, strict=True)
                if (at, deep) == (network, layer)
            ]
            planted += _layer(network, layer, own, trained, generator)
    return tuple(planted)


def _pools(generator: np.random.Generator) -> dict[str, dict[str, list[Formula]]]:
    """Return the formulas of each kind that any unit, test and validation units alone may have."""
    pools = {}
    for kind, formulas in _KINDS.items():
        mixed = [formulas[i] for i in generator.permutation(len(formulas))]
        n_test = 0 if kind in _SINGLE else max(1, round(UNSEEN["test"] * len(mixed)))
        n_validation = 0 if kind in _SINGLE else max(1, round(UNSEEN["validation"] * len(mixed)))
        pools[kind] = {
            "test": mixed[:n_test],
            "validation": mixed[n_test : n_test + n_validation],
            "any": mixed[n_test + n_validation :],
        }
    return pools


def _formulas(
    settings: LayerSettings,
    pools: Mapping[str, Mapping[str, Sequence[Formula]]],
    generator: np.random.Generator,
) -> list[tuple[Formula, str]]:
    """Return the formulas of a layer's units, each with the side it is held out for, or "any"."""
    drawn = []
    for kind, count in _apportion(settings.counts, N_BASE).items():
        held = {
            side: 0 if not pools[kind][side] else round(count * share)
            for side, share in UNSEEN.items()
        }
        for side, n in {**held, "any": count - sum(held.values())}.items():
            members = pools[kind][side]
            # as evenly as the number allows: every formula once before any twice
            order = [i for _ in range(n) for i in generator.permutation(len(members))][:n]
            drawn += [(members[i], side) for i in order]
    return drawn


def _apportion(shares: Mapping[str, float], total: int) -> dict[str, int]:
    """Return whole numbers in proportion to `shares` that sum to `total` (largest remainders)."""
    scale = total / sum(shares.values())
    counts = {name: int(share * scale) for name, share in shares.items()}
    left = sorted(shares, key=lambda name: counts[name] - shares[name] * scale)
    for name in left[: total - sum(counts.values())]:
        counts[name] += 1
    return counts


def _split(
    drawn: Sequence[tuple[str, str, Formula, str]], generator: np.random.Generator
) -> list[str]:
    """Return the split of each unit: test and validation are filled up with seen formulas."""
    sides = [side if side != "any" else "train" for *_, side in drawn]
    left = Counter(formula for *_, formula, side in drawn if side == "any")
    for layer in dict.fromkeys((network, layer) for network, layer, *_ in drawn):
        members = [i for i, row in enumerate(drawn) if row[:2] == layer]
        for side, wanted in (("test", N_TEST), ("validation", N_VALIDATION)):
            missing = wanted - sum(sides[i] == side for i in members)
            mixed = [i for i in generator.permutation(members) if sides[i] == "train"]
            nothing = [i for i in mixed if not drawn[i][2].means_something]
            something = [i for i in mixed if drawn[i][2].means_something]
            for i in (*nothing[: N_MEANINGLESS[side]], *something):
                if missing > 0 and left[drawn[i][2]] > 1:
                    sides[i] = side
                    left[drawn[i][2]] -= 1
                    missing -= 1
    return sides


def _layer(
    network: str,
    layer: str,
    own: Sequence[tuple[Formula, str]],
    trained: set[Formula],
    generator: np.random.Generator,
) -> list[Planted]:
    """Return a layer's units in order of their index, duplicates among them."""
    copied = [i for i in generator.permutation(len(own)) if own[i][0].means_something]
    sources = [*range(len(own)), *copied[:N_DUPLICATES]]
    index = generator.permutation(len(sources))
    made = []
    for at, source in enumerate(sources):
        formula, side = own[source]
        made.append(
            Planted(
                Unit(network, layer, int(index[at])),
                formula,
                side,
                (formula in trained) if formula.means_something else None,
                None if at < len(own) else Unit(network, layer, int(index[source])),
                leaks=source % 2,
                gain=24 + (source * 7) % 17,
                draw=source,
            )
        )
    return sorted(made)


class ConceptLayer(nn.Module):
    """Units that compute formulas: concept maps in, activation maps out.

    Args:
        settings: resolution, noise, leak, blur.
        units: the layer's units, in order of their index.
        seed: of the noise fields.
    """

    def __init__(self, settings: LayerSettings, units: Sequence[Planted], seed: Sequence[int]):
        super().__init__()
        self.settings, self.units = settings, tuple(units)
        self.formulas = tuple(dict.fromkeys(planted.formula for planted in units))
        generator = np.random.default_rng(seed)
        grid = settings.grid
        self._buffer("uneven", _smooth(generator, BANK, grid, 12, 40))  # 32nds
        self._buffer("blobs", _smooth(generator, BANK, grid, -40, 28))
        grain = generator.integers(-8, 9, (3, BANK, grid, grid)).sum(0) * settings.noise
        self._buffer("grain", grain)
        self._buffer("weights", generator.integers(1, 1 << 15, (len(CONCEPTS), 64)))
        draws = np.array([planted.draw for planted in units])
        self._buffer("steps", 1 + draws * 37 % (BANK - 1))
        self._buffer("starts", draws * 101 % BANK)
        self._buffer("at", np.array([self.formulas.index(u.formula) for u in units]))
        self._buffer("reach", _reach(grid, settings.blur, seed[0]))
        self._buffer("gains", np.array([planted.gain for planted in units]))
        kinds = np.array([u.formula.operator for u in units])
        self._buffer("random", kinds == "RANDOM")
        self._buffer("dead", kinds == "DEAD")
        leaky = [
            CHANNEL[u.formula.concepts[u.leaks]] if u.formula.operator == "AND" else -1
            for u in units
        ]
        self._buffer("leaky", np.array(leaky))

    def _buffer(self, name: str, values: NDArray[np.generic]) -> None:
        self.register_buffer(name, torch.from_numpy(np.ascontiguousarray(values)))

    def forward(self, concepts: Tensor) -> Tensor:
        """Return activations.

        Args:
            concepts: (n, concept, 64, 64), bool or anything that is 0 or 1.

        Returns:
            float32 (n, unit, grid, grid), multiples of 1/1024 from 0.

        Raises:
            InputError: maps of another shape.
        """
        if concepts.dim() != 4 or concepts.shape[1] != len(CONCEPTS):
            raise InputError(
                f"Concept maps of shape {tuple(concepts.shape)}; expected (n, {len(CONCEPTS)}, "
                "64, 64), as SceneDataset yields them (one scene: maps[None])."
            )
        maps = concepts.bool()
        cells = _pool(maps, self.settings.grid)
        area = torch.stack([self._area(f, maps, cells) for f in self.formulas], dim=1)[:, self.at]
        if self.settings.leak:
            leak = cells[:, self.leaky.clamp(min=0)] * (self.leaky >= 0)[:, None, None]
            area = torch.maximum(area, leak * (self.settings.leak / 16))
        field, blob, grain = self._fields(maps)
        signal = torch.where(self.random[:, None, None], blob.clamp(min=0), area * field)
        for _ in range(self.settings.blur):
            signal = _blur(signal)
        signal = signal + grain - self.settings.noise * self.settings.bias / 512
        signal = torch.round(signal.clamp(min=0) * (self.gains[:, None, None] / 32) * 1024) / 1024
        return signal * ~self.dead[:, None, None]

    def _area(self, formula: Formula, maps: Tensor, cells: Tensor) -> Tensor:
        """Return the share of each cell that a formula covers.

        Either of two concepts counts by what it can cover at most: rings would otherwise
        be nowhere among the exemplars of a unit of circles or rings.
        """
        if formula.operator in ("OR", "POLY"):
            channels = [CHANNEL[concept] for concept in formula.concepts]
            evened = cells[:, channels] * self.reach[channels][:, None, None] / 32
            return evened.amax(1)
        return _pool(formula.regions(maps)[:, None], self.settings.grid)[:, 0]

    def _fields(self, maps: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return unevenness, blobs and noise, each (n, unit, grid, grid), by picture content."""
        keys = (maps.sum(-1) * self.weights).sum((1, 2))
        at = (keys[:, None] * self.steps + self.starts) % BANK
        return self.uneven[at] / 32, self.blobs[at] / 32, self.grain[at] / 512


@cache
def _reach(grid: int, blur: int, seed: int) -> NDArray[np.int64]:
    """Return by how much each concept falls short of the highest activations, in 32nds.

    The level that a concept's signal passes in one scene of two hundred, measured on another
    stream: where the two senses of a unit are evened by it, each lends about half of the
    exemplars. At most fourfold.
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
    """Return fields of whole numbers that change slowly: straight lines between 5 x 5 knots.

    The grid begins and ends half-way between knots, so that extremes lie inside.
    """
    knots = generator.integers(low, high + 1, (count, 5, 5))
    step = grid - 1
    place = np.arange(grid) * 3 + step // 2  # in parts of a step between knots
    left, part = place // step, place % step

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
    """A synthetic network: its layers read the same concept maps, its output all layers.

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
        for number, (layer, settings) in enumerate(NETWORKS[name].items()):
            own = [planted for planted in self.units if planted.unit.layer == layer]
            place = list(NETWORKS).index(name)
            self.add_module(layer, ConceptLayer(settings, own, [seed, 2, place, number]))
        readers = torch.zeros(len(CONCEPTS), len(self.units), dtype=torch.float64)
        for column, planted in enumerate(self.units):
            for concept in planted.formula.concepts:
                readers[CHANNEL[concept], column] = 1
        self.register_buffer("readers", readers)

    def forward(self, concepts: Tensor) -> Tensor:
        """Return the evidence for each concept, (n, concept): a mean over units that read it.

        Args:
            concepts: (n, concept, 64, 64), as `SceneDataset` yields them.
        """
        pooled = [layer(concepts).double().mean((-2, -1)) for layer in self.children()]
        # sums of doubles that are exact, whatever the batch
        evidence = torch.cat(pooled, dim=1) @ self.readers.T / self.readers.sum(1).clamp(min=1)
        return evidence.float()


def network(name: str, seed: int = SEED) -> ConceptNetwork:
    """Return a network of the mini world, made anew, in evaluation mode.

    Raises:
        InputError: no such network.
    """
    if name not in NETWORKS:
        raise InputError(
            f"No synthetic network '{name}' (networks: {', '.join(NETWORKS)})."
            + did_you_mean(name, NETWORKS)
        )
    return ConceptNetwork(name, seed).eval()
