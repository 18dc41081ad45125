"""Search for the formulas over concepts with the highest IoU with a unit.

Mu and Andreas 2020, Compositional Explanations of Neurons, section 2: a beam search over formulas
of OR, AND and AND NOT, for the largest intersection over union of the positions where a formula
holds and those where the unit is above its threshold.

Masks of whole datasets are never joined: the search works on the counts per concept set of
`concept_set_counts`, which give the same numbers.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from baselines.shared.concept_formulas import BEAM, LENGTH, OPERATORS, ConceptFormula
from milannotations.errors import InputError

if TYPE_CHECKING:
    from baselines.shared.concept_set_counts import ConceptSetCounts

CACHE_BYTES = 1 << 27
"""Most bytes of areas of formulas that are kept for all units of a layer."""

Counts = NDArray[np.int64]


class BestFormula(NamedTuple):
    """Result of a search.

    Attributes:
        formula: formula with the highest IoU.
        iou: its intersection over union with the unit.
        n_tried: number of formulas that were compared.
    """

    formula: ConceptFormula
    iou: float
    n_tried: int


class FormulaSearch:
    """Search for formulas that describe the units of a layer.

    A concept occurs in a formula at most once. A join that equals one of its two parts is left
    out ("dog AND NOT sea", where both never occur at one position): the beam would fill up with
    such formulas.

    Args:
        counts: counts of the layer, by concept set.
        n_concepts: number of concepts.
        chosen: concepts that formulas may contain, ascending; None allows all.
    """

    def __init__(
        self, counts: ConceptSetCounts, n_concepts: int, chosen: Sequence[int] | None = None
    ) -> None:
        from scipy.sparse import csr_array

        self._counts = counts
        self._chosen = list(range(n_concepts)) if chosen is None else list(chosen)
        membership = csr_array(
            (np.ones(len(counts.concepts), np.int64), counts.concepts, counts.starts),
            shape=(len(counts.areas), n_concepts),
        )
        # (atom, concept): 1 where the atom contains the concept. From here on, a concept's index
        # is the one among the chosen.
        self._membership = membership if chosen is None else membership[:, self._chosen]
        self._membership_by_column = self._membership.tocsc()
        self._areas: Counts = counts.areas @ self._membership
        self._joint_areas: dict[ConceptFormula, Counts] = {}

    def beam(self, unit: int, length: int = LENGTH, beam: int = BEAM) -> BestFormula | None:
        """Return the best formula that a beam search finds.

        Of formulas with equal IoU the shortest comes first, then the first by concepts.

        Args:
            unit: row of the unit.
            length: most concepts in a formula.
            beam: number of formulas kept from one length to the next, shorter ones included.

        Returns:
            None if the unit is never active, or nowhere where a concept is.
        """
        view = self._view(unit)
        kept = sorted(view.single_concepts(), key=_rank)[:beam]
        n_tried = len(self._chosen)
        for size in range(2, length + 1):
            # Shorter formulas stay in the beam as candidates, but only those of the last length
            # are extended: the others have been already.
            parents = [candidate for candidate in kept if candidate.formula.length == size - 1]
            children: dict[ConceptFormula, _Candidate] = {}  # equal formulas count once
            for joins in view.joins(parents):
                n_tried += int((joins.ious >= 0).sum())
                children |= {child.formula: child for child in joins.best(beam)}
            kept = sorted([*kept, *children.values()], key=_rank)[:beam]
        return self._result(kept, n_tried)

    def exact(self, unit: int, length: int = 2) -> BestFormula | None:
        """Return the best of all formulas up to a length of at most 3; a beam may miss it.

        All formulas are compared except those whose last join cannot improve the result. Of the U
        positions of the unit and the R others, let a formula f hold at i_f and o_f, and a concept
        c at i_c and o_c. Whatever their arrangement, the IoU of their join is at most

            OR:       min(U, i_f + i_c)  / (U + max(o_f, o_c))
            AND:      min(i_f, i_c)      / (U + max(0, o_f + o_c - R))
            AND NOT:  min(i_f, U - i_c)  / (U + max(0, o_f - o_c))

        because no intersection is larger than the numerator, and no union smaller than the
        denominator. Formulas are joined in the order of their best bound, until it falls below
        the best IoU found: no further formula can be better.

        Raises:
            InputError: another length.
        """
        if length not in (1, 2, 3):
            raise InputError(f"An exact search for a length of {length}; expected 1, 2 or 3.")
        view = self._view(unit)
        # Formulas that overlap nowhere with the unit stay in: an OR may make something of them.
        level = view.single_concepts(empty=True)
        candidates = [candidate for candidate in level if candidate.inside]
        n_tried = len(level)
        # all formulas of each length but the last
        for _ in range(length - 2):
            children: dict[ConceptFormula, _Candidate] = {}
            for joins in view.joins(level):
                children |= {child.formula: child for child in joins.best(None)}
            level = list(children.values())
            candidates += [candidate for candidate in level if candidate.inside]
            n_tried += len(level)
        best = [min(candidates, key=_rank)] if candidates else []
        # the last join, the formula with the highest bound first
        bounds = [view.bound(candidate) if length > 1 else -1.0 for candidate in level]
        for index in np.argsort(bounds, kind="stable")[::-1]:
            if best and bounds[index] < best[0].iou:
                break
            [joins] = view.joins([level[index]])
            n_tried += int((joins.ious >= 0).sum())
            best = sorted([*best, *joins.best(1)], key=_rank)[:1]
        return self._result(best, n_tried)

    def _view(self, unit: int) -> _UnitView:
        atoms, active = self._counts.of_unit(unit)
        n_others = int(self._counts.areas.sum() - active.sum())
        return _UnitView(
            active, self._membership[atoms], self._areas, n_others, self._areas_with_concepts
        )

    def _result(self, kept: Sequence[_Candidate], n_tried: int) -> BestFormula | None:
        """Return the first candidate, its concepts numbered among all."""
        if not kept:
            return None
        first, steps = kept[0].formula
        steps = tuple((operator, self._chosen[concept]) for operator, concept in steps)
        return BestFormula(ConceptFormula(self._chosen[first], steps), kept[0].iou, n_tried)

    def _areas_with_concepts(self, parents: Sequence[_Candidate]) -> list[Counts]:
        """Return for each formula the positions, of all, in it and in each concept: (concept,).

        They do not depend on the unit, and beams of different units share many formulas.
        """
        if len(self._joint_areas) * 8 * len(self._chosen) > CACHE_BYTES:
            self._joint_areas = {}
        for formula, *_ in parents:
            if formula not in self._joint_areas:
                holds = _atoms_of(formula, self._membership_by_column)
                self._joint_areas[formula] = (self._counts.areas * holds) @ self._membership
        return [self._joint_areas[parent.formula] for parent in parents]


class _Candidate(NamedTuple):
    """Formula with its IoU, its positions where the unit is active, and all its positions."""

    formula: ConceptFormula
    iou: float
    inside: int
    area: int


class _Joins(NamedTuple):
    """All joins of one formula with a concept: arrays (operator, concept); an IoU of -1 is none."""

    parent: ConceptFormula
    ious: NDArray[np.float64]
    insides: Counts
    areas: Counts

    def best(self, count: int | None) -> list[_Candidate]:
        """Return the `count` best joins and all that tie with the last of them; None: all joins."""
        flat = self.ious.ravel()
        if count is None:
            chosen = (flat >= 0).nonzero()[0]
        else:
            # ties are kept, as it is the order of the normalized formulas that breaks them
            least = np.partition(flat, -count)[-count] if count < len(flat) else 0.0
            chosen = ((flat >= least) & (flat > 0)).nonzero()[0]
        width = self.ious.shape[1]
        return [
            _Candidate(
                self.parent.append(OPERATORS[index // width], index % width).normalize(),
                float(flat[index]),
                int(self.insides.flat[index]),
                int(self.areas.flat[index]),
            )
            for index in chosen.tolist()
        ]


class _UnitView:
    """Counts of one unit.

    Args:
        active: (atom,), active positions of each atom at which the unit is active.
        membership: sparse (atom, concept), of these atoms.
        areas: (concept,), positions of each concept in all images.
        n_others: positions where the unit is not active.
        areas_with_concepts: see `FormulaSearch._areas_with_concepts`.
    """

    def __init__(
        self,
        active: Counts,
        membership: Any,
        areas: Counts,
        n_others: int,
        areas_with_concepts: Callable[[Sequence[_Candidate]], list[Counts]],
    ) -> None:
        self.active, self.membership, self.areas = active, membership, areas
        self.n_others, self.areas_with_concepts = n_others, areas_with_concepts
        self.membership_by_column = membership.tocsc()
        self.n_active = int(active.sum())
        self.inside: Counts = active @ membership  # (concept,), active positions of each

    def single_concepts(self, empty: bool = False) -> list[_Candidate]:
        """Return all concepts; those without an active position only if `empty`."""
        ious = self.inside / np.maximum(self.n_active + self.areas - self.inside, 1)
        return [
            _Candidate(ConceptFormula(i), float(ious[i]), int(self.inside[i]), int(self.areas[i]))
            for i in range(len(ious))
            if self.inside[i] or (empty and self.areas[i] and self.n_active)
        ]

    def joins(self, parents: Sequence[_Candidate]) -> Iterator[_Joins]:
        """Yield the joins of each formula with all concepts.

        For a formula f and a concept c, the sizes of f, c and "f and c" give those of all three
        joins, so one sparse product per formula is enough for all concepts and operators.
        """
        for parent, common_area in zip(parents, self.areas_with_concepts(parents), strict=True):
            holds = _atoms_of(parent.formula, self.membership_by_column)
            common_inside = (self.active * holds) @ self.membership
            insides = _join_sizes(parent.inside, self.inside, common_inside)
            areas = _join_sizes(parent.area, self.areas, common_area)
            ious = insides / np.maximum(self.n_active + areas - insides, 1)
            # AND and AND NOT only where f and c overlap and f is not within c: else the join is
            # f or nothing. AND is c, and no join, where c is within f.
            overlaps = (common_area > 0) & (common_area < parent.area)
            overlaps[list(parent.formula.concepts)] = False
            ious[2, ~overlaps] = -1
            ious[1, ~overlaps | (common_area == self.areas)] = -1
            # OR also where they do not overlap, but not where one is within the other.
            distinct = (common_area < parent.area) & (common_area < self.areas)
            distinct[list(parent.formula.concepts)] = False
            ious[0, ~distinct] = -1
            yield _Joins(parent.formula, ious, insides, areas)

    def bound(self, candidate: _Candidate) -> float:
        """Return an upper bound of the IoU of a formula's joins; see `FormulaSearch.exact`."""
        i_c, o_c = self.inside, self.areas - self.inside
        i_f, o_f, n_active = candidate.inside, candidate.area - candidate.inside, self.n_active
        either = np.minimum(n_active, i_f + i_c) / (n_active + np.maximum(o_f, o_c))
        both = np.minimum(i_f, i_c) / (n_active + np.maximum(0, o_f + o_c - self.n_others))
        without = np.minimum(i_f, n_active - i_c) / (n_active + np.maximum(0, o_f - o_c))
        return float(max(either.max(), both.max(), without.max()))


def _join_sizes(size: int, others: Counts, common: Counts) -> Counts:
    """Return the sizes of the joins of a set with other sets: (operator, other).

    Args:
        size: of the set.
        others: (other,), sizes of the other sets.
        common: (other,), sizes of the intersections.
    """
    return np.stack([size + others - common, common, size - common])  # in the order of OPERATORS


def _atoms_of(formula: ConceptFormula, membership_by_column: Any) -> NDArray[np.bool_]:
    """Return in which atoms a formula holds: bool (atom,).

    Args:
        formula: formula over columns of the matrix.
        membership_by_column: sparse (atom, concept) in CSC format.
    """
    indices, starts = membership_by_column.indices, membership_by_column.indptr
    masks = {}
    for concept in formula.concepts:
        masks[concept] = np.zeros(membership_by_column.shape[0], bool)
        masks[concept][indices[starts[concept] : starts[concept + 1]]] = True
    holds: NDArray[np.bool_] = formula.mask(masks)
    return holds


def _rank(candidate: _Candidate) -> tuple[float, int, ConceptFormula]:
    """Return a sort key: the highest IoU first, then the shortest, then the first by concepts."""
    return -candidate.iou, candidate.formula.length, candidate.formula
