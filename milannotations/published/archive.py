"""Published archives of MILANNOTATIONS: zips, or folders that were unpacked from them.

    annotations.csv          header layer,unit,summary; one row per annotation
    <layer>/masks.npy        (unit, k, 1, side, side), uint8, 0 or 1
    <layer>/ids.csv          one row per unit: k whole numbers, strongest exemplar first
    <layer>/images.npy       (unit, k, 3, side, side), uint8; absent if the images are not free
    <layer>/units.npy        (unit,), ascending; absent if the units are 0, 1, ...
    <layer>/activations.csv  like ids.csv, with numbers; absent from the published archives

Nothing is unpacked: arrays are read one unit at a time, also from a zip. `zip_members` decides
what is safe to read; here shapes, ids and units are compared with each other and the catalog.
"""

from __future__ import annotations

import math
import os
import re
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple, Self

import numpy as np
from numpy.typing import NDArray

from milannotations import catalog
from milannotations.errors import InputError, some
from milannotations.published import annotations as published
from milannotations.published.zip_members import Members
from milannotations.utils.files import parse_whole_number

K, SIDE = 15, 224
"""Exemplars per unit and side of an image in pixels, in every published archive."""

MAX_ROW = 64 << 20
"""Most bytes that the images of one unit may have."""

_LAYER = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._+-]{0,99}")
_CHANNELS = {"masks.npy": 1, "images.npy": 3}


@dataclass(frozen=True, eq=False)
class ArchiveLayer:
    """Layer of an archive: its units, and everything about its exemplars but the pixels.

    Attributes:
        name: of the layer.
        units: indices of the units, ascending.
        side: of images and masks, in pixels.
        ids: int64 (unit, k), ids of images, strongest first.
        activations: float32 (unit, k), or None.
        has_images: False if the archive holds masks alone.
    """

    name: str
    units: tuple[int, ...]
    side: int
    ids: NDArray[np.int64]
    activations: NDArray[np.float32] | None
    has_images: bool

    @property
    def n_units(self) -> int:
        return len(self.units)

    @property
    def k(self) -> int:
        return int(self.ids.shape[1])


class ArchiveExemplars(NamedTuple):
    """Exemplars of one unit, strongest first.

    Attributes:
        unit: its index.
        ids: k ids of images.
        activations: k numbers, or None.
        masks: uint8 (k, side, side), 0 or 1.
        images: uint8 (k, 3, side, side), or None.
    """

    unit: int
    ids: list[int]
    activations: list[float] | None
    masks: NDArray[np.uint8]
    images: NDArray[np.uint8] | None


class Archive:
    """Published archive of one network, checked, with its pixels still on disk.

    Layers of a published network come in the order of the catalog, other layers in natural
    order ("layer2" before "layer10"). Use it in a `with` statement.

    Args:
        path: the zip, or the folder with its content.
        network: name of the network; slashes are allowed.
        unlisted: skip the comparison with the catalog, for networks that are not in it and for
            reduced archives of those that are.

    Attributes:
        layers: `ArchiveLayer` by name.
        annotations: `published.Annotations`, or None if there are none.
        n_left_out: annotated units of layers that are not in the archive (`unlisted` only).

    Raises:
        InputError: the zip is damaged or hostile; files are missing; dtypes, shapes, ids, layers
            or units disagree with the format, the other files or the catalog.

    Source: the 2022 exporter wrote these; see the README.
    """

    def __init__(
        self, path: str | os.PathLike[str], network: str, *, unlisted: bool = False
    ) -> None:
        self.path = Path(path)
        self.network = catalog.canonical(network)
        catalog.check_units(self.network, (), unlisted=unlisted)
        self.members = Members(self.path)
        try:
            self.annotations = self._read_annotations(unlisted)
            listed = None if unlisted else catalog.NETWORKS.get(self.network)
            self.layers = self._read_layers(listed)
            self.n_left_out = self._compare_units(unlisted)
        except BaseException:
            self.close()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        self.members.close()

    @property
    def n_units(self) -> int:
        return sum(layer.n_units for layer in self.layers.values())

    def units(self, layer: str) -> Iterator[ArchiveExemplars]:
        """Yield the exemplars of every unit of a layer; memory holds one unit's pixels at a time.

        Raises:
            InputError: no such layer; a member is damaged, too short or too long; a mask holds
                another number than 0 and 1.
        """
        if layer not in self.layers:
            raise InputError(
                f"No layer '{layer}' in {self.path} (layers: {', '.join(self.layers)})."
            )
        archived = self.layers[layer]
        masks = self.members.rows(f"{layer}/masks.npy")
        images = self.members.rows(f"{layer}/images.npy") if archived.has_images else None
        for row, unit in enumerate(archived.units):
            mask = next(masks)[:, 0]
            if mask.max() > 1:
                raise InputError(
                    f"{self.members.name(f'{layer}/masks.npy')}, unit {unit}: expected 0 and 1, "
                    f"got {mask.max()}."
                )
            yield ArchiveExemplars(
                unit,
                archived.ids[row].tolist(),
                None if archived.activations is None else archived.activations[row].tolist(),
                mask,
                None if images is None else next(images),
            )
        # asking for a row after the last one checks the end of the member, and a zip's checksum
        for rows in (masks, images):
            if rows is not None:
                next(rows, None)

    # ---- checks before anything is converted

    def _read_annotations(self, unlisted: bool) -> published.Annotations | None:
        member = "annotations.csv"
        if member not in self.members.sizes:
            if self.network in catalog.NETWORKS and not unlisted:
                raise InputError(
                    f"{self.path} has no annotations.csv, which every published archive has. "
                    "(--unlisted accepts an archive without it.)"
                )
            return None
        content = self.members.text(member)
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / member
            path.write_bytes(content)
            try:
                return published.read(path, self.network, unlisted=unlisted)
            except InputError as error:
                name = self.members.name(member)
                message = str(error).replace(str(path), name)
                raise InputError(message if name in message else f"{name}: {message}") from None

    def _read_layers(self, listed: catalog.Network | None) -> dict[str, ArchiveLayer]:
        names = {name.split("/")[0] for name in self.members.sizes if "/" in name}
        masks = sorted(name for name in self.members.sizes if name.endswith("/masks.npy"))
        if masks and all(name.count("/") > 1 for name in masks):
            raise InputError(
                f"{self.path}: the layers lie deeper than expected (first: {masks[0]}). "
                f"Unpack it and give the folder {masks[0].rsplit('/', 2)[0]} in it."
            )
        if not names:
            raise InputError(
                f"{self.path} has no layers; expected folders with masks.npy and ids.csv in them, "
                "as in the published archives."
            )
        for name in sorted(names):
            if not _LAYER.fullmatch(name):
                raise InputError(
                    f"{self.path}: a layer is named {name[:100]!r}; expected letters, digits, "
                    "dots, dashes and underscores."
                )
        if listed:
            _check_names(self.path, names, listed)
        known = catalog.NETWORKS.get(self.network)
        order = {name: i for i, name in enumerate(known.layers if known else ())}
        ordered = sorted(names, key=lambda name: (order.get(name, len(order)), _natural(name)))
        return {name: self._read_layer(name, listed) for name in ordered}

    def _read_layer(self, name: str, listed: catalog.Network | None) -> ArchiveLayer:
        for file in ("masks.npy", "ids.csv"):
            if f"{name}/{file}" not in self.members.sizes:
                raise InputError(
                    f"{self.path}: no {name}/{file}; expected one in every layer's folder."
                )
        n, k, _, side, _ = shape = self._shape(f"{name}/masks.npy")
        if listed:
            expected = (listed.layers[name], K, 1, SIDE, SIDE)
            self._agree(
                f"{name}/masks.npy", expected, shape, f"{self.network} was published like this"
            )
        has_images = f"{name}/images.npy" in self.members.sizes
        if has_images:
            self._agree(
                f"{name}/images.npy", (n, k, 3, side, side), self._shape(f"{name}/images.npy")
            )
        units = self._units(name, n)
        if listed and units != tuple(range(n)):
            raise InputError(
                f"{self.members.name(f'{name}/units.npy')}: expected the units 0 to {n - 1} of "
                f"{self.network}, got {some(units)}. (--unlisted accepts a reduced archive.)"
            )
        ids = self._table(
            name, "ids.csv", (n, k), lambda cell, at: parse_whole_number(cell, at, "id")
        )
        activations = None
        if f"{name}/activations.csv" in self.members.sizes:
            activations = self._table(name, "activations.csv", (n, k), _number)
        return ArchiveLayer(
            name,
            units,
            side,
            np.array(ids, dtype=np.int64),
            None if activations is None else np.array(activations, dtype=np.float32),
            has_images,
        )

    def _agree(
        self, member: str, expected: tuple[int, ...], got: tuple[int, ...], why: str = ""
    ) -> None:
        if expected != got:
            raise InputError(
                f"{self.members.name(member)}: expected shape {expected}, got {got}."
                + (f" ({why}; --unlisted accepts a reduced archive.)" if why else "")
            )

    def _shape(self, member: str) -> tuple[int, ...]:
        """Return the shape of pixels, (unit, k, channel, side, side)."""
        name = self.members.name(member)
        shape, is_fortran, dtype, _ = self.members.header(member)
        if dtype.str != "|u1":
            raise InputError(f"{name}: expected dtype |u1 (uint8), got {dtype.str}.")
        if is_fortran:
            raise InputError(f"{name}: expected C order, got Fortran order.")
        channels = _CHANNELS[member.rsplit("/", 1)[1]]
        fits = len(shape) == 5 and shape[2] == channels and shape[3] == shape[4]
        if not fits or min(shape) < 1:
            raise InputError(
                f"{name}: expected shape (units, k, {channels}, side, side), got {shape}."
            )
        if math.prod(shape[1:]) > MAX_ROW:
            raise InputError(f"{name}: one unit of shape {shape[1:]} has over {MAX_ROW:,} bytes.")
        return shape

    def _units(self, layer: str, n: int) -> tuple[int, ...]:
        member = f"{layer}/units.npy"
        if member not in self.members.sizes:
            return tuple(range(n))
        name = self.members.name(member)
        header = self.members.header(member)
        if header.dtype.kind not in "iu":
            raise InputError(f"{name}: expected dtype <i8 (int64), got {header.dtype.str}.")
        self._agree(member, (n,), header.shape)
        units = [int(unit) for unit in self.members.rows(member)]
        if units != sorted(set(units)) or units[0] < 0 or units[-1] >= 1 << 31:
            raise InputError(f"{name}: expected ascending unit indices from 0, got {some(units)}.")
        return tuple(units)

    def _table(
        self, layer: str, file: str, shape: tuple[int, int], read: Callable[[str, str], Any]
    ) -> list[list[Any]]:
        """Return the cells of a CSV without a header: one row per unit, one cell per exemplar."""
        name = self.members.name(f"{layer}/{file}")
        try:
            lines = self.members.text(f"{layer}/{file}").decode("ascii").splitlines()
        except UnicodeDecodeError:
            raise InputError(f"{name}: expected numbers and commas, got other bytes.") from None
        if len(lines) != shape[0]:
            raise InputError(
                f"{name}: expected {shape[0]:,} lines, one per unit as in masks.npy, "
                f"got {len(lines):,}."
            )
        rows = []
        for number, line in enumerate(lines, 1):
            cells = line.split(",")
            if len(cells) != shape[1]:
                raise InputError(
                    f"{name}, line {number}: expected {shape[1]} numbers, got {len(cells)}."
                )
            rows.append([read(cell, f"{name}, line {number}") for cell in cells])
        return rows

    def _compare_units(self, unlisted: bool) -> int:
        """Return the number of annotated units whose layer is not in the archive.

        Raises:
            InputError: an annotated unit is missing from its layer; a layer is missing, unless
                `unlisted`.
        """
        left_out = []
        held = {name: set(layer.units) for name, layer in self.layers.items()}
        for unit in self.annotations.descriptions if self.annotations else ():
            if unit.layer not in self.layers:
                left_out.append(unit)
            elif unit.unit not in held[unit.layer]:
                raise InputError(
                    f"{self.members.name('annotations.csv')} describes unit {unit.unit} of layer "
                    f"{unit.layer}, which is not in {unit.layer}/masks.npy "
                    f"(it holds {some(self.layers[unit.layer].units)})."
                )
        if left_out and not unlisted:
            raise InputError(
                f"{self.members.name('annotations.csv')} describes layer {left_out[0].layer}, "
                f"which is not in the archive (layers: {', '.join(self.layers)}). "
                "(--unlisted leaves its units out.)"
            )
        return len(left_out)


def unshift_dino(masks: NDArray[np.uint8], patch: int = 8) -> NDArray[np.uint8]:
    """Shift the masks of a ViT back by one patch, in reading order.

    The published DINO masks were made after dropping the last token instead of the class token,
    so that every patch shows the token before its own and the first one shows the class token.
    Here each patch takes the content of the next one. That of the last patch was never written:
    it becomes 0. Masks are smooth enlargements, so pixels by the left and right edges, where
    reading order jumps to the next row, stay approximate.

    Args:
        masks: (k, side, side), uint8, 0 or 1.
        patch: side of a patch in pixels.

    Raises:
        InputError: the side is not a multiple of `patch`.

    Example:
        >>> unshift_dino(np.array([[[1, 0], [1, 1]]], dtype=np.uint8), patch=1).tolist()
        [[[0, 1], [1, 0]]]
    """
    k, side, _ = masks.shape
    if side % patch:
        raise InputError(
            f"Masks of {side} pixels are not made of patches of {patch}: no shift to repair."
        )
    n = side // patch
    # (k, n, patch, n, patch) -> (k, n * n, patch, patch): a list of patches in reading order
    patches = masks.reshape(k, n, patch, n, patch).swapaxes(2, 3).reshape(k, n * n, patch, patch)
    moved = np.zeros_like(patches)
    moved[:, :-1] = patches[:, 1:]
    return moved.reshape(k, n, n, patch, patch).swapaxes(2, 3).reshape(masks.shape)


def _natural(name: str) -> list[tuple[int, str]]:
    """Return a sorting key that compares runs of digits as numbers."""
    return [(int(part or 0), text) for text, part in re.findall(r"(\D*)(\d*)", name)]


def _number(cell: str, where: str) -> float:
    try:
        value = float(cell)
    except ValueError:
        value = math.nan
    if not math.isfinite(value):
        raise InputError(f"{where}: activation {cell[:40]!r} is not a number.")
    return value


def _check_names(path: Path, names: set[str], network: catalog.Network) -> None:
    for wrong, says in (
        (set(network.layers) - names, "lacks the layers"),
        (names - set(network.layers), "has layers that were not published:"),
    ):
        if wrong:
            raise InputError(
                f"{path} {says} {', '.join(sorted(wrong))} ({network.name} has "
                f"{', '.join(network.layers)}; --unlisted skips this check)."
            )
