"""Tally of where units are active, counted by the set of concepts at each position.

Whether a formula over concepts holds at a position depends only on the set of concepts there: the
position's *atom*. An image has about fifty atoms, whatever its size. The number of positions of
each atom, for each unit and in total, therefore gives exactly the intersections and unions that
masks of the whole dataset would give, from thousands of numbers in place of millions. In the
worst case, where hardly two positions have the same concepts, it is as large as the masks with
integers in place of bits.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Self

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from baselines.shared.probe_statistics import QUANTILE
from milannotations.errors import InputError
from milannotations.exemplars.tallies.base import BaseTally
from milannotations.exemplars.tallies.masks import masks
from milannotations.exemplars.tallies.overlap import check_thresholds, check_units
from milannotations.exemplars.tallies.sparse_masks import active_pixels, sparse_and_dense
from milannotations.exemplars.tallies.validation import Shape, blocks

if TYPE_CHECKING:
    from baselines.shared.probe_statistics import ProbeStatistics

MAX_PENDING = 1 << 18
"""Most counts that may wait to be added to those of the same unit and atom."""

ATOM_BITS = 32
"""Lower bits of a packed key, which hold the index of an atom; the upper bits hold the unit."""

ATOM_MASK = (1 << ATOM_BITS) - 1

CODE_LIMIT = 1 << 62
"""Largest code of a position's labels that is sure to fit into int64."""

Counts = NDArray[np.int64]


def count_concept_sets(
    statistics: ProbeStatistics, quantile: float = QUANTILE
) -> dict[str, ConceptSetCounts]:
    """Count where the units of all layers are active, by concept set, in one pass.

    Args:
        statistics: network on a probe dataset with labels.
        quantile: quantile of a unit's activations that is its threshold.

    Returns:
        Counts by label of the layer.
    """
    size = tuple(statistics.items.size)
    return statistics.run_thresholded_tally(
        f"active {size}", lambda thresholds: ConceptSetTally(thresholds, size), quantile
    )


@dataclass(frozen=True)
class ConceptSetCounts:
    """Numbers of positions by atom: for each unit those where it is active, and all.

    An atom is the set of all concepts at a position; it may be empty. Rows of atoms and of units
    are stored as in a CSR matrix.

    Attributes:
        starts: int64 (atom + 1,): atom i is the set `concepts[starts[i] : starts[i + 1]]`.
        concepts: int64, indices of concepts.
        areas: int64 (atom,), positions of each atom in all images.
        units: int64 (unit + 1,): unit i has the counts `units[i]` to `units[i + 1]`.
        atoms: int64 (count,), indices of atoms, ascending within a unit.
        counts: int64 (count,), positions of the atom where the unit is active; never 0.
    """

    starts: Counts
    concepts: Counts
    areas: Counts
    units: Counts
    atoms: Counts
    counts: Counts

    def of_unit(self, unit: int) -> tuple[Counts, Counts]:
        """Return the atoms where a unit is active, and its number of active positions in each."""
        part = slice(int(self.units[unit]), int(self.units[unit + 1]))
        return self.atoms[part], self.counts[part]


class ConceptSetTally(BaseTally):
    """Tally of the positions where each unit is above its threshold, by concept set.

    Activations are upsampled to the size of the label planes as `exemplars.masks` does. See
    `exemplars.tallies` for the interface.

    It holds 24 bytes per unit for each atom where the unit is active, 8 to 16 bytes times that
    while counts wait, and about 100 + 4 * concepts bytes per atom.

    Args:
        thresholds: (unit,), finite.
        size: (height, width) of label planes.

    Raises:
        InputError: thresholds that are not finite.

    Example:
        >>> from baselines.shared.formula_search import FormulaSearch
        >>> tally = ConceptSetTally(torch.tensor([0.5]), (1, 2))
        >>> planes = torch.tensor([[[[1, 2]], [[0, 1]]]], dtype=torch.int32)
        >>> tally.update(torch.tensor([0]), torch.tensor([0.0, 1.0]).view(1, 1, 1, 2), planes)
        >>> search = FormulaSearch(tally.result(), 2)
        >>> search.beam(0).formula.words(["red", "circle"])
        'circle'
    """

    def __init__(self, thresholds: Tensor, size: tuple[int, int]) -> None:
        super().__init__()
        self.thresholds = check_thresholds(thresholds)
        self.size = (int(size[0]), int(size[1]))
        self._reset()

    def result(self) -> ConceptSetCounts:
        """Return the counts, the same for the same images; see `Tally.result`."""
        if self._shape is None:
            raise InputError("No image was seen, so no unit was active.")
        self._add_pending()
        # Atoms were numbered as they came. Number them again in the order of their concepts, so
        # that the result does not depend on the order of the images.
        sets = [tuple(np.frombuffer(key, np.int32).tolist()) for key in self._atom_indices]
        order = sorted(range(len(sets)), key=sets.__getitem__)
        new_indices = np.empty(len(sets), np.int64)
        new_indices[order] = np.arange(len(sets))
        keys = _pack(self._keys >> ATOM_BITS, new_indices[self._keys & ATOM_MASK])
        by_key = keys.argsort()
        keys = keys[by_key]
        lengths = [len(sets[i]) for i in order]
        # the keys are sorted by unit first: a unit's begin at its own number with atom 0
        first_keys = np.arange(self._shape[0] + 1, dtype=np.int64) << ATOM_BITS
        return ConceptSetCounts(
            np.cumsum([0, *lengths], dtype=np.int64),
            np.array([concept - 1 for i in order for concept in sets[i]], np.int64),
            np.array([self._areas[i] for i in order], np.int64),
            np.searchsorted(keys, first_keys),
            keys & ATOM_MASK,
            self._counts[by_key],
        )

    @property
    def nbytes(self) -> int:
        """Bytes held now, without the overhead of Python's objects."""
        n_counts = len(self._keys) + self._n_pending
        return 16 * n_counts + sum(8 + len(key) for key in self._atom_indices)

    def estimate(self, units: int, h: int, w: int, images: int = 0, concepts: int = 0) -> int:
        """Return the most bytes that it will hold; see `Tally.estimate`.

        This is the bound for images in which every position is an atom of its own, and for units
        that are active at all of them. At a quantile of .995 and with fifty atoms per image it
        needs a thousandth of that.
        """
        positions = images * self.size[0] * self.size[1]
        return positions * (16 * units + 8 + 4 * concepts)

    # ---- hooks of BaseTally

    @property
    def _settings(self) -> dict[str, Any]:
        return {"thresholds": self.thresholds.tolist(), "size": list(self.size)}

    def _reset(self) -> None:
        super()._reset()
        # atoms: int32 numbers of the concepts, ascending, as bytes -> index
        self._atom_indices: dict[bytes, int] = {}
        self._areas: list[int] = []
        # counts of (unit, atom), both in one int64, ascending and each once
        self._keys, self._counts = np.empty(0, np.int64), np.empty(0, np.int64)
        self._pending: list[tuple[Counts, Counts]] = []
        self._n_pending = 0

    def _check_update(self, shape: Shape, images: int, concepts: Tensor | None) -> None:
        check_units(shape, self.thresholds)
        if (
            concepts is None
            or concepts.is_floating_point()
            or (len(concepts), *concepts.shape[2:]) != (images, *self.size)
        ):
            came = "none" if concepts is None else f"{concepts.dtype} {tuple(concepts.shape)}"
            raise InputError(
                f"Concepts: {came} came; expected whole numbers ({images}, plane, "
                f"{self.size[0]}, {self.size[1]})."
            )

    def _update(self, ids: Tensor, activations: Tensor, concepts: Tensor | None) -> None:
        assert concepts is not None  # `_check_update` refuses None
        for maps, planes in zip(activations, concepts.cpu().numpy(), strict=True):
            # (plane, height, width) -> (plane, position)
            indices, local_atoms = self._find_atoms(planes.reshape(len(planes), -1))
            self._count_active(maps, indices, local_atoms)

    def _merge(self, other: Self) -> None:
        other._add_pending()
        # index of each atom there -> its index here
        indices = np.array(
            [
                self._add_area(key, area)
                for key, area in zip(other._atom_indices, other._areas, strict=True)
            ],
            np.int64,
        )
        units, atoms = other._keys >> ATOM_BITS, other._keys & ATOM_MASK
        self._append(_pack(units, indices[atoms]), other._counts)

    def _export(self) -> dict[str, Any]:
        arrays = vars(self.result())
        return {name: torch.from_numpy(array) for name, array in arrays.items()}

    def _import(self, shape: Shape, state: Mapping[str, Any]) -> None:
        self._shape = shape
        names = ConceptSetCounts.__annotations__
        result = ConceptSetCounts(**{name: state[name].numpy() for name in names})
        numbers = (result.concepts + 1).astype(np.int32)
        for i, area in enumerate(result.areas.tolist()):
            self._add_area(numbers[result.starts[i] : result.starts[i + 1]].tobytes(), area)
        units = np.repeat(np.arange(shape[0], dtype=np.int64), np.diff(result.units))
        self._keys, self._counts = _pack(units, result.atoms), result.counts.copy()

    # ---- counting

    def _find_atoms(self, planes: NDArray[Any]) -> tuple[Counts, Counts]:
        """Find the atoms of an image and add their areas.

        Args:
            planes: (plane, position), numbers of concepts from 1, 0 for none.

        Returns:
            Index of each of the image's atoms, (local atom,), and the local atom at each
            position, (position,).
        """
        # One integer per position that is different for different columns of labels: the labels
        # are its digits, and each plane has its own base (its largest label + 1).
        codes = np.zeros(planes.shape[1], np.int64)
        span = 1  # codes are below this
        for plane in planes:
            base = int(plane.max()) + 1
            if span * base >= CODE_LIMIT:
                # the next digit would not fit: number the codes that occur from 0
                _, codes = np.unique(codes, return_inverse=True)
                span = int(codes.max()) + 1
            if base > 1:
                codes = codes * base + plane
                span *= base
        _, first, local_atoms, areas = np.unique(
            codes, return_index=True, return_inverse=True, return_counts=True
        )
        indices = []
        # `first` is a position of each code; its column of labels is turned into a sorted set
        for labels, area in zip(planes[:, first].T.tolist(), areas.tolist(), strict=True):
            numbers = np.array(sorted({*labels} - {0}), np.int32)
            indices.append(self._add_area(numbers.tobytes(), area))
        return np.array(indices), local_atoms

    def _add_area(self, key: bytes, area: int) -> int:
        """Add positions to an atom, which may be new, and return its index."""
        index = self._atom_indices.setdefault(key, len(self._atom_indices))
        if index == len(self._areas):
            self._areas.append(0)
        self._areas[index] += area
        return index

    def _count_active(self, maps: Tensor, indices: Counts, local_atoms: Counts) -> None:
        """Count an image's active positions by unit and atom.

        Args:
            maps: (unit, h, w).
            indices, local_atoms: as returned by `_find_atoms`.
        """
        thresholds = self.thresholds.to(maps.device)
        for units, pixels in _active_positions(maps, thresholds, self.size):
            # bins are (unit, local atom), row by row
            counts = np.bincount(units * len(indices) + local_atoms[pixels])
            bins = counts.nonzero()[0]
            units, local = divmod(bins, len(indices))
            # two local atoms may be one atom: the same labels in another order of the planes
            self._append(_pack(units, indices[local]), counts[bins])

    def _append(self, keys: Counts, counts: Counts) -> None:
        """Append counts to those that wait, and add these when there are many.

        Sorting costs as much as all counts together, so it waits until as many new counts have
        come as there are.
        """
        self._pending.append((keys, counts))
        self._n_pending += len(keys)
        if self._n_pending > max(MAX_PENDING, len(self._keys)):
            self._add_pending()

    def _add_pending(self) -> None:
        """Add the counts that wait to those of the same unit and atom."""
        if not self._pending:
            return
        keys = np.concatenate([self._keys, *(keys for keys, _ in self._pending)])
        counts = np.concatenate([self._counts, *(counts for _, counts in self._pending)])
        order = keys.argsort(kind="stable")
        keys, counts = keys[order], counts[order]
        # equal keys are neighbours now: sum each run of them
        starts = np.flatnonzero(np.diff(keys, prepend=-1))
        self._keys = keys[starts]
        self._counts = np.add.reduceat(counts, starts) if len(starts) else counts
        self._pending, self._n_pending = [], 0


def _pack(units: Counts, atoms: Counts) -> Counts:
    """Return keys that hold a unit in the upper and an atom in the lower bits.

    One int64 per pair sorts and compares faster than two columns.
    """
    keys: Counts = (units << ATOM_BITS) | atoms
    return keys


def _active_positions(
    maps: Tensor, thresholds: Tensor, size: tuple[int, int]
) -> Iterator[list[Counts]]:
    """Yield [units, pixels]: the pixels of the upsampled maps at which each unit is active.

    Args:
        maps: (unit, h, w).
        thresholds: (unit,).
        size: (height, width) of the masks.
    """
    sparse, dense = sparse_and_dense(maps, thresholds)
    # units with few active values: only the pixels around these are computed
    for rows, pixels in active_pixels(maps[sparse], thresholds[sparse], size):
        yield [tensor.cpu().numpy() for tensor in (sparse[rows], pixels)]
    # the others: whole masks
    for part in blocks(len(dense), size[0] * size[1], maps.device):
        units = dense[part]
        above = masks(maps[units], thresholds[units], size).flatten(1).cpu().numpy()
        rows, pixels = divmod(np.flatnonzero(above), above.shape[1])
        yield [units.cpu().numpy()[rows], pixels]
