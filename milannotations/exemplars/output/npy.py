"""Exemplars as the folders that the code of 2022 wrote, and that its tools read.

FOLDER/<layer>/
  images.npy        uint8 (unit, k, 3, height, width), strongest first
  masks.npy         uint8 (unit, k, 1, height, width), 0 or 1
  ids.csv           a row a unit: places of the pictures in the data set
  activations.csv   the largest activation on each, as 1.23456e+00
  units.npy         int64, the units' indices; absent where they are 0, 1, ...
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterable
from contextlib import ExitStack
from itertools import chain
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

import numpy as np

from milannotations.editions.resumable import explain_full_disk, hold_lock
from milannotations.errors import InputError
from milannotations.exemplars.output.image_buffer import Images, Picture, stream
from milannotations.exemplars.output.options import check_form, check_labels, shown

if TYPE_CHECKING:
    from milannotations.exemplars.results import LayerExemplars, NetworkExemplars

FILES = {"images.npy", "masks.npy", "ids.csv", "activations.csv", "units.npy"}
"""Of a layer."""

MASK_BYTES = 32_000_000
"""Masks that are made together."""


def write_npy(
    computed: NetworkExemplars,
    pictures: Images,
    folder: str | os.PathLike[str],
    *,
    masks: str = "clamped",
    side: int | None = None,
    progress: bool = False,
) -> Path:
    """Write exemplars in the folder format of 2022, whole or not at all.

    `milannotations.published.archive.Archive` reads it, where pictures are square. Pictures
    differ from those of 2022 by up to one level of 255: those were cut off to bytes, these are
    rounded.

    Args:
        computed: what `compute` found.
        pictures: what it looked at.
        folder: a new one, or one with such layers and nothing else, which are replaced.
        masks: `clamped` or `2022`; see `milannotations.exemplars.tallies.masks`.
        side: of pictures and masks, in pixels; None keeps the size of the network's input. It
            was 224 in 2022.
        progress: show a bar.

    Returns:
        `folder`.

    Raises:
        InputError: `folder` holds something else; a layer whose label cannot name a folder; a
            picture that cannot be read now; another process is at it; the disk is full.

    Source: spec of 2022, `exemplars/compute.py`.
    """
    folder = Path(folder).absolute()
    check_form(masks, side=side)
    check_labels(computed.layers)
    check_npy_place(folder)
    # in place of a hidden folder, so that a run which was killed leaves nothing for good
    whole, before = (folder.with_name(f".{folder.name}.{each}") for each in ("whole", "before"))
    with (
        explain_full_disk(folder.parent, "Make room"),
        hold_lock(folder.parent, f"{folder.name}.npy"),
    ):
        if before.exists() and not folder.exists():
            before.rename(folder)  # stopped between two renames
        for old in (whole, before):
            shutil.rmtree(old, ignore_errors=True)
        whole.mkdir()
        try:
            _write(computed, pictures, whole, masks, side, progress)
            if folder.exists():
                folder.rename(before)
            whole.rename(folder)
        finally:
            if before.exists() and not folder.exists():
                before.rename(folder)
            for old in (whole, before):
                shutil.rmtree(old, ignore_errors=True)
    return folder


def check_npy_place(folder: str | os.PathLike[str]) -> None:
    """Raise InputError unless `write_npy` may write into a folder."""
    folder = Path(folder)
    if folder.exists() and not folder.is_dir():
        raise InputError(f"{folder} is a file; a folder was expected.")
    for path in sorted(folder.iterdir()) if folder.is_dir() else ():
        inside = {each.name for each in path.iterdir()} if path.is_dir() else None
        if not inside or not {"masks.npy", "ids.csv"} <= inside <= FILES:
            raise InputError(
                f"{folder} holds {path.name}, which is no layer of the 2022 format, and would be "
                "replaced. Give another --also-npy."
            )


def _write(
    computed: NetworkExemplars,
    images: Images,
    whole: Path,
    masks: str,
    side: int | None,
    progress: bool,
) -> None:
    from tqdm import tqdm

    ids = shown(computed)
    coming = stream(images, ids, side)
    first = next(coming)
    size = (first.shape[0], first.shape[1])
    for label, layer in computed.layers.items():
        (whole / label).mkdir()
        _write_rest(layer, whole / label, size, masks)
    rows = tqdm(chain([first], coming), "2022 format", len(ids), unit="img", disable=not progress)
    _write_pictures(list(computed.layers.values()), ids, rows, whole)


def _write_rest(layer: LayerExemplars, folder: Path, size: tuple[int, int], masks: str) -> None:
    """Write all of a layer but its pictures."""
    n, k = layer.ids.shape
    with (folder / "masks.npy").open("wb") as file:
        _header(file, (n, k, 1, *size))
        step = max(1, MASK_BYTES // (k * size[0] * size[1]))
        for begin in range(0, n, step):
            made = layer.masks(slice(begin, begin + step), size, masks)
            file.write(made.cpu().numpy().astype(np.uint8).tobytes())
    _write_table(folder / "ids.csv", layer.ids, "{:d}")
    _write_table(folder / "activations.csv", layer.activations, "{:.5e}")
    units = layer.units.numpy()
    if units.tolist() != list(range(n)):
        np.save(folder / "units.npy", units.astype("<i8"))


def _write_table(path: Path, numbers: Any, form: str) -> None:
    lines = (",".join(map(form.format, row)) + "\n" for row in numbers.tolist())
    with path.open("w", encoding="ascii", newline="") as file:
        file.writelines(lines)


def _write_pictures(
    layers: list[LayerExemplars], ids: list[int], pictures: Iterable[Picture], whole: Path
) -> None:
    """Write images.npy of all layers: every picture goes to all its places when it comes.

    Not through a memory map: a full disk ends a process that writes to one, without a word.
    """
    wanted = np.concatenate([layer.ids.numpy().ravel() for layer in layers])
    of_layer = np.repeat(np.arange(len(layers)), [layer.ids.numel() for layer in layers])
    place = np.concatenate([np.arange(layer.ids.numel()) for layer in layers])
    order = np.argsort(wanted, kind="stable")
    bounds = np.searchsorted(wanted[order], [*ids, ids[-1] + 1])
    with ExitStack() as stack:
        files = [
            stack.enter_context((whole / layer.layer / "images.npy").open("wb")) for layer in layers
        ]
        begins: list[int] = []
        for picture, begin, end in zip(pictures, bounds[:-1], bounds[1:], strict=True):
            if not begins:
                shape = (3, *picture.shape[:2])
                begins = [
                    _header(file, (*layer.ids.shape, *shape))
                    for file, layer in zip(files, layers, strict=True)
                ]
            content = picture.transpose(2, 0, 1).tobytes()
            for at in order[begin:end]:
                file = files[of_layer[at]]
                file.seek(begins[of_layer[at]] + int(place[at]) * len(content))
                file.write(content)


def _header(file: IO[bytes], shape: tuple[int, ...]) -> int:
    """Write the header of uint8 numbers, and return its length."""
    np.lib.format.write_array_header_1_0(
        file, {"descr": "|u1", "fortran_order": False, "shape": tuple(map(int, shape))}
    )
    return file.tell()
