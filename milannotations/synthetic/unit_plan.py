"""Plan of the synthetic networks: which formula each unit computes, in which split.

Of each compositional kind of formula, some occur in test units alone and some in validation units
alone, so that a method can be scored on formulas that it has not seen.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from itertools import combinations
from typing import NamedTuple

import numpy as np

from milannotations.schema import Unit
from milannotations.synthetic.concepts import CATEGORIES
from milannotations.synthetic.formulas import HALVES, Formula

SEED = 0
"""Random seed of the networks that the edition `mini` describes."""

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
    # shapes that are large enough to have an interior
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
"""All formulas that units may have, by kind."""

_SINGLE = ("shape", "color", "texture", "background", "text", "face", "part", "random", "dead")
"""Kinds without held-out formulas: every network has all formulas of these."""

N_BASE, N_DUPLICATES = 130, 6
"""Units per layer with a formula of their own, and duplicates of some of them."""

N_TEST, N_VALIDATION = 42, 14
"""Test and validation units among a layer's units with a formula of their own."""

N_MEANINGLESS = {"test": 3, "validation": 1}
"""Random and dead units, which have no meaning, among these, by split."""

UNSEEN = {"test": 0.25, "validation": 0.07}
"""Share of the formulas of each compositional kind that occur in this split alone."""


@dataclass(frozen=True)
class LayerSettings:
    """Properties that the units of a layer share.

    Attributes:
        grid: side of the activation map in cells.
        noise: noise of an activation, in 64ths of a fully covered cell; three draws add up.
        bias: subtracted before rectifying, in 8ths of `noise`: from 24 on, noise alone never
            fires; at 18, it does in one cell of a hundred.
        leak: share of one concept's area that a conjunction responds to without the other
            concept, in 16ths.
        blur: number of passes of the filter 1 2 1.
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
    """Return counts multiplied by a factor for some kinds (`_` stands for `+` in names)."""
    factors = {name.replace("_", "+"): factor for name, factor in times.items()}
    return {kind: count * factors.get(kind, 1.0) for kind, count in counts.items()}


NETWORKS: dict[str, dict[str, LayerSettings]] = {
    # fine maps, little noise, nothing leaks
    "mini-sharp": {
        "layer1": LayerSettings(16, 3, 24, 0, 0, _mix(_EARLY)),
        "layer2": LayerSettings(16, 3, 24, 0, 0, _mix(_MIDDLE)),
        "layer3": LayerSettings(16, 4, 24, 0, 1, _mix(_LATE)),
    },
    # more things than properties; conjunctions leak
    "mini-leaky": {
        "layer1": LayerSettings(
            16, 5, 20, 3, 0, _mix(_EARLY, color_texture=0.6, edge=1.6, part=2.0)
        ),
        "layer2": LayerSettings(
            16, 5, 20, 4, 1, _mix(_MIDDLE, text=2.0, color_text=1.5, color=0.5)
        ),
        "layer3": LayerSettings(8, 6, 20, 5, 0, _mix(_LATE, face=2.0, text=2.0, near=1.4)),
    },
    # coarse and noisy: more properties than things, no edges, and no parts in the last layer
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
"""The three networks of the mini world, by name and layer."""


class PlantedUnit(NamedTuple):
    """A unit with a known formula.

    Attributes:
        unit: network, layer and index.
        formula: what it responds to.
        split: train, validation or test.
        seen: whether its formula is among the training units' (None where it has no meaning).
        duplicate_of: the unit that it repeats, if any.
        leaks: which of the formula's two concepts leaks, 0 or 1.
        gain: factor of its activations, in 32nds.
        draw: selects its unevenness and noise; a duplicate has the same, and so the same
            activations.
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
def plan(seed: int = SEED) -> tuple[PlantedUnit, ...]:
    """Return every unit of the three networks, in order of network, layer and index.

    Of each compositional kind, some formulas occur in test units alone, some in
    validation units alone. Duplicates are in the split of the unit that they repeat.
    """
    # Every step draws from one generator: their order is part of the edition `mini`.
    generator = np.random.default_rng([seed, 1])
    # 1. Reserve formulas for the test and validation split.
    pools = _reserve(generator)
    # 2. Draw the formulas of every layer, reserved ones among them.
    drawn = [
        (network, layer, formula, pool)
        for network, layers in NETWORKS.items()
        for layer, settings in layers.items()
        for formula, pool in _draw_formulas(settings, pools, generator)
    ]
    # 3. Assign splits: reserved formulas to theirs, others until each split has its number.
    splits = _assign_splits(drawn, generator)
    trained = {row[2] for row, split in zip(drawn, splits, strict=True) if split == "train"}
    # 4. Add duplicates and shuffle the indices of each layer's units.
    planted: list[PlantedUnit] = []
    for network, layers in NETWORKS.items():
        for layer in layers:
            members = [
                (row[2], split)
                for row, split in zip(drawn, splits, strict=True)
                if row[:2] == (network, layer)
            ]
            planted += _plant_layer(network, layer, members, trained, generator)
    return tuple(planted)


def _reserve(generator: np.random.Generator) -> dict[str, dict[str, list[Formula]]]:
    """Divide the formulas of each kind into pools: for one split alone, and for any.

    Returns:
        By kind, then by pool: `test`, `validation`, `any`.
    """
    pools = {}
    for kind, formulas in _KINDS.items():
        shuffled = [formulas[i] for i in generator.permutation(len(formulas))]
        n_test = 0 if kind in _SINGLE else max(1, round(UNSEEN["test"] * len(shuffled)))
        n_validation = 0 if kind in _SINGLE else max(1, round(UNSEEN["validation"] * len(shuffled)))
        pools[kind] = {
            "test": shuffled[:n_test],
            "validation": shuffled[n_test : n_test + n_validation],
            "any": shuffled[n_test + n_validation :],
        }
    return pools


def _draw_formulas(
    settings: LayerSettings,
    pools: Mapping[str, Mapping[str, Sequence[Formula]]],
    generator: np.random.Generator,
) -> list[tuple[Formula, str]]:
    """Return the formulas of a layer's units, each with the pool that it is from."""
    drawn = []
    for kind, count in _apportion(settings.counts, N_BASE).items():
        reserved = {
            pool: 0 if not pools[kind][pool] else round(count * share)
            for pool, share in UNSEEN.items()
        }
        for pool, n in {**reserved, "any": count - sum(reserved.values())}.items():
            formulas = pools[kind][pool]
            # as evenly as the number allows: every formula once before any occurs twice
            order = [i for _ in range(n) for i in generator.permutation(len(formulas))][:n]
            drawn += [(formulas[i], pool) for i in order]
    return drawn


def _apportion(shares: Mapping[str, float], total: int) -> dict[str, int]:
    """Return whole numbers in proportion to `shares` that sum to `total` (largest remainders)."""
    scale = total / sum(shares.values())
    counts = {name: int(share * scale) for name, share in shares.items()}  # rounded down
    by_remainder = sorted(shares, key=lambda name: counts[name] - shares[name] * scale)
    for name in by_remainder[: total - sum(counts.values())]:
        counts[name] += 1
    return counts


def _assign_splits(
    drawn: Sequence[tuple[str, str, Formula, str]], generator: np.random.Generator
) -> list[str]:
    """Return the split of each unit.

    Args:
        drawn: (network, layer, formula, pool) of every unit.
        generator: decides which units of a layer are moved to its test and validation split.
    """
    # Units of a reserved formula are in its split. All others start as training units.
    splits = [pool if pool != "any" else "train" for *_, pool in drawn]
    # A formula stays in at least one training unit: this is how many training units each has.
    n_train = Counter(formula for *_, formula, pool in drawn if pool == "any")
    for layer in dict.fromkeys((network, layer) for network, layer, *_ in drawn):
        members = [i for i, row in enumerate(drawn) if row[:2] == layer]
        for split, n_units in (("test", N_TEST), ("validation", N_VALIDATION)):
            missing = n_units - sum(splits[i] == split for i in members)
            shuffled = [i for i in generator.permutation(members) if splits[i] == "train"]
            meaningless = [i for i in shuffled if not drawn[i][2].means_something]
            meaningful = [i for i in shuffled if drawn[i][2].means_something]
            # a fixed number of random and dead units, then any others, until the split is full
            for i in (*meaningless[: N_MEANINGLESS[split]], *meaningful):
                if missing > 0 and n_train[drawn[i][2]] > 1:
                    splits[i] = split
                    n_train[drawn[i][2]] -= 1
                    missing -= 1
    return splits


def _plant_layer(
    network: str,
    layer: str,
    members: Sequence[tuple[Formula, str]],
    trained: set[Formula],
    generator: np.random.Generator,
) -> list[PlantedUnit]:
    """Return a layer's units in order of their index, with duplicates of some.

    Args:
        network, layer: their names.
        members: (formula, split) of every unit that is no duplicate.
        trained: formulas of training units, of any network.
        generator: chooses the duplicates and the indices.
    """
    candidates = [i for i in generator.permutation(len(members)) if members[i][0].means_something]
    sources = [*range(len(members)), *candidates[:N_DUPLICATES]]
    index = generator.permutation(len(sources))  # of each source, in the layer
    units = []
    for position, source in enumerate(sources):
        formula, split = members[source]
        is_duplicate = position >= len(members)
        units.append(
            PlantedUnit(
                Unit(network, layer, int(index[position])),
                formula,
                split,
                (formula in trained) if formula.means_something else None,
                Unit(network, layer, int(index[source])) if is_duplicate else None,
                leaks=source % 2,
                gain=24 + (source * 7) % 17,
                draw=source,
            )
        )
    return sorted(units)
