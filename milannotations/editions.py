"""Editions: folders that `datasets.load_dataset` opens.

    EDITION/
      README.md                       the card; its front matter is the loader
      <config>/<split>.parquet        one folder a config (a network)

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
from milannotations.files import replacing, sha256

if TYPE_CHECKING:
    from collections.abc import Sequence

EMBEDDED = {"mini": Path(__file__).parent}
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
    card = locate(edition) / "README.md"
    if not card.is_file():
        raise InputError(f"{edition} is not an edition: it has no README.md with its configs.")
    try:
        front = yaml.safe_load(card.read_text(encoding="utf-8").split("---\n", 2)[1])
        named = {
            str(entry["config_name"]): [str(file["split"]) for file in entry["data_files"]]
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
    columns: list[str] | None = None,
    streaming: bool = False,
) -> Any:
    """Open an edition with `datasets.load_dataset`, with the slash form of names accepted.

    Args:
        edition: folder of the edition, or the name of an embedded one (`mini`).
        config: network or union; may be left out where there is only one.
        split: `train`, `test`, `train+test`, ...; None returns every split in a dict.
        columns: only these columns are read from disk.
        streaming: rows are read as they are asked for.

    Returns:
        `datasets.Dataset`, `DatasetDict` or their iterable forms, as `load_dataset` does.

    Raises:
        InputError: no such edition, config, split or column.
    """
    import datasets

    config = pick_config(edition, config)
    available = configs(edition)[config]
    unknown = [name for name in columns or () if name not in schema.COLUMNS]
    if unknown:
        raise InputError(f"No column '{unknown[0]}' (columns: {', '.join(schema.COLUMNS)}).")
    for part in split.split("+") if split else ():
        if part.split("[")[0] not in available:
            raise InputError(
                f"No split '{part}' in {edition}, config {config} (splits: {', '.join(available)})."
            )
    return datasets.load_dataset(
        str(locate(edition)), config, split=split, columns=columns, streaming=streaming
    )


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

    Args:
        edition, config, split: as `load`; every split unless told.
        network, layer, unit: only these.
        count: draw this many, seeded, in order of the edition; None returns all.
        seed: of the draw.

    Raises:
        InputError: see `load`; no such network, layer or unit.
    """
    import datasets
    import numpy as np

    loaded = load(edition, config, split)
    if isinstance(loaded, datasets.DatasetDict):
        loaded = datasets.concatenate_datasets(list(loaded.values()))
    keys = loaded.select_columns(["network", "layer", "unit"]).to_pandas()
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
    return loaded.select(chosen)


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
    edition, config = Path(edition), catalog.canonical(config)
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
            _contents(edition)  # a damaged config is found before anything is written
    with replacing(edition / config) as folder:
        folder.mkdir()
        for split, members in rows.items():
            if members:  # `datasets` refuses to open a split without a row
                write_parquet(members, folder / f"{split}.parquet")
    _write_card(edition)
    return edition / config


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
    names = {f"{split}.parquet" for split in SPLITS}
    return all(
        path.is_dir() and {file.name for file in path.iterdir()} <= names
        for path in edition.iterdir()
        if not path.name.startswith(".")
    )


def _contents(edition: Path) -> tuple[list[dict[str, Any]], list[str]]:
    """Return the card's entries and table rows, from the parquet files that are there.

    Raises:
        InputError: a parquet file is damaged.
    """
    import pyarrow as pa
    import pyarrow.parquet as parquet

    entries, lines = [], []
    folders = sorted(path for path in edition.iterdir() if path.is_dir())
    for folder in (path for path in folders if not path.name.startswith(".")):
        files = {
            split: folder / f"{split}.parquet"
            for split in SPLITS
            if (folder / f"{split}.parquet").is_file()
        }
        if not files:
            continue
        entries.append(
            {
                "config_name": folder.name,
                # `datasets` names its cache by what stands here, and not by path or time: without
                # the digest it would open yesterday's rows of an edition that was made anew
                "description": f"sha256:{sha256(*files.values())}",
                "data_files": [
                    {"split": split, "path": f"{folder.name}/{path.name}"}
                    for split, path in files.items()
                ],
            }
        )
        for split, path in files.items():
            try:
                descriptions = parquet.read_table(path, columns=["descriptions"])["descriptions"]
            except (pa.ArrowInvalid, KeyError) as error:
                raise InputError(f"{path} is damaged: {str(error).splitlines()[0]}") from None
            count = sum(len(texts) for texts in descriptions.to_pylist())
            lines.append(f"| {folder.name} | {split} | {len(descriptions):,} | {count:,} |")
    return entries, lines


def _write_card(edition: Path) -> None:
    """Write README.md from the parquet files that are there."""
    entries, lines = _contents(edition)
    front = yaml.safe_dump(
        {
            "pretty_name": "MILANNOTATIONS",
            "language": ["en"],
            "tags": ["interpretability", "neuron-descriptions"],
            "configs": entries,
        },
        sort_keys=False,
    )
    body = "\n".join(
        [
            "# Units of vision networks and what people wrote about them",
            "",
            "One row is a unit (network, layer, index). This edition holds text: its exemplar",
            "columns (`images`, `masks`, `source_ids`, `activations`, `threshold`) are null.",
            "`train` and `test` are the within-network split, seed 0, of `milannotations.splits`.",
            "",
            "```python",
            "import datasets",
            "",
            f'datasets.load_dataset("{edition.resolve().name}", "{entries[0]["config_name"]}")',
            "```",
            "",
            "| config | split | units | descriptions |",
            "|---|---|---|---|",
            *lines,
            "",
            "Descriptions are given as they stand in the published file. Positions in a list of",
            "descriptions are positions in that file, not people. Source of the annotations:",
            "Hernandez et al., Natural Language Descriptions of Deep Visual Features, ICLR 2022",
            "(arXiv 2201.11114).",
            "",
            f"<!-- {MARK} -->",
            "",
        ]
    )
    with replacing(edition / "README.md") as temporary:
        temporary.write_text(f"---\n{front}---\n\n{body}", encoding="utf-8")
