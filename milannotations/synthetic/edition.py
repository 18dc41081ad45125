"""The edition `mini`: exemplars, truths and simulated descriptions of the planted units.

    milan data build mini --out OUT

Scenes, activations, masks and words are the same bits on every machine; the bytes of
encoded images change with the version of the image library.
"""

from __future__ import annotations

import io
import json
import os
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
import yaml
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as nnf
from tqdm import tqdm

from milannotations.editions.configs import EMBEDDED
from milannotations.editions.statistics import row_statistics
from milannotations.editions.writing import write_parquet
from milannotations.errors import InputError
from milannotations.schema import SPLITS, row
from milannotations.synthetic.annotators import ANNOTATORS
from milannotations.synthetic.concepts import CATEGORY, CONCEPTS
from milannotations.synthetic.grammar import meaning, parse, phrase
from milannotations.synthetic.networks import network
from milannotations.synthetic.scenes import SIZE, Scene, World
from milannotations.synthetic.unit_plan import NETWORKS, SEED, PlantedUnit, plan
from milannotations.utils.files import replacing, sha256

N_SCENES = 1536
"""Scenes of the pool that exemplars are taken from: the stream of the edition's seed."""

K = 15
"""Exemplars per unit (Hernandez et al. 2022, section 3)."""

QUANTILE = 0.99
"""Quantile of a unit's activations, over all positions of all scenes, that is its threshold."""

MARK = "<!-- the card of the edition mini -->"
"""Line of a README by which `build` recognises an earlier edition `mini`."""

TABLE_BEGINS, TABLE_ENDS = "<!-- units -->", "<!-- /units -->"


class MiniExemplars(NamedTuple):
    """Exemplars of the units of a layer.

    Attributes:
        scenes: (unit, k), indices in the pool, strongest first, the smaller first where two are
            equal.
        activations: (unit, k), the largest activation on each scene.
        masks: (unit, k, 64, 64), where activations, upsampled bilinearly, are above the threshold.
        thresholds: (unit,).
    """

    scenes: NDArray[np.int64]
    activations: NDArray[np.float32]
    masks: NDArray[np.bool_]
    thresholds: NDArray[np.float32]


@cache
def pool(seed: int = SEED, count: int = N_SCENES) -> tuple[Scene, ...]:
    """Return the scenes that exemplars are taken from."""
    return tuple(World().scenes(seed, count))


def compute_exemplars(activations: Tensor, k: int = K, quantile: float = QUANTILE) -> MiniExemplars:
    """Compute the exemplars of a layer's units from their activations on every scene.

    Args:
        activations: float32 (scene, unit, h, w).
        k: exemplars per unit.
        quantile: the threshold is the smallest activation that at least this share of
            positions do not exceed.
    """
    count, units, h, w = activations.shape
    highest = activations.amax((2, 3)).numpy()
    # a stable sort of the negatives: of equal scenes the earlier one comes first
    scenes = np.argsort(-highest, axis=0, kind="stable")[:k].T.copy()
    rank = int(np.ceil(quantile * count * h * w)) - 1
    thresholds = np.empty(units, dtype=np.float32)
    for unit in range(units):
        thresholds[unit] = np.partition(activations[:, unit].numpy().ravel(), rank)[rank]
    rows = np.arange(units)[:, None]
    maps = activations[torch.from_numpy(scenes), torch.from_numpy(rows)]  # (unit, k, h, w)
    large = nnf.interpolate(maps, size=(SIZE, SIZE), mode="bilinear", align_corners=False)
    masks = large.numpy() > thresholds[:, None, None, None]
    return MiniExemplars(scenes, highest[scenes, rows], masks, thresholds)


def rows(
    seed: int = SEED, networks: Iterable[str] = NETWORKS, count: int = N_SCENES
) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield (split, row) of every unit, in order of network, layer and index.

    Args:
        seed: random seed of the networks and of the pool's scenes.
        networks: names of networks.
        count: size of the pool.

    Yields:
        Images of a row are the scenes' arrays (64, 64, 3), masks are bool arrays (64, 64);
        `encode_images` encodes them.
    """
    scenes = pool(seed, count)
    maps = torch.from_numpy(np.stack([scene.concepts for scene in scenes]))
    base = maps.float().mean((0, 2, 3)).numpy()
    units = plan(seed)
    for name in networks:
        for layer, module in network(name, seed).named_children():
            with torch.no_grad():
                parts = [module(part) for part in maps.split(64)]
            exemplars = compute_exemplars(torch.cat(parts))
            for planted in (u for u in units if u.unit[:2] == (name, layer)):
                yield planted.split, _row(planted, exemplars, scenes, maps, base, seed)


def _row(
    planted: PlantedUnit,
    exemplars: MiniExemplars,
    scenes: Sequence[Scene],
    maps: Tensor,
    base: NDArray[np.float32],
    seed: int,
) -> dict[str, Any]:
    unit = planted.unit.unit
    indices = exemplars.scenes[unit]
    beside = _beside(planted, maps[torch.from_numpy(indices)].numpy(), exemplars.masks[unit], base)
    network_index = list(NETWORKS).index(planted.unit.network)
    layer_index = list(NETWORKS[planted.unit.network]).index(planted.unit.layer)
    return row(
        planted.unit,
        images=[scenes[i].image for i in indices],
        masks=list(exemplars.masks[unit]),
        source_ids=[scenes[i].source_id for i in indices],
        activations=exemplars.activations[unit].tolist(),
        threshold=float(exemplars.thresholds[unit]),
        descriptions=[
            annotator.describe(planted.formula, beside, (seed, 3, network_index, layer_index, unit))
            for annotator in ANNOTATORS
        ],
        annotator_ids=[annotator.name for annotator in ANNOTATORS],
        unit_kind="synthetic",
        polarity="+",
        truth=phrase(planted.formula),
        truth_formula=str(planted.formula),
        duplicate_of=None if planted.duplicate_of is None else str(planted.duplicate_of),
        seen=planted.seen,
    )


def _beside(
    planted: PlantedUnit,
    maps: NDArray[np.bool_],
    masks: NDArray[np.bool_],
    base: NDArray[np.float32],
) -> list[str]:
    """Return the concepts that a unit's regions show more than other regions do, most first.

    Args:
        planted: the unit; its own concepts are left out.
        maps: concept maps of its exemplars, (k, concept, 64, 64).
        masks: (k, 64, 64).
        base: (concept,), the share of pixels of the pool with each concept.
    """
    total = masks.sum()
    if not total:
        return []
    share = (maps & masks[:, None]).sum((0, 2, 3)) / total
    excess = share - base
    named = [
        concept
        for concept in (CONCEPTS[i] for i in np.argsort(-excess, kind="stable"))
        if concept not in planted.formula.concepts and CATEGORY[concept] != "part"
    ]
    return [c for c in named[:3] if excess[CONCEPTS.index(c)] > 0]


def encode_images(members: Iterable[dict[str, Any]]) -> list[dict[str, Any]]:
    """Encode the images of rows as lossless WebP, each scene once, and their masks as PNG."""
    encoded: dict[str, dict[str, Any]] = {}
    rows = []
    for member in members:
        for source_id, image in zip(member["source_ids"], member["images"], strict=True):
            if source_id not in encoded:
                encoded[source_id] = {"bytes": _webp(image), "path": f"{source_id}.webp"}
        rows.append(
            {
                **member,
                "images": [encoded[source_id] for source_id in member["source_ids"]],
                "masks": [{"bytes": _png(mask), "path": None} for mask in member["masks"]],
            }
        )
    return rows


def _webp(image: NDArray[np.uint8]) -> bytes:
    from PIL import Image

    stream = io.BytesIO()
    Image.fromarray(image).save(stream, "WEBP", lossless=True, method=6)
    return stream.getvalue()


def _png(mask: NDArray[np.bool_]) -> bytes:
    from PIL import Image

    stream = io.BytesIO()
    Image.fromarray(mask).save(stream, "PNG", optimize=True)
    return stream.getvalue()


def statistics(splits: Mapping[str, Iterable[Mapping[str, Any]]]) -> dict[str, Any]:
    """Return `milannotations.editions.statistics.row_statistics`, and counts of planted units.

    `exact_by_annotator` is the share of an annotator's phrases whose meaning, by the grammar, is
    exactly the truth, over units with a meaning.
    """
    from milannotations.synthetic.formulas import Formula

    members = [(split, member) for split, part in splits.items() for member in part]
    formulas = [Formula.parse(member["truth_formula"]) for _, member in members]
    exact: dict[str, list[bool]] = {}
    for (_, member), formula in zip(members, formulas, strict=True):
        for name, text in zip(member["annotator_ids"], member["descriptions"], strict=True):
            if formula.means_something:
                exact.setdefault(name, []).append(parse(text).same_as(meaning(formula)))
    return {
        **row_statistics(members),
        "units_by_kind": dict(sorted(Counter(formula.kind for formula in formulas).items())),
        "units_unseen_by_split": dict(
            Counter(split for split, member in members if member["seen"] is False)
        ),
        "duplicates": sum(member["duplicate_of"] is not None for _, member in members),
        "formulas": len(set(formulas)),
        "scenes": len({source for _, member in members for source in member["source_ids"]}),
        "exact_by_annotator": {name: round(float(np.mean(v)), 4) for name, v in exact.items()},
    }


def build(out: str | os.PathLike[str], seed: int = SEED, *, progress: bool = False) -> Path:
    """Write the edition `mini` at `out`: parquet files, statistics and the card.

    It takes minutes on two cores. The card is the README of `milannotations/`, updated.

    Raises:
        InputError: `out` is a folder of something else.
    """
    out = Path(out)
    card = out / "README.md"
    _check_place(out)
    splits: dict[str, list[dict[str, Any]]] = {split: [] for split in SPLITS}
    for split, member in tqdm(
        rows(seed), total=len(plan(seed)), desc="units", unit="unit", disable=not progress
    ):
        splits[split].append(member)
    counted = {"seed": seed, **statistics(splits)}
    with replacing(out / "data" / "mini") as folder:
        folder.mkdir()
        for split, members in splits.items():
            write_parquet(encode_images(members), folder / f"{split}.parquet")
        text = json.dumps(counted, indent=1, sort_keys=True) + "\n"
        (folder / "statistics.json").write_text(text)
        text = _card(folder, counted)
        if out.resolve() != EMBEDDED["mini"].resolve():
            card.unlink(missing_ok=True)  # in case this stops before the new card
    with replacing(card) as temporary:
        temporary.write_text(text, encoding="utf-8")
    return out


def _check_place(out: Path) -> None:
    """Raise InputError unless the edition may be written into this folder."""
    if out.exists() and not out.is_dir():
        raise InputError(f"{out} is a file; expected a folder. Give another --out.")
    if any(character in str(out.resolve()) for character in "[]*?"):
        raise InputError(
            f"{out} has [ ] * or ? in its path, which 'datasets' reads as patterns. Rename it."
        )
    if not out.is_dir() or MARK in _text(out / "README.md"):
        return
    files = [path.relative_to(out) for path in out.rglob("*") if path.is_file()]
    visible = [path for path in files if not any(part.startswith(".") for part in path.parts)]
    if any(path.parent != Path("data", "mini") for path in visible):
        raise InputError(f"{out} holds something else. Give another --out, a new folder.")


def _text(path: Path) -> str:
    return path.read_text(encoding="utf-8") if path.is_file() else ""


def _card(folder: Path, counted: Mapping[str, Any]) -> str:
    """Return the card: front matter with the files' digest, and the text with a new table."""
    files = {split: folder / f"{split}.parquet" for split in SPLITS}
    front = yaml.safe_dump(
        {
            "pretty_name": "MILANNOTATIONS, mini edition (synthetic)",
            "license": "mit",
            "language": ["en"],
            "tags": ["interpretability", "neuron-descriptions", "synthetic"],
            "configs": [
                {
                    "config_name": "mini",
                    # `datasets` derives the name of its cache from this (see `editions`)
                    "description": f"sha256:{sha256(*files.values())}",
                    "data_files": [
                        {"split": split, "path": f"data/mini/{split}.parquet"} for split in SPLITS
                    ],
                }
            ],
        },
        sort_keys=False,
    )
    lines = ["| network | layer | train | validation | test |", "|---|---|---|---|---|"]
    for key, counts in counted["units_by_layer"].items():
        network_name, layer = key.split("/")
        cells = " | ".join(str(counts.get(split, 0)) for split in SPLITS)
        lines.append(f"| {network_name} | {layer} | {cells} |")
    body = _text(EMBEDDED["mini"] / "README.md").split("---\n", 2)[2]
    begin, _, rest = body.partition(TABLE_BEGINS)
    _, _, end = rest.partition(TABLE_ENDS)
    table = "\n".join(lines)
    return f"---\n{front}---\n{begin}{TABLE_BEGINS}\n{table}\n{TABLE_ENDS}{end}"
