"""Training of one model per fold and seed, whose descriptions are kept in a file."""

from __future__ import annotations

import json
import multiprocessing
import os
import shutil
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from leaderboard.reproduction.folds import Fold
from milannotations.utils.files import replacing


@dataclass(frozen=True)
class TrainingJob:
    """Work of one process: train a model on a fold, and describe test and validation units.

    Attributes:
        fold: units to train on and to describe.
        seed: random seed of training.
        out: folder of features and descriptions.
        texts: human descriptions of each row of the edition.
        encoder: arguments of `milan.encoder.build`.
        sizes: `2022` or `small`.
        settings: fields of `milan.config.TrainingConfig`.
    """

    fold: Fold
    seed: int
    out: Path
    texts: list[list[str]]
    encoder: dict[str, Any]
    sizes: str
    settings: dict[str, Any] = field(default_factory=dict)

    @property
    def file(self) -> Path:
        """File of the descriptions."""
        return self.out / "answers" / f"{self.fold.name.replace('/', '-')}-seed{self.seed}.json"


@dataclass(frozen=True)
class ScoredText:
    """Candidate of the beam search, as the file of descriptions holds it."""

    text: str
    log_p_given_exemplars: float
    log_p: float | None


def train_folds(jobs: Sequence[TrainingJob]) -> Iterator[TrainingJob]:
    """Train the models that have no file yet, and yield each job that is done.

    On a CPU there is one process per core; on a GPU the jobs run one after the other.
    """
    import torch

    missing = [job for job in jobs if not job.file.exists()]
    yield from (job for job in jobs if job.file.exists())
    workers = min(len(missing), 1 if torch.cuda.is_available() else os.cpu_count() or 1)
    if workers <= 1:
        yield from map(_train_and_describe, missing)
        return
    with ProcessPoolExecutor(workers, multiprocessing.get_context("spawn")) as pool:
        yield from pool.map(_train_and_describe, missing)


def read_descriptions(
    job: TrainingJob, side: str
) -> tuple[list[int], list[str], list[list[ScoredText]]]:
    """Read a job's descriptions.

    Args:
        job: a job that is done.
        side: `test` or `validation`.

    Returns:
        Row indices, greedy descriptions, and the beam of each unit.
    """
    content = json.loads(job.file.read_text())[side]
    beams = [[ScoredText(*candidate) for candidate in beam] for beam in content["beam"]]
    return content["rows"], content["greedy"], beams


def _train_and_describe(job: TrainingJob) -> TrainingJob:
    import torch

    from milan import encoder as encoders
    from milan.config import TrainingConfig
    from milan.features import Features
    from milan.training import learn
    from milannotations.exemplars.device import best_device

    if not torch.cuda.is_available():
        # one process per core, and the same order of sums on every machine
        torch.set_num_threads(1)
    features = Features(np.load(job.out / "features.npy", mmap_mode="r"))
    sides = [job.fold.train, job.fold.validation]
    model, _ = learn(
        [features.of(rows) for rows in sides],
        [[job.texts[i] for i in rows] for rows in sides],
        encoders.build(**job.encoder).to(best_device()),
        job.file.with_suffix(".training"),
        job.sizes,
        TrainingConfig(**job.settings),
    )
    content: dict[str, Any] = {}
    for side, rows in (("test", job.fold.test), ("validation", job.fold.validation)):
        values, present = features.of(rows).tensors()
        beams = model.describe_features(values, present, strategy="beam").n_best
        content[side] = {
            "rows": rows,
            "greedy": model.describe_features(values, present, strategy="greedy").text,
            "beam": [[(c.text, c.log_p_given_exemplars, c.log_p) for c in beam] for beam in beams],
        }
    with replacing(job.file) as temporary:
        temporary.write_text(json.dumps(content))
    shutil.rmtree(job.file.with_suffix(".training"))
    return job
