"""The official splits, read from the JSON beside this file and checked against its digests.

    {"version": 1,
     "about": "...",
     "conditions": {NAME: {"train": SIDE, "test": SIDE, "n_train": N, "n_test": N,
                           "sha256": DIGEST}}}

A SIDE maps networks to their units: `"all"`; `"rest"`, those that the other side does not
hold; or their indices by layer. Units come in the order of the networks in SIDE, and within
a network in that of the catalog. DIGEST: see `digest`.
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
"""The official splits of today. A version never changes: new content is a new version."""

HOME = Path(__file__).parent

Side = Mapping[str, Literal["all", "rest"] | Mapping[str, list[int]]]


class Condition(NamedTuple):
    """What an official split holds, in numbers; `digest` is that of `digest(split(name))`."""

    name: str
    n_train: int
    n_test: int
    digest: str


def digest(split: Split) -> str:
    """Return the sha256 of a split's unit ids, one a line: train, its units, test, its units.

    Every line ends in a line feed. What `printf 'train\\nA\\ntest\\nB\\n' | sha256sum` prints.

    Example:
        >>> made = Split((Unit("n", "conv1", 0),), (Unit("n", "conv1", 1),))
        >>> digest(made)[:16]
        '13aaac092603f215'
    """
    lines = ("train", *map(str, split.train), "test", *map(str, split.test))
    return hashlib.sha256("".join(f"{line}\n" for line in lines).encode()).hexdigest()


def names(version: int = VERSION) -> tuple[str, ...]:
    """Return the names of the official splits.

    `within-network/NETWORK` is seed 0, `within-network/NETWORK@3` seed 3.

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
        Condition(name, made["n_train"], made["n_test"], made["sha256"])
        for name, made in _read(version).items()
    )


def split(name: str, version: int = VERSION) -> Split:
    """Return the unit ids of an official split, the same for everyone.

    Source: Hernandez et al. 2022, section 4, tables 2 and 3. Within a network one
    unit in ten tests, of every layer. In all other conditions every unit of the training
    networks trains and every unit of the others tests, as in 2022. The draws of 2022 were
    never published, so these are the official ones.

    Args:
        name: see `names`; the slash form of networks is accepted, and `@0`.
        version: of the official splits.

    Returns:
        `train` and `test`, tuples of `Unit`, in the order of the catalog.

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
    written = _read(version)[name]
    test = tuple(_units(written["test"], ()))
    made = Split(tuple(_units(written["train"], test)), test)
    if digest(made) != written["sha256"]:
        raise InputError(
            f"{_path(version)} was changed: the units of {name} have the digest {digest(made)}, "
            f"expected {written['sha256']}. Install milannotations anew."
        )
    return made


def _units(side: Side, other: tuple[Unit, ...]) -> Iterator[Unit]:
    taken = set(other)
    for network, held in side.items():
        units = NETWORKS[network].units()
        if held == "all":
            yield from units
        elif held == "rest":
            yield from (unit for unit in units if unit not in taken)
        else:
            listed = {Unit(network, at, i) for at, indices in held.items() for i in indices}
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
    """Return a name with the slashes of networks as dashes, and without `@0`."""
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
