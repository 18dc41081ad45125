"""Catalog of the seven published networks (Hernandez et al. 2022, table 1)."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from milannotations.errors import InputError, did_you_mean, some
from milannotations.schema import Unit

DESCRIPTIONS_PER_UNIT = 3
"""Human descriptions of every published unit."""


@dataclass(frozen=True)
class Network:
    """Published network and its annotated units.

    Attributes:
        name: with dashes, as a config.
        task: what the network was trained for.
        image_source: dataset of its exemplars.
        layers: folder name of each layer in the published archive, in order, to its number of
            annotated units (indices from 0).
        unit_kind: see `schema.UNIT_KINDS`.
        display: usual names of layers whose folder name is only a number.
    """

    name: str
    task: str
    image_source: str
    layers: dict[str, int]
    unit_kind: str = "channel"
    display: tuple[tuple[str, str], ...] = ()

    @property
    def archive(self) -> str:
        """File name of the published archive."""
        return f"{self.name}.zip"

    @property
    def n_units(self) -> int:
        return sum(self.layers.values())

    def units(self) -> Iterator[Unit]:
        """Yield every annotated unit, layer by layer."""
        for layer, count in self.layers.items():
            for index in range(count):
                yield Unit(self.name, layer, index)

    def display_layer(self, layer: str) -> str:
        return dict(self.display).get(layer, layer)


def _layers(names: Iterable[str], counts: Iterable[int]) -> dict[str, int]:
    return dict(zip(names, counts, strict=True))


_RESNET = (64, 256, 512, 1024, 2048)
_CONVS = tuple(f"conv{i}" for i in range(1, 6))
_BIGGAN = tuple(f"layer{i}" for i in range(6))

NETWORKS: dict[str, Network] = {
    network.name: network
    for network in (
        Network(
            "alexnet-imagenet",
            "classification",
            "imagenet-val",
            _layers(_CONVS, (64, 192, 384, 256, 256)),
        ),
        Network(
            "alexnet-places365",
            "classification",
            "places365-val",
            _layers(_CONVS, (96, 256, 384, 384, 256)),
        ),
        Network(
            "resnet152-imagenet",
            "classification",
            "imagenet-val",
            _layers(("conv1", "layer1", "layer2", "layer3", "layer4"), _RESNET),
        ),
        Network(
            "resnet152-places365",
            "classification",
            "places365-val",
            _layers(("0", "4", "5", "6", "7"), _RESNET),
            display=(
                ("0", "conv1"),
                ("4", "res1"),
                ("5", "res2"),
                ("6", "res3"),
                ("7", "res4"),
            ),
        ),
        Network(
            "biggan-imagenet",
            "generation",
            "generated",
            _layers(_BIGGAN, (1536, 768, 768, 384, 192, 96)),
        ),
        Network(
            "biggan-places365",
            "generation",
            "generated",
            _layers(_BIGGAN, (2048, 1024, 1024, 512, 256, 128)),
        ),
        Network(
            "dino_vits8-imagenet",
            "self-supervised",
            "imagenet-val",
            _layers((f"blocks.{i}.mlp.fc1" for i in range(12)), (100,) * 12),
            unit_kind="token",
        ),
    )
}
"""Published networks by name (with dashes), in the paper's order."""

_BASE = tuple(NETWORKS)[:6]

GROUPS: dict[str, tuple[str, ...]] = {
    "base": _BASE,
    "cls": _BASE[:4],
    "gen": _BASE[4:],
    "imagenet": _BASE[::2],
    "places365": _BASE[1::2],
    "alexnet": _BASE[:2],
    "resnet152": _BASE[2:4],
    "biggan": _BASE[4:],
    **{f"not-{left_out}": tuple(n for n in _BASE if n != left_out) for left_out in _BASE},
}
"""Unions that the paper trains and tests on, in order of concatenation."""

N_UNITS = 20_272
N_DESCRIPTIONS = 60_816
if sum(network.n_units for network in NETWORKS.values()) != N_UNITS:
    raise AssertionError("the catalog does not add up to the published 20,272 units")
if N_UNITS * DESCRIPTIONS_PER_UNIT != N_DESCRIPTIONS:
    raise AssertionError("the catalog does not add up to the published 60,816 descriptions")


def canonical(name: str) -> str:
    """Return a network or config name with dashes: `alexnet/imagenet` is `alexnet-imagenet`.

    Raises:
        InputError: the name is empty or has characters that are unsafe in file names and globs.

    Example:
        >>> canonical("resnet152/places365")
        'resnet152-places365'
    """
    dashed = name.strip().replace("/", "-")
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._+-]{0,99}", dashed) or dashed.endswith(".md"):
        raise InputError(
            f"{name!r} is no valid name of a network. Expected letters, digits, dots, dashes and "
            "underscores, such as resnet152-imagenet."
        )
    return dashed


def _digits(name: str) -> list[str]:
    return re.findall(r"\d+", name)


def check_units(network: str, units: Iterable[Unit], *, unlisted: bool = False) -> None:
    """Raise InputError if `units` are not all published units of `network`.

    A network that is not in the catalog passes as a user's own, unless its name looks like a
    misspelt published one.

    Args:
        network: name with dashes.
        units: units of the network.
        unlisted: skip every check.
    """
    if unlisted:
        return
    if network not in NETWORKS:
        # compare digits: resnet50-imagenet is close to resnet152-imagenet, but another network
        alike = [known for known in NETWORKS if _digits(known) == _digits(network)]
        hint = did_you_mean(network, alike, cutoff=0.9)
        if hint:
            raise InputError(
                f"No published network '{network}'.{hint} See: milan list networks. "
                "(To accept the name as it is: --unlisted)"
            )
        return
    layers = NETWORKS[network].layers
    beyond = []
    for unit in units:
        if unit.layer not in layers:
            raise InputError(
                f"Layer '{unit.layer}' is not in {network} (layers: {', '.join(layers)})."
            )
        if unit.unit >= layers[unit.layer]:
            beyond.append(unit)
    if beyond:
        unit = beyond[0]
        raise InputError(
            f"{network} has units 0 to {layers[unit.layer] - 1} in layer {unit.layer}; "
            f"got {some(f'{u.layer}/{u.unit}' for u in beyond)}."
        )
