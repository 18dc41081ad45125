"""The card of an edition: README.md, written from the files that are there.

Its front matter is the loader. A config lists its parquet files, a union config those of
its members (`catalog.GROUPS`), so that nothing is copied.
"""

from __future__ import annotations

import hashlib
import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from milannotations import catalog
from milannotations.editions.loading import MARK, SPLITS
from milannotations.errors import InputError
from milannotations.utils.files import replacing, sha256

CHECKSUMS, PREPARED, STATISTICS = "checksums.json", "prepared.json", "statistics.json"
"""Beside the shards of a converted config: their sha256 in order, how they were made, counts."""

_SHARD = re.compile(rf"({'|'.join(SPLITS)})-(.+)-\d{{5}}\.parquet")


@dataclass(frozen=True)
class Config:
    """A config's files, by split and in order, and what the card says of them.

    `patterns` are the front matter's; `counts` units and descriptions; `prepared` is
    `prepared.json`, empty where a config holds text alone.
    """

    name: str
    digest: str
    files: dict[str, list[Path]]
    patterns: dict[str, list[str]]
    counts: dict[str, tuple[int, int]]
    prepared: dict[str, Any]

    @property
    def is_published(self) -> bool:
        """Whether it holds what was published, as against exemplars computed here."""
        return "made_from" not in self.prepared


def shard_name(split: str, layer: str, number: int) -> str:
    """Return the name of a shard of one layer.

    Example:
        >>> shard_name("train", "blocks.0.mlp.fc1", 0)
        'train-blocks.0.mlp.fc1-00000.parquet'
    """
    return f"{split}-{layer}-{number:05d}.parquet"


def is_ours(name: str) -> bool:
    """Say whether a file of this name belongs in a config's folder."""
    known = {f"{split}.parquet" for split in SPLITS} | {CHECKSUMS, PREPARED, STATISTICS}
    return name in known or bool(_SHARD.fullmatch(name))


def read_json(path: Path) -> dict[str, Any]:
    """Return the object in a JSON file, {} where there is no file.

    Raises:
        InputError: it holds something else.
    """
    if not path.is_file():
        return {}
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
        if not isinstance(found, dict):
            raise ValueError("expected an object")
    except (ValueError, RecursionError) as error:
        raise InputError(f"{path} is damaged: {error}") from None
    return found


def configs(edition: Path) -> list[Config]:
    """Return the configs of an edition from its folders, unions left out.

    Raises:
        InputError: a parquet file is damaged or missing.
    """
    folders = sorted(path for path in edition.iterdir() if path.is_dir())
    found = [_config(path) for path in folders if not path.name.startswith(".")]
    return [config for config in found if config.files]


def _config(folder: Path) -> Config:
    import pyarrow as pa
    import pyarrow.parquet as parquet

    sums = read_json(folder / CHECKSUMS)
    files: dict[str, list[Path]] = {}
    patterns: dict[str, list[str]] = {}
    for split in SPLITS:
        for name in sums or [f"{split}.parquet"]:
            shard = _SHARD.fullmatch(name)
            if shard and shard[1] == split:
                # five marks: the shards of a layer conv1 are not those of a layer conv1-a
                pattern = f"{folder.name}/{split}-{shard[2]}-?????.parquet"
            elif name == f"{split}.parquet" and (sums or (folder / name).is_file()):
                pattern = f"{folder.name}/{name}"
            else:
                continue
            files.setdefault(split, []).append(folder / name)
            if pattern not in patterns.setdefault(split, []):
                patterns[split].append(pattern)
    counts = {}
    for split, paths in files.items():
        units = texts = 0
        for path in paths:
            if not path.is_file():
                raise InputError(f"{path} is missing; {folder / CHECKSUMS} names it.")
            try:
                column = parquet.read_table(path, columns=["descriptions"])["descriptions"]
            except (pa.ArrowInvalid, KeyError) as error:
                raise InputError(f"{path} is damaged: {str(error).splitlines()[0]}") from None
            units += len(column)
            texts += sum(map(len, column.to_pylist()))
        counts[split] = (units, texts)
    # gigabytes were digested when they were written
    digest = _digest(sums) if sums else sha256(*(path for part in files.values() for path in part))
    return Config(folder.name, digest, files, patterns, counts, read_json(folder / PREPARED))


def _digest(parts: dict[str, str]) -> str:
    said = "".join(f"{name} {digest}\n" for name, digest in parts.items())
    return hashlib.sha256(said.encode()).hexdigest()


def _entry(name: str, digest: str, patterns: dict[str, list[str]]) -> dict[str, Any]:
    return {
        "config_name": name,
        # `datasets` names its cache by what stands here, and not by path or time: without
        # the digest it would open yesterday's rows of an edition that was made anew
        "description": f"sha256:{digest}",
        "data_files": [
            {"split": split, "path": paths[0] if len(paths) == 1 else paths}
            for split, paths in patterns.items()
        ],
    }


def _entries(found: list[Config]) -> list[dict[str, Any]]:
    by_name = {config.name: config for config in found}
    entries = [_entry(config.name, config.digest, config.patterns) for config in found]
    for group, names in catalog.GROUPS.items():
        if any(name not in by_name for name in names):
            continue
        members = [by_name[name] for name in names]
        patterns = {
            split: [path for member in members for path in member.patterns.get(split, ())]
            for split in SPLITS
        }
        digest = _digest({member.name: member.digest for member in members})
        entries.append(_entry(group, digest, {s: paths for s, paths in patterns.items() if paths}))
    return entries


_PUBLISHED = (
    "Descriptions are given as they stand in the published file. Positions in a list of",
    "descriptions are positions in that file, not people. Source of the annotations:",
    "Hernandez et al., Natural Language Descriptions of Deep Visual Features, ICLR 2022",
    "(arXiv 2201.11114).",
    "",
)


def write(edition: Path) -> None:
    """Write README.md from the parquet files that are there.

    Raises:
        InputError: see `configs`.
    """
    found = configs(edition)
    entries = _entries(found)
    front = yaml.safe_dump(
        {
            "pretty_name": "MILANNOTATIONS",
            "language": ["en"],
            "tags": ["interpretability", "neuron-descriptions"],
            "configs": entries,
        },
        sort_keys=False,
    )
    unions = [entry["config_name"] for entry in entries[len(found) :]]
    counts = [
        f"| {config.name} | {split} | {units:,} | {texts:,} |"
        for config in found
        for split, (units, texts) in config.counts.items()
    ]
    published = [config for config in found if config.is_published]
    body = "\n".join(
        [
            "# Units of vision networks and what people wrote about them"
            if published
            else "# Units of vision networks and the pictures that excite them most",
            "",
            "One row is a unit (network, layer, index).",
            *_exemplars(found),
            *_splits(found),
            "",
            "```python",
            "import datasets",
            "",
            f'datasets.load_dataset("{edition.resolve().name}", "{entries[0]["config_name"]}")',
            "```",
            "",
            "| config | split | units | descriptions |",
            "|---|---|---|---|",
            *counts,
            "",
            *([f"Unions of these, without a copy: {', '.join(unions)}.", ""] if unions else []),
            *_sources([config for config in published if config.prepared]),
            *_computed([config for config in found if not config.is_published]),
            *(_PUBLISHED if published else []),
            f"<!-- {MARK} -->",
            "",
        ]
    )
    with replacing(edition / "README.md") as temporary:
        temporary.write_text(f"---\n{front}---\n\n{body}", encoding="utf-8")


def _exemplars(found: list[Config]) -> list[str]:
    text = [config.name for config in found if not config.prepared]
    columns = "(`images`, `masks`, `source_ids`, `activations`, `threshold`) are null."
    if len(text) == len(found):
        return ["This edition holds text: its exemplar columns", columns]
    if text:
        return [f"These configs hold text, their exemplar columns {columns}", f"{', '.join(text)}."]
    return []


def _splits(found: list[Config]) -> list[str]:
    """Return what the card says of splits."""
    lines = []
    if any(config.is_published for config in found):
        lines += ["`train` and `test` are the within-network split, seed 0, of "
                  "`milannotations.splits`."]  # fmt: skip
    if not all(config.is_published for config in found):
        lines += ["A network that nobody described has the one split `test`."]
    return lines


def _sources(made: list[Config]) -> list[str]:
    """Return what the card says of pictures, sources and faults of converted configs."""
    if not made:
        return []
    lines = ["| config | pictures | masks | made from | sha256 |", "|---|---|---|---|---|"]
    for config in made:
        source = config.prepared["source"]
        lines.append(
            f"| {config.name} | {config.prepared['pictures']} | 1-bit PNG | "
            f"{source['name']}, {source['bytes']:,} bytes | {source['sha256'] or 'a folder'} |"
        )
    notes = [f"- {config.name}: {note}" for config in made for note in config.prepared["notes"]]
    return [*lines, "", *(["**Known faults and repairs**", "", *notes, ""] if notes else [])]


def _computed(made: list[Config]) -> list[str]:
    """Return what the card says of configs whose exemplars were computed."""
    if not made:
        return []
    lines = [
        "**Exemplars computed here.** `images` are the pictures, as the network saw them, on which",
        "a unit's largest activation is highest (`activations`); `masks` where its activation,",
        "enlarged, is above `threshold`. Nobody has described these units.",
        "",
        "| config | network | weights | images | threshold | pictures | masks |",
        "|---|---|---|---|---|---|---|",
    ]
    for config in made:
        said = config.prepared
        cells = (
            config.name,
            _network(said["made_from"].get("model")),
            _weights(said["made_from"].get("model")),
            f"{_what(said['made_from'].get('images'))}: {said['images']:,} seen",
            f"quantile {said['settings'].get('quantile')}",
            said["pictures"],
            f"1-bit PNG, edges {_EDGES[said['settings']['masks']]}",
        )
        lines.append(f"| {' | '.join(map(_cell, cells))} |")
    lines += [
        "",
        f"How, in full (preprocessing, layers, settings, seed, dead units): `{PREPARED}` beside "
        "the shards.",
        "",
    ]
    notes = [f"- {config.name}: {note}" for config in made for note in config.prepared["notes"]]
    return [*lines, *(["**What to know of them**", "", *notes, ""] if notes else [])]


_EDGES = {"clamped": "clamped", "2022": "fading to 0 as in 2022"}


def _network(model: Any) -> str:
    model = model if isinstance(model, dict) else {}
    return str(model.get("spec") or model.get("name") or "unknown")


def _weights(model: Any) -> str:
    """Return which weights a network had, with their digest."""
    model = model if isinstance(model, dict) else {}
    if model.get("random_seed") is not None:
        return f"random, seed {model['random_seed']}"
    if model.get("spec") and not model.get("weights"):
        return "its code's own"
    lacking = model.get("missing")
    return _what(model.get("weights")) + (
        f", without {lacking} entries of the network" if lacking else ""
    )


def _what(source: Any) -> str:
    """Return name and digest of what something was made of."""
    if not isinstance(source, dict):
        return str(source or "unknown")
    name = source.get("name") or source.get("file") or "unknown"
    return f"{name} (sha256 {source['sha256']})" if source.get("sha256") else str(name)


def _cell(text: object) -> str:
    return " ".join(str(text).replace("|", "/").split())
