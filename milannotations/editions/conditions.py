"""Units of a condition (an official split), from the configs of an edition that hold them."""

from __future__ import annotations

import os
import warnings
from collections.abc import Sequence
from typing import Any

from milannotations import splits
from milannotations.editions.configs import list_configs, open_config
from milannotations.errors import InputError, did_you_mean, some
from milannotations.schema import KEYS, Unit
from milannotations.splits import Split


def load_condition(
    edition: str | os.PathLike[str],
    condition: str | Split,
    split: str | None = None,
    *,
    columns: list[str] | None = None,
    streaming: bool = False,
) -> Any:
    """Load the rows of an edition that hold the units of a split.

    Rows come in the order of the split's units, as indices into the memory-mapped files:
    nothing is copied. Streamed rows come in the order of the edition, config by config, and
    missing units are not reported.

    Args:
        edition: as `milannotations.load`; each network is a config of its own name.
        condition: name of an official split, or a `Split` of any units.
        split: `train` or `test`; None returns both in a dict.
        columns, streaming: as `milannotations.load`.

    Raises:
        InputError: no such condition or split; the edition has no config for one of the
            networks, or none of the units.

    Warns:
        UserWarning: the edition holds only some of the units; those are returned.
    """
    import datasets

    name = condition if isinstance(condition, str) else "the given split"
    chosen = splits.split(condition) if isinstance(condition, str) else condition
    if split not in (None, *Split._fields):
        raise InputError(
            f"No split '{split}' in {name} (splits: train, test; leave it out for both)."
            + did_you_mean(str(split), Split._fields)
        )
    parts = {
        part: _group_by_network(units)
        for part, units in chosen._asdict().items()
        if split in (None, part)
    }
    for part, units in parts.items():
        if not units:
            raise InputError(f"{name} has no units in {part}.")
    _check_configs(edition, name, [network for units in parts.values() for network in units])
    rows = datasets.IterableDatasetDict() if streaming else datasets.DatasetDict()
    for part, units in parts.items():
        if streaming:
            rows[part] = _stream(edition, units, columns)
        else:
            rows[part] = _map(edition, f"{part} units of {name}", units, columns)
    return rows if split is None else rows[split]


def _group_by_network(units: Sequence[Unit]) -> dict[str, list[Unit]]:
    networks: dict[str, list[Unit]] = {}
    for unit in units:
        networks.setdefault(unit.network, []).append(unit)
    return networks


def _check_configs(edition: str | os.PathLike[str], name: str, networks: list[str]) -> None:
    known = list_configs(edition)
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
    """Return the rows of the units in their order, without a copy."""
    import datasets

    needed = None if columns is None else [*columns, *(key for key in KEYS if key not in columns)]
    parts, missing = [], []
    for network, units in networks.items():
        rows = datasets.concatenate_datasets(
            list(open_config(edition, network, columns=needed).values())
        )
        keys = rows.select_columns(list(KEYS)).with_format("arrow")[:].to_pydict()
        index_of = {key: i for i, key in enumerate(zip(*(keys[key] for key in KEYS), strict=True))}
        indices = [index_of[unit] for unit in units if unit in index_of]
        missing += [unit for unit in units if unit not in index_of]
        if indices:
            parts.append(rows.select(indices))
    n_units = sum(map(len, networks.values()))
    if not parts:
        raise InputError(f"{edition} holds none of the {n_units:,} {name}: {some(missing)}.")
    if missing:
        warnings.warn(
            f"{edition} holds {n_units - len(missing):,} of the {n_units:,} {name}; "
            f"missing: {some(missing)}.",
            stacklevel=4,  # the caller of `load`
        )
    rows = datasets.concatenate_datasets(parts)
    return rows if columns is None else rows.select_columns(columns)


def _stream(
    edition: str | os.PathLike[str], networks: dict[str, list[Unit]], columns: list[str] | None
) -> Any:
    import datasets

    known = list_configs(edition)
    return datasets.concatenate_datasets(
        [
            open_config(
                edition, network, part, columns=columns, streaming=True, filters=_filters(units)
            )
            for network, units in networks.items()
            for part in known[network]
        ]
    )


def _filters(units: Sequence[Unit]) -> list[list[tuple[str, str, Any]]]:
    """Return row filters for the parquet reader: an OR over layers of ANDed conditions."""
    layers: dict[str, list[int]] = {}
    for unit in units:
        layers.setdefault(unit.layer, []).append(unit.unit)
    return [[("layer", "==", layer), ("unit", "in", indices)] for layer, indices in layers.items()]
