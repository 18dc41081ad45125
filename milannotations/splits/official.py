"""Official splits, read from the JSON beside this file and checked against its digests.

    {"version": 1,
     "about": "...",
     "conditions": {NAME: {"train": SIDE, "test": SIDE, "n_train": N, "n_test": N,
                           "sha256": DIGEST}}}

A SIDE maps networks to their units: `"all"`; `"rest"`, the units that are not on the other side;
or indices by layer. Units are in the order of the networks in SIDE, and within a network in the
order of the catalog. DIGEST: see `digest`.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from functools import cache
from pathlib import Path
from typing import Any, Literal, NamedTuple

from milannotations.catalog import NETWORKS
from milannotations.errors import InputError, did_you_mean
from milannotations.schema import Unit
from milannotations.splits.hashing import Split

VERSION = 1
"""Current version of the official splits. A version never changes: new content, new version."""

HOME = Path(__file__).parent
"""Folder of the files `v<VERSION>.json`."""

Side = Mapping[str, Literal["all", "rest"] | Mapping[str, list[int]]]


class Condition(NamedTuple):
    """Name and size of an official split; `digest` equals `digest(split(name))`."""

    name: str
    n_train: int
    n_test: int
    digest: str


def digest(split: Split) -> str:
    """Return the sha256 of a split: the lines train, its units, test, its units.

    Every line ends in a line feed, as in `printf 'train\\nA\\ntest\\nB\\n' | sha256sum`.

    Example:
        >>> digest(Split((Unit("n", "conv1", 0),), (Unit("n", "conv1", 1),)))[:16]
        '13aaac092603f215'
    """
    lines = ("train", *map(str, split.train), "test", *map(str, split.test))
    return hashlib.sha256("".join(f"{line}\n" for line in lines).encode()).hexdigest()


def names(version: int = VERSION) -> tuple[str, ...]:
    """Return the names of the official splits.

    `within-network/NETWORK` has seed 0, `within-network/NETWORK@3` seed 3.

    Example:
        >>> names()[0], names()[30], len(names())
        ('within-network/alexnet-imagenet', 'across-network/alexnet-to-resnet152', 43)
    """
    return tuple(_read(version))


def conditions(version: int = VERSION) -> tuple[Condition, ...]:
    """Return the name, numbers of units and digest of every official split.

    Example:
        >>> conditions()[0][:3]
        ('within-network/alexnet-imagenet', 1037, 115)
    """
    return tuple(
        Condition(name, entry["n_train"], entry["n_test"], entry["sha256"])
        for name, entry in _read(version).items()
    )


def split(name: str, version: int = VERSION) -> Split:
    """Return the train and test units of an official split.

    Source: Hernandez et al. 2022, section 4, tables 2 and 3. Within a network one unit in ten of
    every layer is a test unit. In all other conditions every unit of the training networks is a
    train unit and every unit of the others a test unit, as in 2022. The draws of 2022 were never
    published, so these are the official ones.

    Args:
        name: see `names`; network names with slashes and `@0` are accepted.
        version: of the official splits.

    Returns:
        `train` and `test`, tuples of `Unit` in the order of the catalog.

    Raises:
        InputError: no such split or version; the shipped file was changed.

    Example:
        >>> train, test = split("across-network/alexnet-to-resnet152")
        >>> len(train), len(test), str(test[0])
        (2528, 7808, 'resnet152-imagenet/conv1/0')
    """
    known = _read(version)
    if name not in known:
        name = _canonical(name)
    if name not in known:
        raise InputError(f"No split '{name}'.{_hint(name, list(known))} See: milan list splits")
    return _split(name, version)


@cache
def _split(name: str, version: int) -> Split:
    entry = _read(version)[name]
    test = tuple(_units(entry["test"], ()))
    split = Split(tuple(_units(entry["train"], test)), test)
    if digest(split) != entry["sha256"]:
        raise InputError(
            f"{_path(version)} was changed: the units of {name} have the digest {digest(split)}, "
            f"expected {entry['sha256']}. Install milannotations again."
        )
    return split


def _units(side: Side, other: tuple[Unit, ...]) -> Iterator[Unit]:
    others = set(other)
    for network, members in side.items():
        units = NETWORKS[network].units()
        if members == "all":
            yield from units
        elif members == "rest":
            yield from (unit for unit in units if unit not in others)
        else:
            listed = {Unit(network, layer, i) for layer, ids in members.items() for i in ids}
            yield from (unit for unit in units if unit in listed)


def _path(version: int) -> Path:
    return HOME / f"v{version}.json"


@cache
def _read(version: int) -> dict[str, Any]:
    path = _path(version)
    if not path.is_file():
        known = sorted(int(file.stem[1:]) for file in HOME.glob("v*.json"))
        raise InputError(
            f"No version {version!r} of the official splits "
            f"(versions: {', '.join(map(str, known))})."
        )
    return json.loads(path.read_text(encoding="utf-8"))["conditions"]


def _canonical(name: str) -> str:
    """Return a name with dashes for the slashes of networks, and without `@0`."""
    family, slash, rest = name.strip().partition("/")
    return f"{family}{slash}{rest.replace('/', '-').removesuffix('@0')}"


def _hint(name: str, known: list[str]) -> str:
    family = name.partition("/")[0]
    members = [other for other in known if other.partition("/")[0] == family]
    if hint := did_you_mean(name, known):
        return hint
    if members:
        return f" Those of {family}: {', '.join(other for other in members if '@' not in other)}."
    ending = [other for other in known if other.endswith(f"/{name}")]
    return f" Did you mean {' or '.join(map(repr, ending))}?" if ending else ""
