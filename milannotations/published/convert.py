"""Convert a published archive into a config of an edition, with its exemplars.

    EDITION/<network>/
      train-conv1-00000.parquet, ...   units of one layer and split, in order, `ROWS` a row group
      checksums.json                   sha256 of every shard, in order
      prepared.json                    what it was made from, and how
      statistics.json                  `milannotations.editions.statistics`

A config is made in a hidden folder beside its place and renamed when it is whole. A finished
layer stays there, so that a run that was interrupted, by a kill too, goes on with the layer it
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
from milannotations.published.archive import Archive, Layer, unshift_dino
from milannotations.utils.files import read_json, write_json

DINO = "dino_vits8-imagenet"
_SHIFT = (
    "masks were published one patch of 8 pixels out of place in reading order, because the last "
    "token was dropped instead of the class token"
)
_AS_PUBLISHED = f"{_SHIFT}. They stand as published; --repair-dino-shift moves them back."
_REPAIRED = (
    f"{_SHIFT}. They were moved back by one patch. The last patch (bottom right) was never "
    "published and is 0 in every mask; pixels by the left and right edges are approximate; the "
    "ranking of pictures still counts the class token."
)


class ImageSource(Protocol):
    """Source of images that an archive only points at; see `milannotations.published.imagenet`."""

    def pictures(self, ids: Sequence[int], side: int) -> Iterator[NDArray[np.uint8]]:
        """Yield (side, side, 3), uint8, for every id, in order."""


@dataclass(frozen=True)
class ConvertedConfig:
    """What `prepare` wrote.

    `folder` is the config's; `units` counts those of each split; `pictures` says how they are
    kept ("none" where the archive has none); `n_left_out` counts annotated units of layers
    that the archive lacks; `notes` are known faults, as on the card.
    """

    network: str
    folder: Path
    units: dict[str, int]
    descriptions: int
    pictures: str
    n_left_out: int
    notes: tuple[str, ...]


def prepare(
    network: str,
    source: str | os.PathLike[str],
    out: str | os.PathLike[str],
    *,
    pixels: ImageSource | None = None,
    quality: int | None = None,
    repair_dino_shift: bool = False,
    unlisted: bool = False,
    overwrite: bool = False,
    progress: bool = False,
) -> ConvertedConfig:
    """Convert the archive of a network into a config of the edition at `out`.

    Run again after an interruption it goes on at the layer it was at; with another source
    or other settings it starts over. What `milan data prepare` does.

    Args:
        network: whose archive it is.
        source: the zip, or the folder with its content.
        out: an edition, or a place for one.
        pixels: gives the pictures of layers without images.npy; without it `images` is null.
        quality: of lossy WebP, 1 to 100; None is lossless.
        repair_dino_shift: move the masks of dino_vits8-imagenet back, see `unshift_dino`.
        unlisted: see `Archive`.
        overwrite: replace a config that is there.
        progress: show a bar.

    Raises:
        InputError: see `Archive` and `editions.writing.write_config`; another process is at it; the
            disk is full.
    """
    network, out = catalog.canonical(network), Path(out)
    check_quality(quality)
    if repair_dino_shift and network != DINO:
        raise InputError(f"--repair-dino-shift is for {DINO}; {network} has no such fault.")
    check_destination(out, network, overwrite=True)
    with Archive(source, network, unlisted=unlisted) as archive:
        if all(layer.has_images for layer in archive.layers.values()):
            pixels = None
        asked = {
            "network": network,
            "source": archive.members.source(),
            "settings": {
                "quality": quality,
                "repair_dino_shift": repair_dino_shift,
                "unlisted": unlisted,
                "pixels": _how(pixels),
            },
        }
        with explain_full_disk(out), hold_lock(out, network):
            work = UnfinishedConfig(out, network, asked, archive.members.stamp())
            if not work.is_installed():
                check_destination(out, network, overwrite=overwrite)
                _convert(archive, work, pixels, progress)
            with hold_lock(out, "the card", wait=True):
                work.install()
    made = read_json(out / network / PREPARED)
    return ConvertedConfig(
        network,
        out / network,
        made["units"],
        made["descriptions"],
        made["pictures"],
        made["n_left_out"],
        tuple(made["notes"]),
    )


def _how(pixels: ImageSource | None) -> str | None:
    if pixels is None:
        return None
    return "whole picture, squashed" if getattr(pixels, "legacy_squash", False) else "centre crop"


# ---- rows


def _convert(
    archive: Archive, work: UnfinishedConfig, pixels: ImageSource | None, progress: bool
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
        if pixels is not None and not layer.has_images:
            pixels.pictures([int(layer.ids.max())], layer.side)  # an id too high is found now
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
                for unit, row in _rows(archive, layer, pixels, pool, work.settings):
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
    _describe(archive, work, pixels)


def _rows(
    archive: Archive,
    layer: Layer,
    pixels: ImageSource | None,
    pool: ThreadPoolExecutor,
    settings: dict[str, Any],
) -> Iterator[tuple[schema.Unit, dict[str, Any]]]:
    """Yield the rows of a layer; pictures and masks are futures of their bytes."""
    known = catalog.NETWORKS.get(archive.network)
    kind = known.unit_kind if known else None
    written = archive.annotations.descriptions if archive.annotations else {}
    merged = None
    if pixels is not None and not layer.has_images:
        merged = pixels.pictures(layer.ids.ravel().tolist(), layer.side)
    for found in archive.units(layer.name):
        unit = schema.Unit(archive.network, layer.name, found.unit)
        masks = unshift_dino(found.masks) if settings["repair_dino_shift"] else found.masks
        pictures: list[NDArray[np.uint8]] | None = None
        if found.images is not None:
            pictures = [image.transpose(1, 2, 0) for image in found.images]
        elif merged is not None:
            pictures = [_checked(next(merged, None), layer.side) for _ in found.ids]
        yield (
            unit,
            schema.row(
                unit,
                images=pictures
                and [pool.submit(encode_webp, p, settings["quality"]) for p in pictures],
                masks=[pool.submit(encode_png, mask) for mask in masks],
                source_ids=[str(id_) for id_ in found.ids],
                activations=found.activations,
                descriptions=written.get(unit, []),
                unit_kind=kind,
                polarity="+",
            ),
        )


def _checked(picture: NDArray[np.uint8] | None, side: int) -> NDArray[np.uint8]:
    if picture is None:
        raise InputError("There are fewer pictures than ids; expected one for every id.")
    if picture.shape != (side, side, 3) or picture.dtype != np.uint8:
        raise InputError(
            f"A picture came as {picture.shape}, {picture.dtype}; expected {(side, side, 3)}, "
            "uint8, as its mask."
        )
    return picture


def _describe(archive: Archive, work: UnfinishedConfig, pixels: ImageSource | None) -> None:
    """Write the three files beside the shards."""
    counted = write_statistics(work.whole, work.checksums)
    shown = {
        layer.name: layer.has_images or pixels is not None for layer in archive.layers.values()
    }
    how = quality_label(work.settings["quality"])
    without = [name for name, has in shown.items() if not has]
    if without:
        how = "none" if not any(shown.values()) else f"{how}; none in {', '.join(without)}"
    notes = []
    if archive.network == DINO:
        notes.append(_REPAIRED if work.settings["repair_dino_shift"] else _AS_PUBLISHED)
    known = catalog.NETWORKS.get(archive.network)
    if known and archive.n_units != known.n_units:
        notes.append(f"cut down: {archive.n_units:,} of {known.n_units:,} published units.")
    write_json(
        work.whole / PREPARED,
        {
            "format": 1,
            **work.asked,
            "annotations_sha256": archive.annotations and archive.annotations.digest,
            "pictures": how,
            "layers": {
                layer.name: {"units": layer.n_units, "k": layer.k, "side": layer.side}
                for layer in archive.layers.values()
            },
            "units": counted["units_by_split"],
            "descriptions": counted["descriptions"],
            "n_left_out": archive.n_left_out,
            "notes": notes,
        },
    )
