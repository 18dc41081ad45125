"""What a probe data set is, and how a network is shown one."""

from __future__ import annotations

import hashlib
import importlib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol, cast

import numpy as np
from numpy.typing import NDArray

from milannotations.errors import InputError, did_you_mean
from milannotations.utils.files import sha256

if TYPE_CHECKING:
    from PIL import Image

    from milannotations.exemplars.networks.preprocessing import Preprocessing

Labels = NDArray[np.int32]

MODULES = {
    "broden": "broden",
    "coco": "coco",
    "segments": "segments",
    "images": "folder",
    "mini": "mini",
}
"""What stands before the colon, and which module reads such a data set."""


class Concept(NamedTuple):
    """Something that a pixel can be of; concepts of one category never overlap in Broden."""

    name: str
    category: str


class Probe(Protocol):
    """Pictures with label maps. Concepts are numbered from 1; 0 is none.

    Attributes:
        name: for records.
        concepts: concept i has the number i + 1 in label maps.
        source: what it was made of, for records, with a `sha256` of its content.
    """

    name: str
    concepts: tuple[Concept, ...]
    source: dict[str, Any]

    def __len__(self) -> int: ...

    def source_id(self, i: int) -> str:
        """Return where a picture came from."""

    def image(self, i: int) -> Image.Image:
        """Return a picture, RGB, whole."""

    def labels(self, i: int, size: tuple[int, int]) -> Labels:
        """Return its label maps at a size (height, width), nearest: int32 (plane, height, width).

        A pixel is of the concepts that any of the planes says. There is at least one plane.
        """


class ProbeItems:
    """A probe as a data set for `exemplars.compute`: what the network sees, and label maps.

    Pictures are squashed to the network's input, whole, so that label maps need only be resized.
    Network Dissection did so; a crop would leave out what the labels name.

    Args:
        probe: pictures and label maps.
        preprocessing: the network's own: mean, deviation and side of its input are taken from it.
        size: of label maps, (height, width).
        side: of the network's input; None is that of `preprocessing`.
    """

    def __init__(
        self,
        probe: Probe,
        preprocessing: Preprocessing,
        size: tuple[int, int] = (112, 112),
        side: int | None = None,
    ) -> None:
        self.probe, self.size = probe, size
        self.side = side or int(preprocessing.blank().shape[-1])
        self.mean, self.std = preprocessing.mean, preprocessing.std
        self.source = {"probe": probe.source, "size": list(size), "side": self.side}

    def __len__(self) -> int:
        return len(self.probe)

    def source_id(self, i: int) -> str:
        """Return where a picture came from."""
        return self.probe.source_id(i)

    def __getitem__(self, i: int) -> dict[str, Any]:
        import torch
        from torchvision.transforms import functional as transforms

        picture = self.probe.image(i).resize((self.side, self.side), resample=2)  # bilinear
        image = transforms.normalize(transforms.to_tensor(picture), list(self.mean), list(self.std))
        return {"image": image, "concepts": torch.from_numpy(self.probe.labels(i, self.size))}


def stack_planes(masks: Mapping[int, NDArray[np.bool_]], size: tuple[int, int]) -> Labels:
    """Return label maps of concepts that may overlap: as few planes as they need, greedily.

    Args:
        masks: bool (height, width), by number of the concept, from 1.
        size: (height, width).

    Example:
        >>> a, b = np.array([[True, True]]), np.array([[False, True]])
        >>> planes({1: a, 2: b}, (1, 2)).tolist()
        [[[1, 1]], [[0, 2]]]
    """
    made: list[Labels] = [np.zeros(size, np.int32)]
    for number, mask in masks.items():
        plane = next((each for each in made if not each[mask].any()), None)
        if plane is None:
            plane = np.zeros(size, np.int32)
            made.append(plane)
        plane[mask] = number
    return np.stack(made)


def resize_labels(maps: Labels, size: tuple[int, int]) -> Labels:
    """Return label maps (plane, h, w) at a size (height, width): of each centre, where it lies.

    Example:
        >>> nearest(np.arange(1, 5, dtype=np.int32).reshape(1, 1, 4), (1, 2)).tolist()
        [[[2, 4]]]
    """
    rows, columns = (
        (2 * np.arange(new) + 1) * old // (2 * new)
        for new, old in zip(size, maps.shape[1:], strict=True)
    )
    return maps[:, rows[:, None], columns]


def read_image(path: Path) -> Image.Image:
    """Return a picture, RGB, as it is stored; PIL's errors go on to who asked."""
    from PIL import Image

    with Image.open(path) as picture:
        return picture.convert("RGB")


def read_labels(path: Path) -> Labels:
    """Return a label map, int32 (height, width), of a PNG.

    Palette pictures hold numbers, as grey ones of up to 16 bits do; of colours, red counts 1 and
    green 256, as in Broden.

    Raises:
        InputError: a file that is missing, no picture, or one with blue or half-transparent parts.
    """
    from PIL import Image

    if not path.is_file():
        raise InputError(f"No label map {path}. Expected a PNG for every picture.")
    try:
        with Image.open(path) as picture:
            picture.load()
    except (OSError, SyntaxError, Image.DecompressionBombError) as error:
        raise InputError(f"{path} cannot be read as a label map: {error}") from None
    mode, values = picture.mode, np.asarray(picture)
    if mode in ("1", "P") or mode.startswith("I"):
        return values.astype(np.int32)
    if mode == "L":  # with fewer than 8 bits, values were spread over 0-255
        bits = path.read_bytes()[24] if picture.format == "PNG" else 8
        return values.astype(np.int32) // (255 // ((1 << min(bits, 8)) - 1))
    if mode == "RGB" and not values[..., 2].any():
        red, green = values[..., 0].astype(np.int32), values[..., 1].astype(np.int32)
        return red + 256 * green
    raise InputError(
        f"{path} is a {mode} picture"
        + (" with blue in it" if mode == "RGB" else "")
        + "; expected numbers: a palette, grey of 8 or 16 bits, or red + 256 * green."
    )


def fingerprint(files: Iterable[Path], root: Path, listed: Iterable[Path]) -> str:
    """Return a sha256 of the bytes of `files`, and of the names and sizes of what is `listed`.

    Args:
        files: that say what is in the data set.
        root: names are relative to it, so that a moved folder has the same.
        listed: pictures and label maps.

    Raises:
        InputError: a file is missing.
    """
    found = hashlib.sha256(sha256(*files).encode())
    for path in listed:
        try:
            size = path.stat().st_size
        except OSError:
            raise InputError(f"No such file: {path}") from None
        found.update(f"{path.relative_to(root).as_posix()}\0{size}\n".encode())
    return found.hexdigest()


def open_probe(spec: str) -> Probe:
    """Return a probe data set by name.

    - `broden:DIR`: the folder of Broden (Bau et al. 2017): index.csv, label.csv, images/;
    - `coco:DIR` or `coco:instances.json`: instances in COCO's JSON, pictures beside;
    - `segments:DIR`: pictures, and one label map each;
    - `images:DIR`: pictures alone, of the class that their folder names, if any;
    - `mini`: scenes of the mini world.

    Raises:
        InputError: no such kind or folder, or one that holds something else.
    """
    kind, _, rest = spec.partition(":")
    if kind not in MODULES:
        raise InputError(
            f"No probe data set '{spec}'.{did_you_mean(kind, MODULES)} Expected broden:DIR, "
            "coco:DIR, segments:DIR, images:DIR or mini."
        )
    module = importlib.import_module(f"milannotations.probes.{MODULES[kind]}")
    if kind == "mini":
        return cast("Probe", module.open_probe())
    path = Path(rest).expanduser()
    if not rest or not path.exists():
        raise InputError(f"'{spec}': no such folder. Expected {kind}:DIR.")
    return cast("Probe", module.open_probe(path))
