"""The search of Compositional Explanations: formulas that overlap most with a unit.

Mu and Andreas 2020, section 2. A beam search over formulas of OR, AND and AND NOT, for the largest
intersection over union of where a formula holds and where the unit is above its threshold.

Masks of whole data sets are never joined. All that a formula can tell of a position is the set of
concepts that it is of: its atom. A picture has some fifty atoms, whatever its size, so counts of
positions by atom, of each unit and of all, give the same numbers exactly as masks would, bit-packed
or not, from thousands of numbers in place of millions. In the worst case, where hardly two
positions are of the same concepts, it is masks with whole numbers in place of bits.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple, Self

import numpy as np
from numpy.typing import NDArray

from baselines.shared.concept_formulas import OPERATORS, ConceptFormula
from milannotations.errors import InputError

if TYPE_CHECKING:
    from torch import Tensor

    from baselines.shared.probe_statistics import ProbeStatistics
    from milannotations.exemplars.tallies.validation import Shape

QUANTILE = 0.995
"""Of a unit's activations: its threshold (Mu and Andreas 2020, section 3)."""

BEAM, LENGTH = 5, 3
"""Formulas kept from one length to the next; concepts of a formula at most."""

PENDING = 1 << 18
"""Counts that may wait to be added to those of the same unit and atom."""

REMEMBERED = 1 << 27
"""Bytes of areas of formulas that units share."""

LOW = (1 << 32) - 1

Counts = NDArray[np.int64]


def count_concept_sets(
    probing: ProbeStatistics, quantile: float = QUANTILE
) -> dict[str, ConceptSetCounts]:
    """Return where the units of all layers are active, by what is there, in one pass."""
    size = tuple(probing.items.size)
    return probing.run_thresholded_tally(
        f"active {size}", lambda t: ConceptSetTally(t, size), quantile
    )


# ---- the search


class BestFormula(NamedTuple):
    """A formula, its intersection over union with a unit, how many formulas were looked at."""

    formula: ConceptFormula
    iou: float
    seen: int


class _Kept(NamedTuple):
    """A formula, with the positions where it holds: where the unit is active, and of all."""

    formula: ConceptFormula
    iou: float
    inside: int
    area: int


class _Joined(NamedTuple):
    """A formula joined with each concept: (operator, concept) each; an IoU of -1 is none."""

    parent: ConceptFormula
    ious: NDArray[np.float64]
    insides: Counts
    areas: Counts

    def best(self, count: int | None) -> list[_Kept]:
        """Return the best, and all that are as good as the last of them; None is all."""
        flat = self.ious.ravel()
        if count is None:
            places = (flat >= 0).nonzero()[0]
        else:
            least = np.partition(flat, -count)[-count] if count < len(flat) else 0.0
            places = ((flat >= least) & (flat > 0)).nonzero()[0]
        width = self.ious.shape[1]
        return [
            _Kept(
                self.parent.append(OPERATORS[place // width], place % width).normalize(),
                float(flat[place]),
                int(self.insides.flat[place]),
                int(self.areas.flat[place]),
            )
            for place in places.tolist()
        ]


class FormulaSearch:
    """Formulas for the units of a layer.

    A concept stands in a formula once. A join that gives what one of the two is already is none
    ("dog AND NOT sea", where both are never at once): the beam would fill with them.

    Args:
        activity: of the layer.
        concepts: how many there are.
        chosen: which may stand in formulas, ascending; None is all.
    """

    def __init__(
        self, activity: ConceptSetCounts, concepts: int, chosen: Sequence[int] | None = None
    ) -> None:
        from scipy.sparse import csr_array

        self._activity = activity
        self._chosen = list(range(concepts)) if chosen is None else list(chosen)
        holds = csr_array(
            (np.ones(len(activity.concepts), np.int64), activity.concepts, activity.starts),
            shape=(len(activity.areas), concepts),
        )
        # (atom, concept); concepts go by their place among the chosen from here on
        self._holds = holds if chosen is None else holds[:, self._chosen]
        self._columns = self._holds.tocsc()
        self._areas: Counts = activity.areas @ self._holds
        self._shared: dict[ConceptFormula, Counts] = {}

    def beam(self, unit: int, length: int = LENGTH, beam: int = BEAM) -> BestFormula | None:
        """Return the best formula that a beam search finds.

        Of equally good ones, it is the shortest, then the first by concepts.

        Args:
            unit: row of the unit.
            length: concepts in a formula, at most.
            beam: formulas kept from one length to the next, shorter ones among them.

        Returns:
            None if the unit is never active, or no concept is where it is.
        """
        view = self._view(unit)
        best = sorted(view.single(), key=_rank)[:beam]
        seen = len(self._chosen)
        for size in range(2, length + 1):
            parents = [each for each in best if each.formula.length == size - 1]
            news: dict[ConceptFormula, _Kept] = {}
            for joined in view.joined(parents):
                seen += int((joined.ious >= 0).sum())
                news |= {each.formula: each for each in joined.best(beam)}
            best = sorted([*best, *news.values()], key=_rank)[:beam]
        return self._found(best, seen)

    def exact(self, unit: int, length: int = 2) -> BestFormula | None:
        """Return the best formula of all up to a length, 3 at most; a beam may miss it.

        All formulas are looked at but those whose last join cannot help. Of the U positions of
        the unit and the R others, a formula f is at i_f and o_f, and a concept c at i_c and o_c.
        However these lie, joined they are no better than

            OR:       min(U, i_f + i_c)  / (U + max(o_f, o_c))
            AND:      min(i_f, i_c)      / (U + max(0, o_f + o_c - R))
            AND NOT:  min(i_f, U - i_c)  / (U + max(0, o_f - o_c))

        as no intersection is larger than the numerator, and no union smaller than the
        denominator. Formulas are joined in the order of their best bound, until it is below the
        best found: no other can be better.
        """
        if length not in (1, 2, 3):
            raise InputError(f"An exact search for a length of {length}; expected 1, 2 or 3.")
        view = self._view(unit)
        level = view.single(empty=True)
        best = [each for each in level if each.inside]
        seen = len(level)
        for _ in range(length - 2):
            found: dict[ConceptFormula, _Kept] = {}
            for joined in view.joined(level):
                found |= {each.formula: each for each in joined.best(None)}
            level = list(found.values())
            best += [each for each in level if each.inside]
            seen += len(level)
        best = [min(best, key=_rank)] if best else []
        bounds = [view.bound(each) if length > 1 else -1.0 for each in level]
        for place in np.argsort(bounds, kind="stable")[::-1]:
            if best and bounds[place] < best[0].iou:
                break
            [joined] = view.joined([level[place]])
            seen += int((joined.ious >= 0).sum())
            best = sorted([*best, *joined.best(1)], key=_rank)[:1]
        return self._found(best, seen)

    def _view(self, unit: int) -> _View:
        atoms, counts = self._activity.of(unit)
        rest = int(self._activity.areas.sum() - counts.sum())
        return _View(counts, self._holds[atoms], self._areas, rest, self._areas_with)

    def _found(self, best: Sequence[_Kept], seen: int) -> BestFormula | None:
        if not best:
            return None
        first, steps = best[0].formula
        named = ConceptFormula(self._chosen[first], tuple((o, self._chosen[c]) for o, c in steps))
        return BestFormula(named, best[0].iou, seen)

    def _areas_with(self, parents: Sequence[_Kept]) -> list[Counts]:
        """Return the positions that are of both a formula and each concept, (concept,) each."""
        if len(self._shared) * 8 * len(self._chosen) > REMEMBERED:
            self._shared = {}
        for formula, *_ in parents:
            if formula not in self._shared:
                true = _truth(formula, self._columns)
                self._shared[formula] = (self._activity.areas * true) @ self._holds
        return [self._shared[each.formula] for each in parents]


class _View:
    """What a search knows of one unit."""

    def __init__(
        self,
        counts: Counts,
        holds: Any,
        areas: Counts,
        rest: int,
        areas_with: Callable[[Sequence[_Kept]], list[Counts]],
    ) -> None:
        self.counts, self.holds, self.areas, self.rest = counts, holds, areas, rest
        self.columns, self.areas_with = holds.tocsc(), areas_with
        self.total = int(counts.sum())
        self.inside: Counts = counts @ holds

    def single(self, empty: bool = False) -> list[_Kept]:
        """Return the concepts; those nowhere where the unit is only if asked for."""
        ious = self.inside / np.maximum(self.total + self.areas - self.inside, 1)
        return [
            _Kept(ConceptFormula(i), float(ious[i]), int(self.inside[i]), int(self.areas[i]))
            for i in range(len(ious))
            if self.inside[i] or (empty and self.areas[i] and self.total)
        ]

    def joined(self, parents: Sequence[_Kept]) -> Iterator[_Joined]:
        """Yield what comes of joining each formula with each concept."""
        for parent, area in zip(parents, self.areas_with(parents), strict=True):
            inside = (self.counts * _truth(parent.formula, self.columns)) @ self.holds
            insides = _three(parent.inside, self.inside, inside)
            areas = _three(parent.area, self.areas, area)
            ious = insides / np.maximum(self.total + areas - insides, 1)
            overlaps = (area > 0) & (area < parent.area)
            overlaps[list(parent.formula.concepts)] = False
            ious[2, ~overlaps] = -1
            ious[1, ~overlaps | (area == self.areas)] = -1
            # "or" may also join what never meets
            apart = (area < parent.area) & (area < self.areas)
            apart[list(parent.formula.concepts)] = False
            ious[0, ~apart] = -1
            yield _Joined(parent.formula, ious, insides, areas)

    def bound(self, kept: _Kept) -> float:
        """Return what no join of a formula with any concept is better than."""
        inside, outside = self.inside, self.areas - self.inside
        own, out, total = kept.inside, kept.area - kept.inside, self.total
        either = np.minimum(total, own + inside) / (total + np.maximum(out, outside))
        both = np.minimum(own, inside) / (total + np.maximum(0, out + outside - self.rest))
        without = np.minimum(own, total - inside) / (total + np.maximum(0, out - outside))
        return float(max(either.max(), both.max(), without.max()))


def _three(own: int, others: Counts, both: Counts) -> Counts:
    """Return the sizes of what a set joined with others is, by operator: (operator, other)."""
    return np.stack([own + others - both, both, own - both])


def _truth(formula: ConceptFormula, columns: Any) -> NDArray[np.bool_]:
    """Return at which atoms a formula holds, of a matrix (atom, concept) by columns."""
    masks = {}
    for concept in formula.concepts:
        masks[concept] = np.zeros(columns.shape[0], bool)
        masks[concept][columns.indices[columns.indptr[concept] : columns.indptr[concept + 1]]] = (
            True
        )
    made: NDArray[np.bool_] = formula.mask(masks)
    return made


def _rank(kept: _Kept) -> tuple[float, int, ConceptFormula]:
    """Order formulas: the best first; of equals the shortest, then the first by concepts."""
    return -kept.iou, kept.formula.length, kept.formula


# ---- where units are active


@dataclass(frozen=True)
class ConceptSetCounts:
    """Where units are active, by what is there.

    An atom is all that is at a position: a set of concepts, none included.

    Attributes:
        starts: int64 (atom + 1,): atom i is of the concepts `concepts[starts[i] : starts[i + 1]]`.
        concepts: int64, places of concepts.
        areas: int64 (atom,), positions of each atom in all images.
        units: int64 (unit + 1,): unit i has the counts `units[i]` to `units[i + 1]`.
        atoms: int64 (count,), ascending in a unit.
        counts: int64 (count,), positions of the atom where the unit is active; never 0.
    """

    starts: Counts
    concepts: Counts
    areas: Counts
    units: Counts
    atoms: Counts
    counts: Counts

    def of(self, unit: int) -> tuple[Counts, Counts]:
        """Return the atoms at which a unit is active, and at how many positions."""
        part = slice(int(self.units[unit]), int(self.units[unit + 1]))
        return self.atoms[part], self.counts[part]


class ConceptSetTally:
    """Where each unit is above its threshold, counted by what is there: a tally.

    Activations are upsampled to the size of the label planes as `exemplars.masks` does. See
    `exemplars.tallies` for what a tally is.

    It holds 24 bytes for each atom that some position of a unit's is of, of every unit, and 8 to
    16 bytes times that while counts wait; and some 100 + 4 * concepts bytes an atom.

    Args:
        thresholds: (unit,), finite.
        size: (height, width) of label planes.

    Example:
        >>> import torch
        >>> tally = Active(torch.tensor([0.5]), (1, 2))
        >>> planes = torch.tensor([[[[1, 2]], [[0, 1]]]], dtype=torch.int32)
        >>> tally.update(torch.tensor([0]), torch.tensor([0.0, 1.0]).view(1, 1, 1, 2), planes)
        >>> search = Search(tally.result(), 2)
        >>> search.beam(0).formula.words(["red", "circle"])
        'circle'
    """

    def __init__(self, thresholds: Tensor, size: tuple[int, int]) -> None:
        import torch

        thresholds = thresholds.detach().to("cpu", torch.float32)
        if thresholds.dim() != 1 or not bool(thresholds.isfinite().all()):
            raise InputError(
                f"Thresholds {tuple(thresholds.shape)} came; expected a finite one a unit (unit,)."
            )
        self.thresholds, self.size = thresholds, (int(size[0]), int(size[1]))
        self._forget()

    def _forget(self) -> None:
        self._shape: Shape | None = None
        self._places: dict[bytes, int] = {}
        self._areas: list[int] = []
        # a unit and an atom in one number
        self._keys, self._counts = np.empty(0, np.int64), np.empty(0, np.int64)
        self._pending: list[tuple[Counts, Counts]] = []
        self._waiting = 0

    def update(self, ids: Tensor, activations: Tensor, concepts: Tensor | None = None) -> None:
        """Take in a batch; see `Tally.update`.

        Args:
            ids: int64 (image,).
            activations: float (image, unit, h, w).
            concepts: int32 (image, plane, height, width), concepts from 1, 0 for none.

        Raises:
            InputError: anything else.
        """
        from milannotations.exemplars.tallies.validation import layer_shape, validate_batch

        ids, activations = validate_batch(ids, activations, self._shape)
        shape = layer_shape(activations)
        if shape[0] != len(self.thresholds):
            raise InputError(
                f"{shape[0]:,} units came with {len(self.thresholds):,} thresholds; expected one "
                "for each."
            )
        if (
            concepts is None
            or concepts.is_floating_point()
            or (len(concepts), *concepts.shape[2:]) != (len(ids), *self.size)
        ):
            came = "none" if concepts is None else f"{concepts.dtype} {tuple(concepts.shape)}"
            raise InputError(
                f"Concepts: {came} came; expected whole numbers ({len(ids)}, plane, "
                f"{self.size[0]}, {self.size[1]})."
            )
        self._shape = shape
        for maps, planes in zip(activations, concepts.cpu().numpy(), strict=True):
            places, inverse = self._atoms(planes.reshape(len(planes), -1))
            self._add(maps, places, inverse)

    def merge(self, other: Self) -> None:
        """Take in what another tally has seen; see `Tally.merge`."""
        from milannotations.exemplars.tallies.validation import check_settings, check_shape

        check_settings(self._settings, other._settings)
        if other._shape is None:
            return
        check_shape(self._shape, other._shape)
        self._shape = other._shape
        other._settle()
        places = np.array(
            [self._place(key, area) for key, area in zip(other._places, other._areas, strict=True)]
        )
        units, atoms = other._keys >> 32, other._keys & LOW
        self._wait((units << 32) | places[atoms], other._counts)

    def result(self) -> ConceptSetCounts:
        """Return the counts; the same for the same images. See `Tally.result`."""
        if self._shape is None:
            raise InputError("No image was seen, so no unit was active.")
        self._settle()
        sets = [tuple(np.frombuffer(key, np.int32).tolist()) for key in self._places]
        order = sorted(range(len(sets)), key=sets.__getitem__)
        places = np.empty(len(sets), np.int64)
        places[order] = np.arange(len(sets))
        keys = (self._keys >> 32 << 32) | places[self._keys & LOW]
        by_key = keys.argsort()
        keys = keys[by_key]
        lengths = [len(sets[i]) for i in order]
        return ConceptSetCounts(
            np.cumsum([0, *lengths], dtype=np.int64),
            np.array([concept - 1 for i in order for concept in sets[i]], np.int64),
            np.array([self._areas[i] for i in order], np.int64),
            np.searchsorted(keys, np.arange(self._shape[0] + 1, dtype=np.int64) << 32),
            keys & LOW,
            self._counts[by_key],
        )

    def state_dict(self) -> dict[str, Any]:
        """Return all of it; the same for the same images. See `Tally.state_dict`."""
        import torch

        state: dict[str, Any] = {"settings": self._settings, "shape": None}
        if self._shape is not None:
            found = vars(self.result())
            state |= {"shape": list(self._shape)}
            state |= {name: torch.from_numpy(values) for name, values in found.items()}
        return state

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from a state; see `Tally.load_state_dict`."""
        from milannotations.exemplars.tallies.validation import check_settings

        check_settings(self._settings, state["settings"])
        self._forget()
        if state["shape"] is None:
            return
        units, h, w = state["shape"]
        self._shape = (units, h, w)
        found = ConceptSetCounts(
            **{name: state[name].numpy() for name in ConceptSetCounts.__annotations__}
        )
        numbers = (found.concepts + 1).astype(np.int32)
        for i, area in enumerate(found.areas.tolist()):
            self._place(numbers[found.starts[i] : found.starts[i + 1]].tobytes(), area)
        rows = np.repeat(np.arange(units, dtype=np.int64), np.diff(found.units))
        self._keys, self._counts = (rows << 32) | found.atoms, found.counts.copy()

    @property
    def nbytes(self) -> int:
        """Bytes that it holds now, those of Python's own not counted."""
        return 16 * (len(self._keys) + self._waiting) + sum(8 + len(key) for key in self._places)

    def estimate(self, units: int, h: int, w: int, images: int = 0, concepts: int = 0) -> int:
        """Return the most bytes that it will hold; see `Tally.estimate`.

        That is of images whose every position is an atom of its own, and of units that are active
        at all of them. At a quantile of .995 and with fifty atoms an image it is a thousandth.
        """
        positions = images * self.size[0] * self.size[1]
        return positions * (16 * units + 8 + 4 * concepts)

    @property
    def _settings(self) -> dict[str, Any]:
        return {"thresholds": self.thresholds.tolist(), "size": list(self.size)}

    def _atoms(self, planes: NDArray[Any]) -> tuple[Counts, Counts]:
        """Count an image's atoms: return the place of each, and which of them is at a position."""
        whole = np.zeros(planes.shape[1], np.int64)
        span = 1
        for plane in planes:
            top = int(plane.max()) + 1
            if span * top >= 1 << 62:
                _, whole = np.unique(whole, return_inverse=True)
                span = int(whole.max()) + 1
            if top > 1:
                whole = whole * top + plane
                span *= top
        _, first, inverse, areas = np.unique(
            whole, return_index=True, return_inverse=True, return_counts=True
        )
        places = []
        for column, area in zip(planes[:, first].T.tolist(), areas.tolist(), strict=True):
            numbers = np.array(sorted({*column} - {0}), np.int32)
            places.append(self._place(numbers.tobytes(), area))
        return np.array(places), inverse

    def _place(self, key: bytes, area: int) -> int:
        place = self._places.setdefault(key, len(self._places))
        if place == len(self._areas):
            self._areas.append(0)
        self._areas[place] += area
        return place

    def _add(self, maps: Tensor, places: Counts, inverse: Counts) -> None:
        """Count an image's active positions: maps (unit, h, w)."""
        for units, pixels in _above(maps, self.thresholds.to(maps.device), self.size):
            counts = np.bincount(units * len(places) + inverse[pixels])
            found = counts.nonzero()[0]
            units, local = divmod(found, len(places))
            # two local atoms may be one, if planes say the same in another order
            self._wait((units << 32) | places[local], counts[found])

    def _wait(self, keys: Counts, counts: Counts) -> None:
        self._pending.append((keys, counts))
        self._waiting += len(keys)
        if self._waiting > max(PENDING, len(self._keys)):
            self._settle()

    def _settle(self) -> None:
        """Add the counts that wait to those of the same unit and atom."""
        if not self._pending:
            return
        keys = np.concatenate([self._keys, *(keys for keys, _ in self._pending)])
        counts = np.concatenate([self._counts, *(counts for _, counts in self._pending)])
        order = keys.argsort(kind="stable")
        keys, counts = keys[order], counts[order]
        starts = np.flatnonzero(np.diff(keys, prepend=-1))
        self._keys = keys[starts]
        self._counts = np.add.reduceat(counts, starts) if len(starts) else counts
        self._pending, self._waiting = [], 0


def _above(maps: Tensor, thresholds: Tensor, size: tuple[int, int]) -> Iterator[list[Counts]]:
    """Yield units, and pixels at which each is active, in parts, whichever way is quicker.

    Args:
        maps: (unit, h, w).
        thresholds: (unit,).
        size: (height, width) of the masks.
    """
    from milannotations.exemplars.tallies.masks import masks
    from milannotations.exemplars.tallies.sparse_masks import active_pixels, sparse_and_dense
    from milannotations.exemplars.tallies.validation import blocks

    sparse, dense = sparse_and_dense(maps, thresholds)
    for at, pixels in active_pixels(maps[sparse], thresholds[sparse], size):
        yield [each.cpu().numpy() for each in (sparse[at], pixels)]
    for some in blocks(len(dense), size[0] * size[1], maps.device):
        units = dense[some]
        above = masks(maps[units], thresholds[units], size).flatten(1).cpu().numpy()
        at, pixels = divmod(np.flatnonzero(above), above.shape[1])
        yield [units.cpu().numpy()[at], pixels]
