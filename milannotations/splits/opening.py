"""Open the units of a split from the configs of an edition that hold them."""

from __future__ import annotations

import os
import warnings
from collections.abc import Sequence
from typing import Any

from milannotations.editions import loading
from milannotations.errors import InputError, did_you_mean, some
from milannotations.schema import Unit
from milannotations.splits.hashing import Split
from milannotations.splits.official import split as official

KEYS = ["network", "layer", "unit"]


def open_split(
    edition: str | os.PathLike[str],
    condition: str | Split,
    split: str | None = None,
    *,
    columns: list[str] | None = None,
    streaming: bool = False,
) -> Any:
    """Return the rows of an edition that hold the units of a split.

    Rows come in the order of the split's units, as indices into what `datasets` maps from
    disk: nothing is copied. Streamed rows come in the order of the edition, config by
    config, and units that the edition lacks are not counted.

    Args:
        edition: as `milannotations.load`; each network is a config of its own name.
        condition: name of an official split, or a `Split` of any units.
        split: `train` or `test`; None returns both in a dict.
        columns, streaming: as `milannotations.load`.

    Raises:
        InputError: no such condition or split; a network that the edition has no config
            of; an edition with none of the units.

    Warns:
        UserWarning: the edition holds only some of the units; they are what is returned.
    """
    import datasets

    name = condition if isinstance(condition, str) else "the given split"
    chosen = official(condition) if isinstance(condition, str) else condition
    if split not in (None, *Split._fields):
        raise InputError(
            f"No split '{split}' in {name} (splits: train, test; None opens both)."
            + did_you_mean(str(split), Split._fields)
        )
    sides = {
        side: _by_network(units)
        for side, units in chosen._asdict().items()
        if split in (None, side)
    }
    for side, units in sides.items():
        if not units:
            raise InputError(f"{name} has no units in {side}.")
    _check_configs(edition, name, [network for units in sides.values() for network in units])
    made = datasets.IterableDatasetDict() if streaming else datasets.DatasetDict()
    for side, units in sides.items():
        if streaming:
            made[side] = _stream(edition, units, columns)
        else:
            made[side] = _map(edition, f"{side} units of {name}", units, columns)
    return made if split is None else made[split]


def _by_network(units: Sequence[Unit]) -> dict[str, list[Unit]]:
    networks: dict[str, list[Unit]] = {}
    for unit in units:
        networks.setdefault(unit.network, []).append(unit)
    return networks


def _check_configs(edition: str | os.PathLike[str], name: str, networks: list[str]) -> None:
    known = loading.configs(edition)
    missing = [network for network in dict.fromkeys(networks) if network not in known]
    if missing:
        raise InputError(
            f"{name} needs {', '.join(missing)}, and {edition} has {', '.join(known)}. "
            f"Add what is missing: milan data prepare {' '.join(missing)} --out {edition}"
        )


def _map(
    edition: str | os.PathLike[str],
    name: str,
    networks: dict[str, list[Unit]],
    columns: list[str] | None,
) -> Any:
    import datasets

    wanted = None if columns is None else [*columns, *(key for key in KEYS if key not in columns)]
    parts, absent = [], []
    for network, units in networks.items():
        opened = loading.load(edition, network, columns=wanted)
        rows = datasets.concatenate_datasets(list(opened.values()))
        keys = rows.select_columns(KEYS).with_format("arrow")[:].to_pydict()
        at = {key: i for i, key in enumerate(zip(*(keys[key] for key in KEYS), strict=True))}
        found = [at[unit] for unit in units if unit in at]
        absent += [unit for unit in units if unit not in at]
        if found:
            parts.append(rows.select(found))
    count = sum(map(len, networks.values()))
    if not parts:
        raise InputError(f"{edition} holds none of the {count:,} {name}: {some(absent)}.")
    if absent:
        warnings.warn(
            f"{edition} holds {count - len(absent):,} of the {count:,} {name}; "
            f"not there: {some(absent)}.",
            stacklevel=4,  # the caller of `load`
        )
    made = datasets.concatenate_datasets(parts)
    return made if columns is None else made.select_columns(columns)


def _stream(
    edition: str | os.PathLike[str], networks: dict[str, list[Unit]], columns: list[str] | None
) -> Any:
    import datasets

    folder, known = str(loading.locate(edition)), loading.configs(edition)
    return datasets.concatenate_datasets(
        [
            datasets.load_dataset(
                folder,
                network,
                split=part,
                columns=columns,
                streaming=True,
                filters=_filters(units),
            )
            for network, units in networks.items()
            for part in known[network]
        ]
    )


def _filters(units: Sequence[Unit]) -> list[list[tuple[str, str, Any]]]:
    """Return any-of-all-of conditions on the columns, which the parquet reader applies."""
    layers: dict[str, list[int]] = {}
    for unit in units:
        layers.setdefault(unit.layer, []).append(unit.unit)
    return [[("layer", "==", layer), ("unit", "in", at)] for layer, at in layers.items()]
