"""Probe dataset: its interface, its label maps, and its form as input of a network."""

from __future__ import annotations

import hashlib
import importlib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol, cast

import numpy as np
from numpy.typing import NDArray

from milannotations.errors import InputError, did_you_mean
from milannotations.utils.files import parse_whole_number, sha256

if TYPE_CHECKING:
    from PIL import Image

    from milannotations.exemplars.networks.preprocessing import Preprocessing

Labels = NDArray[np.int32]

MAX_LABEL = 0xFFFF
"""Largest number in a label map."""

SIZE_SAMPLE = 16
"""Images, spaced evenly over a probe, on which the size of a network's input is measured."""

MODULES = {
    "broden": "broden",
    "coco": "coco",
    "segments": "segments",
    "images": "folder",
    "mini": "mini",
}
"""Module that reads a kind of probe dataset, by the prefix before the colon."""


class Concept(NamedTuple):
    """Concept that pixels can have; in Broden, concepts of one category never overlap."""

    name: str
    category: str


class Probe(Protocol):
    """Probe dataset: images with label maps. Concepts are numbered from 1; 0 is no concept.

    Attributes:
        name: for records.
        concepts: concept i has the number i + 1 in label maps.
        source: description for records, with a `sha256` of the content.
    """

    name: str
    concepts: tuple[Concept, ...]
    source: dict[str, Any]

    def __len__(self) -> int: ...

    def source_id(self, i: int) -> str:
        """Return the id of an image, such as its file name."""

    def image(self, i: int) -> Image.Image:
        """Return an image, RGB, uncropped."""

    def labels(self, i: int, size: tuple[int, int]) -> Labels:
        """Return the label maps of an image, resized (nearest neighbour) to (height, width).

        Returns:
            int32 (plane, height, width), at least one plane. A pixel has the concepts of all
            planes.
        """


class ProbeItems:
    """Probe as a dataset for `exemplars.compute`: network inputs and label maps.

    Images are resized to the network's input without a crop, ignoring the aspect ratio, so that
    label maps need only be resized. Network Dissection did the same; a crop would cut off
    labelled regions.

    Args:
        probe: images and label maps.
        preprocessing: of the network; its mean, standard deviation, order of channels and input
            size are used.
        size: (height, width) of label maps.
        side: side of a square input, in pixels; None measures the input size, see `input_size`.

    Raises:
        InputError: see `input_size`.
    """

    def __init__(
        self,
        probe: Probe,
        preprocessing: Preprocessing,
        size: tuple[int, int] = (112, 112),
        side: int | None = None,
    ) -> None:
        self.probe, self.size = probe, size
        self.input_size = (side, side) if side else input_size(probe, preprocessing)
        self.mean, self.std = preprocessing.mean, preprocessing.std
        self.order = list(preprocessing.order)
        height, width = self.input_size
        shape: int | list[int] = width if height == width else [height, width]
        self.source = {"probe": probe.source, "size": list(size), "side": shape}

    def __len__(self) -> int:
        return len(self.probe)

    def source_id(self, i: int) -> str:
        """Return the id of an image, such as its file name."""
        return self.probe.source_id(i)

    def __getitem__(self, i: int) -> dict[str, Any]:
        import torch
        from torchvision.transforms import functional as transforms

        height, width = self.input_size
        image = self.probe.image(i).resize((width, height), resample=2)  # bilinear
        tensor = transforms.to_tensor(image)[self.order]
        tensor = transforms.normalize(tensor, list(self.mean), list(self.std))
        return {"image": tensor, "concepts": torch.from_numpy(self.probe.labels(i, self.size))}


def input_size(probe: Probe, preprocessing: Preprocessing) -> tuple[int, int]:
    """Return the (height, width) of a network's input, measured on images of the probe.

    A preprocessing without a resize step (CIFAR networks, `imagenet:as-is`) leaves images at their
    size, so the size of its output for any made-up image says nothing.

    Raises:
        InputError: the images come out in different sizes.
    """
    step = max(len(probe) // SIZE_SAMPLE, 1)
    sizes = {
        tuple(preprocessing(probe.image(i)).shape[-2:]): probe.source_id(i)
        for i in range(0, len(probe), step)
    }
    if len(sizes) > 1:
        (first, one), (second, other) = list(sizes.items())[:2]
        raise InputError(
            f"The preprocessing leaves images at their own size, and {probe.name} has several: "
            f"{one} gives {first[0]} x {first[1]} pixels, {other} {second[0]} x {second[1]}. "
            "Give the network's input size: --preprocess imagenet:SIDE or path/to/file.py:name."
        )
    return next(iter(sizes)) if sizes else tuple(preprocessing.blank().shape[-2:])


def stack_planes(masks: Mapping[int, NDArray[np.bool_]], size: tuple[int, int]) -> Labels:
    """Pack masks of concepts that may overlap into few label planes, greedily.

    Each mask goes into the first plane where it overlaps no other mask.

    Args:
        masks: bool (height, width), by concept number (from 1).
        size: (height, width).

    Returns:
        int32 (plane, height, width), at least one plane.

    Example:
        >>> a, b = np.array([[True, True]]), np.array([[False, True]])
        >>> stack_planes({1: a, 2: b}, (1, 2)).tolist()
        [[[1, 1]], [[0, 2]]]
    """
    planes: list[Labels] = [np.zeros(size, np.int32)]
    for number, mask in masks.items():
        plane = next((plane for plane in planes if not plane[mask].any()), None)
        if plane is None:
            plane = np.zeros(size, np.int32)
            planes.append(plane)
        plane[mask] = number
    return np.stack(planes)


def resize_labels(maps: Labels, size: tuple[int, int]) -> Labels:
    """Resize label maps (plane, h, w) to (height, width), by the label at each new pixel's centre.

    Example:
        >>> resize_labels(np.arange(1, 5, dtype=np.int32).reshape(1, 1, 4), (1, 2)).tolist()
        [[[2, 4]]]
    """
    # the centre of new pixel i is at (i + 1/2) * old / new; integers keep it exact
    rows, columns = (
        (2 * np.arange(new) + 1) * old // (2 * new)
        for new, old in zip(size, maps.shape[1:], strict=True)
    )
    return maps[:, rows[:, None], columns]


def read_image(path: Path) -> Image.Image:
    """Read an image as RGB. Errors of PIL are passed on."""
    from PIL import Image

    with Image.open(path) as image:
        return image.convert("RGB")


def read_labels(path: Path) -> Labels:
    """Read a label map, int32 (height, width), from a PNG.

    Palette images and grey images of up to 16 bits hold the numbers themselves. In colour images
    the number is red + 256 * green, as in Broden.

    Raises:
        InputError: the file is missing or no image, or it has a blue or an alpha channel.
    """
    from PIL import Image

    if not path.is_file():
        raise InputError(f"No label map {path}. Expected a PNG for every image.")
    try:
        with Image.open(path) as image:
            image.load()
    except (OSError, SyntaxError, Image.DecompressionBombError) as error:
        raise InputError(f"{path} cannot be read as a label map: {error}") from None
    mode, values = image.mode, np.asarray(image)
    if mode in ("1", "P") or mode.startswith("I"):
        return values.astype(np.int32)
    if mode == "L":
        # PIL spreads the values of 1, 2 and 4 bits over 0 to 255; the bit depth of a PNG is byte
        # 24 of the file
        bits = path.read_bytes()[24] if image.format == "PNG" else 8
        return values.astype(np.int32) // (255 // ((1 << min(bits, 8)) - 1))
    if mode == "RGB" and not values[..., 2].any():
        red, green = values[..., 0].astype(np.int32), values[..., 1].astype(np.int32)
        return red + 256 * green
    raise InputError(
        f"{path} has the mode {mode}"
        + (" with a blue channel" if mode == "RGB" else "")
        + ". Expected numbers: a palette, grey of 8 or 16 bits, or red + 256 * green."
    )


def parse_label(text: str, where: str) -> int:
    """Return a label number; raise InputError unless it is a whole number that PNGs can hold."""
    number = parse_whole_number(text, where, "number")
    if number > MAX_LABEL:
        raise InputError(f"{where}: number {number:,} is too large; the limit is {MAX_LABEL:,}.")
    return number


def fingerprint(files: Iterable[Path], root: Path, listed: Iterable[Path]) -> str:
    """Return a sha256 over the bytes of some files and the names and sizes of others.

    Args:
        files: index files, digested by content.
        root: folder that names are relative to, so that moving it does not change the digest.
        listed: images and label maps, digested by name and size.

    Raises:
        InputError: a file is missing.
    """
    digest = hashlib.sha256(sha256(*files).encode())
    for path in listed:
        try:
            size = path.stat().st_size
        except OSError:
            raise InputError(f"No such file: {path}") from None
        digest.update(f"{path.relative_to(root).as_posix()}\0{size}\n".encode())
    return digest.hexdigest()


def open_probe(spec: str) -> Probe:
    """Open a probe dataset by name.

    - `broden:DIR`: folder of Broden (Bau et al. 2017): index.csv, label.csv, images/;
    - `coco:DIR` or `coco:instances.json`: instances in COCO's JSON, images beside it;
    - `segments:DIR`: images with one label map each;
    - `images:DIR`: images alone, or in one folder per class;
    - `mini`: scenes of the mini world.

    Raises:
        InputError: no such kind or folder, or one that holds something else.
    """
    kind, _, rest = spec.partition(":")
    if kind not in MODULES:
        raise InputError(
            f"No probe dataset '{spec}'.{did_you_mean(kind, MODULES)} Expected broden:DIR, "
            "coco:DIR, segments:DIR, images:DIR or mini."
        )
    module = importlib.import_module(f"milannotations.probes.{MODULES[kind]}")
    if kind == "mini":
        return cast("Probe", module.open_probe())
    path = Path(rest).expanduser()
    if not rest or not path.exists():
        raise InputError(f"'{spec}': no such folder. Expected {kind}:DIR.")
    return cast("Probe", module.open_probe(path))
