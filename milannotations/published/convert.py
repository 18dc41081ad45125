"""Conversion of a published archive into a config of an edition, with exemplars.

    EDITION/<network>/
      train-conv1-00000.parquet, ...   units of one layer and split, in order, in row groups
      checksums.json                   sha256 of every shard, in order
      prepared.json                    source and settings
      statistics.json                  `milannotations.editions.statistics`

A config is written in a hidden folder beside its destination and renamed when it is complete.
Finished layers stay there, so that a run that was interrupted or killed resumes at the layer it
was at. The same archive and settings give the same bytes, interrupted or not.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from milannotations import catalog, schema
from milannotations.editions.contents import PREPARED
from milannotations.editions.resumable import UnfinishedConfig, explain_full_disk, hold_lock
from milannotations.editions.shards import (
    SHARD_BYTES,
    ShardWriter,
    check_quality,
    encode_png,
    encode_webp,
    quality_label,
    write_statistics,
)
from milannotations.editions.writing import check_destination
from milannotations.errors import InputError
from milannotations.published.annotations import split_units
from milannotations.published.archive import Archive, ArchiveLayer, unshift_dino
from milannotations.utils.files import read_json, write_json

DINO = "dino_vits8-imagenet"
"""Network whose published masks are shifted by one patch."""

_SHIFT = (
    "masks were published one patch of 8 pixels out of place in reading order, because the last "
    "token was dropped instead of the class token"
)
_AS_PUBLISHED = f"{_SHIFT}. They are kept as published; --repair-dino-shift moves them back."
_REPAIRED = (
    f"{_SHIFT}. They were moved back by one patch. The last patch (bottom right) was never "
    "published and is 0 in every mask; pixels by the left and right edges are approximate; the "
    "ranking of images still counts the class token."
)


class CropSource(Protocol):
    """Source of images that an archive refers to by id; `imagenet.ImageNetImages` is one."""

    def crops(self, ids: Sequence[int], side: int) -> Iterator[NDArray[np.uint8]]:
        """Yield the image of every id, in order: (side, side, 3), uint8."""


@dataclass(frozen=True)
class ConvertedConfig:
    """Summary of the config that `prepare` wrote.

    Attributes:
        network: name of the config.
        folder: of the config.
        units: number of units by split.
        descriptions: number of descriptions.
        images: format of the images; "none" if there are none.
        n_left_out: number of annotated units in layers that the archive lacks.
        notes: known faults, as on the card.
    """

    network: str
    folder: Path
    units: dict[str, int]
    descriptions: int
    images: str
    n_left_out: int
    notes: tuple[str, ...]


def prepare(
    network: str,
    source: str | os.PathLike[str],
    out: str | os.PathLike[str],
    *,
    images: CropSource | None = None,
    quality: int | None = None,
    repair_dino_shift: bool = False,
    unlisted: bool = False,
    overwrite: bool = False,
    progress: bool = False,
) -> ConvertedConfig:
    """Convert the archive of a network into a config of the edition at `out`.

    A run after an interruption resumes at the layer it was at; with another source or other
    settings it starts over. `milan data prepare` calls this.

    Args:
        network: name of the network.
        source: the zip, or the folder with its content.
        out: an edition, or a new folder for one.
        images: source of the images of layers without images.npy; without it their column
            `images` is null.
        quality: quality of lossy WebP images, 1 to 100 (default: lossless).
        repair_dino_shift: move the published masks of dino_vits8-imagenet back by one patch.
        unlisted: accept layers, units and shapes that differ from the catalog.
        overwrite: replace an existing config.
        progress: show a progress bar.

    Raises:
        InputError: see `Archive` and `editions.writing.write_config`; another process is
            preparing it; the disk is full.
    """
    network, out = catalog.canonical(network), Path(out)
    check_quality(quality)
    if repair_dino_shift and network != DINO:
        raise InputError(f"--repair-dino-shift does not apply to {network}, only to {DINO}.")
    check_destination(out, network, overwrite=True)
    with Archive(source, network, unlisted=unlisted) as archive:
        if all(layer.has_images for layer in archive.layers.values()):
            images = None
        asked = {
            "network": network,
            "source": archive.members.source(),
            "settings": {
                "quality": quality,
                "repair_dino_shift": repair_dino_shift,
                "unlisted": unlisted,
                "pixels": _cropping(images),
            },
        }
        with explain_full_disk(out), hold_lock(out, network):
            work = UnfinishedConfig(out, network, asked, archive.members.stamp())
            if not work.is_installed():
                check_destination(out, network, overwrite=overwrite)
                _convert(archive, work, images, progress)
            with hold_lock(out, "the card", wait=True):
                work.install()
    prepared = read_json(out / network / PREPARED)
    return ConvertedConfig(
        network,
        out / network,
        prepared["units"],
        prepared["descriptions"],
        prepared["pictures"],
        prepared["n_left_out"],
        tuple(prepared["notes"]),
    )


def _cropping(images: CropSource | None) -> str | None:
    if images is None:
        return None
    return "whole picture, squashed" if getattr(images, "legacy_squash", False) else "centre crop"


# ---- rows


def _convert(
    archive: Archive, work: UnfinishedConfig, images: CropSource | None, progress: bool
) -> None:
    from tqdm import tqdm

    units = [
        schema.Unit(archive.network, layer.name, unit)
        for layer in archive.layers.values()
        for unit in layer.units
    ]
    annotated = archive.annotations is not None
    parts = split_units(archive.network, units) if annotated else {"test": units}
    split_of = {unit: split for split, members in parts.items() for unit in members}
    for layer in archive.layers.values():
        if images is not None and not layer.has_images:
            images.crops([int(layer.ids.max())], layer.side)  # fails early if an id is too high
    work.begin()
    with (
        tqdm(
            total=len(units),
            initial=sum(archive.layers[name].n_units for name in work.layers),
            desc=archive.network,
            unit="unit",
            disable=not progress,
        ) as bar,
        ThreadPoolExecutor(os.cpu_count() or 1) as pool,
    ):
        for layer in archive.layers.values():
            if layer.name in work.layers:
                continue
            writers = {
                split: ShardWriter(work.whole, split, layer.name, shard_bytes=SHARD_BYTES)
                for split in parts
                if any(u.layer == layer.name for u in parts[split])
            }
            try:
                for unit, row in _rows(archive, layer, images, pool, work.settings):
                    writers[split_of[unit]].add(row)
                    bar.update()
                for writer in writers.values():
                    writer.finish()
            finally:
                for writer in writers.values():
                    writer.close()
            work.record_layer(
                layer.name, [name for split in writers for name in sorted(writers[split].names)]
            )
    _write_metadata(archive, work, images)


def _rows(
    archive: Archive,
    layer: ArchiveLayer,
    source: CropSource | None,
    pool: ThreadPoolExecutor,
    settings: dict[str, Any],
) -> Iterator[tuple[schema.Unit, dict[str, Any]]]:
    """Yield the rows of a layer; images and masks are futures of their bytes."""
    known = catalog.NETWORKS.get(archive.network)
    kind = known.unit_kind if known else None
    descriptions = archive.annotations.descriptions if archive.annotations else {}
    quality, crops = settings["quality"], None
    if source is not None and not layer.has_images:
        crops = source.crops(layer.ids.ravel().tolist(), layer.side)
    for member in archive.units(layer.name):
        unit = schema.Unit(archive.network, layer.name, member.unit)
        masks = unshift_dino(member.masks) if settings["repair_dino_shift"] else member.masks
        images: list[NDArray[np.uint8]] | None = None
        if member.images is not None:
            images = [image.transpose(1, 2, 0) for image in member.images]  # (h, w, channel)
        elif crops is not None:
            images = [_check_crop(next(crops, None), layer.side) for _ in member.ids]
        yield (
            unit,
            schema.row(
                unit,
                images=images and [pool.submit(encode_webp, image, quality) for image in images],
                masks=[pool.submit(encode_png, mask) for mask in masks],
                source_ids=[str(id_) for id_ in member.ids],
                activations=member.activations,
                descriptions=descriptions.get(unit, []),
                unit_kind=kind,
                polarity="+",
            ),
        )


def _check_crop(crop: NDArray[np.uint8] | None, side: int) -> NDArray[np.uint8]:
    if crop is None:
        raise InputError("There are fewer images than ids; expected one for every id.")
    if crop.shape != (side, side, 3) or crop.dtype != np.uint8:
        raise InputError(
            f"An image has the shape {crop.shape}, {crop.dtype}; expected {(side, side, 3)}, "
            "uint8, like its mask."
        )
    return crop


def _write_metadata(archive: Archive, work: UnfinishedConfig, images: CropSource | None) -> None:
    """Write the three JSON files beside the shards."""
    counts = write_statistics(work.whole, work.checksums)
    has_images = {
        layer.name: layer.has_images or images is not None for layer in archive.layers.values()
    }
    label = quality_label(work.settings["quality"])
    without = [name for name, has in has_images.items() if not has]
    if without:
        label = f"{label}; none in {', '.join(without)}" if any(has_images.values()) else "none"
    notes = []
    if archive.network == DINO:
        notes.append(_REPAIRED if work.settings["repair_dino_shift"] else _AS_PUBLISHED)
    known = catalog.NETWORKS.get(archive.network)
    if known and archive.n_units != known.n_units:
        notes.append(f"partial: {archive.n_units:,} of {known.n_units:,} published units.")
    write_json(
        work.whole / PREPARED,
        {
            "format": 1,
            **work.asked,
            "annotations_sha256": archive.annotations and archive.annotations.digest,
            "pictures": label,
            "layers": {
                layer.name: {"units": layer.n_units, "k": layer.k, "side": layer.side}
                for layer in archive.layers.values()
            },
            "units": counts["units_by_split"],
            "descriptions": counts["descriptions"],
            "n_left_out": archive.n_left_out,
            "notes": notes,
        },
    )
