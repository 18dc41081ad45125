"""What scoring descriptions in activations costs beside the network's own pass over the pictures.

Pictures and labels are made up and lie in memory; activations are those of a ResNet-18.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import numpy as np

from bench.timing import line

PICTURES, UNITS = 1_000, 256
LAYER = "layer3"
TIMED = 32
"""Pictures whose pass is timed; the others cost as much each."""


class Classes:
    """A probe data set of a class a picture, in memory."""

    def __init__(self, count: int) -> None:
        from milannotations.probes import Concept

        self.name, self.source = "made up", {"sha256": "0" * 64}
        self.concepts = tuple(Concept(f"class {i}", "class") for i in range(count))

    def __len__(self) -> int:
        return len(self.concepts)

    def source_id(self, i: int) -> str:
        return str(i)

    def labels(self, i: int, size: tuple[int, int]) -> Any:
        return np.full((1, *size), i + 1, np.int32)


class Kept:
    """A network's activations, as `ProbeStatistics` gives them, of a pass that is over."""

    def __init__(self, probe: Classes, activations: Any) -> None:
        self.probe, self.items = probe, probe
        self.source = {"model": "0" * 64}
        self._found = {LAYER: activations}

    def pooled_activations(self, how: str = "mean") -> Any:
        return self._found


def seconds(work: Callable[[], object]) -> float:
    """Return seconds of a processor, which are what a pass and a metric compare by."""
    started = time.process_time()
    work()
    return time.process_time() - started


def run() -> None:
    """Print the cost of five metrics as a share of the network's pass."""
    import torch
    from torchvision.models import resnet18

    from bench.release import photographs
    from leaderboard.evaluation import predictions
    from leaderboard.grounding import score
    from leaderboard.grounding.activations import HeldOutActivations
    from leaderboard.grounding.metrics import HEADLINE, build
    from leaderboard.grounding.scorers import Presences, open_scorer
    from milannotations import Unit
    from milannotations.exemplars import Pooled, RunConfig, compute

    pixels = np.stack([*photographs(TIMED)]).astype(np.float32) / 127.5 - 1
    images = torch.from_numpy(pixels)
    network = resnet18().eval()

    def network_pass() -> Any:
        tallies = {"mean": lambda _: Pooled("mean")}
        return compute(network, images, [LAYER], k=1, tallies=tallies, run=RunConfig(device="cpu"))

    found = network_pass().layers[LAYER].tallies["mean"].values
    passed = seconds(network_pass) * PICTURES / TIMED
    draw = np.random.default_rng(0)
    activations = torch.from_numpy(
        np.maximum(draw.normal(size=(PICTURES, found.shape[1])), 0).astype(np.float32)
    )
    probe = Classes(PICTURES)
    held = HeldOutActivations({"net": Kept(probe, activations)})  # type: ignore[dict-item]
    texts = [f"class {i}" for i in draw.permutation(PICTURES)[:UNITS]]
    keys = [(f"net/{LAYER}/{i}",) for i in range(UNITS)]
    presences = Presences(open_scorer("labels"), held.probe)
    looked = seconds(lambda: presences.of(texts))
    metrics = build(HEADLINE, held, presences)
    took = {name: seconds(lambda m=m: m.pairs(texts, keys)) for name, m in metrics.items()}
    said = predictions.from_texts([Unit("net", LAYER, i) for i in range(UNITS)], texts)
    whole = seconds(lambda: score(said, held, "labels", list(HEADLINE)))
    print(f"{UNITS} units of ResNet-18's {LAYER}, {PICTURES:,} pictures, labels of classes")
    line("the network's own pass over the pictures", passed, "s")
    line("in which pictures 256 descriptions are, of the pass", looked / passed)
    for name, own in took.items():
        line(f"{name}, all pairs of descriptions and units, of the pass", own / passed)
    line("five metrics, of the pass", sum(took.values()) / passed, aim="(at most .1)")
    line("milan score, with floors, lift and intervals, of the pass", whole / passed)
