"""Writer of exemplars in the folder format of the 2022 code, which its tools read.

FOLDER/<layer>/
  images.npy        uint8 (unit, k, 3, height, width), strongest first
  masks.npy         uint8 (unit, k, 1, height, width), 0 or 1
  ids.csv           one row per unit: indices of the images in the dataset
  activations.csv   the largest activation on each image, as 1.23456e+00
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
from milannotations.exemplars.output.image_buffer import ImageSource, PixelArray, read_images
from milannotations.exemplars.output.options import OutputOptions, check_labels

if TYPE_CHECKING:
    from milannotations.exemplars.results import LayerExemplars, NetworkExemplars

FILES = {"images.npy", "masks.npy", "ids.csv", "activations.csv", "units.npy"}
"""Files of a layer."""

MASK_BYTES = 32_000_000
"""Bytes of masks that are made at a time."""


def write_npy(
    exemplars: NetworkExemplars,
    images: ImageSource,
    folder: str | os.PathLike[str],
    *,
    masks: str = "clamped",
    side: int | None = None,
    progress: bool = False,
) -> Path:
    """Write exemplars in the folder format of 2022, whole or not at all.

    `milannotations.published.archive.Archive` reads it, where images are square. Images differ
    from those of 2022 by up to one level of 255: those were truncated to bytes, these are rounded.

    Args:
        exemplars: result of `compute`.
        images: the dataset they were computed on.
        folder: a new one, or one with such layers and nothing else, which are replaced.
        masks: `clamped` or `2022`; see `milannotations.exemplars.tallies.masks`.
        side: side of images and masks in pixels; None keeps the size of the network's input. It
            was 224 in 2022.
        progress: show a progress bar.

    Returns:
        `folder`.

    Raises:
        InputError: `folder` holds something else; a layer whose label cannot name a folder; an
            image that cannot be read any more; another process writes there; the disk is full.

    Source: specification of the 2022 code, `exemplars/compute.py`.
    """
    folder = Path(folder).absolute()
    options = OutputOptions(masks, side=side)
    check_labels(exemplars.layers)
    check_npy_folder(folder)
    # written to a hidden folder that then replaces `folder`; the next run removes what a killed
    # one left behind
    whole, before = (folder.with_name(f".{folder.name}.{suffix}") for suffix in ("whole", "before"))
    with (
        explain_full_disk(folder.parent, "Make room"),
        hold_lock(folder.parent, f"{folder.name}.npy"),
    ):
        if before.exists() and not folder.exists():
            before.rename(folder)  # killed between the two renames
        for old in (whole, before):
            shutil.rmtree(old, ignore_errors=True)
        whole.mkdir()
        try:
            _write_layers(exemplars, images, whole, options, progress)
            if folder.exists():
                folder.rename(before)
            whole.rename(folder)
        finally:
            if before.exists() and not folder.exists():
                before.rename(folder)
            for old in (whole, before):
                shutil.rmtree(old, ignore_errors=True)
    return folder


def check_npy_folder(folder: str | os.PathLike[str]) -> None:
    """Raise InputError if `write_npy` would replace a file or a folder of something else."""
    folder = Path(folder)
    if folder.exists() and not folder.is_dir():
        raise InputError(f"{folder} is a file; expected a folder.")
    for path in sorted(folder.iterdir()) if folder.is_dir() else ():
        names = {file.name for file in path.iterdir()} if path.is_dir() else None
        if not names or not {"masks.npy", "ids.csv"} <= names <= FILES:
            raise InputError(
                f"{folder} holds {path.name}, which is no layer of the 2022 format, and would be "
                "replaced. Give another --also-npy."
            )


def _write_layers(
    exemplars: NetworkExemplars,
    images: ImageSource,
    folder: Path,
    options: OutputOptions,
    progress: bool,
) -> None:
    """Write all layers into a folder."""
    from tqdm import tqdm

    ids = exemplars.image_ids()
    arrays = read_images(images, ids, options.side)
    first = next(arrays)  # masks have the size of the images
    size = (first.shape[0], first.shape[1])
    for label, layer in exemplars.layers.items():
        (folder / label).mkdir()
        _write_all_but_images(layer, folder / label, size, options.masks)
    bar = tqdm(chain([first], arrays), "2022 format", len(ids), unit="img", disable=not progress)
    _write_images(list(exemplars.layers.values()), ids, bar, folder)


def _write_all_but_images(
    layer: LayerExemplars, folder: Path, size: tuple[int, int], masks: str
) -> None:
    """Write the masks and tables of a layer."""
    n, k = layer.ids.shape
    with (folder / "masks.npy").open("wb") as file:
        _write_header(file, (n, k, 1, *size))
        step = max(1, MASK_BYTES // (k * size[0] * size[1]))
        for begin in range(0, n, step):
            array = layer.masks(slice(begin, begin + step), size, masks).cpu().numpy()
            file.write(array.astype(np.uint8).tobytes())
    _write_table(folder / "ids.csv", layer.ids, "{:d}")
    _write_table(folder / "activations.csv", layer.activations, "{:.5e}")
    units = layer.units.numpy()
    if units.tolist() != list(range(n)):
        np.save(folder / "units.npy", units.astype("<i8"))


def _write_table(path: Path, numbers: Any, form: str) -> None:
    lines = (",".join(map(form.format, row)) + "\n" for row in numbers.tolist())
    with path.open("w", encoding="ascii", newline="") as file:
        file.writelines(lines)


def _write_images(
    layers: list[LayerExemplars], ids: list[int], images: Iterable[PixelArray], folder: Path
) -> None:
    """Write images.npy of all layers: each image, once read, to all its positions.

    Not through a memory map: a full disk kills a process that writes to one, without a message.
    """
    # One entry per exemplar of any layer: its image, its layer, its index in the layer's file.
    exemplar_ids = np.concatenate([layer.ids.numpy().ravel() for layer in layers])
    layer_index = np.repeat(np.arange(len(layers)), [layer.ids.numel() for layer in layers])
    file_index = np.concatenate([np.arange(layer.ids.numel()) for layer in layers])
    # Sorted by image, the entries of image n are order[bounds[n] : bounds[n + 1]].
    order = np.argsort(exemplar_ids, kind="stable")
    bounds = np.searchsorted(exemplar_ids[order], [*ids, ids[-1] + 1])
    with ExitStack() as stack:
        files = [
            stack.enter_context((folder / layer.layer / "images.npy").open("wb"))
            for layer in layers
        ]
        header_bytes: list[int] = []
        for image, begin, end in zip(images, bounds[:-1], bounds[1:], strict=True):
            if not header_bytes:
                shape = (3, *image.shape[:2])
                header_bytes = [
                    _write_header(file, (*layer.ids.shape, *shape))
                    for file, layer in zip(files, layers, strict=True)
                ]
            content = image.transpose(2, 0, 1).tobytes()
            for entry in order[begin:end]:
                file = files[layer_index[entry]]
                offset = int(file_index[entry]) * len(content)
                file.seek(header_bytes[layer_index[entry]] + offset)
                file.write(content)


def _write_header(file: IO[bytes], shape: tuple[int, ...]) -> int:
    """Write the header of an array of uint8, and return its length in bytes."""
    np.lib.format.write_array_header_1_0(
        file, {"descr": "|u1", "fortran_order": False, "shape": tuple(map(int, shape))}
    )
    return file.tell()
