"""Config folders of an edition: names, files, counts and digests of what they hold.

EDITION/<config>/
  <split>.parquet                                   text alone, one file per split; or
  <split>-<layer>-00000.parquet, ...                with exemplars, in shards, and beside them
  checksums.json, prepared.json, statistics.json
"""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from milannotations.errors import InputError
from milannotations.schema import SPLITS
from milannotations.utils.files import read_json, sha256

CHECKSUMS, PREPARED, STATISTICS = "checksums.json", "prepared.json", "statistics.json"
"""JSON files beside the shards: their sha256 in order; how they were made; what they count."""

_SHARD = re.compile(rf"({'|'.join(SPLITS)})-(.+)-\d{{5}}\.parquet")


@dataclass(frozen=True)
class EditionConfig:
    """Files of one config and what the card says about them.

    Attributes:
        name: of the config.
        digest: sha256 over its files, or over their recorded checksums.
        files: parquet files by split, in order.
        patterns: globs of the files by split, as they stand in the card's front matter.
        counts: (units, descriptions) by split.
        prepared: content of `prepared.json`; empty for a config of text alone.
    """

    name: str
    digest: str
    files: dict[str, list[Path]]
    patterns: dict[str, list[str]]
    counts: dict[str, tuple[int, int]]
    prepared: dict[str, Any]

    @property
    def is_published(self) -> bool:
        """True for published data, False for exemplars computed by this package."""
        return "made_from" not in self.prepared


def shard_name(split: str, layer: str, number: int) -> str:
    """Return the file name of a shard of one layer.

    Example:
        >>> shard_name("train", "blocks.0.mlp.fc1", 0)
        'train-blocks.0.mlp.fc1-00000.parquet'
    """
    return f"{split}-{layer}-{number:05d}.parquet"


def is_config_file(name: str) -> bool:
    """Return whether a file of this name belongs in a config's folder."""
    known = {f"{split}.parquet" for split in SPLITS} | {CHECKSUMS, PREPARED, STATISTICS}
    return name in known or bool(_SHARD.fullmatch(name))


def read_configs(edition: Path) -> list[EditionConfig]:
    """Read the configs of an edition from its folders, sorted by name; unions have no folder.

    Raises:
        InputError: a parquet file is damaged or missing.
    """
    folders = sorted(path for path in edition.iterdir() if path.is_dir())
    configs = [_read_config(path) for path in folders if not path.name.startswith(".")]
    return [config for config in configs if config.files]


def _read_config(folder: Path) -> EditionConfig:
    import pyarrow as pa
    import pyarrow.parquet as parquet

    checksums = read_json(folder / CHECKSUMS)
    files: dict[str, list[Path]] = {}
    patterns: dict[str, list[str]] = {}
    for split in SPLITS:
        for name in checksums or [f"{split}.parquet"]:
            shard = _SHARD.fullmatch(name)
            if shard and shard[1] == split:
                # exactly five characters: `conv1-*` would also match the shards of a layer conv1-a
                pattern = f"{folder.name}/{split}-{shard[2]}-?????.parquet"
            elif name == f"{split}.parquet" and (checksums or (folder / name).is_file()):
                pattern = f"{folder.name}/{name}"
            else:
                continue
            files.setdefault(split, []).append(folder / name)
            if pattern not in patterns.setdefault(split, []):
                patterns[split].append(pattern)
    counts = {}
    for split, paths in files.items():
        n_units = n_descriptions = 0
        for path in paths:
            if not path.is_file():
                raise InputError(f"{path} is missing; {folder / CHECKSUMS} lists it.")
            try:
                column = parquet.read_table(path, columns=["descriptions"])["descriptions"]
            except (pa.ArrowInvalid, KeyError) as error:
                raise InputError(f"{path} is damaged: {str(error).splitlines()[0]}") from None
            n_units += len(column)
            n_descriptions += sum(map(len, column.to_pylist()))
        counts[split] = (n_units, n_descriptions)
    # shards take gigabytes and were digested when they were written: digest their digests
    digest = (
        combine_digests(checksums)
        if checksums
        else sha256(*(path for paths in files.values() for path in paths))
    )
    return EditionConfig(folder.name, digest, files, patterns, counts, read_json(folder / PREPARED))


def combine_digests(digests: dict[str, str]) -> str:
    """Return one sha256 of named digests, given in order."""
    lines = "".join(f"{name} {digest}\n" for name, digest in digests.items())
    return hashlib.sha256(lines.encode()).hexdigest()
