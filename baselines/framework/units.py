"""Datasets of units for methods: opening them, their keys and exemplars, the blind control."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from typing import Any

from baselines.framework.context import Context
from milannotations.errors import InputError
from milannotations.schema import Unit

EXEMPLAR_COLUMNS = ("images", "masks", "source_ids", "activations", "threshold")
"""Columns that `shuffled_exemplars` permutes."""


def open_units(
    edition: str | os.PathLike[str],
    *,
    config: str | None = None,
    split: str | None = None,
    network: str | None = None,
    layers: str | Sequence[str] = (),
) -> Any:
    """Return the units of an edition that `describe` describes, with all columns.

    Args:
        edition, config, split, network, layers: see `describe`.

    Raises:
        InputError: unknown edition, config, split, network or layer.
    """
    from datasets import concatenate_datasets

    from milannotations.editions import loading

    opened = loading.load(edition, config, split)
    units = concatenate_datasets(list(opened.values())) if split is None else opened
    layers = [layers] if isinstance(layers, str) else list(layers)
    keys = unit_keys(units)
    for kind, requested, known in (
        ("network", [network] if network else [], [unit.network for unit in keys]),
        ("layer", layers, [unit.layer for unit in keys]),
    ):
        for name in requested:
            if name not in known:
                raise InputError(
                    f"No unit of {kind} '{name}' in {edition} "
                    f"({kind}s: {', '.join(dict.fromkeys(known))})."
                )
    if not network and not layers:
        return units
    return units.select(
        [
            i
            for i, unit in enumerate(keys)
            if network in (None, "", unit.network) and (not layers or unit.layer in layers)
        ]
    )


def open_training(edition: str | os.PathLike[str], config: str | None = None) -> Any | None:
    """Return the split `train` of an edition; None if it has none.

    An edition with a single config is opened whatever `config` is.

    Raises:
        InputError: unknown edition or config.
    """
    from milannotations.editions import loading
    from milannotations.editions.configs import list_configs

    single = len(list_configs(edition)) == 1
    return loading.load(edition, None if single else config).get("train")


def unit_keys(units: Any) -> list[Unit]:
    """Return the key of each row of a dataset of units."""
    columns = (units[name] for name in ("network", "layer", "unit"))
    return [Unit(*key) for key in zip(*columns, strict=True)]


def encoded_exemplars(units: Any, method: str) -> Iterator[tuple[Unit, dict[str, Any]]]:
    """Yield each unit with its images and masks as lists of {"bytes": ..., "path": ...}.

    Args:
        units: `datasets.Dataset` of units.
        method: name of the method, for the message.

    Raises:
        InputError: a unit without exemplars.
    """
    if not len(units):
        return
    keys = iter(unit_keys(units))
    # by Arrow: a dataset's own iterator would decode every image
    tables = units.select_columns(["images", "masks"]).with_format("arrow").iter(32)
    for unit, row in zip(keys, (row for table in tables for row in table.to_pylist()), strict=True):
        if row["images"] is None or row["masks"] is None:
            raise InputError(
                f"'{method}' looks at exemplars, and {unit} has none: this edition holds text only."
            )
        yield unit, row


def shuffled_exemplars(units: Any, seed: int = 0) -> Any:
    """Permute the exemplars of units at random within each layer: the blind control.

    A method that describes these exemplars knows nothing of the unit, so its descriptions have no
    lift. Within each (network, layer) the columns `EXEMPLAR_COLUMNS` are permuted together. About
    one unit per layer keeps its own exemplars: if none could, the expected lift would be
    -1/(n - 1) times the method's own instead of 0.

    Args:
        units: `datasets.Dataset` of units.
        seed: random seed of the permutations.

    Returns:
        `datasets.Dataset` with the same columns; the other columns are unchanged.
    """
    from datasets import Dataset
    from datasets.table import InMemoryTable

    keys = unit_keys(units)
    if not keys:
        return units
    layers: dict[tuple[str, str], list[int]] = {}
    for i, unit in enumerate(keys):
        layers.setdefault(unit[:2], []).append(i)
    draw = Context(seed=seed).draw
    source = [0] * len(keys)
    for rows in layers.values():
        # sorting by random numbers that depend on the unit's key is a permutation that does not
        # depend on the order of the rows
        permuted = sorted(rows, key=lambda i: draw("shuffle", keys[i], below=2**256))
        for i, j in zip(rows, permuted, strict=True):
            source[i] = j
    encoded = units.with_format("arrow")
    table, permuted_table = encoded[:], encoded[source]
    for name in EXEMPLAR_COLUMNS:
        table = table.set_column(table.column_names.index(name), name, permuted_table[name])
    return Dataset(InMemoryTable(table), info=units.info.copy(), split=units.split)
