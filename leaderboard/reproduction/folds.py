"""Folds of tables 2 and 3: the units that a model is trained on, chosen on and tested on."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from leaderboard.reproduction.paper_scores import PAPER
from milannotations import catalog, splits
from milannotations.editions import loading
from milannotations.editions.configs import list_configs
from milannotations.errors import InputError
from milannotations.schema import Unit


@dataclass(frozen=True)
class Fold:
    """Training, validation and test units, as row indices of the edition."""

    name: str
    train: tuple[int, ...]
    validation: tuple[int, ...]
    test: tuple[int, ...]


def open_all_units(data: str) -> Any:
    """Return all units of an edition, each config once, with their split in column `split`."""
    from datasets import concatenate_datasets

    parts = []
    for config in list_configs(data):
        if config in catalog.GROUPS:  # a group repeats the units of its networks
            continue
        for split, rows in loading.load(data, config).items():
            parts.append(rows.add_column("split", [str(split)] * len(rows)))
    return concatenate_datasets(parts)


def create_folds(table: str, units: Any) -> list[Fold]:
    """Return the folds of a table: the paper's for published networks, else the same kinds.

    Args:
        table: `table2` or `table3`.
        units: see `open_all_units`.

    Raises:
        InputError: an edition of one network; networks that the table needs are missing.
    """
    keys = [Unit(*key) for key in zip(units["network"], units["layer"], units["unit"], strict=True)]
    described = [any(texts) for texts in units["descriptions"]]
    networks = list(dict.fromkeys(key.network for key in keys))
    if set(networks) & set(catalog.NETWORKS):
        return list(published_folds(table, keys, described, networks))
    parts = {
        (network, split): tuple(
            i
            for i, (key, unit_split) in enumerate(zip(keys, units["split"], strict=True))
            if described[i] and key.network == network and unit_split == split
        )
        for network in networks
        for split in ("train", "validation", "test")
    }
    if len(networks) < 2:
        raise InputError(
            f"The edition has one network ({networks[0]}), and the tables compare networks. Give "
            "another one: --data EDITION."
        )

    def fold(name: str, sources: Sequence[str], target: str) -> Fold:
        train, validation = (
            tuple(i for source in sources for i in parts[source, split])
            for split in ("train", "validation")
        )
        return _hold_out(name, train, validation, parts[target, "test"])

    if table == "table2":
        return [
            fold(target, [name for name in networks if name != target], target)
            for target in networks
        ]
    return [
        *(fold(f"within-network/{name}", [name], name) for name in networks),
        *(
            fold(f"across-network/{source}-to-{target}", [source], target)
            for source in networks
            for target in networks
            if source != target
        ),
    ]


def published_folds(
    table: str, keys: Sequence[Unit], described: Sequence[bool], networks: Sequence[str]
) -> Iterator[Fold]:
    """Yield the paper's conditions whose networks are all in the edition.

    Args:
        table: `table2` or `table3`.
        keys: unit of each row.
        described: whether humans described it.
        networks: networks of the edition.

    Raises:
        InputError: no condition has all its networks.
    """
    rows = {key: i for i, key in enumerate(keys) if described[i]}
    count = 0
    for name in PAPER[table]:
        split = splits.split(f"leave-one-out/{name}" if table == "table2" else name)
        if {unit.network for unit in (*split.train, *split.test)} <= set(networks):
            train, test = (
                tuple(rows[unit] for unit in side if unit in rows)
                for side in (split.train, split.test)
            )
            count += 1
            yield _hold_out(name, train, (), test)
    if not count:
        raise InputError(
            f"{table} needs more published networks than {', '.join(networks)}. Prepare them: "
            "milan data prepare base --download --out EDITION"
        )


def _hold_out(
    name: str, train: tuple[int, ...], validation: tuple[int, ...], test: tuple[int, ...]
) -> Fold:
    """Return a fold; without validation units, a seeded tenth of the training units is held out."""
    if not validation:
        order = np.random.default_rng(0).permutation(len(train))
        count = max(1, len(train) // 10)
        validation = tuple(sorted(train[i] for i in order[:count]))
        train = tuple(sorted(train[i] for i in order[count:]))
    return Fold(name, train, validation, test)
