"""Published `annotations.csv`: header `layer,unit,summary`, one row per description."""

from __future__ import annotations

import os
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from milannotations import catalog, splits
from milannotations.errors import InputError
from milannotations.schema import Unit, row
from milannotations.utils.files import TextTable, parse_whole_number, sha256

HEADER = ("layer", "unit", "summary")
"""Columns of the file, in order."""


@dataclass(frozen=True)
class Annotations:
    """Human descriptions of the units of one network.

    Attributes:
        network: name with dashes.
        descriptions: by unit, in the order of their rows. Positions in a list are positions in the
            file and do not identify annotators.
        digest: sha256 of the file.
        n_empty: number of summaries without a word, which are left out.
    """

    network: str
    descriptions: dict[Unit, list[str]]
    digest: str
    n_empty: int

    @property
    def n_descriptions(self) -> int:
        return sum(map(len, self.descriptions.values()))


def has_words(text: str) -> bool:
    """Return whether a text holds any letter or digit; without one it describes nothing.

    Example:
        >>> has_words("red"), has_words(" ?.")
        (True, False)
    """
    return any(character.isalnum() for character in text)


def read(path: str | os.PathLike[str], network: str, *, unlisted: bool = False) -> Annotations:
    """Read the annotations of `network` from a published `annotations.csv`.

    Rows may be in any order, with CRLF or LF, with quoted commas. Layers are text, even if they
    look like numbers (`0`, `4` of resnet152-places365). A summary without a word is left out and
    counted in `n_empty`; its unit is kept.

    Args:
        path: the CSV file.
        network: name; slashes are accepted.
        unlisted: accept layers and units that the published network does not have.

    Raises:
        InputError: not a file, not UTF-8, other columns, a unit that is no whole number, a layer
            or unit that the published network does not have.

    Source: files written by `experiments` of Hernandez et al. 2022.
    """
    network = catalog.canonical(network)
    table = TextTable(path)
    if tuple(table.columns) != HEADER:
        raise InputError(
            f"{path} has the columns {', '.join(table.columns)}; "
            f"expected {', '.join(HEADER)}, as in the published annotations.csv."
        )
    descriptions: dict[Unit, list[str]] = {}
    n_empty = 0
    for line, cells in table:
        where = f"{path}, line {line}"
        if not cells["layer"].strip():
            raise InputError(f"{where}: the layer is empty.")
        unit = Unit(network, cells["layer"].strip(), parse_whole_number(cells["unit"], where))
        summaries = descriptions.setdefault(unit, [])
        if has_words(cells["summary"]):
            summaries.append(cells["summary"])
        else:
            n_empty += 1
    if not descriptions:
        raise InputError(f"{path} has a header and no rows.")
    catalog.check_units(network, descriptions, unlisted=unlisted)
    return Annotations(network, descriptions, sha256(Path(path)), n_empty)


def split_units(network: str, units: Iterable[Unit]) -> dict[str, list[Unit]]:
    """Split units into `train` and `test`: the within-network split, seed 0.

    Units of a published network are split as in `splits.within`, whichever of its units are
    present, and sorted by layer in the order of the catalog.
    """
    units = list(units)
    is_published = network in catalog.NETWORKS
    if is_published:
        order = {layer: i for i, layer in enumerate(catalog.NETWORKS[network].layers)}
        units.sort(key=lambda unit: (order.get(unit.layer, len(order)), unit))
    test = set((splits.within(network) if is_published else splits.partition(units)).test)
    return {
        "train": [unit for unit in units if unit not in test],
        "test": [unit for unit in units if unit in test],
    }


def build_edition(
    path: str | os.PathLike[str],
    network: str,
    out: str | os.PathLike[str],
    *,
    unlisted: bool = False,
    overwrite: bool = False,
) -> Annotations:
    """Write annotations as a text-only config of the edition at `out`.

    The exemplar columns are null. `datasets.load_dataset(out, network)` opens it, with the splits
    `train` and `test`. `milan data annotations` calls this.

    Args:
        path, network, unlisted: as `read`.
        out: an edition, or a new folder for one.
        overwrite: replace an existing config of this network.

    Raises:
        InputError: see `read`; `out` holds something else; `out` has this network already.
    """
    from milannotations.editions.writing import write_config

    annotations = read(path, network, unlisted=unlisted)
    published = catalog.NETWORKS.get(annotations.network)
    kind = published.unit_kind if published else None
    parts = split_units(annotations.network, sorted(annotations.descriptions))
    rows = {
        split: [
            row(unit, descriptions=annotations.descriptions[unit], unit_kind=kind, polarity="+")
            for unit in units
        ]
        for split, units in parts.items()
    }
    write_config(out, annotations.network, rows, overwrite=overwrite)
    return annotations
