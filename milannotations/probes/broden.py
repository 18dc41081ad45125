"""Broden, the probe dataset of Network Dissection (Bau et al. 2017), in its published layout.

    index.csv       image,split,ih,iw,sh,sw,color,object,part,material,scene,texture
    label.csv       number,name,category,frequency,coverage,syns
    category.csv    name,first,last,count,frequency
    c_object.csv, ... dense codes within a category; not needed here
    images/         images of ih x iw, label maps of sh x sw

A category's cell in index.csv is empty, or lists label maps under images/ (PNG, label number =
red + 256 * green) and label numbers that hold for the whole image. A label may have several
categories: `object(12);part(3)`. As in Network Dissection it is then one concept in each: a label
in a map of the column `object` is the object.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from milannotations.errors import InputError, did_you_mean, some
from milannotations.probes.base import (
    Concept,
    Labels,
    fingerprint,
    parse_label,
    read_image,
    read_labels,
    resize_labels,
)
from milannotations.utils.files import TextTable, parse_whole_number

if TYPE_CHECKING:
    from PIL import Image

COLUMNS = ("image", "split", "ih", "iw", "sh", "sw")
"""Columns of index.csv before the categories."""


class BrodenRow(NamedTuple):
    """Row of index.csv.

    Attributes:
        where: file and line, for messages.
        path: of the image.
        size, label_size: (height, width) of the image and of its label maps.
        layers: (category, label map) or (category, label number for the whole image).
    """

    where: str
    path: Path
    size: tuple[int, int]
    label_size: tuple[int, int]
    layers: tuple[tuple[str, Path | int], ...]


class BrodenProbe:
    """Images and label maps of Broden; see `probes.Probe`.

    Concepts are sorted by label number, then in the order of categories in label.csv. All
    splits are used. Every file that index.csv names must exist.

    Args:
        path: the folder.

    Raises:
        InputError: a file is missing or has invalid content; names file and line.
    """

    def __init__(self, path: Path) -> None:
        self.name, self.path = f"broden:{path.name}", path
        index = _table(path / "index.csv", COLUMNS)
        self.categories = tuple(name for name in index.columns if name not in COLUMNS)
        self._check_categories()
        self.concepts, self._numbers = self._read_labels()
        self.rows = [self._row(f"{index.path}, line {line}", row) for line, row in index]
        if not self.rows:
            raise InputError(f"{index.path} lists no images.")
        self.source: dict[str, Any] = {
            "kind": "broden",
            "pictures": len(self.rows),
            "concepts": len(self.concepts),
            "sha256": fingerprint(
                [path / "index.csv", path / "label.csv"],
                path,
                (
                    file
                    for row in self.rows
                    for file in (row.path, *(at for _, at in row.layers if isinstance(at, Path)))
                ),
            ),
        }

    def __len__(self) -> int:
        return len(self.rows)

    def source_id(self, i: int) -> str:
        """Return the file of an image, as in index.csv."""
        return self.rows[i].path.relative_to(self.path / "images").as_posix()

    def image(self, i: int) -> Image.Image:
        """Return an image, RGB."""
        return read_image(self.rows[i].path)

    def labels(self, i: int, size: tuple[int, int]) -> Labels:
        """Return label maps, one plane per layer; see `probes.Probe`.

        Raises:
            InputError: a map differs in size from index.csv, or has a label that label.csv does
                not list in that category.
        """
        row = self.rows[i]
        planes: list[Labels] = []
        for category, layer in row.layers:
            if isinstance(layer, Path):
                labels = read_labels(layer)
                if labels.shape != row.label_size:
                    raise InputError(
                        f"{layer} is {labels.shape[0]} x {labels.shape[1]}; {row.where} says "
                        f"{row.label_size[0]} x {row.label_size[1]} (sh, sw)."
                    )
                where = f"{layer} ({row.where})"
            else:
                labels, where = np.full((1, 1), layer, np.int32), row.where
            planes.append(resize_labels(self._concepts_of(labels, category, where)[None], size))
        return np.concatenate(planes or [np.zeros((1, *size), np.int32)])

    def _concepts_of(self, labels: Labels, category: str, where: str) -> Labels:
        """Map label numbers of a category to concept numbers."""
        known = self._numbers[category]
        present = np.unique(labels)
        unknown = present[(present >= len(known)) | (known[present.clip(0, len(known) - 1)] < 0)]
        if len(unknown):
            raise InputError(
                f"{where}: label {unknown[0]} is under '{category}', but label.csv has no such "
                "number in that category."
            )
        return known[labels]

    def _check_categories(self) -> None:
        known = {row["name"] for _, row in _table(self.path / "category.csv", ("name",))}
        extra = [name for name in self.categories if name not in known]
        if extra:
            raise InputError(
                f"{self.path / 'index.csv'} has columns that category.csv does not name: "
                f"{some(extra)}.{did_you_mean(extra[0], known)}"
            )

    def _read_labels(self) -> tuple[tuple[Concept, ...], dict[str, Labels]]:
        """Return the concepts, and by category an array from label to concept number.

        In the arrays 0 stands for no concept and -1 for a label that the category does not have.
        """
        table = _table(self.path / "label.csv", ("number", "name", "category"))
        entries: dict[int, tuple[str, list[str]]] = {}
        for line, row in table:
            where = f"{table.path}, line {line}"
            number = parse_label(row["number"], where)
            if number == 0 or number in entries:
                problem = "0 means no label" if number == 0 else f"number {number} appears twice"
                raise InputError(f"{where}: {problem}. Expected each number once, from 1.")
            names = [re.sub(r"\(\d+\)$", "", part).strip() for part in row["category"].split(";")]
            unknown = [name for name in names if name not in self.categories]
            if unknown:
                raise InputError(
                    f"{where}: unknown category '{row['category']}'. Expected some of "
                    f"{', '.join(self.categories)}, as in index.csv, with or without counts: "
                    f"object(12);part(3).{did_you_mean(unknown[0], self.categories)}"
                )
            entries[number] = row["name"].strip(), list(dict.fromkeys(names))
        if not entries:
            raise InputError(f"{table.path} names no labels.")
        numbers: dict[str, Labels] = {
            name: np.full(max(entries) + 1, -1, np.int32) for name in self.categories
        }
        concepts: list[Concept] = []
        for number, (name, categories) in sorted(entries.items()):
            for category in categories:
                concepts.append(Concept(name, category))
                numbers[category][number] = len(concepts)
        for concept_of in numbers.values():
            concept_of[0] = 0
        return tuple(concepts), numbers

    def _row(self, where: str, row: dict[str, str]) -> BrodenRow:
        ih, iw, sh, sw = (parse_whole_number(row[name], where, name) for name in COLUMNS[2:])
        if 0 in (ih, iw, sh, sw):
            raise InputError(f"{where}: a size is 0 ({ih} x {iw}, {sh} x {sw}).")
        layers: list[tuple[str, Path | int]] = []
        for category in self.categories:
            for entry in filter(None, map(str.strip, row[category].split(";"))):
                if entry.isascii() and entry.isdigit():
                    number = parse_whole_number(entry, where, f"{category} label")
                    self._concepts_of(np.array([[number]], np.int32), category, where)
                    layers.append((category, number))
                else:
                    layers.append((category, self._file(entry, where)))
        return BrodenRow(
            where, self._file(row["image"].strip(), where), (ih, iw), (sh, sw), tuple(layers)
        )

    def _file(self, name: str, where: str) -> Path:
        path = self.path / "images" / name
        if not name or ".." in Path(name).parts or Path(name).is_absolute() or not path.is_file():
            raise InputError(f"{where}: no file '{name}' under {self.path / 'images'}.")
        return path


def _table(path: Path, columns: tuple[str, ...]) -> TextTable:
    """Return a table after checking that it has these columns."""
    table = TextTable(path)
    missing = [name for name in columns if name not in table.columns]
    if missing:
        raise InputError(
            f"{path} has no column '{missing[0]}' (columns: {', '.join(table.columns)})."
            + did_you_mean(missing[0], table.columns)
        )
    return table


def open_probe(path: Path) -> BrodenProbe:
    """Open a folder that holds index.csv, label.csv and images/."""
    return BrodenProbe(path)
