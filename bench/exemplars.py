"""What exemplars cost beside the bare forward pass over the same pictures: time and memory.

ResNet-18 with random weights (1,024 units in conv1 and layer1 to layer4) and made-up pictures
with the spectrum of photographs, read from JPEG files by the same loader both times.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from pathlib import Path

from bench.release import photographs
from bench.timing import line

IMAGES = 1000
DISTINCT = 100
LAYERS = ("conv1", "layer1", "layer2", "layer3", "layer4")

PROGRAM = """
import sys, time
import torch, torchvision
from milannotations import exemplars
from milannotations.exemplars.networks.preprocessing import Preprocessing
from torch.utils.data import DataLoader
def peak():
    line = next(l for l in open("/proc/self/status") if l.startswith("VmHWM"))
    return int(line.split()[1]) / 1024
how, folder, limit, layers = sys.argv[1], sys.argv[2], int(sys.argv[3]), sys.argv[4].split(",")
torch.manual_seed(0)
model = torchvision.models.resnet18().eval()
images = exemplars.open_images(folder, Preprocessing.imagenet(), limit=limit)
def bare():
    with torch.no_grad():
        for batch in DataLoader(images, batch_size=32):
            model(batch)
def whole():
    return exemplars.compute(model, images, layers)
def seconds(work):
    begun = time.perf_counter()
    work()
    return time.perf_counter() - begun
if how == "time":
    with torch.no_grad():
        model(torch.zeros(32, 3, 224, 224))
    # turn and turn about: the machine's other work falls on both
    times = [(seconds(bare), seconds(whole)) for _ in range(3)]
    print(min(t for t, _ in times), min(t for _, t in times))
elif how == "memory":
    whole()
    print(peak())
elif how == "bare memory":
    bare()
    print(peak())
else:
    found = whole()
    second = sum(len(layer.ids.unique()) for layer in found.layers.values())
    print(found.forwards, len(layers) * found.images, second)
"""


def outcome(*words: object) -> list[float]:
    ran = subprocess.run(
        [sys.executable, "-c", PROGRAM, *map(str, words)],
        env={**os.environ, "OMP_WAIT_POLICY": "PASSIVE"},
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )
    return [float(word) for word in ran.stdout.split()]


def pictures(folder: Path, count: int) -> None:
    """Write JPEG files of 288 x 256 pixels, `DISTINCT` of them different."""
    from PIL import Image

    (folder / "all").mkdir(parents=True)
    made = [Image.fromarray(p.transpose(1, 2, 0)) for p in photographs(DISTINCT)]
    for i in range(count):
        picture = made[i % DISTINCT].rotate(i // DISTINCT * 7).resize((288, 256))
        picture.save(folder / "all" / f"{i:05d}.jpg", quality=90)


def run() -> None:
    layers = ",".join(LAYERS)
    with tempfile.TemporaryDirectory() as scratch:
        pictures(Path(scratch), 2 * IMAGES)
        print(f"\nExemplars of ResNet-18, {', '.join(LAYERS)}: 1,024 units, {IMAGES:,} pictures")
        bare, whole = outcome("time", scratch, IMAGES, layers)
        line("images a second, bare forward pass over the loader", IMAGES / bare, "img/s")
        line("one pass with all tallies, beside that", whole / bare, "x", "aim: at most 1.25")
        ours, first, second = outcome("count", scratch, IMAGES, layers)
        line("images through the network, here", ours, "images")
        line("images through the network, 2022: two passes a layer", first + second, "images")
        line("that is", (first + second) / ours, "x")
        peaks = [outcome("memory", scratch, n, layers)[0] for n in (IMAGES, 2 * IMAGES)]
        line("peak memory", peaks[0], "MB", "aim: under 1500")
        line("of which the bare forward pass", outcome("bare memory", scratch, 64, layers)[0], "MB")
        line("growth with twice the pictures", peaks[1] / peaks[0], "x", "aim: under 1.10")


if __name__ == "__main__":
    run()
