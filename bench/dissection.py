"""What it costs to compare units with concepts: Network Dissection, Compositional Explanations.

Pictures and label maps are made up and lie in memory, so that nothing is timed but the network
and the counting. A picture has some fifteen concepts in four planes, as Broden's have: a scene,
objects, their parts, colours.
"""

from __future__ import annotations

import tracemalloc
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from bench.timing import line, seconds

if TYPE_CHECKING:
    from baselines.shared.concept_formulas import ConceptFormula
    from baselines.shared.concept_set_counts import ConceptSetCounts
    from baselines.shared.formula_search import BestFormula

SIZE = 112
CONCEPTS = {"scene": 20, "object": 40, "part": 20, "color": 20}
REGIONS = {"scene": 1, "object": 6, "part": 4, "color": 4}
"""Concepts of each category, and in a picture."""

LAYERS = ("conv1", "layer1", "layer2", "layer3", "layer4")
PICTURES, BATCH = 64, 32

LABELLED, UNITS, CELLS = 500, 64, 14
"""Pictures, units and the side of their maps where formulas are searched."""

PLAIN = 2
"""Units that the plain loop searches."""


def labels(count: int, seed: int = 0) -> NDArray[np.int32]:
    """Return label planes (picture, category, SIZE, SIZE): what is nearest to random points.

    Parts and colours leave half of the points to nothing.
    """
    draw = np.random.default_rng(seed)
    y, x = np.mgrid[:SIZE, :SIZE]
    made = np.zeros((count, len(CONCEPTS), SIZE, SIZE), np.int32)
    for planes in made:
        first = 1
        for plane, (name, many) in zip(planes, CONCEPTS.items(), strict=True):
            numbers = first + draw.permutation(many)[: REGIONS[name]]
            if name in ("part", "color"):
                numbers = np.concatenate([numbers, 0 * numbers])
            tops, lefts = draw.integers(0, SIZE, (2, len(numbers)))
            distances = (y - tops[:, None, None]) ** 2 + (x - lefts[:, None, None]) ** 2
            plane[:] = numbers[distances.argmin(0)]
            first += many
    return made


# ---- Network Dissection


class Shown:
    """Pictures as a network is shown them, and their label maps."""

    def __init__(self, count: int) -> None:
        import torch

        from bench.release import photographs

        pixels = np.stack([*photographs(count)]).astype(np.float32) / 127.5 - 1
        self.images, self.labels = torch.from_numpy(pixels), torch.from_numpy(labels(count))
        self.source = {"made up": count}
        self.size = (SIZE, SIZE)

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, i: int) -> dict[str, Any]:
        return {"image": self.images[i], "concepts": self.labels[i]}


class Probed:
    """The concepts of the label maps, as `ProbeStatistics` asks for them."""

    def __init__(self) -> None:
        from milannotations.probes import Concept

        self.name, self.source = "made up", {"made up": 0}
        self.concepts = tuple(
            Concept(f"{name} {i}", name) for name, many in CONCEPTS.items() for i in range(many)
        )


def dissection() -> None:
    import torch
    import torchvision
    from torch.utils.data import DataLoader

    from baselines import netdissect
    from baselines.shared.concept_set_counts import count_concept_sets
    from baselines.shared.probe_statistics import ProbeStatistics
    from milannotations.exemplars import RunConfig

    torch.manual_seed(0)
    model, shown = torchvision.models.resnet18().eval(), Shown(PICTURES)
    run = RunConfig(batch_size=BATCH, device="cpu")

    def bare() -> None:
        with torch.no_grad():
            for batch in DataLoader(shown, batch_size=BATCH):
                model(batch["image"])

    probings = {
        layers: ProbeStatistics("resnet18", model, shown, Probed(), list(layers), run=run)
        for layers in (LAYERS, LAYERS[-1:])
    }
    thresholds = {layers: probing.thresholds() for layers, probing in probings.items()}

    def first(layers: tuple[str, ...]) -> None:
        probings[layers]._results.clear()
        probings[layers].thresholds()

    def second(
        layers: tuple[str, ...], name: str, work: Callable[[ProbeStatistics], object]
    ) -> None:
        kept = probings[layers]._results
        for key in [key for key in kept if key.startswith(name)]:
            del kept[key]
        work(probings[layers])

    bare()
    # turn and turn about: the machine's other work falls on all of them
    turns = [
        [
            seconds(work)
            for work in (
                bare,
                lambda: first(LAYERS),
                lambda: second(LAYERS, "overlap", netdissect.dissect),
                lambda: second(LAYERS[-1:], "overlap", netdissect.dissect),
                lambda: second(LAYERS, "active", count_concept_sets),
            )
        ]
        for _ in range(3)
    ]
    forward, quantiles, whole, last, atoms = np.min(turns, axis=0)
    units = sum(len(values) for values in thresholds[LAYERS].values())
    print(f"\nNetwork Dissection of ResNet-18: {units:,} units, {PICTURES} pictures at {SIZE} px")
    line("pictures a second, bare forward pass", PICTURES / forward, "img/s")
    line("five layers, thresholds known, beside that", whole / forward, "x", "aim: at most 2")
    line("layer4 alone, beside that", last / forward)
    line("five layers with the pass for thresholds, beside that", (quantiles + whole) / forward)
    line("the counts for formulas, five layers, thresholds known", atoms / forward)


# ---- Compositional Explanations


def active() -> tuple[NDArray[np.int32], NDArray[np.bool_], Any]:
    """Return label planes, where units are active (unit, picture, SIZE, SIZE), and the tally.

    Half the units like a pair of concepts, on which noise lies.
    """
    import torch
    from torch.nn import functional as nnf

    from baselines.shared.concept_set_counts import ConceptSetTally
    from milannotations.exemplars.tallies.masks import masks

    planes = labels(LABELLED)
    generator = torch.Generator().manual_seed(0)
    maps = torch.randn(LABELLED, UNITS, CELLS, CELLS, generator=generator)
    pairs = torch.randint(1, sum(CONCEPTS.values()) + 1, (UNITS // 2, 2), generator=generator)
    for unit, pair in enumerate(pairs.tolist()):
        liked = torch.from_numpy(np.isin(planes, pair).any(1)[:, None].astype(np.float32))
        maps[:, unit] += 3 * nnf.adaptive_avg_pool2d(liked, CELLS)[:, 0]
    thresholds = maps.transpose(0, 1).flatten(1).quantile(0.995, dim=1)
    tally = ConceptSetTally(thresholds, (SIZE, SIZE))
    shown = torch.from_numpy(planes)
    took = seconds(lambda: tally.update(torch.arange(LABELLED), maps, shown))
    line(f"milliseconds a picture to count {UNITS} units", 1000 * took / LABELLED, "ms")
    above = np.stack(
        [masks(maps[:, u], thresholds[u].expand(LABELLED), (SIZE, SIZE)) for u in range(PLAIN)]
    )
    return planes, above, tally


def plain(active: NDArray[np.bool_], masks: NDArray[np.bool_], length: int, beam: int) -> Any:
    """Search by the definition, a boolean array a formula."""
    from baselines.shared.concept_formulas import OPERATORS, ConceptFormula, join_masks

    total, areas = np.count_nonzero(active), [np.count_nonzero(mask) for mask in masks]

    def rank(pair: tuple[ConceptFormula, float]) -> tuple[float, int, ConceptFormula]:
        return -pair[1], pair[0].length, pair[0]

    def iou(mask: NDArray[np.bool_], area: int) -> float:
        both = np.count_nonzero(mask & active)
        return both / (total + area - both)

    best = [(ConceptFormula(c), iou(mask, areas[c])) for c, mask in enumerate(masks)]
    best = sorted((pair for pair in best if pair[1] > 0), key=rank)[:beam]
    for size in range(2, length + 1):
        news = {}
        for parent in [formula for formula, _ in best if formula.length == size - 1]:
            own = parent.mask(masks)
            before = np.count_nonzero(own)
            for operator in OPERATORS:
                for concept, mask in enumerate(masks):
                    if concept in parent.concepts:
                        continue
                    found = join_masks(own, operator, mask)
                    area = np.count_nonzero(found)
                    if area in (before, 0) or (operator != "AND NOT" and area == areas[concept]):
                        continue  # what one of the two is already
                    score = iou(found, area)
                    if score > 0:
                        news[parent.append(operator, concept).normalize()] = score
        best = sorted([*best, *news.items()], key=rank)[:beam]
    return best[0]


def formulas() -> None:
    from baselines.shared.concept_formulas import BEAM, LENGTH
    from baselines.shared.formula_search import FormulaSearch

    concepts = sum(CONCEPTS.values())
    print(
        f"\nCompositional Explanations, length {LENGTH}, beam {BEAM}: {concepts} concepts, "
        f"{LABELLED} pictures of {SIZE} x {SIZE}"
    )
    planes, above, tally = active()
    activity: ConceptSetCounts = tally.result()
    found: list[BestFormula | None] = []

    def search() -> None:
        # made anew: nothing is known of any formula
        searching = FormulaSearch(activity, concepts)
        found[:] = [searching.beam(unit) for unit in range(UNITS)]

    took = min(seconds(search) for _ in range(3)) / UNITS
    line("milliseconds a unit", 1000 * took, "ms", "aim: 120")
    searching = FormulaSearch(activity, concepts)
    exact: list[BestFormula | None] = []
    took_exact = seconds(lambda: exact.extend(searching.exact(unit) for unit in range(UNITS)))
    line("the best of length 2, for certain", 1000 * took_exact / UNITS, "ms")
    for beam in (BEAM, 4 * BEAM):
        pairs = zip(exact, (searching.beam(unit, 2, beam) for unit in range(UNITS)), strict=True)
        share = [found.iou / best.iou for best, found in pairs if best and found]
        same = sum(each == 1 for each in share)
        line(f"units for which a beam of {beam} finds it", same, f"of {UNITS}")
        line("its IoU beside the best, mean", float(np.mean(share)))
    tracemalloc.start()
    search()
    peak = tracemalloc.get_traced_memory()[1] / 2**20
    tracemalloc.stop()
    line("memory of the counts of all units", tally.nbytes / 2**20, "MB")
    line("most that the search needs beside", peak, "MB")
    positions = LABELLED * SIZE * SIZE
    line("bit-packed masks of concepts and units would need",
         (concepts + UNITS) * positions / 8 / 2**20, "MB")  # fmt: skip
    masks = np.stack([(planes == c + 1).any(1).ravel() for c in range(concepts)])
    expected: list[tuple[ConceptFormula, float]] = []
    slow = seconds(
        lambda: expected.extend(plain(above[u].ravel(), masks, LENGTH, BEAM) for u in range(PLAIN))
    )
    line("seconds a unit, a boolean array a formula", slow / PLAIN, "s")
    line("that is", slow / PLAIN / took, "x", "aim: at least 50")
    agree = sum(each is not None and each[:2] == pair
                for each, pair in zip(found, expected, strict=False))  # fmt: skip
    line("units with the same formula and the same IoU", agree, f"of {PLAIN}")
    if agree < PLAIN:
        raise SystemExit(f"The searches differ: {found[:PLAIN]} and {expected}")


def run() -> None:
    dissection()
    formulas()
