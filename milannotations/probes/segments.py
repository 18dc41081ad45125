"""Any folder of pictures with one label map each, as a probe data set.

    images/cat.jpg      pictures
    labels/cat.png      label maps of the same names: see `base.read_labels`
    labels.csv          number,name and perhaps category; or
    labels.txt          one name a line, the first for number 1

0 is none. A number without a name in labels.csv (`255,`) is none too: what was left out on
purpose. Label maps of another size than their picture are stretched to it.
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
    read_image,
    read_labels,
    resize_labels,
)
from milannotations.utils.files import TextTable, check_is_file, parse_whole_number

if TYPE_CHECKING:
    from PIL import Image

ENDINGS = (".jpg", ".jpeg", ".png", ".webp", ".bmp", ".gif", ".tif", ".tiff", ".ppm")
CATEGORY = "object"
"""Of concepts whose category is not said."""


class SegmentsProbe:
    """Pictures with one label map each; see `probes.Probe`.

    Args:
        path: the folder.

    Raises:
        InputError: no pictures, names or label map; two pictures for one label map.
    """

    def __init__(self, path: Path) -> None:
        self.name, self.path = f"segments:{path.name}", path
        named = path / "labels.csv"
        if not named.exists():
            named = path / "labels.txt"
        if not named.exists():
            raise InputError(f"{path} has neither labels.csv (number,name) nor labels.txt.")
        self.named = named
        names = _of_csv(named) if named.suffix == ".csv" else _of_text(named)
        self.concepts = tuple(dict.fromkeys(each for each in names.values() if each))
        if not self.concepts:
            raise InputError(f"{named} names no concepts.")
        self._numbers: Labels = np.full(max(names) + 1, -1, np.int32)
        self._numbers[0] = 0
        for number, concept in names.items():
            self._numbers[number] = self.concepts.index(concept) + 1 if concept else 0
        self.pictures = _pictures(path / "images")
        self.maps = [path / "labels" / f"{picture.stem}.png" for picture in self.pictures]
        missing = [each.name for each in self.maps if not each.is_file()]
        if missing:
            raise InputError(f"{path / 'labels'} lacks label maps: {some(missing)}.")
        self.source: dict[str, Any] = {
            "kind": "segments",
            "pictures": len(self.pictures),
            "concepts": len(self.concepts),
            "sha256": fingerprint([named], path, [*self.pictures, *self.maps]),
        }

    def __len__(self) -> int:
        return len(self.pictures)

    def source_id(self, i: int) -> str:
        """Return the picture's file name."""
        return self.pictures[i].name

    def image(self, i: int) -> Image.Image:
        """Return a picture, RGB."""
        return read_image(self.pictures[i])

    def labels(self, i: int, size: tuple[int, int]) -> Labels:
        """Return its label map in one plane; see `probes.Probe`.

        Raises:
            InputError: no label map, or a number that has no name.
        """
        found = read_labels(self.maps[i])
        wrong = np.unique(found)
        top = len(self._numbers) - 1
        wrong = wrong[(wrong > top) | (wrong < 0) | (self._numbers[wrong.clip(0, top)] < 0)]
        if len(wrong):
            raise InputError(
                f"{self.maps[i]} has label {wrong[0]}, which {self.named} does not name. Name it "
                f"there{', or let it be none with a row' if self.named.suffix == '.csv' else ''}"
                + (f" '{wrong[0]},'." if self.named.suffix == ".csv" else ".")
            )
        return resize_labels(self._numbers[found][None], size)


def _pictures(folder: Path) -> list[Path]:
    if not folder.is_dir():
        raise InputError(f"No folder {folder}. Expected images/, labels/ and labels.csv.")
    found = sorted(
        each
        for each in folder.iterdir()
        if each.suffix.lower() in ENDINGS and not each.name.startswith(".")
    )
    if not found:
        raise InputError(f"{folder} holds no pictures ({', '.join(ENDINGS)}).")
    stems: dict[str, Path] = {}
    for path in found:
        other = stems.setdefault(path.stem, path)
        if other is not path:
            raise InputError(f"{other} and {path.name} would share a label map; rename one.")
    return found


def _of_csv(path: Path) -> dict[int, Concept | None]:
    table = TextTable(path)
    if not {"number", "name"} <= set(table.columns):
        raise InputError(
            f"{path} has columns {', '.join(table.columns)}; expected number, name and perhaps "
            "category."
        )
    found: dict[int, Concept | None] = {}
    for line, row in table:
        where = f"{path}, line {line}"
        number, name = parse_whole_number(row["number"], where, "number"), row["name"].strip()
        if number in found:
            raise InputError(f"{where}: number {number} is there twice.")
        if number == 0 and name:
            raise InputError(f"{where}: 0 is for none, and is called '{name}' here. Leave it out.")
        if number > 0xFFFF:
            raise InputError(f"{where}: number {number:,}; label maps hold up to 65,535.")
        category = row.get("category", "").strip() or CATEGORY
        found[number] = Concept(name, category) if name else None
    if not found:
        raise InputError(f"{path} names no concepts.")
    return found


def _of_text(path: Path) -> dict[int, Concept | None]:
    try:
        lines = check_is_file(path).read_text(encoding="utf-8-sig").splitlines()
    except UnicodeDecodeError as error:
        raise InputError(f"{path} is not UTF-8 (byte {error.start}). Save it as UTF-8.") from None
    names = [line.strip() for line in lines]
    while names and not names[-1]:
        names.pop()
    if "" in names:
        raise InputError(f"{path}, line {names.index('') + 1} is empty; expected one name a line.")
    if not names:
        raise InputError(f"{path} is empty; expected one name a line.")
    return {number: Concept(name, CATEGORY) for number, name in enumerate(names, start=1)}


def open_probe(path: Path) -> SegmentsProbe:
    """Return the data set of a folder that holds images/, labels/ and labels.csv."""
    return SegmentsProbe(path)
