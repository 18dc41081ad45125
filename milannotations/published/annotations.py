"""Read the published `annotations.csv`: header `layer,unit,summary`, one row a description."""

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


@dataclass(frozen=True)
class Annotations:
    """What people wrote about the units of one network.

    `descriptions` keeps units in the order of their first row, and a unit's
    descriptions in the order of their rows: positions in a file, not people.
    """

    network: str
    descriptions: dict[Unit, list[str]]
    digest: str
    n_empty: int

    @property
    def n_descriptions(self) -> int:
        return sum(map(len, self.descriptions.values()))


def has_words(text: str) -> bool:
    """Say whether a text holds any letter or digit; without one it describes nothing.

    Example:
        >>> has_words("red"), has_words(" ?.")
        (True, False)
    """
    return any(character.isalnum() for character in text)


def read(path: str | os.PathLike[str], network: str, *, unlisted: bool = False) -> Annotations:
    """Return the annotations of `network` from a published `annotations.csv`.

    Rows may come in any order, with CRLF or LF, with quoted commas. Layers are
    text, digits included (`0`, `4` of resnet152-places365). A summary without a
    word is left out and counted in `n_empty`; its unit is kept.

    Raises:
        InputError: not a file, not UTF-8, other columns, a unit that is no whole
            number, a layer or unit that the published network does not have
            (`unlisted=True` skips that check).

    Source: `experiments` of Hernandez et al. 2022 wrote these files.
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
        written = descriptions.setdefault(unit, [])
        if has_words(cells["summary"]):
            written.append(cells["summary"])
        else:
            n_empty += 1
    if not descriptions:
        raise InputError(f"{path} has a header and no rows.")
    catalog.check_units(network, descriptions, unlisted=unlisted)
    return Annotations(network, descriptions, sha256(Path(path)), n_empty)


def split_units(network: str, units: Iterable[Unit]) -> dict[str, list[Unit]]:
    """Return the HF splits (`train`, `test`) of these units: within-network, seed 0.

    For a published network a unit's side is that of `splits.within`, whichever of
    its units are present; its layers come in the order of the catalog.
    """
    units = list(units)
    published = network in catalog.NETWORKS
    if published:
        order = {layer: i for i, layer in enumerate(catalog.NETWORKS[network].layers)}
        units.sort(key=lambda unit: (order.get(unit.layer, len(order)), unit))
    test = set((splits.within(network) if published else splits.partition(units)).test)
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
    """Write the annotations as a text-only edition (or add them to one) at `out`.

    The exemplar columns are null. `datasets.load_dataset(out, network)` opens it,
    with the splits `train` and `test`. What `milan data annotations` does.

    Raises:
        InputError: see `read`; `out` holds something else; `out` has this network
            already (`overwrite=True` replaces it).
    """
    from milannotations.editions.writing import write_config

    found = read(path, network, unlisted=unlisted)
    published = catalog.NETWORKS.get(found.network)
    kind = published.unit_kind if published else None
    rows = {
        split: [
            row(unit, descriptions=found.descriptions[unit], unit_kind=kind, polarity="+")
            for unit in units
        ]
        for split, units in split_units(found.network, sorted(found.descriptions)).items()
    }
    write_config(out, found.network, rows, overwrite=overwrite)
    return found
