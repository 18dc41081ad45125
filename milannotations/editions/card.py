"""Card of an edition: a README.md whose front matter is what `datasets.load_dataset` reads.

The card is written from the config folders. A config lists its parquet files; a union config
(`catalog.GROUPS`) lists those of its members, so that nothing is copied.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from milannotations import catalog
from milannotations.editions.contents import (
    PREPARED,
    EditionConfig,
    combine_digests,
    read_configs,
)
from milannotations.errors import InputError
from milannotations.schema import SPLITS
from milannotations.utils.files import replacing

CARD = "README.md"
MARK = "made by milannotations; written anew whenever a config is added"
"""Comment in the card of every edition written by this package."""

DIGEST = "sha256:"
"""Prefix of a config's description in the front matter; the digest of its files follows."""


@dataclass(frozen=True)
class EditionCard:
    """Front matter and text of a card.

    Attributes:
        path: of the README.md.
        front_matter: its YAML, in the order of the file.
        body: the text behind the front matter.
    """

    path: Path
    front_matter: dict[str, Any]
    body: str

    @classmethod
    def read(cls, folder: Path) -> EditionCard:
        """Read the card in a folder.

        Raises:
            InputError: no card, or one whose front matter names no configs.
        """
        from huggingface_hub import DatasetCard, metadata_load

        path = folder / CARD
        if not path.is_file():
            raise InputError(f"{folder} is not an edition: it has no {CARD} with its configs.")
        try:
            # metadata_load keeps the order of the keys, which DatasetCard.data does not
            front_matter = metadata_load(path)
            body = str(DatasetCard.load(path).text)
            card = cls(path, front_matter, body)
            named = bool(card.patterns())
        except (yaml.YAMLError, ValueError, KeyError, TypeError, AttributeError):
            named = False
        if not named:
            raise InputError(
                f"{path} names no configs in its front matter; is it an edition's card?"
            )
        return card

    def patterns(self) -> dict[str, dict[str, list[str]]]:
        """Return the globs of the data files, by config and split."""
        return {
            str(config["config_name"]): {
                str(entry["split"]): _as_list(entry["path"]) for entry in config["data_files"]
            }
            for config in self.front_matter["configs"]
        }

    def write(self) -> None:
        """Write the card to `path`."""
        front_matter = yaml.safe_dump(self.front_matter, sort_keys=False)
        with replacing(self.path) as temporary:
            temporary.write_text(f"---\n{front_matter}---\n{self.body}", encoding="utf-8")


def _as_list(path: str | list[str]) -> list[str]:
    paths = [path] if isinstance(path, str) else list(path)
    if not all(isinstance(path, str) for path in paths):
        raise TypeError("a path is text")
    return paths


def write_card(edition: Path) -> None:
    """Write the card of an edition from its config folders.

    Raises:
        InputError: see `contents.read_configs`.
    """
    configs = read_configs(edition)
    entries = _front_matter_entries(configs)
    front_matter = {
        "pretty_name": "MILANNOTATIONS",
        "language": ["en"],
        "tags": ["interpretability", "neuron-descriptions"],
        "configs": entries,
    }
    unions = [entry["config_name"] for entry in entries[len(configs) :]]
    counts = [
        f"| {config.name} | {split} | {units:,} | {descriptions:,} |"
        for config in configs
        for split, (units, descriptions) in config.counts.items()
    ]
    published = [config for config in configs if config.is_published]
    computed = [config for config in configs if not config.is_published]
    lines = [
        "",
        "# Units of vision networks, described by humans"
        if published
        else "# Units of vision networks and the images that activate them most",
        "",
        "Each row is a unit (network, layer, index).",
        *_null_columns(configs),
        *_split_notes(configs),
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
    ]
    if unions:
        lines += [f"Unions of these configs, without copies: {', '.join(unions)}.", ""]
    lines += _converted([config for config in published if config.prepared])
    lines += _computed(computed)
    lines += _PUBLISHED if published else ()
    lines += [f"<!-- {MARK} -->", ""]
    EditionCard(edition / CARD, front_matter, "\n".join(lines)).write()


# ---- front matter


def _front_matter_entries(configs: list[EditionConfig]) -> list[dict[str, Any]]:
    """Return the entries of the configs, then of every union whose members are all present."""
    by_name = {config.name: config for config in configs}
    entries = [_entry(config.name, config.digest, config.patterns) for config in configs]
    for group, names in catalog.GROUPS.items():
        if any(name not in by_name for name in names):
            continue
        members = [by_name[name] for name in names]
        patterns = {
            split: [path for member in members for path in member.patterns.get(split, ())]
            for split in SPLITS
        }
        digest = combine_digests({member.name: member.digest for member in members})
        entries.append(_entry(group, digest, {s: paths for s, paths in patterns.items() if paths}))
    return entries


def _entry(name: str, digest: str, patterns: dict[str, list[str]]) -> dict[str, Any]:
    return {
        "config_name": name,
        # `datasets` names its cache after this entry, not after paths or times. Without the
        # digest it would serve the old rows of an edition that was written again.
        "description": f"{DIGEST}{digest}",
        "data_files": [
            {"split": split, "path": paths[0] if len(paths) == 1 else paths}
            for split, paths in patterns.items()
        ],
    }


# ---- text

_PUBLISHED = (
    "Descriptions are verbatim from the published files. The position of a description in its",
    "list is its position in the file and does not identify an annotator. Source of the",
    "annotations: Hernandez et al., Natural Language Descriptions of Deep Visual Features,",
    "ICLR 2022 (arXiv 2201.11114).",
    "",
)


def _null_columns(configs: list[EditionConfig]) -> list[str]:
    """Return the note on configs of text alone, if any."""
    text = [config.name for config in configs if not config.prepared]
    columns = "(`images`, `masks`, `source_ids`, `activations`, `threshold`) are null."
    if len(text) == len(configs):
        return ["This edition holds text: its exemplar columns", columns]
    if text:
        return [f"These configs hold text, their exemplar columns {columns}", f"{', '.join(text)}."]
    return []


def _split_notes(configs: list[EditionConfig]) -> list[str]:
    lines = []
    if any(config.is_published for config in configs):
        lines += ["`train` and `test` are the within-network split, seed 0, of "
                  "`milannotations.splits`."]  # fmt: skip
    if not all(config.is_published for config in configs):
        lines += ["A network without human descriptions has the one split `test`."]
    return lines


def _converted(configs: list[EditionConfig]) -> list[str]:
    """Return the table and the notes of configs that were converted from published archives."""
    if not configs:
        return []
    lines = ["| config | images | masks | made from | sha256 |", "|---|---|---|---|---|"]
    for config in configs:
        source = config.prepared["source"]
        lines.append(
            f"| {config.name} | {config.prepared['pictures']} | 1-bit PNG | "
            f"{source['name']}, {source['bytes']:,} bytes | {source['sha256'] or 'a folder'} |"
        )
    return [*lines, "", *_notes("Known faults and repairs", configs)]


def _computed(configs: list[EditionConfig]) -> list[str]:
    """Return the table and the notes of configs whose exemplars were computed."""
    if not configs:
        return []
    lines = [
        "**Exemplars computed here.** `images` are the images, as the network saw them, with a",
        "unit's largest activations (`activations`); `masks` are true where its upsampled",
        "activation is above `threshold`. No human has described these units.",
        "",
        "| config | network | weights | images seen | threshold | images | masks |",
        "|---|---|---|---|---|---|---|",
    ]
    for config in configs:
        prepared = config.prepared
        model = prepared["made_from"].get("model")
        cells = (
            config.name,
            _network(model),
            _weights(model),
            f"{_name_and_digest(prepared['made_from'].get('images'))}: {prepared['images']:,} seen",
            f"quantile {prepared['settings'].get('quantile')}",
            prepared["pictures"],
            f"1-bit PNG, edges {_EDGES[prepared['settings']['masks']]}",
        )
        lines.append(f"| {' | '.join(map(_table_cell, cells))} |")
    lines += [
        "",
        f"Preprocessing, layers, settings, seed and dead units: `{PREPARED}` beside the shards.",
        "",
    ]
    return [*lines, *_notes("Notes", configs)]


def _notes(title: str, configs: list[EditionConfig]) -> list[str]:
    notes = [f"- {config.name}: {note}" for config in configs for note in config.prepared["notes"]]
    return [f"**{title}**", "", *notes, ""] if notes else []


_EDGES = {"clamped": "clamped", "2022": "fading to 0 as in 2022"}


def _network(model: Any) -> str:
    model = model if isinstance(model, dict) else {}
    return str(model.get("spec") or model.get("name") or "unknown")


def _weights(model: Any) -> str:
    """Return the weights of a network with their digest, for the card."""
    model = model if isinstance(model, dict) else {}
    if model.get("random_seed") is not None:
        return f"random, seed {model['random_seed']}"
    if model.get("spec") and not model.get("weights"):
        return "its code's own"
    missing = model.get("missing")
    return _name_and_digest(model.get("weights")) + (
        f", without {missing} entries of the network" if missing else ""
    )


def _name_and_digest(source: Any) -> str:
    if not isinstance(source, dict):
        return str(source or "unknown")
    name = source.get("name") or source.get("file") or "unknown"
    return f"{name} (sha256 {source['sha256']})" if source.get("sha256") else str(name)


def _table_cell(text: object) -> str:
    """Return text that cannot break a Markdown table."""
    return " ".join(str(text).replace("|", "/").split())
