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
"""Of the networks that the edition `mini` describes."""

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


class PlantedUnit(NamedTuple):
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
def plan(seed: int = SEED) -> tuple[PlantedUnit, ...]:
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
    planted: list[PlantedUnit] = []
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
) -> list[PlantedUnit]:
    """Return a layer's units in order of their index, duplicates among them."""
    copied = [i for i in generator.permutation(len(own)) if own[i][0].means_something]
    sources = [*range(len(own)), *copied[:N_DUPLICATES]]
    index = generator.permutation(len(sources))
    made = []
    for at, source in enumerate(sources):
        formula, side = own[source]
        made.append(
            PlantedUnit(
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
