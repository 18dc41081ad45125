"""Features of an edition's units, computed once: every distinct image is encoded once.

Units share images, so images are identified by their bytes. The maps of an image are pooled under
the masks of all units that show it, and dropped. If the features go to a file, which is then
mapped, memory does not grow with the number of units.
"""

import hashlib
import os
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from milan.encoder import IMAGE_BATCH, Encoder
from milannotations.errors import InputError
from milannotations.utils.files import replacing
from milannotations.utils.pooling import pool

Position = tuple[int, int]
"""An exemplar: row of its unit, and rank."""


class Features:
    """Features of units: float32 (unit, p, f), in memory or mapped from a file.

    Units with fewer exemplars than others have NaN in their last vectors.

    Args:
        values: the array.
        rows: indices of the units in it; None is all of them.
    """

    def __init__(self, values: np.ndarray[Any, np.dtype[np.float32]], rows: Any = None) -> None:
        self.values = values
        self.rows = np.arange(len(values)) if rows is None else np.asarray(rows, np.int64)

    def __len__(self) -> int:
        return len(self.rows)

    def of(self, rows: Sequence[int]) -> "Features":
        """Return the features of some units, without copying."""
        return Features(self.values, self.rows[np.asarray(rows, np.int64)])

    def tensors(self, rows: Any = slice(None)) -> tuple[Tensor, Tensor]:
        """Return the features of some units, 0 where there is no exemplar, and which exist.

        Returns:
            float32 (unit, p, f) and bool (unit, p).
        """
        values = torch.from_numpy(self.values[self.rows[rows]])
        present = ~values[:, :, 0].isnan()
        return values.masked_fill(~present[:, :, None], 0.0), present


def features_of(
    units: Any,
    encoder: Encoder,
    *,
    file: str | os.PathLike[str] | None = None,
    progress: bool = False,
) -> Features:
    """Return the features of the exemplars of units.

    Args:
        units: `datasets.Dataset` with the columns `images` and `masks`. Without masks the whole
            images are encoded.
        encoder: with its weights.
        file: .npy file to write the features to, complete or not at all, and to map them from; if
            it exists it is read instead. None keeps them in memory.
        progress: show a progress bar.

    Raises:
        InputError: a unit without images, or with another number of masks; an image or a mask
            that cannot be decoded; images of several sizes for a `spatial` encoder without an
            input size; `file` holds something else.
    """
    if file is None:
        return Features(_compute(units, encoder, None, progress))
    file = Path(file)
    if not file.exists():
        with replacing(file) as temporary:
            _compute(units, encoder, temporary, progress)
    size = encoder.config.feature_size
    try:
        values = np.load(file, mmap_mode="r")
    except (EOFError, ValueError) as error:
        raise InputError(
            f"{file} is damaged: {error} Remove it and run the command again."
        ) from error
    if values.ndim != 3 or (len(values), values.shape[2]) != (len(units), size):
        raise InputError(f"{file} holds other features; remove it and run the command again.")
    return Features(values)


def _compute(units: Any, encoder: Encoder, file: Path | None, progress: bool) -> Any:
    """Return the features of units as an array, in memory or mapped from a new file."""
    positions, masks, k = _survey(units)
    device, contents = encoder.mean.device, _distinct_images(units, positions)
    vectors = 1  # per exemplar
    if encoder.config.kind == "spatial" and positions:
        _, content = next(_distinct_images(units, positions))
        vectors = encoder(_decoded(content)[None].to(device)).shape[1]
    shape = (len(units), k * vectors, encoder.config.feature_size)
    values: Any = np.empty(shape, np.float32)
    if file is not None:
        values = np.lib.format.open_memmap(file, "w+", np.float32, shape)
    values[:] = np.nan
    with (
        tqdm(total=len(positions), desc="features", unit="img", disable=not progress) as bar,
        ThreadPoolExecutor(os.cpu_count() or 1) as threads,
    ):
        while chunk := list(islice(contents, IMAGE_BATCH)):
            images = list(threads.map(_decoded, [content for _, content in chunk]))
            # images of one size go through the network together
            for members in _by_shape(images):
                batch = torch.stack([images[i] for i in members]).to(device)
                maps = encoder.maps(batch) if encoder.config.kind == "pyramid" else []
                for row, i in enumerate(members):
                    # every unit that shows this image has a mask of its own on it
                    shown_at = positions[chunk[i][0]]
                    image_masks = [_mask(masks[position], images[i]) for position in shown_at]
                    for same in _by_shape(image_masks):
                        stacked = torch.stack([image_masks[j] for j in same]).to(device)
                        if maps:
                            image_maps = [level[row : row + 1] for level in maps]
                            # (1, mask, f) -> (mask, 1, f): one vector per mask
                            pooled = pool(image_maps, stacked[None])[0][:, None]
                        else:
                            copies = batch[row].expand(len(same), -1, -1, -1)
                            pooled = encoder(copies, stacked)
                        if pooled.shape[1] != vectors:
                            raise InputError(
                                "Images of several sizes have maps of several sizes, and a "
                                "spatial encoder needs one size; resize them beforehand."
                            )
                        for j, exemplar in zip(same, pooled.cpu().numpy(), strict=True):
                            unit, rank = shown_at[j]
                            values[unit, rank * vectors : (rank + 1) * vectors] = exemplar
            bar.update(len(chunk))
    if file is not None:
        values.flush()
    return values


def _survey(units: Any) -> tuple[dict[bytes, list[Position]], dict[Position, bytes | None], int]:
    """Return where each image is shown, by digest; the bytes of every mask; the most exemplars."""
    positions: dict[bytes, list[Position]] = {}
    contents: dict[Position, bytes | None] = {}
    k = 0
    for row, (images, masks) in enumerate(_rows(units)):
        if not images:
            raise InputError(
                f"Unit {row} of the data has no images: MILAN describes exemplars, and this "
                "edition, or part of it, holds text alone."
            )
        if masks is not None and len(masks) != len(images):
            raise InputError(f"Unit {row} has {len(images)} images and {len(masks)} masks.")
        k = max(k, len(images))
        for rank, image in enumerate(images):
            positions.setdefault(_digest(image), []).append((row, rank))
            contents[row, rank] = None if masks is None else _content(masks[rank])
    return positions, contents, k


def _distinct_images(
    units: Any, positions: dict[bytes, list[Position]]
) -> Iterator[tuple[bytes, bytes]]:
    """Yield each image once, (digest, bytes), where it is first shown."""
    for row, (images, _) in enumerate(_rows(units)):
        for rank, image in enumerate(images or ()):
            digest = _digest(image)
            if positions[digest][0] == (row, rank):
                yield digest, _content(image)


def _rows(units: Any) -> Iterator[tuple[list[Any] | None, list[Any] | None]]:
    """Yield the encoded images and masks of every unit."""
    table = units.select_columns(["images", "masks"]).with_format("arrow")
    for part in table.iter(16):
        for row in part.to_pylist():
            yield row["images"], row["masks"]


def _content(image: dict[str, Any]) -> bytes:
    content: bytes | None = image["bytes"]
    return Path(image["path"]).read_bytes() if content is None else content


def _digest(image: dict[str, Any]) -> bytes:
    return hashlib.sha256(_content(image)).digest()


def _decoded(content: bytes) -> Tensor:
    """Return an image, float (3, height, width) from 0 to 1."""
    return _pixels(content, "RGB").permute(2, 0, 1).float() / 255


def _pixels(content: bytes, mode: str | None = None) -> Tensor:
    """Return the pixels of an encoded image, converted to a mode of Pillow if given."""
    from datasets import Image

    try:
        image = Image().decode_example({"bytes": content, "path": None})
        return torch.from_numpy(np.array(image.convert(mode) if mode else image))
    except (OSError, SyntaxError, ValueError) as error:
        raise InputError(f"An image of the edition cannot be decoded: {error}") from None


def _mask(content: bytes | None, image: Tensor) -> Tensor:
    """Return a mask, float (1, height, width) of 0 and 1; all ones if there is no mask."""
    if content is None:
        return torch.ones_like(image[:1])
    pixels = _pixels(content)
    # masks may be stored with one channel or several equal ones
    return (pixels.reshape(*pixels.shape[:2], -1)[..., 0] > 0)[None].float()


def _by_shape(tensors: Sequence[Tensor]) -> list[list[int]]:
    """Return the indices of tensors, grouped by shape."""
    groups: dict[tuple[int, ...], list[int]] = {}
    for index, tensor in enumerate(tensors):
        groups.setdefault(tuple(tensor.shape), []).append(index)
    return list(groups.values())
