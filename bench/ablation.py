"""What single-unit ablations cost beside whole passes: the share of the work that is left.

ResNet-18 with random weights; 256 of its units, spread over conv1 and layer1 to layer4 in
proportion to their 1,024. On 500 pictures every batch costs the same, so one batch is measured, and
whole passes over it before and after, in seconds of one processor. What is learned once of a
network, on its first batch, is measured apart and charged to 500 pictures.
"""

from __future__ import annotations

import time
from collections.abc import Callable

import torch

from bench.timing import line

WIDTHS = {"conv1": 64, "layer1": 64, "layer2": 128, "layer3": 256, "layer4": 512}
UNITS, PICTURES, BATCH = 256, 500, 8


def units() -> list[dict[str, list[int]]]:
    """Return single units, evenly over all 1,024."""
    every = [{layer: [i]} for layer, width in WIDTHS.items() for i in range(width)]
    return every[:: len(every) // UNITS]


def seconds(work: Callable[[], object]) -> float:
    """Return processor time: other programs on the machine do not count."""
    started = time.process_time()
    work()
    return time.process_time() - started


def run() -> None:
    import torchvision

    from milannotations.exemplars import Ablator, RunConfig

    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    model = torchvision.models.resnet18().eval()
    pictures = torch.randn(BATCH, 3, 224, 224)
    ablator = Ablator(model, pictures, list(WIDTHS), run=RunConfig(batch_size=BATCH, device="cpu"))
    sets = units()
    print(f"\nSingle units of ResNet-18 ablated: {len(sets)} of {sum(WIDTHS.values()):,}")

    def whole() -> None:
        with torch.no_grad():
            model(pictures)

    whole()
    first = seconds(lambda: ablator.predictions([{}]))
    passes, ours = [], []
    for _ in range(2):
        passes.append(seconds(whole))
        ours.append(seconds(lambda: ablator.predictions(sets)))
        passes.append(seconds(whole))
    one = min(passes)
    line("a whole pass over a batch", one, "s")
    line("what is learned once, in whole passes", first / one, "passes")
    share = (min(ours) * PICTURES / BATCH + first) / (one * UNITS * PICTURES / BATCH)
    line(f"{UNITS} ablations on {PICTURES} pictures, beside {UNITS} whole passes", share, "x",
         "aim: at most .25")  # fmt: skip
    torch.set_num_threads(threads)


if __name__ == "__main__":
    run()
