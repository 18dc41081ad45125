"""Any data set in COCO's format (Lin et al. 2014): instances in JSON, pictures beside.

    annotations/instances_val2017.json
    val2017/000000000139.jpg

Polygons and run lengths become masks by pycocotools, as COCO's own `annToMask` does; crowds
count as their category. Pictures without annotations stay: nothing is on them.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from milannotations.errors import InputError, some
from milannotations.probes.base import (
    Concept,
    Labels,
    fingerprint,
    read_image,
    resize_labels,
    stack_planes,
)

if TYPE_CHECKING:
    from PIL import Image

CATEGORY = "object"
"""Of all concepts: COCO's supercategories are groups of objects, no other kind of concept."""


class CocoProbe:
    """Pictures and instances; concepts are COCO's categories by id. See `probes.Probe`.

    Args:
        path: the JSON, or a folder with one in annotations/.

    Raises:
        InputError: no such JSON or several, one that is no JSON or holds something else; pictures
            that are missing.
    """

    def __init__(self, path: Path) -> None:
        self.json = _find(path) if path.is_dir() else path
        data = _read(self.json)
        self.name = f"coco:{self.json.stem}"
        categories = {int(each["id"]): str(each["name"]) for each in data["categories"]}
        ids = sorted(categories)
        self.concepts = tuple(Concept(categories[each], CATEGORY) for each in ids)
        self._numbers = {each: number for number, each in enumerate(ids, start=1)}
        self.images = sorted(data["images"], key=lambda each: int(each["id"]))
        self.folder = self._folder()
        known = {int(each["id"]): number for number, each in enumerate(self.images)}
        self._annotations: list[list[tuple[int, Any]]] = [[] for _ in self.images]
        for place, each in enumerate(data["annotations"]):
            image, category = int(each["image_id"]), int(each["category_id"])
            if image not in known or category not in self._numbers:
                what = f"image_id {image}" if image not in known else f"category_id {category}"
                raise InputError(f"{self.json}: annotations[{place}] has {what}, which is nowhere.")
            self._annotations[known[image]].append((self._numbers[category], each["segmentation"]))
        self.source: dict[str, Any] = {
            "kind": "coco",
            "pictures": len(self.images),
            "concepts": len(self.concepts),
            "sha256": fingerprint([self.json], self.folder, map(self._path, range(len(self)))),
        }

    def __len__(self) -> int:
        return len(self.images)

    def source_id(self, i: int) -> str:
        """Return the picture's file name."""
        return str(self.images[i]["file_name"])

    def image(self, i: int) -> Image.Image:
        """Return a picture, RGB.

        Raises:
            InputError: it is of another size than the JSON says, so that masks would not fit.
        """
        picture, (h, w) = read_image(self._path(i)), self._size(i)
        if picture.size != (w, h):
            raise InputError(
                f"{self._path(i)} is {picture.size[0]} pixels wide and {picture.size[1]} high; "
                f"{self.json.name} says {w} and {h}."
            )
        return picture

    def labels(self, i: int, size: tuple[int, int]) -> Labels:
        """Return label maps, in more planes than one where categories overlap; see `Probe`.

        Raises:
            InputError: a segmentation that pycocotools cannot read.
        """
        masks: dict[int, NDArray[np.bool_]] = {}
        for number, segmentation in self._annotations[i]:
            try:
                mask = mask_of(segmentation, self._size(i))
            except (TypeError, ValueError, KeyError, IndexError) as error:
                raise InputError(
                    f"{self.json}: a segmentation of {self.source_id(i)} cannot be read: {error}"
                ) from None
            masks[number] = masks[number] | mask if number in masks else mask
        return stack_planes(
            {
                number: resize_labels(masks[number][None].astype(np.int32), size)[0].astype(bool)
                for number in sorted(masks)
            },
            size,
        )

    def _path(self, i: int) -> Path:
        return self.folder / self.source_id(i)

    def _size(self, i: int) -> tuple[int, int]:
        return int(self.images[i]["height"]), int(self.images[i]["width"])

    def _folder(self) -> Path:
        """Return the folder of the pictures: that of the JSON's name, or one like it."""
        root = self.json.parent
        root = root.parent if root.name == "annotations" else root
        split = self.json.stem.removeprefix("instances").removeprefix("_")
        names = [name for name in (split, f"images/{split}" if split else "", "images") if name]
        folders = [*(root / name for name in names), root]
        counts = [sum((f / str(e["file_name"])).is_file() for e in self.images) for f in folders]
        best = folders[counts.index(max(counts))]
        if max(counts) < len(self.images):
            missing = [
                str(each["file_name"])
                for each in self.images
                if not (best / str(each["file_name"])).is_file()
            ]
            looked = best if max(counts) else some(folders)
            raise InputError(
                f"{self.json} lists {len(self.images):,} pictures; {len(missing):,} are not in "
                f"{looked}: {some(missing)}."
            )
        return best


def mask_of(segmentation: Any, size: tuple[int, int]) -> NDArray[np.bool_]:
    """Return the mask of an annotation's segmentation: polygons, or run lengths.

    Polygons of fewer than three points cover nothing.

    Args:
        segmentation: lists of x, y, x, y ...; or a dict with `counts` and `size`.
        size: of the picture, (height, width).

    Example:
        >>> mask_of([[0, 0, 2, 0, 2, 1, 0, 1]], (2, 3)).tolist()
        [[True, True, False], [False, False, False]]
    """
    from pycocotools import mask as masks

    h, w = size
    if isinstance(segmentation, list):
        polygons = [[float(at) for at in each] for each in segmentation if len(each) >= 6]
        if not polygons:
            return np.zeros(size, bool)
        if any(len(each) % 2 or not np.isfinite(each).all() for each in polygons):
            raise ValueError("expected finite numbers in pairs")
        # pycocotools takes a list that begins with four numbers for boxes; polygons have six
        encoded = masks.merge(masks.frPyObjects(polygons, h, w))
    else:
        if [int(side) for side in segmentation["size"]] != [h, w]:
            raise ValueError(f"run lengths of {segmentation['size']} in a picture of {[h, w]}")
        counts = segmentation["counts"]
        if isinstance(counts, list):
            if sum(counts) != h * w or min(counts) < 0:
                raise ValueError(f"run lengths of {sum(counts)} pixels; expected {h * w}")
            encoded = masks.frPyObjects(segmentation, h, w)
        else:
            encoded = segmentation
    return np.asarray(masks.decode(encoded)).astype(bool)


def _find(folder: Path) -> Path:
    """Return the JSON of a folder."""
    found = [
        path
        for place in (folder / "annotations", folder)
        for path in sorted(place.glob("instances*.json"))
    ]
    if not found:
        raise InputError(f"{folder} has no annotations/instances_*.json.")
    if len(found) > 1:
        listed = some(path.relative_to(folder) for path in found)
        raise InputError(f"{folder} has several: {listed}. Say which: coco:{found[0]}")
    return found[0]


def _read(path: Path) -> dict[str, list[dict[str, Any]]]:
    """Return the JSON's lists, if every entry has what is needed."""
    try:
        data = json.loads(path.read_bytes())
    except (ValueError, RecursionError) as error:
        raise InputError(f"{path} is not JSON: {error}") from None
    number, text, outline = (
        (int, "a whole number"),
        (str, "a text"),
        ((list, dict), "polygons or run lengths"),
    )
    needed: dict[str, dict[str, tuple[Any, str]]] = {
        "categories": {"id": number, "name": text},
        "images": {"id": number, "file_name": text, "height": number, "width": number},
        "annotations": {"image_id": number, "category_id": number, "segmentation": outline},
    }
    if not isinstance(data, dict) or not all(isinstance(data.get(name), list) for name in needed):
        has = some(data) if isinstance(data, dict) else f"a {type(data).__name__}"
        raise InputError(
            f"{path} holds {has}; expected COCO's lists {', '.join(needed)} (instances_*.json)."
        )
    for name, fields in needed.items():
        for place, entry in enumerate(data[name]):
            for field, (kind, expected) in fields.items():
                if not isinstance(entry, dict) or not isinstance(entry.get(field), kind):
                    came = entry.get(field) if isinstance(entry, dict) else entry
                    raise InputError(
                        f"{path}: {name}[{place}] has {field} {str(came)[:40]!r}; expected "
                        f"{expected}."
                    )
        _once(path, name, (entry["id"] for entry in data[name] if name != "annotations"))
    for name in ("categories", "images"):
        if not data[name]:
            raise InputError(f"{path} lists no {name}.")
    for place, entry in enumerate(data["images"]):
        if min(entry["height"], entry["width"]) < 1:
            raise InputError(f"{path}: images[{place}] is {entry['width']} x {entry['height']}.")
    return {name: data[name] for name in needed}


def _once(path: Path, name: str, ids: Iterable[int]) -> None:
    seen: set[int] = set()
    for each in ids:
        if each in seen:
            raise InputError(f"{path}: {name} has id {each} twice.")
        seen.add(each)


def open_probe(path: Path) -> CocoProbe:
    """Return the data set of a folder with annotations/instances_*.json, or of such a file."""
    return CocoProbe(path)
