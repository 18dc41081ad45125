"""Editions: folders that `datasets.load_dataset` opens.

    EDITION/
      README.md                       the card; its front matter is the loader
      <config>/<split>.parquet        one folder a config (a network), of text alone
      <config>/<split>-<layer>-00000.parquet, ...   or with exemplars, converted (`release`)

A config's folder is written whole and renamed into place; the card is written
last, from the folders that are there, so that it never names a missing file.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from milannotations import catalog, schema
from milannotations.errors import InputError, did_you_mean, some
from milannotations.utils.files import replacing

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy as np
    from numpy.typing import NDArray

    from milannotations.splits import Split

EMBEDDED = {"mini": Path(__file__).parent.parent}
"""Editions that ship with the package, by name: the folder of each."""

SPLITS = ("train", "validation", "test")
DICTIONARY_PAGE = 1 << 28
"""Bytes that the dictionary of a column may take within a row group."""

MARK = "made by milannotations; written anew whenever a config is added"
"""Stands in the card of every edition made here."""


def locate(edition: str | os.PathLike[str]) -> Path:
    """Return the folder of an edition: of an embedded one by its name, else the path itself.

    A folder that has the name of an embedded edition is given as `./mini`.

    Raises:
        InputError: no such folder.

    Example:
        >>> locate("mini").name
        'milannotations'
    """
    folder = EMBEDDED.get(os.fspath(edition), Path(edition))
    if not folder.is_dir():
        raise InputError(
            f"No edition '{edition}': the name of an embedded one ({', '.join(EMBEDDED)}) or a "
            f"folder made by 'milan data annotations' was expected."
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


def name_of(edition: str | os.PathLike[str]) -> str:
    """Return the name of an edition for records: an embedded one's own, else its folder's."""
    if os.fspath(edition) in EMBEDDED:
        return os.fspath(edition)
    folder = Path(edition).resolve()
    return next((name for name, at in EMBEDDED.items() if at == folder), folder.name)


def configs(edition: str | os.PathLike[str]) -> dict[str, list[str]]:
    """Return the configs of an edition, each with its splits, from the card's front matter.

    Raises:
        InputError: the folder or its card is missing, or the card names no config.
    """
    return {config: list(patterns) for config, patterns in _patterns(edition).items()}


def files(edition: str | os.PathLike[str], config: str) -> dict[str, list[Path]]:
    """Return the parquet files of a config, by split and in order; see `configs`.

    Raises:
        InputError: the card names a file that is not there.
    """
    root, found = locate(edition), {}
    for split, patterns in _patterns(edition)[config].items():
        found[split] = [path for pattern in patterns for path in sorted(root.glob(pattern))]
        missing = [pattern for pattern in patterns if not any(root.glob(pattern))]
        if missing:
            raise InputError(f"{edition}: the card names {missing[0]}, and there is no such file.")
    return found


def _patterns(edition: str | os.PathLike[str]) -> dict[str, dict[str, list[str]]]:
    """Return config to split to the patterns of its files, from the card's front matter."""
    card = locate(edition) / "README.md"
    if not card.is_file():
        raise InputError(f"{edition} is not an edition: it has no README.md with its configs.")
    try:
        front = yaml.safe_load(card.read_text(encoding="utf-8").split("---\n", 2)[1])
        named = {
            str(entry["config_name"]): {
                str(file["split"]): [file["path"]]
                if isinstance(file["path"], str)
                else file["path"]
                for file in entry["data_files"]
            }
            for entry in front["configs"]
        }
    except (yaml.YAMLError, UnicodeDecodeError, IndexError, KeyError, TypeError):
        named = {}
    if not named:
        raise InputError(f"{card} names no configs in its front matter; is it an edition's card?")
    return named


def pick_config(edition: str | os.PathLike[str], config: str | None) -> str:
    """Return the config to open: the one named (slashes allowed), or the only one.

    Raises:
        InputError: no such config, or several and none named.
    """
    known = configs(edition)
    if config is None:
        if len(known) > 1:
            raise InputError(
                f"{edition} has the configs {', '.join(known)}; say which with --config."
            )
        return next(iter(known))
    config = catalog.canonical(config)
    if config not in known:
        raise InputError(
            f"No config '{config}' in {edition} (configs: {', '.join(known)})."
            + did_you_mean(config, known)
        )
    return config


def load(
    edition: str | os.PathLike[str],
    config: str | None = None,
    split: str | None = None,
    *,
    condition: str | Split | None = None,
    columns: list[str] | None = None,
    streaming: bool = False,
) -> Any:
    """Open an edition with `datasets.load_dataset`, with the slash form of names accepted.

    Args:
        edition: folder of the edition, or the name of an embedded one (`mini`).
        config: network or union; may be left out where there is only one.
        split: `train`, `test`, `train+test`, ...; None returns every split in a dict.
        condition: an official split (`across-network/alexnet-to-resnet152`; see `milan list
            splits`) or a `Split` of your own, instead of `config`: `train` and `test` are then
            its units, from the configs that hold them. See `splits.opening`.
        columns: only these columns are read from disk.
        streaming: rows are read as they are asked for.

    Returns:
        `datasets.Dataset`, `DatasetDict` or their iterable forms, as `load_dataset` does.

    Raises:
        InputError: no such edition, config, split, column or condition; `config` beside a
            `condition`; an edition without the condition's networks.

    Example:
        >>> load("mini", split="test", columns=["truth"]).column_names
        ['truth']
    """
    import datasets

    unknown = [name for name in columns or () if name not in schema.COLUMNS]
    if unknown:
        raise InputError(f"No column '{unknown[0]}' (columns: {', '.join(schema.COLUMNS)}).")
    if condition is not None:
        from milannotations.splits.opening import open_split

        if config is not None:
            raise InputError(f"A condition names its networks itself: leave out {config!r}.")
        return open_split(edition, condition, split, columns=columns, streaming=streaming)
    config = pick_config(edition, config)
    available = configs(edition)[config]
    for part in () if split is None else split.split("+"):
        name, bracket, rest = part.partition("[")
        if name not in available or (bracket and not rest.endswith("]")):
            raise InputError(
                f"No split '{part}' in {edition}, config {config} (splits: {', '.join(available)})."
            )
    folder = locate(edition)
    try:
        return datasets.load_dataset(
            str(folder), config, split=split, columns=columns, streaming=streaming
        )
    except (datasets.exceptions.DatasetGenerationError, OSError, ValueError) as error:
        cause = error.__cause__ or error
        raise InputError(
            f"{edition}, config {config}, cannot be read: {str(cause).splitlines()[0][:200]} "
            f"A file is damaged or missing; make the edition anew ({_maker(edition)})."
        ) from error


def _maker(edition: str | os.PathLike[str]) -> str:
    """Return the command that makes an edition."""
    card = locate(edition) / "README.md"
    if "the card of the edition mini" in card.read_text(encoding="utf-8"):
        return "milan data build mini --out DIR"
    return "milan data annotations or milan data prepare, with --overwrite"


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
    """Return some units of an edition with everything known of them, as a `datasets.Dataset`.

    They are read from the parquet files, a row group at a time, and nothing else of the edition
    is: it need not be copied into the cache of `datasets` first.

    Args:
        edition, config: as `load`.
        split: one, or several joined by +; every split unless told.
        network, layer, unit: only these.
        count: draw this many, seeded, in order of the edition; None returns all.
        seed: of the draw.

    Raises:
        InputError: see `load`; no such network, layer or unit.
    """
    import datasets
    import numpy as np
    import pandas as pd
    import pyarrow as pa
    import pyarrow.parquet as parquet

    config = pick_config(edition, config)
    by_split = files(edition, config)
    wrong = [part for part in split.split("+") if part not in by_split] if split else []
    if wrong:
        raise InputError(
            f"No split '{wrong[0]}' in {edition}, config {config} (splits: {', '.join(by_split)})."
        )
    paths = [path for part in (split.split("+") if split else by_split) for path in by_split[part]]
    try:
        keys = pd.concat(
            [
                parquet.read_table(path, columns=["network", "layer", "unit"]).to_pandas()
                for path in paths
            ],
            ignore_index=True,
        )
    except (pa.ArrowException, OSError, KeyError) as error:
        raise InputError(f"{edition}: a file is damaged: {str(error).splitlines()[0]}") from None
    for name, wanted in (("network", network), ("layer", layer), ("unit", unit)):
        if wanted is None:
            continue
        known = sorted(keys[name].unique().tolist())
        keys = keys[keys[name] == wanted]
        if keys.empty:
            some_known = some(known) if name == "unit" else ", ".join(map(str, known))
            raise InputError(
                f"No {name} '{wanted}' in {edition} ({name}s: {some_known})."
                + (did_you_mean(wanted, known) if isinstance(wanted, str) else "")
            )
    chosen = keys.index.to_numpy()
    if count is not None and count < len(chosen):
        drawn = np.random.default_rng(seed).choice(len(chosen), count, replace=False)
        chosen = chosen[np.sort(drawn)]
    states = [(str(path.resolve()), path.stat().st_mtime_ns) for path in paths]
    try:
        rows = _rows_at(paths, chosen)
    except (pa.ArrowException, OSError) as error:
        raise InputError(f"{edition}: a file is damaged: {str(error).splitlines()[0]}") from None
    return datasets.Dataset(
        datasets.table.InMemoryTable(rows),
        # else `datasets` pickles every picture to make one up
        fingerprint=datasets.fingerprint.Hasher.hash((states, chosen.tolist())),
    )


def _rows_at(paths: Sequence[Path], positions: NDArray[np.int64]) -> Any:
    """Return rows of several parquet files, counted through, as an arrow table.

    Args:
        paths: the files, at least one.
        positions: ascending.
    """
    import numpy as np
    import pyarrow as pa
    import pyarrow.parquet as parquet

    found, begin = [], 0
    for path in paths:
        with parquet.ParquetFile(path, pre_buffer=False) as file:
            for group in range(file.num_row_groups):
                end = begin + file.metadata.row_group(group).num_rows
                inside = positions[
                    np.searchsorted(positions, begin) : np.searchsorted(positions, end)
                ]
                if len(inside):
                    found.append(file.read_row_group(group).take(pa.array(inside - begin)))
                begin = end
            empty = file.schema_arrow.empty_table()
    return pa.concat_tables(found) if found else empty


def write_config(
    edition: str | os.PathLike[str],
    config: str,
    rows: dict[str, list[dict[str, Any]]],
    *,
    overwrite: bool = False,
) -> Path:
    """Write `rows` (split to rows) as a config of an edition, and the card anew.

    A split without rows is left out.

    Returns:
        The config's folder.

    Raises:
        InputError: `edition` is a folder of something else, or has this config
            already and `overwrite` is False.
    """
    from milannotations.editions import card as cards

    edition, config = Path(edition), catalog.canonical(config)
    check_place(edition, config, overwrite=overwrite)
    with replacing(edition / config) as folder:
        folder.mkdir()
        for split, members in rows.items():
            if members:  # `datasets` refuses to open a split without a row
                write_parquet(members, folder / f"{split}.parquet")
    cards.write(edition)
    return edition / config


def check_place(edition: Path, config: str, *, overwrite: bool = False) -> None:
    """Raise InputError unless a config of this name may be written into this folder.

    Raises:
        InputError: see `write_config`; a damaged config stands beside; the name is a union's.
    """
    from milannotations.editions import card as cards

    if config in catalog.GROUPS:
        raise InputError(
            f"'{config}' is the union of {', '.join(catalog.GROUPS[config])}; "
            "give a network another name."
        )
    if any(character in str(edition.resolve()) for character in "[]*?"):
        raise InputError(f"{edition}: 'datasets' takes [ ] * ? in a path for patterns; rename it.")
    if edition.exists() and not edition.is_dir():
        raise InputError(f"{edition} is a file; an edition is a folder. Give another --out.")
    if edition.is_dir() and not _is_unfinished(edition):
        known = configs(edition)  # refuses a folder that holds something else
        if MARK not in (edition / "README.md").read_text(encoding="utf-8"):
            raise InputError(
                f"{edition} holds a data set that was not made here, and its README.md would be "
                "written anew. Give another --out."
            )
        if config in known and not overwrite:
            raise InputError(
                f"{edition} has {config} already. Give another --out, or --overwrite to replace it."
            )
        if config not in known:
            cards.configs(edition)  # a damaged one is found before anything is written


def write_parquet(rows: Sequence[dict[str, Any]], path: str | os.PathLike[str]) -> None:
    """Write complete rows as one parquet file of one row group, whole or not at all.

    A picture that many units show costs its bytes once: parquet keeps a dictionary of the
    values of a row group, as long as the dictionary's page may grow to hold them.
    """
    import pyarrow as pa
    import pyarrow.parquet as parquet

    # the arrow schema carries the features with it, so load_dataset need not guess
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
    """Say whether a folder holds nothing, or configs whose writing stopped before the card."""
    from milannotations.editions.card import is_ours

    return all(
        path.is_dir() and all(is_ours(file.name) for file in path.iterdir())
        for path in edition.iterdir()
        if not path.name.startswith(".")
    )
