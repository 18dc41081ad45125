"""Probe dataset in COCO's format (Lin et al. 2014): instances in JSON, images beside it.

    annotations/instances_val2017.json
    val2017/000000000139.jpg

pycocotools turns polygons and run lengths into masks, as COCO's own `annToMask` does; crowds
count as their category. Images without annotations are kept, with empty label maps.
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
"""Category of all concepts: COCO's supercategories are groups of objects, not kinds of concepts."""


class CocoProbe:
    """Images and instances; concepts are COCO's categories, sorted by id. See `probes.Probe`.

    Args:
        path: the JSON, or a folder with one in annotations/.

    Raises:
        InputError: no JSON or several; a JSON that is damaged or holds something else; missing
            images.
    """

    def __init__(self, path: Path) -> None:
        self.json = _find(path) if path.is_dir() else path
        data = _read(self.json)
        self.name = f"coco:{self.json.stem}"
        categories = {int(entry["id"]): str(entry["name"]) for entry in data["categories"]}
        ids = sorted(categories)
        self.concepts = tuple(Concept(categories[id_], CATEGORY) for id_ in ids)
        self._numbers = {id_: number for number, id_ in enumerate(ids, start=1)}
        self.images = sorted(data["images"], key=lambda entry: int(entry["id"]))
        self.folder = self._folder()
        index_of = {int(entry["id"]): i for i, entry in enumerate(self.images)}
        self._annotations: list[list[tuple[int, Any]]] = [[] for _ in self.images]
        for i, entry in enumerate(data["annotations"]):
            image, category = int(entry["image_id"]), int(entry["category_id"])
            if image not in index_of or category not in self._numbers:
                key = f"image_id {image}" if image not in index_of else f"category_id {category}"
                raise InputError(f"{self.json}: annotations[{i}] has {key}, which is not listed.")
            number = self._numbers[category]
            self._annotations[index_of[image]].append((number, entry["segmentation"]))
        self.source: dict[str, Any] = {
            "kind": "coco",
            "pictures": len(self.images),
            "concepts": len(self.concepts),
            "sha256": fingerprint([self.json], self.folder, map(self._path, range(len(self)))),
        }

    def __len__(self) -> int:
        return len(self.images)

    def source_id(self, i: int) -> str:
        """Return the file name of an image."""
        return str(self.images[i]["file_name"])

    def image(self, i: int) -> Image.Image:
        """Return an image, RGB.

        Raises:
            InputError: its size differs from the JSON, so that masks would not fit.
        """
        image, (h, w) = read_image(self._path(i)), self._size(i)
        if image.size != (w, h):
            raise InputError(
                f"{self._path(i)} is {image.size[0]} pixels wide and {image.size[1]} high; "
                f"{self.json.name} says {w} and {h}."
            )
        return image

    def labels(self, i: int, size: tuple[int, int]) -> Labels:
        """Return label maps, with several planes where categories overlap; see `Probe`.

        Raises:
            InputError: pycocotools cannot read a segmentation.
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
        """Return the folder of the images: of the usual ones, the one that holds most of them."""
        root = self.json.parent
        root = root.parent if root.name == "annotations" else root
        split = self.json.stem.removeprefix("instances").removeprefix("_")
        places = (split, f"images/{split}" if split else "", "images")
        folders = [*(root / place for place in places if place), root]
        names = [str(entry["file_name"]) for entry in self.images]
        counts = [sum((folder / name).is_file() for name in names) for folder in folders]
        best = folders[counts.index(max(counts))]
        if max(counts) < len(self.images):
            missing = [name for name in names if not (best / name).is_file()]
            searched = best if max(counts) else some(folders)
            raise InputError(
                f"{self.json} lists {len(self.images):,} images; {len(missing):,} are not in "
                f"{searched}: {some(missing)}."
            )
        return best


def mask_of(segmentation: Any, size: tuple[int, int]) -> NDArray[np.bool_]:
    """Return the mask of a segmentation: polygons, or run lengths.

    Polygons of fewer than three points are empty.

    Args:
        segmentation: lists of x, y, x, y ...; or a dict with `counts` and `size`.
        size: (height, width) of the image.

    Example:
        >>> mask_of([[0, 0, 2, 0, 2, 1, 0, 1]], (2, 3)).tolist()
        [[True, True, False], [False, False, False]]
    """
    from pycocotools import mask as masks

    h, w = size
    if isinstance(segmentation, list):
        polygons = [[float(x) for x in polygon] for polygon in segmentation if len(polygon) >= 6]
        if not polygons:
            return np.zeros(size, bool)
        if any(len(polygon) % 2 or not np.isfinite(polygon).all() for polygon in polygons):
            raise ValueError("expected finite numbers in pairs")
        # pycocotools reads lists of four numbers as boxes; polygons have at least six
        encoded = masks.merge(masks.frPyObjects(polygons, h, w))
    else:
        if [int(side) for side in segmentation["size"]] != [h, w]:
            raise ValueError(f"run lengths of {segmentation['size']} in an image of {[h, w]}")
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
    paths = [
        path
        for place in (folder / "annotations", folder)
        for path in sorted(place.glob("instances*.json"))
    ]
    if not paths:
        raise InputError(f"{folder} has no annotations/instances_*.json.")
    if len(paths) > 1:
        listed = some(path.relative_to(folder) for path in paths)
        raise InputError(f"{folder} has several: {listed}. Choose one: coco:{paths[0]}")
    return paths[0]


def _read(path: Path) -> dict[str, list[dict[str, Any]]]:
    """Return the lists of a COCO JSON after checking the fields that are needed."""
    try:
        data = json.loads(path.read_bytes())
    except (ValueError, RecursionError) as error:
        raise InputError(f"{path} is not JSON: {error}") from None
    number, text, outline = (
        (int, "a whole number"),
        (str, "text"),
        ((list, dict), "polygons or run lengths"),
    )
    needed: dict[str, dict[str, tuple[Any, str]]] = {
        "categories": {"id": number, "name": text},
        "images": {"id": number, "file_name": text, "height": number, "width": number},
        "annotations": {"image_id": number, "category_id": number, "segmentation": outline},
    }
    if not isinstance(data, dict) or not all(isinstance(data.get(name), list) for name in needed):
        keys = some(data) if isinstance(data, dict) else f"a {type(data).__name__}"
        raise InputError(
            f"{path} holds {keys}; expected COCO's lists {', '.join(needed)} (instances_*.json)."
        )
    for name, fields in needed.items():
        for i, entry in enumerate(data[name]):
            for field, (kind, expected) in fields.items():
                if not isinstance(entry, dict) or not isinstance(entry.get(field), kind):
                    value = entry.get(field) if isinstance(entry, dict) else entry
                    raise InputError(
                        f"{path}: {name}[{i}] has {field} {str(value)[:40]!r}; expected {expected}."
                    )
        _check_unique(path, name, (entry["id"] for entry in data[name] if name != "annotations"))
    for name in ("categories", "images"):
        if not data[name]:
            raise InputError(f"{path} lists no {name}.")
    for i, entry in enumerate(data["images"]):
        if min(entry["height"], entry["width"]) < 1:
            raise InputError(f"{path}: images[{i}] is {entry['width']} x {entry['height']}.")
    return {name: data[name] for name in needed}


def _check_unique(path: Path, name: str, ids: Iterable[int]) -> None:
    seen: set[int] = set()
    for id_ in ids:
        if id_ in seen:
            raise InputError(f"{path}: {name} has id {id_} twice.")
        seen.add(id_)


def open_probe(path: Path) -> CocoProbe:
    """Open a folder with annotations/instances_*.json, or such a file."""
    return CocoProbe(path)
