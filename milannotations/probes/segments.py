"""Probe dataset of a folder of images with one label map each.

    images/cat.jpg      images
    labels/cat.png      label maps of the same names: see `base.read_labels`
    labels.csv          number,name and optionally category; or
    labels.txt          one name per line, starting at number 1

0 is no concept. A number without a name in labels.csv (`255,`) is no concept either; use it for
regions that are left out on purpose. Label maps that differ in size from their image are resized.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from milannotations.errors import InputError, some
from milannotations.probes.base import (
    Concept,
    Labels,
    fingerprint,
    parse_label,
    read_image,
    read_labels,
    resize_labels,
)
from milannotations.utils.files import TextTable, check_is_file

if TYPE_CHECKING:
    from PIL import Image

EXTENSIONS = (".jpg", ".jpeg", ".png", ".webp", ".bmp", ".gif", ".tif", ".tiff", ".ppm")
CATEGORY = "object"
"""Category of concepts without one."""


class SegmentsProbe:
    """Images with one label map each; see `probes.Probe`.

    Args:
        path: the folder.

    Raises:
        InputError: no images, names or label map; two images for one label map.
    """

    def __init__(self, path: Path) -> None:
        self.name, self.path = f"segments:{path.name}", path
        names_file = path / "labels.csv"
        if not names_file.exists():
            names_file = path / "labels.txt"
        if not names_file.exists():
            raise InputError(f"{path} has neither labels.csv (number,name) nor labels.txt.")
        self.names_file = names_file
        names = _read_csv(names_file) if names_file.suffix == ".csv" else _read_text(names_file)
        self.concepts = tuple(dict.fromkeys(concept for concept in names.values() if concept))
        if not self.concepts:
            raise InputError(f"{names_file} names no concepts.")
        # from label to concept number; -1 for labels without an entry
        self._numbers: Labels = np.full(max(names) + 1, -1, np.int32)
        self._numbers[0] = 0
        for number, concept in names.items():
            self._numbers[number] = self.concepts.index(concept) + 1 if concept else 0
        self.images = _list_images(path / "images")
        self.maps = [path / "labels" / f"{image.stem}.png" for image in self.images]
        missing = [map_.name for map_ in self.maps if not map_.is_file()]
        if missing:
            raise InputError(f"{path / 'labels'} lacks label maps: {some(missing)}.")
        self.source: dict[str, Any] = {
            "kind": "segments",
            "pictures": len(self.images),
            "concepts": len(self.concepts),
            "sha256": fingerprint([names_file], path, [*self.images, *self.maps]),
        }

    def __len__(self) -> int:
        return len(self.images)

    def source_id(self, i: int) -> str:
        """Return the file name of an image."""
        return self.images[i].name

    def image(self, i: int) -> Image.Image:
        """Return an image, RGB."""
        return read_image(self.images[i])

    def labels(self, i: int, size: tuple[int, int]) -> Labels:
        """Return the label map of an image in one plane; see `probes.Probe`.

        Raises:
            InputError: no label map, or a label without a name.
        """
        labels = read_labels(self.maps[i])
        present, top = np.unique(labels), len(self._numbers) - 1
        unknown = present[
            (present > top) | (present < 0) | (self._numbers[present.clip(0, top)] < 0)
        ]
        if len(unknown):
            hint = ""
            if self.names_file.suffix == ".csv":
                hint = f", or ignore it with a row '{unknown[0]},'"
            raise InputError(
                f"{self.maps[i]} has label {unknown[0]}, which {self.names_file} does not name. "
                f"Name it there{hint}."
            )
        return resize_labels(self._numbers[labels][None], size)


def _list_images(folder: Path) -> list[Path]:
    if not folder.is_dir():
        raise InputError(f"No folder {folder}. Expected images/, labels/ and labels.csv.")
    images = sorted(
        path
        for path in folder.iterdir()
        if path.suffix.lower() in EXTENSIONS and not path.name.startswith(".")
    )
    if not images:
        raise InputError(f"{folder} holds no images ({', '.join(EXTENSIONS)}).")
    stems: dict[str, Path] = {}
    for path in images:
        other = stems.setdefault(path.stem, path)
        if other is not path:
            raise InputError(f"{other} and {path.name} would share a label map. Rename one.")
    return images


def _read_csv(path: Path) -> dict[int, Concept | None]:
    table = TextTable(path)
    if not {"number", "name"} <= set(table.columns):
        raise InputError(
            f"{path} has columns {', '.join(table.columns)}; expected number, name and optionally "
            "category."
        )
    concepts: dict[int, Concept | None] = {}
    for line, row in table:
        where = f"{path}, line {line}"
        number, name = parse_label(row["number"], where), row["name"].strip()
        if number in concepts:
            raise InputError(f"{where}: number {number} appears twice.")
        if number == 0 and name:
            raise InputError(f"{where}: 0 means no concept; leave out its name '{name}'.")
        category = row.get("category", "").strip() or CATEGORY
        concepts[number] = Concept(name, category) if name else None
    if not concepts:
        raise InputError(f"{path} names no concepts.")
    return concepts


def _read_text(path: Path) -> dict[int, Concept | None]:
    try:
        lines = check_is_file(path).read_text(encoding="utf-8-sig").splitlines()
    except UnicodeDecodeError as error:
        raise InputError(f"{path} is not UTF-8 (byte {error.start}). Save it as UTF-8.") from None
    names = [line.strip() for line in lines]
    while names and not names[-1]:
        names.pop()
    if "" in names:
        line = names.index("") + 1
        raise InputError(f"{path}, line {line} is empty. Expected one name per line.")
    if not names:
        raise InputError(f"{path} is empty. Expected one name per line.")
    return {number: Concept(name, CATEGORY) for number, name in enumerate(names, start=1)}


def open_probe(path: Path) -> SegmentsProbe:
    """Open a folder that holds images/, labels/ and labels.csv."""
    return SegmentsProbe(path)
