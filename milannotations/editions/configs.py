"""Configs of an edition: list, pick and open them.

    EDITION/
      README.md                       the card; its front matter is the loader
      <config>/<split>.parquet        one folder per config (a network): text alone; or
      <config>/<split>-<layer>-00000.parquet, ...       with exemplars

A config's folder is written whole and renamed into place. The card is written last, from the
folders that exist, so that it never names a missing file.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from milannotations import catalog
from milannotations.editions.card import CARD, EditionCard
from milannotations.errors import InputError, did_you_mean

EMBEDDED = {"mini": Path(__file__).parent.parent}
"""Folders of the editions that ship with the package, by name."""


def locate(edition: str | os.PathLike[str]) -> Path:
    """Return the folder of an edition: of an embedded one by its name, else the path itself.

    Write a folder that has the name of an embedded edition as `./mini`.

    Raises:
        InputError: no such folder.

    Example:
        >>> locate("mini").name
        'milannotations'
    """
    folder = EMBEDDED.get(os.fspath(edition), Path(edition))
    if not folder.is_dir():
        raise InputError(
            f"No edition '{edition}'. Expected the name of an embedded edition "
            f"({', '.join(EMBEDDED)}) or a folder made by 'milan data annotations'."
            + did_you_mean(os.fspath(edition), EMBEDDED)
        )
    return folder


def check_embedded(name: str) -> None:
    """Raise InputError unless an edition of this name ships with the package."""
    if name not in EMBEDDED:
        raise InputError(
            f"No embedded edition '{name}' (embedded: {', '.join(EMBEDDED)})."
            + did_you_mean(name, EMBEDDED)
        )


def edition_name(edition: str | os.PathLike[str]) -> str:
    """Return the name of an edition for records: an embedded edition's name, or the folder's."""
    if os.fspath(edition) in EMBEDDED:
        return os.fspath(edition)
    folder = Path(edition).resolve()
    return next((name for name, path in EMBEDDED.items() if path == folder), folder.name)


def list_configs(edition: str | os.PathLike[str]) -> dict[str, list[str]]:
    """Return the splits of every config of an edition, from the card's front matter.

    Raises:
        InputError: the folder or its card is missing, or the card names no config.
    """
    return {config: list(patterns) for config, patterns in _patterns(edition).items()}


def list_files(edition: str | os.PathLike[str], config: str) -> dict[str, list[Path]]:
    """Return the parquet files of a config, by split and in order.

    Raises:
        InputError: see `list_configs`; the card names a file that does not exist.
    """
    folder = locate(edition)
    files: dict[str, list[Path]] = {}
    for split, patterns in _patterns(edition)[config].items():
        files[split] = []
        for pattern in patterns:
            paths = sorted(folder.glob(pattern))
            if not paths:
                raise InputError(f"{edition}: the card names {pattern}, and no such file exists.")
            files[split] += paths
    return files


def _patterns(edition: str | os.PathLike[str]) -> dict[str, dict[str, list[str]]]:
    return EditionCard.read(locate(edition)).patterns()


def pick_config(edition: str | os.PathLike[str], config: str | None) -> str:
    """Return the config to open: the one named (slashes accepted), or the only one.

    Raises:
        InputError: no such config, or several and none named.
    """
    known = list_configs(edition)
    if config is None:
        if len(known) > 1:
            raise InputError(
                f"{edition} has several configs ({', '.join(known)}). Choose one with --config."
            )
        return next(iter(known))
    config = catalog.canonical(config)
    if config not in known:
        raise InputError(
            f"No config '{config}' in {edition} (configs: {', '.join(known)})."
            + did_you_mean(config, known)
        )
    return config


def open_config(
    edition: str | os.PathLike[str],
    config: str,
    split: str | None = None,
    *,
    columns: list[str] | None = None,
    streaming: bool = False,
    filters: Any = None,
) -> Any:
    """Open an existing config with `datasets.load_dataset`.

    Args:
        edition, split, columns, streaming: as `milannotations.load`.
        config: one of `list_configs`.
        filters: conditions on columns, as in `pyarrow.parquet.read_table`.

    Raises:
        InputError: a file is damaged or missing.
    """
    import datasets

    options = {} if filters is None else {"filters": filters}
    try:
        return datasets.load_dataset(
            str(locate(edition)),
            config,
            split=split,
            columns=columns,
            streaming=streaming,
            **options,
        )
    except (datasets.exceptions.DatasetGenerationError, OSError, ValueError) as error:
        cause = error.__cause__ or error
        raise InputError(
            f"{edition}, config {config}, cannot be read: {str(cause).splitlines()[0][:200]} "
            f"A file is damaged or missing. Make the edition again: {_command(edition)}."
        ) from error


def _command(edition: str | os.PathLike[str]) -> str:
    """Return the command that makes an edition."""
    card = locate(edition) / CARD
    if "the card of the edition mini" in card.read_text(encoding="utf-8"):
        return "milan data build mini --out DIR"
    return "milan data annotations or milan data prepare, with --overwrite"
