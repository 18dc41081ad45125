"""What a published archive costs to convert and its edition to open: time and memory.

Archives are made up, in the published format and true in shape: 15 pictures of 224 pixels a
unit, with the spectrum of photographs.
"""

from __future__ import annotations

import csv
import io
import os
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from bench.timing import line

K, SIDE = 15, 224
SIZES = (128, 256, 512)
CONVERTED = 256
AIM = ("aim: under 3", "aim: under 500")
GRAIN = 0.5
"""Standard deviation of the fine noise; with it lossless pictures have the bytes of photographs."""

CONVERT = """
import sys, time
def peak():
    # of this program: ru_maxrss would be that of the one that started it, if that was larger
    line = next(l for l in open("/proc/self/status") if l.startswith("VmHWM"))
    return int(line.split()[1]) / 1024
from milannotations.published import convert
begun = time.perf_counter()
convert.prepare("made-up", sys.argv[1], sys.argv[2])
print(time.perf_counter() - begun, peak())
"""

READ = """
import sys, time
import datasets, numpy as np, PIL.Image, milannotations.editions.loading
def peak():
    # of this program: ru_maxrss would be that of the one that started it, if that was larger
    line = next(l for l in open("/proc/self/status") if l.startswith("VmHWM"))
    return int(line.split()[1]) / 1024
datasets.disable_progress_bars()
how, edition = sys.argv[1:]
begun = time.perf_counter()
if how == "select":
    rows = milannotations.editions.loading.select(edition, "made-up", count=100)
else:
    rows = milannotations.editions.loading.load(edition, "made-up", split="train+test")
opened = time.perf_counter() - begun
for i in np.random.default_rng(0).choice(len(rows), 100, replace=False):
    row = rows[int(i)]
    assert len(row["images"]) == len(row["masks"]) == 15
print(opened, time.perf_counter() - begun, peak())
"""


def photographs(count: int) -> NDArray[np.uint8]:
    """Return pictures with the 1/f spectrum of photographs and a little grain."""
    rng = np.random.default_rng(0)
    frequency = np.hypot(*np.meshgrid(np.fft.fftfreq(SIDE), np.fft.rfftfreq(SIDE), indexing="ij"))
    amplitude = 1 / np.maximum(frequency, 1 / SIDE) ** 1.6
    made = np.empty((count, 3, SIDE, SIDE), dtype=np.uint8)
    for picture in made:
        noise = [
            np.fft.irfft2(np.fft.rfft2(rng.normal(size=(SIDE, SIDE))) * amplitude) for _ in "LC"
        ]
        light, colour = (part / part.std() for part in noise)
        for channel, share in enumerate((0.15, 0.0, -0.15)):
            grain = rng.normal(0, GRAIN, (SIDE, SIDE))
            picture[channel] = np.clip(128 + 50 * (light + share * colour) + grain, 0, 255)
    return made


def masks(count: int) -> NDArray[np.uint8]:
    """Return discs, 0 or 1."""
    rng = np.random.default_rng(1)
    high, wide = np.mgrid[:SIDE, :SIDE]
    made = []
    for _ in range(count):
        y, x, radius = (*rng.integers(0, SIDE, 2).tolist(), int(rng.integers(10, 50)))
        made.append(((high - y) ** 2 + (wide - x) ** 2 < radius**2)[None])
    return np.array(made, dtype=np.uint8)


def archive(path: Path, units: int) -> None:
    """Write an archive of one layer; no array of it is ever whole in memory."""
    rng = np.random.default_rng(2)

    def member(zipped: zipfile.ZipFile, name: str, pool: NDArray[np.uint8]) -> None:
        header = io.BytesIO()
        np.lib.format.write_array_header_1_0(
            header, {"descr": "|u1", "fortran_order": False, "shape": (units, K, *pool.shape[1:])}
        )
        with zipped.open(f"conv1/{name}", "w", force_zip64=True) as stream:
            stream.write(header.getvalue())
            for _ in range(units):
                stream.write(pool[rng.integers(0, len(pool), K)].tobytes())

    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as zipped:
        text = io.StringIO(newline="")
        rows = [("conv1", unit, f"red {unit}") for unit in range(units) for _ in range(3)]
        csv.writer(text).writerows([("layer", "unit", "summary"), *rows])
        zipped.writestr("annotations.csv", text.getvalue())
        ids = rng.integers(0, 50_000, (units, K))
        zipped.writestr("conv1/ids.csv", "".join(",".join(map(str, r)) + "\n" for r in ids))
        member(zipped, "masks.npy", masks(200))
        member(zipped, "images.npy", photographs(200))


def outcome(code: str, *words: str, cache: str) -> Iterator[float]:
    """Run code in a process of its own and return the numbers that it prints."""
    ran = subprocess.run(
        [sys.executable, "-c", code, *words],
        env={**os.environ, "HF_DATASETS_CACHE": cache},
        capture_output=True,
        text=True,
        check=True,
    )
    return map(float, ran.stdout.split())


def run() -> None:
    with tempfile.TemporaryDirectory() as scratch:
        root = Path(scratch)
        print(f"\nA made-up archive of true shape: {K} pictures of {SIDE} px a unit")
        for units in SIZES:
            zipped, out = root / f"{units}.zip", root / str(units)
            archive(zipped, units)
            spent, peak = outcome(CONVERT, str(zipped), str(out), cache=scratch)
            if units == CONVERTED:
                written = sum(path.stat().st_size for path in out.rglob("*") if path.is_file())
                line(f"convert {units} units, lossless", spent / units, "s a unit")
                line(f"convert {units} units, peak memory", peak, "MB", "aim: under 600")
                line("bytes of a picture with its mask", written / units / K / 1e3, "KB")
            zipped.unlink()
        for units in SIZES:
            old = units * K * (3 + 1) * SIDE * SIDE * 4
            for how, called in (
                ("select", "select"),
                ("load", "load, first"),
                ("load", "load, cached"),
            ):
                opened, spent, peak = outcome(
                    READ, how, str(root / str(units)), cache=str(root / "cache")
                )
                line(f"{units} units, {called}: until it returns", opened, "s")
                line(f"{units} units, {called}: and 100 at random decoded", spent, "s", AIM[0])
                line(f"{units} units, {called}: peak memory", peak, "MB", AIM[1])
            line(f"{units} units as the 2022 code holds them, in memory", old / 1e6, "MB")


if __name__ == "__main__":
    run()
