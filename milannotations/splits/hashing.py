"""Within-network splits by hashing unit ids."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from typing import NamedTuple

from milannotations.catalog import NETWORKS, canonical
from milannotations.errors import InputError, did_you_mean
from milannotations.schema import Unit

TEST_SHARE = 10
"""Inverse share of test units: one unit in ten of every layer."""


class Split(NamedTuple):
    """Train and test units, each in the order of the network's units."""

    train: tuple[Unit, ...]
    test: tuple[Unit, ...]


def hash_order(unit: Unit, seed: int) -> str:
    """Return the sort key of a unit within its layer: sha256 of network/layer/unit/seed."""
    return hashlib.sha256(f"{unit}/{seed}".encode()).hexdigest()


def partition(units: Iterable[Unit], seed: int = 0) -> Split:
    """Split any units within their network, stratified by layer.

    The units of each (network, layer) are sorted by `hash_order`; the first tenth, rounded to
    the nearest whole number (ties to even), is the test split.

    Example:
        >>> split = partition([Unit("mine", "conv1", i) for i in range(20)])
        >>> len(split.train), len(split.test)
        (18, 2)
    """
    units = tuple(units)
    layers: dict[tuple[str, str], list[Unit]] = {}
    for unit in units:
        layers.setdefault(unit[:2], []).append(unit)
    test: set[Unit] = set()
    for members in layers.values():
        ordered = sorted(members, key=lambda unit: hash_order(unit, seed))
        test.update(ordered[: round(len(members) / TEST_SHARE)])
    return Split(
        tuple(unit for unit in units if unit not in test),
        tuple(unit for unit in units if unit in test),
    )


def within(network: str, seed: int = 0) -> Split:
    """Return the official within-network split of a published network.

    Seed 0 is the `train` and `test` of every edition. Source: Hernandez et al. 2022, section 4,
    "within network" (90 % / 10 % of the units). The paper's own draws were never published, so
    these are the official ones.

    Raises:
        InputError: a network that is not in the catalog (use `partition` for your own units).

    Example:
        >>> split = within("resnet152-imagenet", seed=0)
        >>> len(split.train), len(split.test)
        (3514, 390)
    """
    network = canonical(network)
    if network not in NETWORKS:
        raise InputError(
            f"No published network '{network}'.{did_you_mean(network, NETWORKS)} "
            "See: milan list networks. For your own units: milannotations.splits.partition"
        )
    return partition(NETWORKS[network].units(), seed)
