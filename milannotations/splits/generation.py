"""Generation of the official splits from the catalog and the hash rule."""

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
"""Seeds of the within-network splits."""

ACROSS = {
    "across-network": (("alexnet", "resnet152"), ("resnet152", "alexnet")),
    "across-dataset": (("imagenet", "places365"), ("places365", "imagenet")),
    "across-task": (("cls", "gen"), ("gen", "cls")),
    "across-arch": (("base", "dino_vits8-imagenet"),),
}
"""(train, test) pairs by family of conditions; each side is a catalog group or a network."""

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


def entries() -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield the name of every official split and its entry in `v1.json`."""
    for network in GROUPS["base"]:
        for seed in SEEDS:
            split = within(network, seed)
            name = f"within-network/{network}" + (f"@{seed}" if seed else "")
            sides = {"train": {network: "rest"}, "test": {network: _by_layer(split.test)}}
            yield name, {**sides, **_counts(split)}
    for family, pairs in ACROSS.items():
        for train, test in pairs:
            yield f"{family}/{train}-to-{test}", _whole(_members(train), _members(test))
    for network in GROUPS["base"]:
        yield f"leave-one-out/{network}", _whole(GROUPS[f"not-{network}"], (network,))


def to_json() -> str:
    """Return the official splits as JSON: ASCII, the same bytes on every machine."""
    content = {"version": VERSION, "about": ABOUT, "conditions": dict(entries())}
    lines = json.dumps(content, indent=1)
    # put the indices of a layer on one line
    return re.sub(r"\[\s+([\d,\s]+?)\s+\]", lambda at: f"[{' '.join(at[1].split())}]", lines) + "\n"


def write(out: str | os.PathLike[str]) -> Path:
    """Write the official splits as `out`/v1.json and return its path.

    Raises:
        InputError: `out` holds other content under this version.
    """
    path = Path(out) / f"v{VERSION}.json"
    content = to_json().encode("ascii")
    if path.exists() and path.read_bytes() != content:
        raise InputError(
            f"{path} holds other splits. A version never changes: raise VERSION in "
            "milannotations/splits/official.py, or give another --out."
        )
    with replacing(path) as temporary:
        temporary.write_bytes(content)
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
