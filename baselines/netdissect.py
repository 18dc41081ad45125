"""Network Dissection: the concept with the highest IoU with the positions where a unit is active.

Bau et al. 2017, section 3. A unit is active where its activations, upsampled to the size of the
label maps, exceed its quantile over all images. It is compared with every concept by intersection
over union. A dataset may label a category in some images and not in others, so a unit's positions
count only in images in which something of the concept's category is labelled.
"""

from __future__ import annotations

import csv
import os
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from baselines.framework.method import Description, MethodSpec
from baselines.framework.units import unit_keys
from baselines.shared.concept_formulas import readable_name
from baselines.shared.probe_statistics import QUANTILE
from milannotations.errors import InputError
from milannotations.utils.files import replacing

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from baselines.framework.context import Context
    from baselines.shared.probe_statistics import ProbeStatistics
    from milannotations.exemplars import OverlapCounts
    from milannotations.probes import Concept

SPEC = MethodSpec(
    name="netdissect",
    version="1.0",
    kind="method",
    title="The concept that overlaps most with where the unit is active",
    paper="Bau et al. 2017, Network Dissection",
    requires=("activations",),
)

THRESHOLD = 0.04
"""IoU above which a unit is a detector of a concept (section 3)."""

COLORS = ("#4363d8", "#3cb44b", "#f58231", "#911eb4", "#e6194b", "#808000", "#469990", "#9a6324")
"""Colors of the categories in charts, in their order."""


class ConceptMatch(NamedTuple):
    """Overlap of a unit with a concept, in positions of images that label its category.

    Attributes:
        label: name of the concept.
        truth: positions where the concept is.
        activation: positions where the unit is active.
        intersect: positions where both are.
        iou: intersection over union.
    """

    label: str
    truth: float
    activation: float
    intersect: float
    iou: float


class DissectedUnit(NamedTuple):
    """Best concept of each category for a unit.

    Attributes:
        unit: index in the layer, from 0.
        category: category of the best concept.
        matches: best match of each category.
        active: false if the unit is above its threshold nowhere.
    """

    unit: int
    category: str
    matches: dict[str, ConceptMatch]
    active: bool = True

    @property
    def label(self) -> str:
        """Name of the best concept."""
        return self.matches[self.category].label

    @property
    def score(self) -> float:
        """IoU with the best concept."""
        return self.matches[self.category].iou


@dataclass(frozen=True)
class DissectionSummary:
    """Counts of a layer's detectors.

    Attributes:
        units: number of units.
        detectors: number of units above the threshold.
        concepts: number of different concepts that are detected.
        by_category: number of detectors by category of their concept.
    """

    units: int
    detectors: int
    concepts: int
    by_category: dict[str, int]


@dataclass(frozen=True)
class Dissection:
    """Best concepts of a layer's units.

    Attributes:
        categories: categories in their order.
        units: units in the order of the layer.
    """

    categories: tuple[str, ...]
    units: tuple[DissectedUnit, ...]

    def summary(self, threshold: float = THRESHOLD) -> DissectionSummary:
        """Count the detectors and their concepts."""
        detectors = [unit for unit in self.units if unit.score > threshold]
        counts = Counter(unit.category for unit in detectors)
        return DissectionSummary(
            len(self.units),
            len(detectors),
            len({(unit.category, unit.label) for unit in detectors}),
            {category: counts[category] for category in self.categories},
        )

    def write(self, path: str | os.PathLike[str]) -> None:
        """Write the table of the original NetDissect: best units first, numbered from 1."""
        with (
            replacing(Path(path)) as temporary,
            open(temporary, "w", encoding="utf-8", newline="") as stream,
        ):
            writer = csv.writer(stream, lineterminator="\n")
            columns = [f"{c}-{name}" for c in self.categories for name in ConceptMatch._fields]
            writer.writerow(["unit", "category", "label", "score", *columns])
            for unit in sorted(self.units, key=lambda unit: (-unit.score, unit.unit)):
                cells = [cell for c in self.categories for cell in unit.matches[c]]
                writer.writerow([unit.unit + 1, unit.category, unit.label, unit.score, *cells])

    def chart(self, path: str | os.PathLike[str], threshold: float = THRESHOLD) -> None:
        """Draw a bar per concept with its number of detectors, in the category's color, as PNG."""
        from matplotlib.figure import Figure
        from matplotlib.ticker import MaxNLocator

        counts = Counter(
            (self.categories.index(unit.category), unit.label)
            for unit in self.units
            if unit.score > threshold
        )
        # by category, then the most detected first, then by name
        bars = sorted(counts.items(), key=lambda bar: (bar[0][0], -bar[1], bar[0][1]))
        width = max(6.0, 1.5 + 0.15 * len(bars))
        figure = Figure(figsize=(width, 4.0), layout="constrained")
        axes = figure.add_subplot()
        for index, category in enumerate(self.categories):
            heights = {x: count for x, ((i, _), count) in enumerate(bars) if i == index}
            if heights:
                n_units = sum(heights.values())
                legend = f"{category}: {n_units:,} units, {len(heights):,} concepts"
                color = COLORS[index % len(COLORS)]
                axes.bar(list(heights), list(heights.values()), 0.8, color=color, label=legend)
        labels = [readable_name(label) for (_, label), _ in bars]
        axes.set_xticks(range(len(bars)), labels, rotation=90, fontsize=7)
        axes.set_xlim(-0.7, max(len(bars), 1) - 0.3)
        axes.yaxis.set_major_locator(MaxNLocator(integer=True))
        axes.set_ylabel("units")
        axes.spines[["top", "right"]].set_visible(False)
        summary = self.summary(threshold)
        figure.suptitle(
            f"{summary.detectors:,} of {summary.units:,} units above IoU {threshold:g}, "
            f"{summary.concepts:,} concepts",
            fontsize=9,
        )
        if bars:  # above the axes, where it hides no bar
            axes.legend(
                loc="lower center", bbox_to_anchor=(0.5, 1.0), ncols=int(width / 2.4), fontsize=7.5,
                frameon=False,
            )  # fmt: skip
        with replacing(Path(path)) as temporary:
            figure.savefig(temporary, format="png", dpi=150)


class NetDissect:
    """Describe each unit by its best concept.

    A unit that is never active, or nowhere where a concept is, is abstained.
    """

    spec = SPEC

    def __init__(self, detectors_only: bool, quantile: float, threshold: float) -> None:
        self._detectors_only = detectors_only
        self._quantile, self._threshold = quantile, threshold

    def describe(self, units: Any, context: Context) -> list[Description]:
        descriptions = []
        for unit in unit_keys(units):
            statistics = context.probe_statistics(unit.network)
            [(layer, index)] = statistics.locate([unit])
            key = (SPEC.name, unit.network, self._quantile)
            dissections = context.cached(key, partial(dissect, statistics, self._quantile))
            descriptions.append(self._describe(dissections[layer].units[index]))
        return descriptions

    def _describe(self, unit: DissectedUnit) -> Description:
        below = self._detectors_only and unit.score <= self._threshold
        if not unit.active or unit.score == 0 or below:
            return Description.abstained()
        return Description.of(readable_name(unit.label), unit.score)


def create(
    detectors_only: bool = False, quantile: float = QUANTILE, threshold: float = THRESHOLD
) -> NetDissect:
    """Return the method.

    Args:
        detectors_only: describe only units with an IoU above `threshold`, as Bau et al. do;
            otherwise all units, as Hernandez et al. 2022 did for their comparison.
        quantile: quantile of a unit's activations that is its threshold.
        threshold: IoU above which a unit is a detector.
    """
    return NetDissect(detectors_only, float(quantile), float(threshold))


def dissect(statistics: ProbeStatistics, quantile: float = QUANTILE) -> dict[str, Dissection]:
    """Return the dissection of every layer, from one pass once thresholds are known."""
    import numpy as np

    from baselines.shared.category_overlap import CategoryOverlap

    concepts = statistics.concepts
    categories = list_categories(concepts)
    category_of = np.array([categories.index(concept.category) for concept in concepts])
    counts = statistics.run_thresholded_tally(
        "overlap by category",
        lambda thresholds: CategoryOverlap(thresholds, category_of),
        quantile,
    )
    labels = [concept.name for concept in concepts]
    return {
        layer: match_concepts(labels, categories, category_of, overlap)
        for layer, overlap in counts.items()
    }


def match_concepts(
    labels: Sequence[str],
    categories: Sequence[str],
    category_of: NDArray[np.int64],
    overlap: OverlapCounts,
) -> Dissection:
    """Return a layer's dissection from the counts of `CategoryOverlap`.

    Args:
        labels: names of the concepts.
        categories: names of the categories.
        category_of: (concept,), index of each concept's category.
        overlap: counts, concepts first, then categories.
    """
    import numpy as np

    n_concepts = len(labels)
    intersect = overlap.intersection[:, :n_concepts].numpy()  # (unit, concept)
    # positions where a unit is active in images that label a category, (unit, category)
    activation = overlap.intersection[:, n_concepts:].numpy()
    truth = overlap.concept[:n_concepts].numpy()  # (concept,)
    ious = intersect / np.maximum(truth + activation[:, category_of] - intersect, 1)
    members = [(category_of == c).nonzero()[0] for c in range(len(categories))]
    # best concept of each category, (unit, category)
    best = np.stack([concepts[ious[:, concepts].argmax(1)] for concepts in members], 1)
    units = []
    for unit, chosen in enumerate(best):
        matches = {
            category: ConceptMatch(
                labels[concept],
                int(truth[concept]),
                int(activation[unit, c]),
                int(intersect[unit, concept]),
                float(ious[unit, concept]),
            )
            for c, (category, concept) in enumerate(zip(categories, chosen.tolist(), strict=True))
        }
        category = categories[int(ious[unit, chosen].argmax())]
        units.append(DissectedUnit(unit, category, matches, bool(overlap.unit[unit] > 0)))
    return Dissection(tuple(categories), tuple(units))


def list_categories(concepts: Sequence[Concept]) -> tuple[str, ...]:
    """Return the categories of concepts, in the order of the first concept of each."""
    return tuple(dict.fromkeys(concept.category for concept in concepts))


def read(path: str | os.PathLike[str]) -> Dissection:
    """Read a table in the layout of the original NetDissect.

    Raises:
        InputError: another layout, or cells of another kind.
    """
    with open(path, encoding="utf-8-sig", newline="") as stream:
        reader = csv.reader(stream)
        header = next(reader, [])
        categories = tuple(name.removesuffix("-iou") for name in header if name.endswith("-iou"))
        columns = [f"{c}-{name}" for c in categories for name in ConceptMatch._fields]
        columns = ["unit", "category", "label", "score", *columns]
        if not categories or not set(columns) <= set(header):
            missing = [name for name in columns if name not in header] or ["object-iou"]
            raise InputError(
                f"{path} is no table of NetDissect: the column {missing[0]} is missing. Expected "
                "unit, category, label, score, and of each category label, truth, activation, "
                "intersect, iou."
            )
        units = []
        for line, row in enumerate(reader, 2):
            try:
                cells = dict(zip(header, row, strict=True))
                numbers = {
                    c: [float(cells[f"{c}-{name}"]) for name in ConceptMatch._fields[1:]]
                    for c in categories
                }
                matches = {c: ConceptMatch(cells[f"{c}-label"], *numbers[c]) for c in categories}
                active = any(match.activation for match in matches.values())
                unit = DissectedUnit(int(cells["unit"]) - 1, cells["category"], matches, active)
            except ValueError as error:
                raise InputError(f"{path}, line {line}: {error}.") from None
            if unit.category not in matches or unit.unit < 0:
                raise InputError(f"{path}, line {line}: unit {unit.unit + 1} of {unit.category}.")
            units.append(unit)
    return Dissection(categories, tuple(sorted(units, key=lambda unit: unit.unit)))
