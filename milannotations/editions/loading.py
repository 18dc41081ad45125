"""Loading of editions: whole configs and conditions with `datasets`, single units directly."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

from milannotations import schema
from milannotations.editions.configs import list_configs, list_files, open_config, pick_config
from milannotations.errors import InputError, did_you_mean, some

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy as np
    from numpy.typing import NDArray

    from milannotations.splits import Split


def load(
    edition: str | os.PathLike[str],
    config: str | None = None,
    split: str | None = None,
    *,
    condition: str | Split | None = None,
    columns: list[str] | None = None,
    streaming: bool = False,
) -> Any:
    """Open an edition with `datasets.load_dataset`; slashes in config names are accepted.

    Args:
        edition: folder of the edition, or the name of an embedded one (`mini`).
        config: network or union; may be left out if there is only one.
        split: `train`, `test`, `train+test`, ...; None returns every split in a dict.
        condition: an official split (`across-network/alexnet-to-resnet152`; see `milan list
            splits`) or a `Split` of your own, instead of `config`: `train` and `test` are then
            its units, from the configs that hold them. See `editions.conditions`.
        columns: read only these columns.
        streaming: read rows as they are asked for.

    Returns:
        `datasets.Dataset`, `DatasetDict` or their iterable forms, as `load_dataset` does.

    Raises:
        InputError: no such edition, config, split, column or condition; `config` beside a
            `condition`; an edition without the condition's networks.

    Example:
        >>> load("mini", split="test", columns=["truth"]).column_names
        ['truth']
    """
    unknown = [name for name in columns or () if name not in schema.COLUMNS]
    if unknown:
        raise InputError(f"No column '{unknown[0]}' (columns: {', '.join(schema.COLUMNS)}).")
    if condition is not None:
        from milannotations.editions.conditions import load_condition

        if config is not None:
            raise InputError(f"A condition names its networks itself. Leave out {config!r}.")
        return load_condition(edition, condition, split, columns=columns, streaming=streaming)
    config = pick_config(edition, config)
    splits = list_configs(edition)[config]
    for part in () if split is None else split.split("+"):
        name, bracket, rest = part.partition("[")
        if name not in splits or (bracket and not rest.endswith("]")):
            raise InputError(
                f"No split '{part}' in {edition}, config {config} (splits: {', '.join(splits)})."
            )
    return open_config(edition, config, split, columns=columns, streaming=streaming)


def select(
    edition: str | os.PathLike[str],
    network: str | None = None,
    layer: str | None = None,
    unit: int | None = None,
    *,
    config: str | None = None,
    split: str | None = None,
    count: int | None = None,
    seed: int = 0,
) -> Any:
    """Return some units of an edition, with every column, as a `datasets.Dataset`.

    Only the row groups that hold the units are read from the parquet files; the edition is not
    copied into the cache of `datasets` first.

    Args:
        edition: as `load`.
        network: only units of this network.
        layer: only units of this layer.
        unit: only this index.
        config: config of the edition; may be left out if there is only one.
        split: split, or several joined by `+` (default: all).
        count: draw this many units with `seed`, kept in the order of the edition; None returns
            all.
        seed: random seed of the draw.

    Raises:
        InputError: see `load`; no such network, layer or unit.
    """
    import datasets
    import numpy as np
    import pandas as pd
    import pyarrow as pa
    import pyarrow.parquet as parquet

    config = pick_config(edition, config)
    files = list_files(edition, config)
    splits = split.split("+") if split else list(files)
    unknown = [part for part in splits if part not in files]
    if unknown:
        raise InputError(
            f"No split '{unknown[0]}' in {edition}, config {config} (splits: {', '.join(files)})."
        )
    paths = [path for part in splits for path in files[part]]
    try:
        keys = pd.concat(
            [parquet.read_table(path, columns=list(schema.KEYS)).to_pandas() for path in paths],
            ignore_index=True,
        )
    except (pa.ArrowException, OSError, KeyError) as error:
        raise InputError(f"{edition}: a file is damaged: {str(error).splitlines()[0]}") from None
    for name, wanted in zip(schema.KEYS, (network, layer, unit), strict=True):
        if wanted is None:
            continue
        known = sorted(keys[name].unique().tolist())
        keys = keys[keys[name] == wanted]
        if keys.empty:
            listed = some(known) if name == "unit" else ", ".join(map(str, known))
            raise InputError(
                f"No {name} '{wanted}' in {edition} ({name}s: {listed})."
                + (did_you_mean(wanted, known) if isinstance(wanted, str) else "")
            )
    rows = keys.index.to_numpy()
    if count is not None and count < len(rows):
        drawn = np.random.default_rng(seed).choice(len(rows), count, replace=False)
        rows = rows[np.sort(drawn)]
    states = [(str(path.resolve()), path.stat().st_mtime_ns) for path in paths]
    try:
        table = _read_rows(paths, rows)
    except (pa.ArrowException, OSError) as error:
        raise InputError(f"{edition}: a file is damaged: {str(error).splitlines()[0]}") from None
    return datasets.Dataset(
        datasets.table.InMemoryTable(table),
        # without a fingerprint `datasets` would pickle every image to make one
        fingerprint=datasets.fingerprint.Hasher.hash((states, rows.tolist())),
    )


def _read_rows(paths: Sequence[Path], rows: NDArray[np.int64]) -> Any:
    """Return rows of several parquet files as one arrow table.

    Args:
        paths: the files, at least one.
        rows: row numbers, counted through all files, ascending.
    """
    import numpy as np
    import pyarrow as pa
    import pyarrow.parquet as parquet

    tables, begin = [], 0
    for path in paths:
        with parquet.ParquetFile(path, pre_buffer=False) as file:
            for group in range(file.num_row_groups):
                end = begin + file.metadata.row_group(group).num_rows
                inside = rows[np.searchsorted(rows, begin) : np.searchsorted(rows, end)]
                if len(inside):
                    tables.append(file.read_row_group(group).take(pa.array(inside - begin)))
                begin = end
            empty = file.schema_arrow.empty_table()
    return pa.concat_tables(tables) if tables else empty
