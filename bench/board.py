"""What a board costs: many methods on many units of text, and thumbnails."""

from __future__ import annotations

import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

from bench.timing import line

METHODS, UNITS, LAYERS = 20, 20_000, 20
WORDS = ("red", "blue", "green", "round", "striped", "dotted", "faces", "dogs", "wheels", "edges")


def text_only() -> None:
    """Build the board of 20 methods on 20,000 units, in a process of its own."""
    with tempfile.TemporaryDirectory() as folder:
        _write(Path(folder))
        code = (
            "import resource, sys\n"
            "from leaderboard import site\n"
            "site.build(sys.argv[1] + '/site', [sys.argv[1] + '/records'],"
            " editions=[sys.argv[1] + '/large'], cache=sys.argv[1])\n"
            "used = resource.getrusage(resource.RUSAGE_SELF)\n"
            "print(used.ru_utime + used.ru_stime, used.ru_maxrss)"
        )
        begun = time.perf_counter()
        ran = subprocess.run(
            [sys.executable, "-c", code, folder], capture_output=True, text=True, check=True
        )
        took = time.perf_counter() - begun
        busy, memory = map(float, ran.stdout.split()[-2:])
        size = sum(p.stat().st_size for p in Path(folder, "site").rglob("*") if p.is_file())
    print(f"\nThe board of {METHODS} methods on {UNITS:,} units of text")
    line("built", took, "s", "aim: under 60")
    line("of that, busy", busy, "s")
    line("memory at most", memory / 1e6, "GB", "aim: under 1.5")
    line("size", size / 1e6, "MB")


def _write(folder: Path) -> None:
    """Write an edition and records on it, values drawn: what a board reads, with no scoring."""
    from leaderboard.evaluation import predictions, references, scoring
    from leaderboard.evaluation.score_config import ScoreConfig
    from leaderboard.record_format.method_info import About
    from milannotations import schema
    from milannotations.editions.writing import write_config
    from milannotations.schema import Unit

    draw = np.random.default_rng(0)
    units = [Unit("net", f"layer{i % LAYERS:02d}", i // LAYERS) for i in range(UNITS)]

    def texts() -> list[str]:
        return [
            " ".join(WORDS[j] for j in row) for row in draw.integers(len(WORDS), size=(UNITS, 5))
        ]

    people = list(zip(texts(), texts(), texts(), strict=True))
    rows = [schema.row(u, descriptions=list(p)) for u, p in zip(units, people, strict=True)]
    write_config(folder / "large", "net", {"test": rows})
    known = references.from_edition(folder / "large", "net")
    few = ["layer00"]
    metrics = ["retrieval-tfidf-auc", "rouge-l"]
    said = predictions.from_texts(units, texts())
    score = scoring.score(
        said, known, metrics, layers=few, split="test", settings=ScoreConfig(draws=20)
    )
    edition = score.record.edition.model_copy(
        update={"n_units": UNITS, "layers": [f"net/layer{i:02d}" for i in range(LAYERS)]}
    )
    for k in range(METHODS):
        values = np.clip(draw.normal(0.6 + k / 100, 0.2, UNITS), 0, 1)
        whole = {"mean": values.mean(), "mean_all": values.mean(), "n_scored": UNITS}
        scores = {
            name: made.model_copy(update={**whole, "n_units": UNITS})
            for name, made in score.record.scores.items()
        }
        record = score.record.model_copy(
            update={
                "id": f"{k:032x}",
                "method": f"method{k}",
                "edition": edition,
                "scores": scores,
                "about": About(title=f"made up {k}"),
            }
        )
        from leaderboard.record_format import score_record

        table = score.units.iloc[:0]
        for name in metrics:
            part = {"network": "net", "layer": [u.layer for u in units],
                    "unit": [u.unit for u in units], "metric": name}  # fmt: skip
            import pandas as pd

            table = pd.concat([table, pd.DataFrame({**part, "value": values, "lift": values / 10})])
        score_record.save(
            folder / "records" / f"method{k}", record, table,
            predictions.from_texts(units, texts()),
        )  # fmt: skip


def thumbnails() -> None:
    """Draw the sheets of the first units of `mini`, and of photographs' size with masks."""
    from leaderboard.site import thumbnails as sprites
    from milannotations.editions import shards
    from milannotations.editions.configs import list_files

    whole = list_files("mini", "mini")["test"][0]
    small = [images for _, images in sprites._rows([whole])][: 10 * sprites.ROWS]
    photographs = _photographs(300)
    mask = shards.encode_png(np.arange(224)[:, None] * np.ones(224) > 112)

    def units_of(share: int) -> list[tuple[list[bytes], list[bytes]]]:
        """Return 20 units, each of whose pictures is shown by `share` of them."""
        shown = [photographs[i % (len(photographs) // share)] for i in range(300)]
        return [(shown[i : i + 15], [mask] * 15) for i in range(0, 300, 15)]

    print("\nThumbnails, one core")
    for name, units, side in (
        ("of 64 pixels (mini)", small, 64),
        ("of 224 pixels, lossless, each once", units_of(1), 96),
        ("of 224 pixels, lossless, each twice", units_of(2), 96),
        ("of 224 pixels, lossless, each six times", units_of(6), 96),
    ):
        kept = sprites._ShrunkImages()
        begun = time.process_time()
        with tempfile.TemporaryDirectory() as folder:
            for start in range(0, len(units), sprites.ROWS):
                sheet = units[start : start + sprites.ROWS]
                sprites._draw_sheet(sheet, side, Path(folder) / f"{start}.webp", kept)
        pictures = sum(len(images) for images, _ in units)
        line(f"pictures {name}", pictures / (time.process_time() - begun), "a second", "aim: 500")


def _photographs(count: int) -> list[bytes]:
    """Return crops of 224 pixels of the two photographs of scikit-learn, as editions hold them."""
    from sklearn.datasets import load_sample_images

    from milannotations.editions.shards import encode_webp

    draw, crops = np.random.default_rng(0), []
    for i in range(count):
        whole = load_sample_images().images[i % 2]
        y, x = (draw.integers(size - 224) for size in whole.shape[:2])
        crops.append(encode_webp(whole[y : y + 224, x : x + 224], None))
    return crops


def run() -> None:
    thumbnails()
    text_only()
