"""Training loop of the mini world's networks: seeded, deterministic, on one thread."""

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
"""Inputs and targets of a training step."""


@dataclass(frozen=True)
class FitConfig:
    """Settings of AdamW with a one-cycle schedule.

    Attributes:
        steps: number of batches; no scene is in two of them.
        batch: scenes per batch.
        rate: highest learning rate.
        decay: weight decay.
    """

    steps: int
    batch: int = 64
    rate: float = 4e-3
    decay: float = 1e-3


@contextmanager
def reproducible(seed: int) -> Iterator[None]:
    """Make computations depend on the seed alone, and restore torch's state afterwards.

    Sums differ with the number of threads, so there is one. It is also the fast number:
    networks this small gain little from a second thread, and where other programs use the
    cores too, two threads that wait for one another by spinning (OpenMP's default) take
    several times as long. `OMP_WAIT_POLICY=PASSIVE` would avoid that, but only if it is set
    before torch is imported. A second core draws the scenes.

    Args:
        seed: random seed of torch's global generator, which initialises layers.
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
    """Write a network's weights as safetensors.

    Args:
        network: the network.
        path: file to write.
        note: how they were made, as JSON; kept in the file's metadata.
    """
    with replacing(path) as temporary:
        # One key: the library writes several in any order, and the digest of the file must be the
        # same for the same weights.
        save_file(network.state_dict(), temporary, {"made": json.dumps(note, sort_keys=True)})
        temporary.chmod(0o644)  # the library's default is readable by the owner alone


def fit(
    network: nn.Module,
    batch: Callable[[int], TensorBatch],
    loss: Callable[[TensorBatch], Tensor],
    settings: FitConfig,
    title: str,
) -> None:
    """Train a network in place and leave it in evaluation mode.

    Call it inside `reproducible`. It shows a progress bar where stderr is a terminal.

    Args:
        network: the network.
        batch: returns the batch of a step; it runs in a thread while the step before trains.
        loss: returns the loss of a batch, a scalar.
        settings: number of steps, learning rate and so on.
        title: title of the progress bar.
    """
    network.train().to(memory_format=torch.channels_last)
    optimizer = torch.optim.AdamW(
        network.parameters(), lr=settings.rate, weight_decay=settings.decay
    )
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, max_lr=settings.rate, total_steps=settings.steps
    )
    with ThreadPoolExecutor(1) as executor:
        next_batch = executor.submit(batch, 0)
        bar = tqdm(range(settings.steps), title, disable=not sys.stderr.isatty(), unit="step")
        for step in bar:
            current = next_batch.result()
            if step + 1 < settings.steps:
                next_batch = executor.submit(batch, step + 1)
            value = loss(current)
            optimizer.zero_grad()
            value.backward()
            optimizer.step()
            schedule.step()
            if step % 10 == 0:
                bar.set_postfix(loss=f"{value.item():.3f}")
    network.eval().to(memory_format=torch.contiguous_format)
