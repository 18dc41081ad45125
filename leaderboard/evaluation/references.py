"""References: annotations of units, from an edition, an `annotations.csv` or a data set.

For synthetic units the truth is known too, as a phrase and as a formula.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from leaderboard.metrics.base import Against
from leaderboard.metrics.text import normalise
from milannotations.editions import loading
from milannotations.editions.configs import EMBEDDED, edition_name, pick_config
from milannotations.errors import InputError
from milannotations.published import annotations as published
from milannotations.schema import TEXT_COLUMNS, Unit
from milannotations.synthetic.formulas import Formula

Mask = NDArray[np.bool_]
"""Selection of units, (n,)."""
Descriptions = Sequence[str | None]
"""Description of each unit (n), None where there is none."""

_TRUTH = ("truths", "truth_formulas", "unit_kinds", "seen")


@dataclass(frozen=True)
class References:
    """All units of a config, described or not, with the annotations of each.

    Attributes:
        units: sorted, whatever the order of the source; all fields below are in this order.
        texts: normalised annotations of each unit, empty ones dropped.
        splits: HF split of each unit.
        duplicate_of: key of the unit that this one repeats, or None.
        edition, config: names for the record.
        source: path that it was read from, or None.
        file_order: position of each unit in the source, if that order is the annotators' own.
        truths, truth_formulas: what each unit responds to, as a phrase and as a formula; None
            if unknown.
        unit_kinds: kind of each unit, or None.
        seen: whether the unit's formula is among the training units', or None.
    """

    units: tuple[Unit, ...]
    texts: tuple[tuple[str, ...], ...]
    splits: tuple[str, ...]
    duplicate_of: tuple[str | None, ...]
    edition: str
    config: str
    source: str | None = None
    file_order: tuple[int, ...] | None = None
    truths: tuple[str | None, ...] = ()
    truth_formulas: tuple[str | None, ...] = ()
    unit_kinds: tuple[str | None, ...] = ()
    seen: tuple[bool | None, ...] = ()

    def __post_init__(self) -> None:
        # one order for all sources, so that seeded draws fall on the same units
        order = sorted(range(len(self.units)), key=self.units.__getitem__)
        for name in _TRUTH:
            if not getattr(self, name):
                object.__setattr__(self, name, (None,) * len(order))
        if "synthetic" in self.unit_kinds and not self.synthetic:
            raise InputError(
                f"{self.edition} holds synthetic units beside others; real and synthetic results "
                "never stand in one table. Make an edition of each."
            )
        for name in ("units", "texts", "splits", "duplicate_of", "file_order", *_TRUTH):
            values = getattr(self, name)
            if values is not None:
                object.__setattr__(self, name, tuple(values[i] for i in order))

    @cached_property
    def digest(self) -> str:
        """sha256 of units, texts, splits, duplicates and truths: same digest, same references."""
        whole = hashlib.sha256()
        rows = zip(self.units, self.texts, self.splits, self.duplicate_of, strict=True)
        truths = zip(*(getattr(self, name) for name in _TRUTH), strict=True)
        for (unit, texts, split, duplicate), truth in zip(rows, truths, strict=True):
            # units without a truth add nothing, so that digests older than truths stay the same
            more = () if truth[1] is None else truth
            whole.update(repr((tuple(unit), texts, split, duplicate, *more)).encode())
        return whole.hexdigest()

    @cached_property
    def synthetic(self) -> bool:
        """True if every unit is synthetic: annotators are simulated, truths are known."""
        return all(kind == "synthetic" for kind in self.unit_kinds)

    @cached_property
    def formulas(self) -> tuple[Formula | None, ...]:
        """Formula that each unit responds to; None if unknown.

        Raises:
            InputError: a truth is no formula; a unit and its duplicate have different truths.
        """
        formulas = tuple(
            None if text is None else Formula.parse(text) for text in self.truth_formulas
        )
        first_of_group: dict[int, int] = {}
        for i, group in enumerate(self.duplicate_groups):
            first = first_of_group.setdefault(group, i)
            if formulas[i] != formulas[first]:
                raise InputError(
                    f"{self.units[i]} and {self.units[first]} are duplicates with different "
                    f"truths: {formulas[i]} and {formulas[first]}."
                )
        return formulas

    def reported(self, against: Against) -> Mask:
        """Return the units (n,) whose values are reported for a metric of this kind.

        Agreement with annotations or the truth is reported for units that mean something and have
        one sense, and for units whose truth is unknown; sense recall for units with several
        senses; scores in activations for every unit that is not known to mean nothing.
        """
        if against == "activations":
            return self.meaningful | ~self.has_truth
        if against == "descriptions":
            return (self._n_senses == 1) | ~self.has_truth
        return self._n_senses > 1 if against == "senses" else self._n_senses == 1

    @cached_property
    def has_texts(self) -> Mask:
        """Units with annotations (n,)."""
        return np.array([bool(texts) for texts in self.texts], dtype=bool)

    @cached_property
    def has_truth(self) -> Mask:
        """Units with a known truth (n,)."""
        return np.array([formula is not None for formula in self.formulas], dtype=bool)

    @property
    def meaningful(self) -> Mask:
        """Units that are known to mean something (n,)."""
        return self._n_senses > 0

    @cached_property
    def _n_senses(self) -> NDArray[np.int_]:
        """Number of senses of each unit; 0 if it means nothing or its truth is unknown."""
        return np.array(
            [len(f.senses) if f is not None and f.means_something else 0 for f in self.formulas]
        )

    @cached_property
    def index(self) -> dict[Unit, int]:
        return {unit: i for i, unit in enumerate(self.units)}

    @property
    def networks(self) -> list[str]:
        return list(dict.fromkeys(unit.network for unit in self.units))

    @property
    def corpus(self) -> list[str]:
        """Every annotation of the config, one document each: what IDF tables are fitted on."""
        return [text for texts in self.texts for text in texts]

    @cached_property
    def layers(self) -> dict[tuple[str, str], list[int]]:
        """Indices of the units of each (network, layer)."""
        layers: dict[tuple[str, str], list[int]] = {}
        for i, unit in enumerate(self.units):
            layers.setdefault(unit[:2], []).append(i)
        return layers

    @cached_property
    def duplicate_groups(self) -> list[int]:
        """Number of each unit's group of duplicates: same number, same unit."""
        originals = {
            str(unit): original
            for unit, original in zip(self.units, self.duplicate_of, strict=True)
            if original is not None
        }
        numbers: dict[str, int] = {}
        groups = []
        for unit in self.units:
            # follow duplicates of duplicates to the first unit; `visited` ends a cycle
            first, visited = str(unit), set()
            while first in originals and first not in visited:
                visited.add(first)
                first = originals[first]
            groups.append(numbers.setdefault(first, len(numbers)))
        return groups


def load(
    source: Any,
    *,
    config: str | None = None,
    network: str | None = None,
    unlisted: bool = False,
) -> References:
    """Return the references in an edition folder, a CSV file or a data set.

    Args:
        source: one of these, or `References`, which are returned as they are.
        config: config of the edition; optional if there is only one.
        network: network of an `annotations.csv`.
        unlisted: accept layers and units that the published network does not have.

    Raises:
        InputError: it is none of these, or its content is wrong.
    """
    if isinstance(source, References):
        return source
    if isinstance(source, str | os.PathLike):
        if Path(source).is_file() and config is not None:
            raise InputError(f"{source} is a file and has no configs; leave --config out.")
        if os.fspath(source) in EMBEDDED or Path(source).is_dir():
            return from_edition(source, config)
        if Path(source).is_file():
            return from_csv(source, network, unlisted=unlisted)
        raise InputError(
            f"No references at '{source}': expected an edition (a folder made by "
            f"'milan data annotations', or {', '.join(EMBEDDED)}) or an annotations.csv."
        )
    if isinstance(source, Mapping) or hasattr(source, "column_names"):
        return from_dataset(source)
    raise InputError(
        f"References were given as {type(source).__name__}; expected the folder of an edition, "
        "an annotations.csv or a datasets.DatasetDict."
    )


def from_csv(
    path: str | os.PathLike[str], network: str | None, *, unlisted: bool = False
) -> References:
    """Return the references in a published `annotations.csv`; splits are within-network, seed 0.

    Raises:
        InputError: see `milannotations.published.annotations.read`; no network given.
    """
    if not network:
        raise InputError(
            f"{path} does not say which network it describes. Give it with --network NETWORK."
        )
    annotations = published.read(path, network, unlisted=unlisted)
    test = set(published.split_units(annotations.network, annotations.descriptions)["test"])
    units = tuple(annotations.descriptions)
    return References(
        units,
        tuple(_clean(annotations.descriptions[unit]) for unit in units),
        tuple("test" if unit in test else "train" for unit in units),
        (None,) * len(units),
        edition=Path(path).stem,
        config=annotations.network,
        source=str(path),
        file_order=tuple(range(len(units))),
    )


def from_edition(edition: str | os.PathLike[str], config: str | None = None) -> References:
    """Return the references in an edition, a folder or embedded; only text columns are read.

    Raises:
        InputError: see `milannotations.editions.loading.load`; a damaged file.
    """
    config = pick_config(edition, config)
    name = edition_name(edition)
    try:
        # streamed: nothing is copied into the library's cache, and no pixel is read
        dataset = loading.load(edition, config, columns=list(TEXT_COLUMNS), streaming=True)
        return from_dataset(dataset, edition=name, config=config, source=edition)
    except (OSError, TypeError, ValueError) as error:
        if isinstance(error, InputError):
            raise
        raise InputError(
            f"{edition}, config {config}, cannot be read: {str(error).splitlines()[0]} "
            "Make it again: milan data annotations FILE --network N --out DIR --overwrite"
        ) from error


def from_dataset(
    dataset: Any,
    *,
    edition: str = "dataset",
    config: str = "default",
    source: str | os.PathLike[str] | None = None,
) -> References:
    """Return the references in a `datasets.DatasetDict` or one of its splits.

    Args:
        dataset: the data set.
        edition, config, source: names and path for the record.

    Raises:
        InputError: columns are missing; a unit occurs twice.
    """
    splits = dataset if isinstance(dataset, Mapping) else {str(dataset.split): dataset}
    if not all(hasattr(part, "select_columns") for part in splits.values()):
        raise InputError("A mapping of something else than splits of a data set was given.")
    rows: list[tuple[Any, ...]] = []
    for split, part in splits.items():
        missing = sorted({"network", "layer", "unit", "descriptions"} - set(part.column_names))
        if missing:
            raise InputError(f"The data set has no column '{missing[0]}'; is it an edition?")
        columns = [name for name in TEXT_COLUMNS if name in part.column_names]
        for row in part.select_columns(columns):
            unit = Unit(row["network"], row["layer"], row["unit"])
            more = ("duplicate_of", "truth", "truth_formula", "unit_kind", "seen")
            rows.append((unit, _clean(row["descriptions"] or ()), str(split), *map(row.get, more)))
    if not rows:
        raise InputError("The data set has no rows.")
    if len({row[0] for row in rows}) < len(rows):
        raise InputError("The data set has the same unit twice.")
    units, texts, sides, duplicate_of, truths, formulas, kinds, seen = zip(*rows, strict=True)
    return References(
        units,
        texts,
        sides,
        duplicate_of,
        edition,
        config,
        None if source is None else str(source),
        truths=truths,
        truth_formulas=formulas,
        unit_kinds=kinds,
        seen=seen,
    )


def _clean(texts: Sequence[str] | Iterable[str]) -> tuple[str, ...]:
    return tuple(text for text in map(normalise, texts) if published.has_words(text))
