"""Broden, the probe data set of Network Dissection (Bau et al. 2017), as its folders lie.

    index.csv       image,split,ih,iw,sh,sw,color,object,part,material,scene,texture
    label.csv       number,name,category,frequency,coverage,syns
    category.csv    name,first,last,count,frequency
    c_object.csv, ... dense codes within a category, which nothing here needs
    images/         pictures of ih x iw, label maps of sh x sw

A category's cell in index.csv is empty, or lists label maps under images/ (PNG, the label's
number is red + 256 * green) and numbers of labels that hold for the whole picture. A label may
be of several categories: `object(12);part(3)`. As Network Dissection counts, it is then a
concept of each: what a map under `object` shows is an object.
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
    read_image,
    read_labels,
    resize_labels,
)
from milannotations.utils.files import TextTable, parse_whole_number

if TYPE_CHECKING:
    from PIL import Image

COLUMNS = ("image", "split", "ih", "iw", "sh", "sw")
"""Of index.csv, before those of categories."""


class BrodenRow(NamedTuple):
    """A picture: where index.csv lists it, its file, sizes (height, width), and its layers.

    A layer is a category with a file of label maps, or with a label's number for all of it.
    """

    where: str
    path: Path
    size: tuple[int, int]
    label_size: tuple[int, int]
    layers: tuple[tuple[str, Path | int], ...]


class BrodenProbe:
    """Broden's pictures and label maps; see `probes.Probe`.

    Concepts are in order of their labels' numbers, then as label.csv lists categories. All
    splits are taken. Every file that index.csv names is to be there.

    Args:
        path: the folder.

    Raises:
        InputError: a file that is missing or says what it should not, with file and line.
    """

    def __init__(self, path: Path) -> None:
        self.name, self.path = f"broden:{path.name}", path
        index = _table(path / "index.csv", COLUMNS)
        self.categories = tuple(name for name in index.columns if name not in COLUMNS)
        self._check_categories()
        self.concepts, self._numbers = self._read_labels()
        self.rows = [self._row(f"{index.path}, line {line}", row) for line, row in index]
        if not self.rows:
            raise InputError(f"{index.path} lists no pictures.")
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
        """Return the picture's file, as index.csv names it."""
        return self.rows[i].path.relative_to(self.path / "images").as_posix()

    def image(self, i: int) -> Image.Image:
        """Return a picture, RGB."""
        return read_image(self.rows[i].path)

    def labels(self, i: int, size: tuple[int, int]) -> Labels:
        """Return label maps, one plane a layer; see `probes.Probe`.

        Raises:
            InputError: a map of another size than index.csv says, or with a number that
                label.csv does not give to the category.
        """
        row = self.rows[i]
        made: list[Labels] = []
        for category, layer in row.layers:
            if isinstance(layer, Path):
                found = read_labels(layer)
                if found.shape != row.label_size:
                    raise InputError(
                        f"{layer} is {found.shape[0]} x {found.shape[1]}; {row.where} says "
                        f"{row.label_size[0]} x {row.label_size[1]} (sh, sw)."
                    )
                where = f"{layer} ({row.where})"
            else:
                found, where = np.full((1, 1), layer, np.int32), row.where
            made.append(resize_labels(self._concepts_of(found, category, where)[None], size))
        return np.concatenate(made or [np.zeros((1, *size), np.int32)])

    def _concepts_of(self, labels: Labels, category: str, where: str) -> Labels:
        """Return concepts' numbers, of labels' numbers in a category."""
        known = self._numbers[category]
        wrong = np.unique(labels)
        wrong = wrong[(wrong >= len(known)) | (known[wrong.clip(0, len(known) - 1)] < 0)]
        if len(wrong):
            raise InputError(
                f"{where}: label {wrong[0]} is under '{category}', but label.csv has no such "
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
        """Return concepts, and for each category their numbers by label: 0 for none, -1 unknown."""
        table = _table(self.path / "label.csv", ("number", "name", "category"))
        entries: dict[int, tuple[str, list[str]]] = {}
        for line, row in table:
            where = f"{table.path}, line {line}"
            number = parse_whole_number(row["number"], where, "number")
            if number == 0 or number in entries:
                said = "0 is for none" if number == 0 else f"number {number} is there twice"
                raise InputError(f"{where}: {said}; expected a number from 1, once.")
            if number > 0xFFFF:
                raise InputError(f"{where}: number {number:,}; label maps hold up to 65,535.")
            names = [re.sub(r"\(\d+\)$", "", part).strip() for part in row["category"].split(";")]
            unknown = [name for name in names if name not in self.categories]
            if unknown:
                raise InputError(
                    f"{where}: category '{row['category']}'; expected some of "
                    f"{', '.join(self.categories)}, as in index.csv, with or without a count: "
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
        for each in numbers.values():
            each[0] = 0
        return tuple(concepts), numbers

    def _row(self, where: str, row: dict[str, str]) -> BrodenRow:
        ih, iw, sh, sw = (parse_whole_number(row[name], where, name) for name in COLUMNS[2:])
        if 0 in (ih, iw, sh, sw):
            raise InputError(f"{where}: sizes of {ih} x {iw} and {sh} x {sw}; expected some.")
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
    """Return a table that has these columns."""
    table = TextTable(path)
    missing = [name for name in columns if name not in table.columns]
    if missing:
        raise InputError(
            f"{path} has no column '{missing[0]}' (columns: {', '.join(table.columns)})."
            + did_you_mean(missing[0], table.columns)
        )
    return table


def open_probe(path: Path) -> BrodenProbe:
    """Return the data set of a folder that holds index.csv, label.csv and images/."""
    return BrodenProbe(path)
