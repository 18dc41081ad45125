"""One loop for the networks of the mini world: seeded, deterministic, on one thread."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from safetensors.torch import save_file
from torch import Tensor, nn
from tqdm import tqdm

from milannotations.utils.files import replacing

TensorBatch = tuple[Tensor, ...]


@dataclass(frozen=True)
class FitConfig:
    """How a network is trained: AdamW under a one-cycle schedule.

    Attributes:
        steps: number of batches, each of scenes that no earlier one had.
        batch: scenes in a batch.
        rate: highest learning rate.
        decay: weight decay.
    """

    steps: int
    batch: int = 64
    rate: float = 4e-3
    decay: float = 1e-3


@contextmanager
def reproducible(seed: int) -> Iterator[None]:
    """Make what is computed inside depend on the seed alone, and leave no trace outside.

    Sums come out differently for another number of threads, so there is one. It is also
    the safe number: networks this small gain little from a second thread, and where other
    programs want the cores too, two threads that wait for one another by spinning
    (OpenMP's default) take several times as long. `OMP_WAIT_POLICY=PASSIVE` would mend
    that, but only if it is set before torch is imported. The second core draws scenes.

    Args:
        seed: of torch's global generator, from which layers are initialised.
    """
    threads = torch.get_num_threads()
    deterministic = torch.are_deterministic_algorithms_enabled()
    torch.set_num_threads(1)
    torch.use_deterministic_algorithms(True)
    try:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            yield
    finally:
        torch.use_deterministic_algorithms(deterministic)
        torch.set_num_threads(threads)


def write_weights(network: nn.Module, path: str | os.PathLike[str], note: object) -> None:
    """Write a network's weights, with a note on how they were made, as safetensors."""
    with replacing(path) as temporary:
        # one key: the library writes several in any order, and the file's digest is its name
        save_file(network.state_dict(), temporary, {"made": json.dumps(note, sort_keys=True)})
        temporary.chmod(0o644)  # the library's are for the owner alone


def fit(
    network: nn.Module,
    batch: Callable[[int], TensorBatch],
    loss: Callable[[TensorBatch], Tensor],
    settings: FitConfig,
    title: str,
) -> None:
    """Train a network in place and leave it in evaluation mode.

    Call it inside `reproducible`. Shows a progress bar where stderr is a terminal.

    Args:
        network: what is trained.
        batch: returns the batch of a step; runs beside the training of the step before.
        loss: returns the loss of a batch, a scalar.
        settings: how.
        title: of the progress bar.
    """
    network.train().to(memory_format=torch.channels_last)
    optimizer = torch.optim.AdamW(
        network.parameters(), lr=settings.rate, weight_decay=settings.decay
    )
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, max_lr=settings.rate, total_steps=settings.steps
    )
    with ThreadPoolExecutor(1) as ahead:
        coming = ahead.submit(batch, 0)
        bar = tqdm(range(settings.steps), title, disable=not sys.stderr.isatty(), unit="step")
        for step in bar:
            drawn = coming.result()
            if step + 1 < settings.steps:
                coming = ahead.submit(batch, step + 1)
            value = loss(drawn)
            optimizer.zero_grad()
            value.backward()
            optimizer.step()
            schedule.step()
            if step % 10 == 0:
                bar.set_postfix(loss=f"{value.item():.3f}")
    network.eval().to(memory_format=torch.contiguous_format)
