"""Network Dissection: the concept that a unit, where it is active, overlaps with most.

Bau et al. 2017, section 3. A unit is active where its activations, upsampled to the size of the
label maps, are above its quantile over all pictures. It is compared with every concept by
intersection over union. A data set may label one category in some pictures and not in others, so
positions of a unit count only in pictures in which something of the concept's category is labelled.
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
from baselines.framework.run import unit_keys
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
"""A unit is a detector of a concept with an intersection over union above this (section 3)."""

COLORS = ("#4363d8", "#3cb44b", "#f58231", "#911eb4", "#e6194b", "#808000", "#469990", "#9a6324")
"""Of categories in charts, in their order."""


class ConceptMatch(NamedTuple):
    """A unit and a concept, in positions of the pictures that label the concept's category.

    Attributes:
        label: the concept.
        truth: where the concept is.
        activation: where the unit is active.
        intersect: where both are.
        iou: intersection over union.
    """

    label: str
    truth: float
    activation: float
    intersect: float
    iou: float


class DissectedUnit(NamedTuple):
    """A unit, with the best concept of each category, by category, and which of them is best.

    Attributes:
        unit: its index in the layer, from 0.
        category: of the best concept.
        matches: by category.
        active: whether it is above its threshold anywhere.
    """

    unit: int
    category: str
    matches: dict[str, ConceptMatch]
    active: bool = True

    @property
    def label(self) -> str:
        """The best concept."""
        return self.matches[self.category].label

    @property
    def score(self) -> float:
        """Its intersection over union."""
        return self.matches[self.category].iou


@dataclass(frozen=True)
class DissectionSummary:
    """What a layer detects.

    Attributes:
        units: all of them.
        detectors: those above the threshold.
        concepts: different ones that are detected.
        by_category: detectors, by category of their concept.
    """

    units: int
    detectors: int
    concepts: int
    by_category: dict[str, int]


@dataclass(frozen=True)
class Dissection:
    """A layer's units beside concepts.

    Attributes:
        categories: in their order.
        units: in the order of the layer.
    """

    categories: tuple[str, ...]
    units: tuple[DissectedUnit, ...]

    def summary(self, threshold: float = THRESHOLD) -> DissectionSummary:
        """Return how many units are detectors, and of how many concepts."""
        found = [each for each in self.units if each.score > threshold]
        counts = Counter(each.category for each in found)
        return DissectionSummary(
            len(self.units),
            len(found),
            len({(each.category, each.label) for each in found}),
            {category: counts[category] for category in self.categories},
        )

    def write(self, path: str | os.PathLike[str]) -> None:
        """Write NetDissect's own table: the best units first, units counted from 1."""
        with (
            replacing(Path(path)) as temporary,
            open(temporary, "w", encoding="utf-8", newline="") as stream,
        ):
            writer = csv.writer(stream, lineterminator="\n")
            columns = [f"{c}-{name}" for c in self.categories for name in ConceptMatch._fields]
            writer.writerow(["unit", "category", "label", "score", *columns])
            for each in sorted(self.units, key=lambda each: (-each.score, each.unit)):
                cells = [cell for c in self.categories for cell in each.matches[c]]
                writer.writerow([each.unit + 1, each.category, each.label, each.score, *cells])

    def chart(self, path: str | os.PathLike[str], threshold: float = THRESHOLD) -> None:
        """Draw how many units detect each concept, a bar a concept, a colour a category (PNG)."""
        from matplotlib.figure import Figure
        from matplotlib.ticker import MaxNLocator

        found = Counter(
            (self.categories.index(each.category), each.label)
            for each in self.units
            if each.score > threshold
        )
        bars = sorted(found.items(), key=lambda bar: (bar[0][0], -bar[1], bar[0][1]))
        width = max(6.0, 1.5 + 0.15 * len(bars))
        figure = Figure(figsize=(width, 4.0), layout="constrained")
        axes = figure.add_subplot()
        for place, category in enumerate(self.categories):
            own = [(x, count) for x, ((i, _), count) in enumerate(bars) if i == place]
            if own:
                said = f"{category}: {sum(n for _, n in own):,} units, {len(own):,} concepts"
                color = COLORS[place % len(COLORS)]
                axes.bar([x for x, _ in own], [n for _, n in own], 0.8, color=color, label=said)
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
        if bars:  # above the bars: within, it would hide some
            axes.legend(
                loc="lower center", bbox_to_anchor=(0.5, 1.0), ncols=int(width / 2.4), fontsize=7.5,
                frameon=False,
            )  # fmt: skip
        with replacing(Path(path)) as temporary:
            figure.savefig(temporary, format="png", dpi=150)


class NetDissect:
    """Names units by their best concept.

    A unit that is never active, or nowhere where a concept is, means nothing: abstained.
    """

    spec = SPEC

    def __init__(self, detectors_only: bool, quantile: float, threshold: float) -> None:
        self._detectors_only = detectors_only
        self._quantile, self._threshold = quantile, threshold

    def describe(self, units: Any, context: Context) -> list[Description]:
        answers = []
        for unit in unit_keys(units):
            probing = context.probe_statistics(unit.network)
            [(layer, row)] = probing.locate([unit])
            key = (SPEC.name, unit.network, self._quantile)
            made = context.cached(key, partial(dissect, probing, self._quantile))
            answers.append(self._answer(made[layer].units[row]))
        return answers

    def _answer(self, found: DissectedUnit) -> Description:
        below = self._detectors_only and found.score <= self._threshold
        if not found.active or found.score == 0 or below:
            return Description.abstained()
        return Description.of(readable_name(found.label), found.score)


def create(
    detectors_only: bool = False, quantile: float = QUANTILE, threshold: float = THRESHOLD
) -> NetDissect:
    """Return the method.

    Args:
        detectors_only: name only units with an intersection over union above `threshold`, as
            Bau et al. do; else all, as Hernandez et al. 2022 did to compare.
        quantile: of a unit's activations: its threshold.
        threshold: of detectors.
    """
    return NetDissect(detectors_only, float(quantile), float(threshold))


def dissect(probing: ProbeStatistics, quantile: float = QUANTILE) -> dict[str, Dissection]:
    """Return what the units of all layers detect, in one pass with known thresholds."""
    import numpy as np

    from baselines.shared.category_overlap import CategoryOverlap

    concepts = probing.concepts
    names = categories(concepts)
    of = np.array([names.index(concept.category) for concept in concepts])
    overlaps = probing.run_thresholded_tally(
        "overlap by category", lambda t: CategoryOverlap(t, of), quantile
    )
    return {
        layer: dissection([concept.name for concept in concepts], names, of, found)
        for layer, found in overlaps.items()
    }


def dissection(
    labels: Sequence[str], names: Sequence[str], of: NDArray[np.int64], overlaps: OverlapCounts
) -> Dissection:
    """Return a layer's units beside concepts, of the counts that `CategoryOverlap` made.

    Args:
        labels: of concepts.
        names: of categories.
        of: the category of each concept.
        overlaps: counts.
    """
    import numpy as np

    count = len(labels)
    intersect = overlaps.intersection[:, :count].numpy()
    activation = overlaps.intersection[:, count:].numpy()
    truth = overlaps.concept[:count].numpy()
    ious = intersect / np.maximum(truth + activation[:, of] - intersect, 1)
    best = [(of == c).nonzero()[0] for c in range(len(names))]
    places = np.stack([own[ious[:, own].argmax(1)] for own in best], 1)  # (unit, category)
    units = []
    for unit, own in enumerate(places):
        matches = {
            name: ConceptMatch(
                labels[i],
                int(truth[i]),
                int(activation[unit, c]),
                int(intersect[unit, i]),
                float(ious[unit, i]),
            )
            for c, (name, i) in enumerate(zip(names, own.tolist(), strict=True))
        }
        category = names[int(ious[unit, own].argmax())]
        units.append(DissectedUnit(unit, category, matches, bool(overlaps.unit[unit] > 0)))
    return Dissection(tuple(names), tuple(units))


def categories(concepts: Sequence[Concept]) -> tuple[str, ...]:
    """Return the categories of concepts, in the order of the first of each."""
    return tuple(dict.fromkeys(concept.category for concept in concepts))


def read(path: str | os.PathLike[str]) -> Dissection:
    """Read a table in NetDissect's own layout.

    Raises:
        InputError: it is in another layout, or holds something else.
    """
    with open(path, encoding="utf-8-sig", newline="") as stream:
        reader = csv.reader(stream)
        header = next(reader, [])
        names = tuple(name.removesuffix("-iou") for name in header if name.endswith("-iou"))
        needed = [f"{c}-{name}" for c in names for name in ConceptMatch._fields]
        needed = ["unit", "category", "label", "score", *needed]
        if not names or not set(needed) <= set(header):
            missing = [name for name in needed if name not in header] or ["object-iou"]
            raise InputError(
                f"{path} is no table of NetDissect: without the column {missing[0]}. Expected "
                "unit, category, label, score, and of each category label, truth, activation, "
                "intersect, iou."
            )
        units = []
        for number, row in enumerate(reader, 2):
            try:
                cells = dict(zip(header, row, strict=True))
                numbers = {
                    c: [float(cells[f"{c}-{f}"]) for f in ConceptMatch._fields[1:]] for c in names
                }
                matches = {c: ConceptMatch(cells[f"{c}-label"], *numbers[c]) for c in names}
                active = any(match.activation for match in matches.values())
                each = DissectedUnit(int(cells["unit"]) - 1, cells["category"], matches, active)
            except ValueError as error:
                raise InputError(f"{path}, line {number}: {error}.") from None
            if each.category not in matches or each.unit < 0:
                raise InputError(f"{path}, line {number}: unit {each.unit + 1} of {each.category}.")
            units.append(each)
    return Dissection(names, tuple(sorted(units, key=lambda each: each.unit)))
