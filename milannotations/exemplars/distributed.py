"""Processes that share a pass: `torchrun`, or any initialised process group.

Whole batches are dealt, so that what goes through the network together does not depend on how
many processes there are; tallies do not depend on the order of merging. Hence one process and
many give the same bits.
"""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, Protocol

_stopping = threading.Event()


@dataclass(frozen=True)
class Group:
    """This process's place: `rank` of `world`, and among those of this host."""

    rank: int = 0
    world: int = 1
    local_rank: int = 0


class Mergeable(Protocol):
    """Something whose state can be sent and merged."""

    def state_dict(self) -> dict[str, Any]: ...

    def add(self, state: dict[str, Any]) -> None: ...

    def restart(self) -> None: ...


def current() -> Group:
    """Return this process's place in the process group; alone where there is none."""
    import torch.distributed as dist

    if not (dist.is_available() and dist.is_initialized()):
        return Group()
    return Group(dist.get_rank(), dist.get_world_size(), int(os.environ.get("LOCAL_RANK", 0)))


@contextmanager
def joined() -> Iterator[Group]:
    """Join the process group that `torchrun` started, if it did, and leave it at the end.

    When one process dies `torchrun` asks the others to stop; `is_stopping` says so.
    """
    import torch
    import torch.distributed as dist

    if "WORLD_SIZE" not in os.environ or dist.is_initialized():
        yield current()
        return
    signal.signal(signal.SIGTERM, lambda *_: _stopping.set())
    backend = "cpu:gloo,cuda:nccl" if torch.cuda.is_available() else "gloo"
    # a process waits at the end for the slowest, which may take long
    dist.init_process_group(backend, timeout=timedelta(days=7))
    try:
        yield current()
    finally:
        dist.destroy_process_group()


def is_stopping() -> bool:
    """Say whether this process was asked to stop."""
    return _stopping.is_set()


def gathered(value: Any, group: Group) -> list[Any]:
    """Return the values of all processes, by rank."""
    if group.world == 1:
        return [value]
    import torch.distributed as dist

    values: list[Any] = [None] * group.world
    dist.all_gather_object(values, value)
    return values


def merge(work: Mergeable, group: Group) -> None:
    """Merge what all processes have seen; afterwards all of them have all of it.

    Raises:
        RuntimeError: another process is gone.
    """
    if group.world == 1:
        return
    import torch.distributed as dist

    if group.rank == 0:
        for other in range(1, group.world):  # one at a time: states are large
            received: list[Any] = [None]
            dist.recv_object_list(received, src=other)
            work.add(received[0])
        states: list[Any] = [work.state_dict()]
    else:
        dist.send_object_list([work.state_dict()], dst=0)
        states = [None]
    dist.broadcast_object_list(states, src=0)
    if group.rank != 0:
        work.restart()
        work.add(states[0])
