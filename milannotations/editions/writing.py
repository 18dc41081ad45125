"""Writing of text-only configs, and the check that a config may be written into a folder."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from milannotations import catalog, schema
from milannotations.editions.card import CARD, MARK, write_card
from milannotations.editions.configs import list_configs
from milannotations.editions.contents import is_config_file, read_configs
from milannotations.errors import InputError
from milannotations.utils.files import replacing

DICTIONARY_PAGE = 1 << 28
"""Most bytes of a column's dictionary within a row group."""


def write_config(
    edition: str | os.PathLike[str],
    config: str,
    rows: dict[str, list[dict[str, Any]]],
    *,
    overwrite: bool = False,
) -> Path:
    """Write `rows` (by split) as a config of an edition, and the card again.

    A split without rows is left out.

    Returns:
        The config's folder.

    Raises:
        InputError: `edition` is a folder of something else, or has this config
            already and `overwrite` is False.
    """
    edition, config = Path(edition), catalog.canonical(config)
    check_destination(edition, config, overwrite=overwrite)
    with replacing(edition / config) as folder:
        folder.mkdir()
        for split, members in rows.items():
            if members:  # `datasets` refuses to open a split without a row
                write_parquet(members, folder / f"{split}.parquet")
    write_card(edition)
    return edition / config


def check_destination(edition: Path, config: str, *, overwrite: bool = False) -> None:
    """Raise InputError unless a config of this name may be written into this folder.

    Raises:
        InputError: see `write_config`; a config beside it is damaged; the name is a union's.
    """
    if config in catalog.GROUPS:
        raise InputError(
            f"'{config}' is the name of the union of {', '.join(catalog.GROUPS[config])}. "
            "Give the network another name."
        )
    if any(character in str(edition.resolve()) for character in "[]*?"):
        raise InputError(
            f"{edition}: 'datasets' reads [ ] * ? in a path as patterns. Rename the folder."
        )
    if edition.exists() and not edition.is_dir():
        raise InputError(f"{edition} is a file; an edition is a folder. Give another --out.")
    if edition.is_dir() and not _is_unfinished(edition):
        known = list_configs(edition)  # refuses a folder that holds something else
        if MARK not in (edition / CARD).read_text(encoding="utf-8"):
            raise InputError(
                f"{edition} holds a dataset that was not made by this package, and its {CARD} "
                "would be overwritten. Give another --out."
            )
        if config in known and not overwrite:
            raise InputError(
                f"{edition} has {config} already. Give another --out, or --overwrite to replace it."
            )
        if config not in known:
            read_configs(edition)  # finds a damaged one before anything is written


def write_parquet(rows: Sequence[dict[str, Any]], path: str | os.PathLike[str]) -> None:
    """Write complete rows as one parquet file of one row group, whole or not at all.

    An image that several units share is stored once: parquet keeps a dictionary of the values
    of a row group, as long as the dictionary fits its page.
    """
    import pyarrow as pa
    import pyarrow.parquet as parquet

    # the arrow schema carries the `datasets` features, so that load_dataset need not infer them
    table = pa.Table.from_pylist(list(rows), schema=schema.features().arrow_schema)
    with replacing(path) as temporary:
        parquet.write_table(
            table,
            temporary,
            row_group_size=max(1, len(rows)),
            dictionary_pagesize_limit=DICTIONARY_PAGE,
            compression="zstd",
            compression_level=9,
        )


def _is_unfinished(edition: Path) -> bool:
    """Return whether a folder is empty, or holds configs whose card was never written."""
    return all(
        path.is_dir() and all(is_config_file(file.name) for file in path.iterdir())
        for path in edition.iterdir()
        if not path.name.startswith(".")
    )
