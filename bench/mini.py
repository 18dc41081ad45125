"""What the mini world costs: drawing, loading, encoding, and the main job."""

from __future__ import annotations

import io
import os
import subprocess
import sys
import tempfile

import numpy as np

from bench.timing import line, seconds


def scenes() -> None:
    from milannotations.synthetic.scenes import World

    world = World()
    list(world.scenes(9, 200))  # shapes and words are drawn once and kept
    drawn = seconds(lambda: list(world.scenes(0, 2000)))
    mapped = seconds(lambda: [scene.concepts for scene in world.scenes(0, 2000)])
    print("\nScenes, one core")
    line("scenes drawn, with label maps and graphs", 2000 / drawn, "a second", "aim: 1,000")
    line("scenes drawn, with concept maps too", 2000 / mapped, "a second", "aim: 1,000")


def loading() -> None:
    """Time `load` in a process of its own with an empty cache, and again with a full one."""
    code = (
        "import time, datasets, pyarrow.parquet, milannotations as m\n"
        "import milannotations.editions.loading\n"
        "for _ in range(2):\n"
        "    begun = time.perf_counter(); m.load('mini'); print(time.perf_counter() - begun)"
    )
    with tempfile.TemporaryDirectory() as cache:
        ran = subprocess.run(
            [sys.executable, "-c", code],
            env={**os.environ, "HF_DATASETS_CACHE": cache},
            capture_output=True,
            text=True,
            check=True,
        )
    first, again = map(float, ran.stdout.split())
    print("\nThe edition mini")
    line("load, nothing cached", first, "s", "aim: under 2")
    line("load, cached", again, "s")


def size() -> None:
    """Compare the files with what they would be without the dictionary of pictures."""
    import pyarrow.parquet as parquet

    from milannotations.editions.configs import EMBEDDED
    from milannotations.schema import SPLITS

    shipped = plain = 0
    for split in SPLITS:
        path = EMBEDDED["mini"] / "data" / "mini" / f"{split}.parquet"
        shipped += path.stat().st_size
        stream = io.BytesIO()
        parquet.write_table(
            parquet.read_table(path), stream, use_dictionary=False, compression="zstd"
        )
        plain += stream.tell()
    line("size", shipped / 1e6, "MB", "aim: at most 12")
    line("without a dictionary / with one", plain / shipped)


def networks() -> None:
    """Compare a synthetic layer with drawing the scenes that it reads."""
    import torch

    from milannotations.synthetic import World, network

    drawn: list[np.ndarray] = []
    drawing = seconds(lambda: drawn.extend(s.concepts for s in World().scenes(0, 256)))
    maps = torch.from_numpy(np.stack(drawn))
    layer = network("mini-sharp").layer3
    with torch.inference_mode():
        layer(maps[:8])
        spent = seconds(lambda: [layer(part) for part in maps.split(64)])
    line("a layer of 136 planted units / drawing its scenes", spent / drawing)


def main_job() -> None:
    print("\nmilan run, every method that needs no download, in a process of its own")
    whole = seconds(
        lambda: subprocess.run(
            [sys.executable, "-m", "leaderboard.cli", "run"],
            stdout=subprocess.DEVNULL,
            check=True,
        )
    )
    line("whole", whole, "s", "aim: under 60")


def run() -> None:
    scenes()
    loading()
    size()
    networks()
    main_job()
