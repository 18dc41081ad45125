"""Writer of exemplars as a config of an edition.

Every image is read and encoded once, however many layers and units show it. Its bytes lie in an
unnamed file until the rows are written: memory does not grow with images or units.

With few images, units share exemplars, and an image is then stored once per `SHARED` units instead
of once per unit. The first 15 of 256 units of ResNet-18 layer3 over 1,000 photographs (224 px,
lossless, 860 distinct images for 3,840 exemplars) take 230 MB with 4 units per row group, 165 with
32, 127 with 64. Reading one unit takes .06 s with all of these, and 10, 90 and 170 MB of memory.
Over so many images that units hardly share any, row groups are those of `shards`.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from milannotations import catalog, schema
from milannotations.editions.contents import PREPARED
from milannotations.editions.resumable import UnfinishedConfig, explain_full_disk, hold_lock
from milannotations.editions.shards import (
    ROWS,
    SHARD_BYTES,
    ShardWriter,
    encode_png,
    encode_webp,
    quality_label,
    write_statistics,
)
from milannotations.editions.writing import check_destination
from milannotations.errors import InputError, some
from milannotations.exemplars.output.image_buffer import ImageBuffer, ImageSource, read_images
from milannotations.exemplars.output.npy import MASK_BYTES
from milannotations.exemplars.output.options import OutputOptions, check_labels
from milannotations.utils.files import write_json

if TYPE_CHECKING:
    from milannotations.exemplars.results import LayerExemplars, NetworkExemplars

SHARED = 64
"""Units per row group where larger row groups store fewer images."""

GROUP_BYTES = 64_000_000
"""Bytes of images in such a row group, repeats counted, which a reader of one unit must hold."""

WORTH = 0.9
"""Largest share of distinct images among the exemplars of a row group that makes it larger."""

NAMED = 10
"""Skipped images that are named in the record; the others are counted."""


def write(
    exemplars: NetworkExemplars,
    images: ImageSource,
    out: str | os.PathLike[str],
    name: str,
    *,
    masks: str = "clamped",
    quality: int | None = None,
    side: int | None = None,
    made_from: Mapping[str, Any],
    overwrite: bool = False,
    progress: bool = False,
) -> Path:
    """Write exemplars as a config of the edition at `out`, in one split, `test`.

    After an interruption (also a kill), the same call resumes at the unfinished layer. The same
    exemplars and settings give the same bytes, interrupted or not.

    Args:
        exemplars: result of `compute`.
        images: the dataset they were computed on.
        out: an edition, or a path for a new one.
        name: name of the config, and the `network` of its rows.
        masks: `clamped` or `2022`; see `milannotations.exemplars.tallies.masks`.
        quality: quality of lossy WebP, 1 to 100; None is lossless.
        side: images are resized to so many pixels square (nearest, as in 2022), and masks have
            the same size; None keeps the size of the network's input.
        made_from: for the record: `model`, `images`, `preprocessing`, as JSON.
        overwrite: replace an existing config of that name.
        progress: show progress bars.

    Returns:
        The config's folder.

    Raises:
        InputError: see `editions.writing.write_config`; a layer whose label cannot name a file; an
            image that cannot be read any more; another process writes there; the disk is full.
    """
    name, out = catalog.canonical(name), Path(out)
    options = OutputOptions(masks, quality, side)
    check_labels(exemplars.layers)
    check_destination(out, name, overwrite=True)
    settings = {
        **exemplars.settings,
        "masks": options.masks,
        "quality": options.quality,
        "side": options.side,
    }
    asked = _as_json({"network": name, "made_from": dict(made_from), "settings": settings})
    with explain_full_disk(out), hold_lock(out, name):
        work = UnfinishedConfig(out, name, asked, _fingerprint(exemplars))
        if not work.is_installed():
            check_destination(out, name, overwrite=overwrite)
            _write_unfinished(work, exemplars, images, progress)
        with hold_lock(out, "the card", wait=True):
            work.install()
    return out / name


def _write_unfinished(
    work: UnfinishedConfig, exemplars: NetworkExemplars, images: ImageSource, progress: bool
) -> None:
    """Write the shards of unfinished layers, and the files beside them."""
    from tqdm import tqdm

    work.begin()
    settings = work.settings
    ids = exemplars.image_ids()
    unfinished = [layer for layer in exemplars.layers.values() if layer.layer not in work.layers]
    # All images, even if some layers are finished: the last bits of a generator's images depend
    # on which are generated together. With no layer left, one image, for the size.
    ids_to_read = ids if unfinished else ids[:1]
    with ImageBuffer(work.folder) as buffer, ThreadPoolExecutor(os.cpu_count() or 1) as pool:
        bar = tqdm(
            read_images(images, ids_to_read, settings["side"]),
            total=len(ids_to_read),
            desc="images",
            unit="img",
            disable=not progress,
        )
        buffer.fill(ids_to_read, bar, lambda image: encode_webp(image, settings["quality"]), pool)
        with tqdm(
            total=sum(len(layer.units) for layer in exemplars.layers.values()),
            initial=sum(len(exemplars.layers[name].units) for name in work.layers),
            desc=work.target.name,
            unit="unit",
            disable=not progress,
        ) as bar:
            for layer in unfinished:
                shards = _shard_writer(work, layer, buffer)
                try:
                    for row in _rows(layer, work, buffer, images, pool):
                        shards.add(row)
                        bar.update()
                    shards.finish()
                finally:
                    shards.close()
                work.record_layer(layer.layer, shards.names)
        _describe(work, exemplars, buffer.size)


def _shard_writer(
    work: UnfinishedConfig, layer: LayerExemplars, buffer: ImageBuffer
) -> ShardWriter:
    """Return the writer of a layer, with larger row groups where that stores fewer images."""
    ids = layer.ids.numpy()
    rows = min(SHARED, GROUP_BYTES * len(ids) // buffer.count_bytes(ids.ravel().tolist()))
    n_distinct = (
        sum(len(np.unique(ids[first : first + rows])) for first in range(0, len(ids), rows))
        if rows > ROWS
        else ids.size
    )
    is_worth = n_distinct <= WORTH * ids.size
    return ShardWriter(
        work.whole,
        "test",
        layer.layer,
        rows=rows if is_worth else ROWS,
        shard_bytes=SHARD_BYTES,
        once=is_worth,
    )


def _rows(
    layer: LayerExemplars,
    work: UnfinishedConfig,
    buffer: ImageBuffer,
    images: ImageSource,
    pool: ThreadPoolExecutor,
) -> Iterator[dict[str, Any]]:
    """Yield the rows of a layer; masks are futures of their bytes."""
    height, width = buffer.size
    step = max(1, MASK_BYTES // (layer.ids.shape[1] * height * width))
    for first in range(0, len(layer.units), step):
        part = slice(first, first + step)
        with _one_thread():
            masks = layer.masks(part, buffer.size, work.settings["masks"]).cpu().numpy()
        ids, activations = layer.ids[part].tolist(), layer.activations[part].tolist()
        thresholds, units = layer.thresholds[part].tolist(), layer.units[part].tolist()
        for row, unit in enumerate(units):
            yield schema.row(
                schema.Unit(work.target.name, layer.layer, unit),
                images=[buffer[id_] for id_ in ids[row]],
                masks=[pool.submit(encode_png, mask) for mask in masks[row]],
                source_ids=[images.source_id(id_) for id_ in ids[row]],
                activations=activations[row],
                threshold=thresholds[row],
                unit_kind=layer.unit_kind,
                polarity="+",
            )


@contextmanager
def _one_thread() -> Iterator[None]:
    """Limit torch to one thread: its threads and those that encode compete for the cores.

    On two cores, masks beside PNG take ten times as long otherwise.
    """
    import torch

    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


# ---- files beside the shards


def _describe(work: UnfinishedConfig, exemplars: NetworkExemplars, size: tuple[int, int]) -> None:
    """Write statistics, checksums and the record of inputs, settings and faults."""
    statistics = write_statistics(work.whole, work.checksums)
    write_json(
        work.whole / PREPARED,
        {
            "format": 1,
            **work.asked,
            "annotations_sha256": None,
            "pictures": quality_label(work.settings["quality"]),
            "images": exemplars.images,
            "skipped": {
                "count": len(exemplars.skipped),
                "first": [
                    {"source_id": image.source_id, "why": image.why}
                    for image in exemplars.skipped[:NAMED]
                ],
            },
            "layers": {
                label: {
                    "units": len(layer.units),
                    "unit_kind": layer.unit_kind,
                    "k": layer.ids.shape[1],
                    "size": list(size),
                    "dead": _unit_indices(layer, layer.dead),
                    "silent": _unit_indices(layer, layer.silent),
                }
                for label, layer in exemplars.layers.items()
            },
            "units": statistics["units_by_split"],
            "descriptions": statistics["descriptions"],
            "notes": _notes(exemplars, work.settings["masks"]),
        },
    )


def _unit_indices(layer: LayerExemplars, flags: Any) -> list[int]:
    """Return the indices of the units with a flag, bool (unit,)."""
    indices: list[int] = layer.units[flags].tolist()
    return indices


def _notes(exemplars: NetworkExemplars, masks: str) -> list[str]:
    """Return sentences for the card about missing images, and dead and silent units."""
    notes = []
    if exemplars.skipped:
        names = some([image.source_id for image in exemplars.skipped])
        notes.append(
            f"{len(exemplars.skipped):,} of {exemplars.images + len(exemplars.skipped):,} images "
            f"could not be read and were left out: {names}."
        )
    k = exemplars.settings.get("k", 0)
    if exemplars.images < k:
        notes.append(
            f"there were fewer images than the {k} exemplars requested: units have "
            f"{exemplars.images}."
        )
    # masks of 2022 have zeros around the maps, which are above a threshold below 0
    empty = ", so that their masks are empty" if masks == "clamped" else ""
    for label, layer in exemplars.layers.items():
        kind = "latents" if layer.unit_kind == "sae_latent" else "units"
        silent, dead = _unit_indices(layer, layer.silent), _unit_indices(layer, layer.dead)
        faults = [
            (silent, "never fire, no image drives them above 0"),
            (dead, f"are dead, no activation is above their threshold{empty}"),
        ]
        if silent == dead:
            faults = [(dead, f"never fire, no image drives them above 0{empty}")]
        notes += [
            f"{label}: {len(units):,} of {len(layer.units):,} {kind} {fault}: {some(units)}."
            for units, fault in faults
            if units
        ]
    return notes


# ---- inputs and settings, to be compared with those of an earlier run


def _as_json(asked: dict[str, Any]) -> dict[str, Any]:
    """Return inputs and settings as they are when read back from JSON.

    Raises:
        InputError: they cannot be written as JSON.
    """
    try:
        plain: dict[str, Any] = json.loads(json.dumps(asked, allow_nan=False))
    except (TypeError, ValueError) as error:
        raise InputError(f"made_from and settings are not JSON: {error}") from None
    return plain


def _fingerprint(exemplars: NetworkExemplars) -> str:
    """Return a digest of everything that is written of the layers, except pixels."""
    digest = hashlib.sha256()
    for label, layer in exemplars.layers.items():
        tensors = (layer.units, layer.ids, layer.activations, layer.maps, layer.thresholds)
        digest.update(f"{label} {[tuple(tensor.shape) for tensor in tensors]}".encode())
        for tensor in tensors:
            digest.update(tensor.contiguous().numpy())
    return digest.hexdigest()
