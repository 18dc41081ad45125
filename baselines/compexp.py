"""Compositional Explanations: the formula over concepts with the highest IoU with a unit.

Mu and Andreas 2020, section 2. The search is in `baselines.shared.formula_search`.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

from baselines.framework.method import Description, MethodSpec
from baselines.framework.units import unit_keys
from baselines.shared.concept_formulas import BEAM, LENGTH
from baselines.shared.probe_statistics import QUANTILE
from milannotations.errors import InputError

if TYPE_CHECKING:
    from baselines.framework.context import Context
    from baselines.shared.formula_search import FormulaSearch
    from baselines.shared.probe_statistics import ProbeStatistics

SPEC = MethodSpec(
    name="compexp",
    version="1.0",
    kind="method",
    title="The formula over concepts that overlaps most with where the unit is active",
    paper="Mu and Andreas 2020, Compositional Explanations of Neurons",
    requires=("activations",),
)


class CompExp:
    """Describe each unit by the formula over concepts with the highest IoU.

    A unit that is never active, or nowhere where a concept is, is abstained.
    """

    spec = SPEC

    def __init__(
        self, length: int, beam: int, quantile: float, categories: tuple[str, ...] | None
    ) -> None:
        self._length, self._beam = length, beam
        self._quantile, self._categories = quantile, categories

    def describe(self, units: Any, context: Context) -> list[Description]:
        descriptions = []
        for unit in unit_keys(units):
            statistics = context.probe_statistics(unit.network)
            [(layer, index)] = statistics.locate([unit])
            key = (SPEC.name, unit.network, layer, self._quantile, self._categories)
            search = context.cached(key, partial(self._search, statistics, layer))
            best = search.beam(index, self._length, self._beam)
            if best is None:
                descriptions.append(Description.abstained())
            else:
                names = [concept.name for concept in statistics.concepts]
                descriptions.append(Description.of(best.formula.words(names), best.iou))
        return descriptions

    def _search(self, statistics: ProbeStatistics, layer: str) -> FormulaSearch:
        from baselines.shared.concept_set_counts import count_concept_sets
        from baselines.shared.formula_search import FormulaSearch

        counts = count_concept_sets(statistics, self._quantile)[layer]
        concepts = statistics.concepts
        if self._categories is None:
            return FormulaSearch(counts, len(concepts))
        known = sorted({concept.category for concept in concepts})
        if not set(self._categories) <= set(known):
            raise InputError(
                f"'compexp' was asked for the categories {', '.join(self._categories)}; the probe "
                f"dataset has {', '.join(known)}."
            )
        chosen = [i for i, concept in enumerate(concepts) if concept.category in self._categories]
        return FormulaSearch(counts, len(concepts), chosen)


def create(
    length: int = LENGTH,
    beam: int = BEAM,
    quantile: float = QUANTILE,
    categories: str | Sequence[str] | None = None,
) -> CompExp:
    """Return the method.

    Args:
        length: most concepts in a formula.
        beam: formulas kept from one length to the next.
        quantile: quantile of a unit's activations that is its threshold.
        categories: categories of concepts to use, as a sequence or separated by commas; None uses
            all.
    """
    length, beam, quantile = int(length), int(beam), float(quantile)
    if length < 1 or beam < 1:
        raise InputError(f"A length of {length} and a beam of {beam}; expected at least 1 of both.")
    if isinstance(categories, str):
        categories = [category.strip() for category in categories.split(",")]
    return CompExp(length, beam, quantile, None if categories is None else tuple(categories))
