"""Settings of a pass over the images: batches, device, precision, checkpoints."""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

from annotated_types import Ge

from milannotations.errors import InputError

DTYPES = ("float32", "bfloat16", "float16")
"""Floating-point types that a network may compute in."""


def _print_to_stderr(line: str) -> None:
    print(line, file=sys.stderr)


@dataclass(frozen=True)
class RunConfig:
    """Settings of a pass of images through a network.

    Results depend on `read`, `dtype` and `seed` alone.

    Attributes:
        batch_size: images that go through the network together. Networks are not invariant to it
            in the last bits of float32.
        workers: processes that load images; 0 loads them between batches.
        device: cpu, cuda, cuda:1 or mps (default: the fastest available).
        dtype: arithmetic of the network: float32, bfloat16 or float16 (autocast). Tallies are
            kept in float32.
        read: a layer's output before (pre) or after (post) in-place operations, or auto.
        missing: entries of the network's state that its weights file lacks.
        prefix: number of class and register tokens before the patch tokens, as the network
            declares it (default: inferred from the shape).
        skip_bad: leave out images that cannot be read, and list them, instead of stopping.
        seed: random seed of the positions that quantiles are estimated from.
        checkpoint: folder in which an interrupted pass is kept.
        checkpoint_every: seconds between two checkpoints.
        progress: show a progress bar.
        tell: receives messages for the user, one line each.

    Raises:
        InputError: a batch size below 1, workers below 0, or an unknown dtype.
    """

    batch_size: Annotated[int, Ge(1)] = 32
    workers: Annotated[int, Ge(0)] = 0
    device: str | None = None
    dtype: str = "float32"
    read: str = "auto"
    missing: tuple[str, ...] = ()
    prefix: int | None = None
    skip_bad: bool = False
    seed: Annotated[int, Ge(0)] = 0
    checkpoint: Path | None = None
    checkpoint_every: float = 120.0
    progress: bool = False
    tell: Callable[[str], None] = field(default=_print_to_stderr, compare=False)

    def __post_init__(self) -> None:
        if self.batch_size < 1:
            raise InputError(f"Batch size is {self.batch_size}; expected at least 1.")
        if self.workers < 0:
            raise InputError(f"Number of workers is {self.workers}; expected at least 0.")
        if self.dtype not in DTYPES:
            raise InputError(f"No dtype '{self.dtype}' (dtypes: {', '.join(DTYPES)}).")
