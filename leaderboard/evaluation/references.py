"""References: what people wrote about the units, from an edition or an `annotations.csv`.

Of synthetic units the truth is known too, as a phrase and as a formula.
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

_TRUTH = ("truths", "truth_formulas", "unit_kinds", "seen")


@dataclass(frozen=True)
class References:
    """All units of a config, described or not, and what people wrote about each.

    Attributes:
        units: sorted, whatever the order of the source; the order of all below.
        texts: normalised descriptions of each unit, empty ones dropped.
        splits: HF split of each unit.
        duplicate_of: key of the unit that this one repeats, or None.
        edition, config: names for the record.
        source: path it was read from, or None.
        file_order: place of each unit in the source, where that order is people's own.
        truths, truth_formulas: what each unit responds to, as a phrase and as a formula; None
            where nobody knows.
        unit_kinds: kind of each unit, or None.
        seen: whether its formula is among the training units', or None.
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
        """sha256 over units, texts, splits, duplicates and truths: equal ones, equal references."""
        whole = hashlib.sha256()
        rows = zip(self.units, self.texts, self.splits, self.duplicate_of, strict=True)
        known = zip(*(getattr(self, name) for name in _TRUTH), strict=True)
        for (unit, texts, split, duplicate), truth in zip(rows, known, strict=True):
            # where nothing is known, nothing is added: such digests are older than truths
            more = () if truth[1] is None else truth
            whole.update(repr((tuple(unit), texts, split, duplicate, *more)).encode())
        return whole.hexdigest()

    @cached_property
    def synthetic(self) -> bool:
        """Whether every unit is synthetic: annotators are simulated, truths are known."""
        return all(kind == "synthetic" for kind in self.unit_kinds)

    @cached_property
    def formulas(self) -> tuple[Formula | None, ...]:
        """What each unit responds to, as a formula; None where it is not known.

        Raises:
            InputError: a truth is no formula; a duplicate has another truth than its twin.
        """
        found = tuple(None if t is None else Formula.parse(t) for t in self.truth_formulas)
        twins: dict[int, int] = {}
        for i, group in enumerate(self.duplicate_groups):
            first = twins.setdefault(group, i)
            if found[i] != found[first]:
                raise InputError(
                    f"{self.units[i]} and {self.units[first]} are duplicates of other truths: "
                    f"{found[i]} and {found[first]}."
                )
        return found

    def about(self, against: Against) -> NDArray[np.bool_]:
        """Return the units that a metric held against this is about.

        Agreement, with descriptions or the truth, is about units that mean something and have
        one sense, as far as is known; sense recall is about those with several senses. What a
        unit does can be predicted whatever its senses, as long as it has any.
        """
        if against == "activations":
            return self.meaningful | ~self.known
        if against == "descriptions":
            return (self._n_senses == 1) | ~self.known
        return self._n_senses > 1 if against == "senses" else self._n_senses == 1

    @cached_property
    def known(self) -> NDArray[np.bool_]:
        """Which units have a known truth."""
        return np.array([formula is not None for formula in self.formulas], dtype=bool)

    @property
    def meaningful(self) -> NDArray[np.bool_]:
        """Which units are known to mean something."""
        return self._n_senses > 0

    @cached_property
    def _n_senses(self) -> NDArray[np.int_]:
        """Number of senses of each unit; 0 where it means nothing or nobody knows."""
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
        """Every reference of the config, one document each: what IDF tables are fitted on."""
        return [text for texts in self.texts for text in texts]

    @cached_property
    def layers(self) -> dict[tuple[str, str], list[int]]:
        """Positions of the units of each (network, layer)."""
        found: dict[tuple[str, str], list[int]] = {}
        for i, unit in enumerate(self.units):
            found.setdefault(unit[:2], []).append(i)
        return found

    @cached_property
    def duplicate_groups(self) -> list[int]:
        """Number of each unit's group of duplicates: equal numbers, equal units."""
        named = {
            str(unit): of
            for unit, of in zip(self.units, self.duplicate_of, strict=True)
            if of is not None
        }
        numbers: dict[str, int] = {}
        groups = []
        for unit in self.units:
            head, seen = str(unit), set()
            while head in named and head not in seen:  # a duplicate of a duplicate
                seen.add(head)
                head = named[head]
            groups.append(numbers.setdefault(head, len(numbers)))
        return groups


def of_csv(
    path: str | os.PathLike[str], network: str | None, *, unlisted: bool = False
) -> References:
    """Return the references in a published `annotations.csv`; splits are within-network, seed 0.

    Raises:
        InputError: see `milannotations.published.annotations.read`; no network given.
    """
    if not network:
        raise InputError(
            f"{path} does not say which network it describes; give it with --network "
            "(network=... in Python)."
        )
    read = published.read(path, network, unlisted=unlisted)
    sides = published.split_units(read.network, read.descriptions)
    test = set(sides["test"])
    units = tuple(read.descriptions)
    return References(
        units,
        tuple(_clean(read.descriptions[unit]) for unit in units),
        tuple("test" if unit in test else "train" for unit in units),
        (None,) * len(units),
        edition=Path(path).stem,
        config=read.network,
        source=str(path),
        file_order=tuple(range(len(units))),
    )


def of_edition(edition: str | os.PathLike[str], config: str | None = None) -> References:
    """Return the references in an edition, a folder or embedded; only text columns are read.

    Raises:
        InputError: see `milannotations.editions.loading.load`; a damaged file.
    """
    config = pick_config(edition, config)
    name = edition_name(edition)
    # streamed: nothing is copied into the library's cache, no pixel is read
    try:
        loaded = loading.load(edition, config, columns=list(TEXT_COLUMNS), streaming=True)
        return of_dataset(loaded, edition=name, config=config, source=edition)
    except (OSError, TypeError, ValueError) as error:
        if isinstance(error, InputError):
            raise
        raise InputError(
            f"{edition}, config {config}, cannot be read: {str(error).splitlines()[0]} "
            "Make it anew: milan data annotations FILE --network N --out DIR --overwrite"
        ) from error


def of_dataset(
    loaded: Any,
    *,
    edition: str = "dataset",
    config: str = "default",
    source: str | os.PathLike[str] | None = None,
) -> References:
    """Return the references in a `datasets.DatasetDict` or one of its splits.

    Raises:
        InputError: columns are missing; a unit twice.
    """
    splits = loaded if isinstance(loaded, Mapping) else {str(loaded.split): loaded}
    if not all(hasattr(part, "select_columns") for part in splits.values()):
        raise InputError("A mapping of something else than splits of a data set was given.")
    rows: list[tuple[Any, ...]] = []
    for split, part in splits.items():
        missing = sorted({"network", "layer", "unit", "descriptions"} - set(part.column_names))
        if missing:
            raise InputError(f"The data set has no column '{missing[0]}'; is it an edition?")
        wanted = [name for name in TEXT_COLUMNS if name in part.column_names]
        for row in part.select_columns(wanted):
            unit = Unit(row["network"], row["layer"], row["unit"])
            more = ("duplicate_of", "truth", "truth_formula", "unit_kind", "seen")
            rows.append((unit, _clean(row["descriptions"] or ()), str(split), *map(row.get, more)))
    if not rows:
        raise InputError("The data set has no rows.")
    if len({row[0] for row in rows}) < len(rows):
        raise InputError("The data set holds a unit twice.")
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


def of(
    source: Any,
    *,
    config: str | None = None,
    network: str | None = None,
    unlisted: bool = False,
) -> References:
    """Return references from whatever holds them: an edition folder, a CSV, a data set.

    Raises:
        InputError: it is none of these, or its content is wrong.
    """
    if isinstance(source, References):
        return source
    if isinstance(source, str | os.PathLike):
        if Path(source).is_file() and config is not None:
            raise InputError(f"{source} is a file and has no configs; leave --config out.")
        if os.fspath(source) in EMBEDDED or Path(source).is_dir():
            return of_edition(source, config)
        if Path(source).is_file():
            return of_csv(source, network, unlisted=unlisted)
        raise InputError(
            f"No references at '{source}': expected an edition (a folder made by "
            f"'milan data annotations', or {', '.join(EMBEDDED)}) or an annotations.csv."
        )
    if isinstance(source, Mapping) or hasattr(source, "column_names"):
        return of_dataset(source)
    raise InputError(
        f"References were given as {type(source).__name__}; expected an edition's folder, "
        "an annotations.csv or a datasets.DatasetDict."
    )


def _clean(written: Sequence[str] | Iterable[str]) -> tuple[str, ...]:
    return tuple(text for text in map(normalise, written) if published.has_words(text))
