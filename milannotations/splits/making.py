"""Make the official splits of today from the catalog and the hash rule."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from milannotations.catalog import GROUPS, NETWORKS
from milannotations.errors import InputError
from milannotations.schema import Unit
from milannotations.splits.hashing import Split, within
from milannotations.splits.official import VERSION, digest
from milannotations.utils.files import replacing

SEEDS = range(5)

ACROSS = {
    "across-network": (("alexnet", "resnet152"), ("resnet152", "alexnet")),
    "across-dataset": (("imagenet", "places365"), ("places365", "imagenet")),
    "across-task": (("cls", "gen"), ("gen", "cls")),
    "across-arch": (("base", "dino_vits8-imagenet"),),
}
"""Family to its (train, test), each a group of the catalog or a network."""

ABOUT = (
    "Conditions of Hernandez et al. 2022 (arXiv 2201.11114), tables 2 and 3. A side maps "
    "networks to units: all; rest, those that the other side does not hold; or indices by layer. "
    "within-network: of the n units of a layer, in the order of the sha256 (hexadecimal) of "
    "network/layer/unit/seed, the first n/10, rounded with ties to even, test; the seed stands "
    "behind @ and is 0 without it. Elsewhere all units of the networks named train or test. "
    "leave-one-out trains on the five others; its reverse, in the code of 2022 by accident, is "
    "left out. sha256: of the lines train, the train units, test, the test units, each "
    "network/layer/unit and a line feed."
)


def conditions() -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield the name of every official split and what `v1.json` holds of it."""
    for network in GROUPS["base"]:
        for seed in SEEDS:
            drawn = within(network, seed)
            name = f"within-network/{network}" + (f"@{seed}" if seed else "")
            sides = {"train": {network: "rest"}, "test": {network: _by_layer(drawn.test)}}
            yield name, {**sides, **_counts(drawn)}
    for family, pairs in ACROSS.items():
        for train, test in pairs:
            yield f"{family}/{train}-to-{test}", _whole(_members(train), _members(test))
    for network in GROUPS["base"]:
        yield f"leave-one-out/{network}", _whole(GROUPS[f"not-{network}"], (network,))


def text() -> str:
    """Return the official splits as JSON: ASCII, the same bytes wherever it is made."""
    made = {"version": VERSION, "about": ABOUT, "conditions": dict(conditions())}
    lines = json.dumps(made, indent=1)
    # the indices of a layer on one line
    return re.sub(r"\[\s+([\d,\s]+?)\s+\]", lambda at: f"[{' '.join(at[1].split())}]", lines) + "\n"


def write(out: str | os.PathLike[str]) -> Path:
    """Write the official splits as `out`/v1.json and return its path.

    Raises:
        InputError: `out` has this version with other content.
    """
    path = Path(out) / f"v{VERSION}.json"
    made = text().encode("ascii")
    if path.exists() and path.read_bytes() != made:
        raise InputError(
            f"{path} holds other splits. A version never changes: raise VERSION in "
            "milannotations/splits/official.py, or give another --out."
        )
    with replacing(path) as temporary:
        temporary.write_bytes(made)
    return path


def _members(name: str) -> tuple[str, ...]:
    return GROUPS.get(name, (name,))


def _whole(train: Iterable[str], test: Iterable[str]) -> dict[str, Any]:
    sides = {"train": dict.fromkeys(train, "all"), "test": dict.fromkeys(test, "all")}
    units = (tuple(u for n in side for u in NETWORKS[n].units()) for side in sides.values())
    return {**sides, **_counts(Split(*units))}


def _by_layer(units: Iterable[Unit]) -> dict[str, list[int]]:
    layers: dict[str, list[int]] = {}
    for unit in units:
        layers.setdefault(unit.layer, []).append(unit.unit)
    return layers


def _counts(split: Split) -> dict[str, Any]:
    return {"n_train": len(split.train), "n_test": len(split.test), "sha256": digest(split)}
