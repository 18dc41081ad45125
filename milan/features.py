"""Features of an edition's units, computed once: each picture goes through the encoder once.

Units share pictures, so pictures are known by their bytes; a picture's maps are pooled under
the masks of all units that show it, and dropped. Memory does not grow with units where the
features go to a file, which is then mapped.
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

from milan.encoder import Encoder
from milannotations.errors import InputError
from milannotations.utils.files import replacing
from milannotations.utils.pooling import pool

AT_ONCE = 32
"""Pictures that go through the encoder together."""

Place = tuple[int, int]
"""Of an exemplar: its unit's row, and its rank."""


class Features:
    """Features of units: float32 (unit, p, f), in memory or mapped from a file.

    Units with fewer exemplars than others have NaN in their last places.

    Args:
        values: the array.
        rows: which of its units these are; None is all of them.
    """

    def __init__(self, values: np.ndarray[Any, np.dtype[np.float32]], rows: Any = None) -> None:
        self.values = values
        self.rows = np.arange(len(values)) if rows is None else np.asarray(rows, np.int64)

    def __len__(self) -> int:
        return len(self.rows)

    def of(self, rows: Sequence[int]) -> "Features":
        """Return those of some units, nothing copied."""
        return Features(self.values, self.rows[np.asarray(rows, np.int64)])

    def tensors(self, rows: Any = slice(None)) -> tuple[Tensor, Tensor]:
        """Return the features of some units, and which there are: bool (unit, p)."""
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
        units: `datasets.Dataset` with the columns `images` and `masks`. A unit without masks is
            seen whole.
        encoder: what sees them.
        file: an .npy file to write them to, whole or not at all, and to map from; it is read
            instead if it is there. None keeps them in memory.
        progress: show a bar.

    Raises:
        InputError: a unit without pictures; one whose pictures and masks are not as many; a
            picture or a mask that cannot be decoded; pictures of several sizes for a `spatial`
            encoder that takes them as they come; `file` holds something else.
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
    shown, covers, k = _survey(units)
    device, coming = encoder.mean.device, _pictures(units, shown)
    per = 1  # vectors of an exemplar
    if encoder.config.kind == "spatial" and shown:
        first = _decoded(next(_pictures(units, shown))[1])
        per = encoder(first[None].to(device)).shape[1]
    shape = (len(units), k * per, encoder.config.feature_size)
    values: Any = np.empty(shape, np.float32)
    if file is not None:
        values = np.lib.format.open_memmap(file, "w+", np.float32, shape)
    values[:] = np.nan
    with (
        tqdm(total=len(shown), desc="features", unit="img", disable=not progress) as bar,
        ThreadPoolExecutor(os.cpu_count() or 1) as threads,
    ):
        while chunk := list(islice(coming, AT_ONCE)):
            pictures = list(threads.map(_decoded, [content for _, content in chunk]))
            for members in _by_size(pictures):
                images = torch.stack([pictures[i] for i in members]).to(device)
                maps = encoder.maps(images) if encoder.config.kind == "pyramid" else []
                for at, i in enumerate(members):
                    places = shown[chunk[i][0]]
                    masks = [_mask(covers[place], pictures[i]) for place in places]
                    for same in _by_size(masks):
                        stacked = torch.stack([masks[j] for j in same]).to(device)
                        if maps:
                            own = [level[at : at + 1] for level in maps]
                            found = pool(own, stacked[None])[0][:, None]
                        else:
                            found = encoder(images[at].expand(len(same), -1, -1, -1), stacked)
                        if found.shape[1] != per:
                            raise InputError(
                                "Pictures of several sizes have maps of several sizes, and a "
                                "spatial encoder needs one size; resize them beforehand."
                            )
                        for j, vectors in zip(same, found.cpu().numpy(), strict=True):
                            row, rank = places[j]
                            values[row, rank * per : (rank + 1) * per] = vectors
            bar.update(len(chunk))
    if file is not None:
        values.flush()
    return values


def _survey(units: Any) -> tuple[dict[bytes, list[Place]], dict[Place, bytes | None], int]:
    """Return where each picture is shown, the bytes of every mask, and the most exemplars."""
    shown: dict[bytes, list[Place]] = {}
    covers: dict[Place, bytes | None] = {}
    most = 0
    for row, (images, masks) in enumerate(_rows(units)):
        if not images:
            raise InputError(
                f"Unit {row} of the data has no pictures: MILAN looks at exemplars, and this "
                "edition, or part of it, holds text alone."
            )
        if masks is not None and len(masks) != len(images):
            raise InputError(f"Unit {row} has {len(images)} pictures and {len(masks)} masks.")
        most = max(most, len(images))
        for rank, image in enumerate(images):
            shown.setdefault(_digest(image), []).append((row, rank))
            covers[row, rank] = None if masks is None else _content(masks[rank])
    return shown, covers, most


def _pictures(units: Any, shown: dict[bytes, list[Place]]) -> Iterator[tuple[bytes, bytes]]:
    """Yield each picture once, (digest, bytes), where it is first shown."""
    for row, (images, _) in enumerate(_rows(units)):
        for rank, image in enumerate(images or ()):
            digest = _digest(image)
            if shown[digest][0] == (row, rank):
                yield digest, _content(image)


def _rows(units: Any) -> Iterator[tuple[list[Any] | None, list[Any] | None]]:
    table = units.select_columns(["images", "masks"]).with_format("arrow")
    for part in table.iter(16):
        for row in part.to_pylist():
            yield row["images"], row["masks"]


def _content(picture: dict[str, Any]) -> bytes:
    content: bytes | None = picture["bytes"]
    return Path(picture["path"]).read_bytes() if content is None else content


def _digest(picture: dict[str, Any]) -> bytes:
    return hashlib.sha256(_content(picture)).digest()


def _decoded(content: bytes) -> Tensor:
    """Return a picture, float (3, height, width) from 0 to 1."""
    return _pixels(content, "RGB").permute(2, 0, 1).float() / 255


def _pixels(content: bytes, mode: str | None = None) -> Tensor:
    from datasets import Image

    try:
        picture = Image().decode_example({"bytes": content, "path": None})
        return torch.from_numpy(np.array(picture.convert(mode) if mode else picture))
    except (OSError, SyntaxError, ValueError) as error:
        raise InputError(f"A picture of the edition cannot be decoded: {error}") from None


def _mask(content: bytes | None, picture: Tensor) -> Tensor:
    """Return a mask, float (1, height, width), 0 and 1; all of the picture where there is none."""
    if content is None:
        return torch.ones_like(picture[:1])
    pixels = _pixels(content)
    return (pixels.reshape(*pixels.shape[:2], -1)[..., 0] > 0)[None].float()


def _by_size(pictures: Sequence[Tensor]) -> list[list[int]]:
    sizes: dict[tuple[int, ...], list[int]] = {}
    for place, picture in enumerate(pictures):
        sizes.setdefault(tuple(picture.shape), []).append(place)
    return list(sizes.values())
