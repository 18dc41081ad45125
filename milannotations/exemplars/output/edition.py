"""Write computed exemplars: as a config of an edition, or as the folders of 2022.

Every picture is read and encoded once, however many layers and units show it. Its bytes wait in
a file without a name until the rows are written: memory does not grow with pictures or units.

Few images mean that units share exemplars, and then a picture costs its bytes once for `SHARED`
units instead of once for each. The first 15 of 256 units of ResNet-18 layer3 over 1,000
photographs (224 px, lossless, 860 different pictures in 3,840 places) take 230 MB with 4 units
a row group, 165 with 32, 127 with 64. To read one unit of them takes .06 s for all of these,
and 10, 90 and 170 MB of memory. Over so many images that units hardly share any, row groups
are those of `shards`.
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
from milannotations.exemplars.output.image_buffer import Images, Spool, stream
from milannotations.exemplars.output.npy import MASK_BYTES, check_npy_place, write_npy
from milannotations.exemplars.output.options import check_form, check_labels, shown
from milannotations.utils.files import write_json

if TYPE_CHECKING:
    from milannotations.exemplars.results import LayerExemplars, NetworkExemplars

__all__ = ["check_form", "check_labels", "check_npy_place", "write", "write_npy"]

SHARED = 64
"""Units in a row group where that spares pictures."""

GROUP_BYTES = 64_000_000
"""Pictures of such a row group, every place counted: what a reader of one unit holds."""

WORTH = 0.9
"""Where the different pictures of row groups are at most this share of places, they are larger."""

NAMED = 10
"""Skipped pictures that are named in the record; the rest are counted."""


def write(
    computed: NetworkExemplars,
    pictures: Images,
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

    Run again after an interruption, by a kill too, it goes on with the layer it was at. The
    same exemplars and settings give the same bytes, interrupted or not.

    Args:
        computed: what `compute` found.
        pictures: what it looked at.
        out: an edition, or a place for one.
        name: of the config, and the `network` of its rows.
        masks: `clamped` or `2022`; see `milannotations.exemplars.tallies.masks`.
        quality: of lossy WebP, 1 to 100; None is lossless.
        side: pictures are resized to so many pixels square (nearest, as in 2022), and masks are
            made of that size; None keeps the size of the network's input.
        made_from: for the record: `model`, `images`, `preprocessing`, as JSON.
        overwrite: replace a config that is there.
        progress: show bars.

    Returns:
        The config's folder.

    Raises:
        InputError: see `editions.writing.write_config`; a layer whose label cannot name a file; a
            picture that cannot be read now; another process is at it; the disk is full.
    """
    name, out = catalog.canonical(name), Path(out)
    check_form(masks, quality, side)
    check_labels(computed.layers)
    check_destination(out, name, overwrite=True)
    settings = {**computed.settings, "masks": masks, "quality": quality, "side": side}
    asked = _plain({"network": name, "made_from": dict(made_from), "settings": settings})
    with explain_full_disk(out), hold_lock(out, name):
        work = UnfinishedConfig(out, name, asked, _stamp(computed))
        if not work.is_installed():
            check_destination(out, name, overwrite=overwrite)
            _fill(work, computed, pictures, progress)
        with hold_lock(out, "the card", wait=True):
            work.install()
    return out / name


def _fill(
    work: UnfinishedConfig, computed: NetworkExemplars, images: Images, progress: bool
) -> None:
    """Write the layers that are not finished, and what lies beside the shards."""
    from tqdm import tqdm

    work.begin()
    settings = work.settings
    ids = shown(computed)
    left = [layer for layer in computed.layers.values() if layer.layer not in work.layers]
    # all of them, whatever is left: a generator's last bits depend on what is made together
    wanted = ids if left else ids[:1]
    with Spool(work.folder) as spool, ThreadPoolExecutor(os.cpu_count() or 1) as pool:
        coming = stream(images, wanted, settings["side"])
        bar = tqdm(coming, total=len(wanted), desc="pictures", unit="img", disable=not progress)
        spool.fill(wanted, bar, lambda each: encode_webp(each, settings["quality"]), pool)
        with tqdm(
            total=sum(len(layer.units) for layer in computed.layers.values()),
            initial=sum(len(computed.layers[name].units) for name in work.layers),
            desc=work.target.name,
            unit="unit",
            disable=not progress,
        ) as bar:
            for layer in left:
                shards = _shards(work, layer, spool)
                try:
                    for row in _rows(layer, work, spool, images, pool):
                        shards.add(row)
                        bar.update()
                    shards.finish()
                finally:
                    shards.close()
                work.record_layer(layer.layer, shards.names)
        _describe(work, computed, spool.size)


def _shards(work: UnfinishedConfig, layer: LayerExemplars, spool: Spool) -> ShardWriter:
    """Return the writer of a layer, with larger row groups where that spares pictures."""
    ids = layer.ids.numpy()
    together = min(SHARED, GROUP_BYTES * len(ids) // spool.bytes_of(ids.ravel().tolist()))
    different = (
        sum(len(np.unique(ids[first : first + together])) for first in range(0, len(ids), together))
        if together > ROWS
        else ids.size
    )
    once = different <= WORTH * ids.size
    return ShardWriter(
        work.whole,
        "test",
        layer.layer,
        rows=together if once else ROWS,
        shard_bytes=SHARD_BYTES,
        once=once,
    )


def _rows(
    layer: LayerExemplars,
    work: UnfinishedConfig,
    spool: Spool,
    images: Images,
    pool: ThreadPoolExecutor,
) -> Iterator[dict[str, Any]]:
    """Yield the rows of a layer; masks are futures of their bytes."""
    high, wide = spool.size
    step = max(1, MASK_BYTES // (layer.ids.shape[1] * high * wide))
    for first in range(0, len(layer.units), step):
        part = slice(first, first + step)
        with _one_thread():
            made = layer.masks(part, spool.size, work.settings["masks"]).cpu().numpy()
        ids, activations = layer.ids[part].tolist(), layer.activations[part].tolist()
        thresholds, units = layer.thresholds[part].tolist(), layer.units[part].tolist()
        for row, unit in enumerate(units):
            yield schema.row(
                schema.Unit(work.target.name, layer.layer, unit),
                images=[spool[id_] for id_ in ids[row]],
                masks=[pool.submit(encode_png, mask) for mask in made[row]],
                source_ids=[images.source_id(id_) for id_ in ids[row]],
                activations=activations[row],
                threshold=thresholds[row],
                unit_kind=layer.unit_kind,
                polarity="+",
            )


@contextmanager
def _one_thread() -> Iterator[None]:
    """Keep torch to one thread: its threads and those that encode stand in each other's way.

    On two cores masks beside PNG take ten times as long otherwise.
    """
    import torch

    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


# ---- what lies beside


def _describe(work: UnfinishedConfig, computed: NetworkExemplars, size: tuple[int, int]) -> None:
    counted = write_statistics(work.whole, work.checksums)
    write_json(
        work.whole / PREPARED,
        {
            "format": 1,
            **work.asked,
            "annotations_sha256": None,
            "pictures": quality_label(work.settings["quality"]),
            "images": computed.images,
            "skipped": {
                "count": len(computed.skipped),
                "first": [
                    {"source_id": each.source_id, "why": each.why}
                    for each in computed.skipped[:NAMED]
                ],
            },
            "layers": {
                label: {
                    "units": len(layer.units),
                    "unit_kind": layer.unit_kind,
                    "k": layer.ids.shape[1],
                    "size": list(size),
                    "dead": _chosen(layer, layer.dead),
                    "silent": _chosen(layer, layer.silent),
                }
                for label, layer in computed.layers.items()
            },
            "units": counted["units_by_split"],
            "descriptions": counted["descriptions"],
            "notes": _notes(computed, work.settings["masks"]),
        },
    )


def _chosen(layer: LayerExemplars, which: Any) -> list[int]:
    found: list[int] = layer.units[which].tolist()
    return found


def _notes(computed: NetworkExemplars, masks: str) -> list[str]:
    """Return what a reader of the card is to know of the exemplars, in sentences."""
    notes = []
    # with zeros around the maps, masks of a threshold below 0 begin at the pictures' edges
    empty = ", so that their masks are empty" if masks == "clamped" else ""
    if computed.skipped:
        first = some([each.source_id for each in computed.skipped])
        notes.append(
            f"{len(computed.skipped):,} of {computed.images + len(computed.skipped):,} pictures "
            f"could not be read and were left out: {first}."
        )
    asked = computed.settings.get("k", 0)
    if computed.images < asked:
        notes.append(
            f"there were fewer pictures than the {asked} exemplars asked for: units have "
            f"{computed.images}."
        )
    for label, layer in computed.layers.items():
        units = "latents" if layer.unit_kind == "sae_latent" else "units"
        silent, dead = _chosen(layer, layer.silent), _chosen(layer, layer.dead)
        never = "never fire, no picture drives them above 0"
        above = f"are dead, no activation is above their threshold{empty}"
        said = [(silent, never), (dead, above)]
        if silent == dead:
            said = [(dead, f"{never}{empty}")]
        notes += [
            f"{label}: {len(found):,} of {len(layer.units):,} {units} {says}: {some(found)}."
            for found, says in said
            if found
        ]
    return notes


# ---- what is the same, and what is not


def _plain(asked: dict[str, Any]) -> dict[str, Any]:
    """Return what JSON makes of it, as it will be compared with what was read back."""
    try:
        made: dict[str, Any] = json.loads(json.dumps(asked, allow_nan=False))
    except (TypeError, ValueError) as error:
        raise InputError(f"made_from and settings are to be JSON, and are not: {error}") from None
    return made


def _stamp(computed: NetworkExemplars) -> str:
    """Return a digest of all that is written of the layers but pixels."""
    found = hashlib.sha256()
    for label, layer in computed.layers.items():
        parts = (layer.units, layer.ids, layer.activations, layer.maps, layer.thresholds)
        found.update(f"{label} {[tuple(part.shape) for part in parts]}".encode())
        for part in parts:
            found.update(part.contiguous().numpy())
    return found.hexdigest()
