"""Process groups that share a pass: `torchrun`, or any initialised process group.

Whole batches are dealt to the processes, so that which images go through the network together
does not depend on the number of processes; tallies do not depend on the order of merging. Hence
one process and many give the same bits.
"""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, Protocol

_stopping = threading.Event()


@dataclass(frozen=True)
class Group:
    """Index of this process.

    Attributes:
        rank: index among all processes.
        world: number of processes.
        local_rank: index among the processes of this host.
    """

    rank: int = 0
    world: int = 1
    local_rank: int = 0


class Mergeable(Protocol):
    """Work whose state can be sent to another process and merged there."""

    def state_dict(self) -> dict[str, Any]: ...

    def merge_state(self, state: Mapping[str, Any]) -> None: ...

    def reset(self) -> None: ...


def current() -> Group:
    """Return this process's index in the process group; the only one where there is no group."""
    import torch.distributed as dist

    if not (dist.is_available() and dist.is_initialized()):
        return Group()
    return Group(dist.get_rank(), dist.get_world_size(), int(os.environ.get("LOCAL_RANK", 0)))


@contextmanager
def joined() -> Iterator[Group]:
    """Join the process group that `torchrun` started, if it did, and leave it at the end.

    When one process dies, `torchrun` asks the others to stop; `is_stopping` returns True then.
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
    """Return whether this process was asked to stop."""
    return _stopping.is_set()


def gathered(value: Any, group: Group) -> list[Any]:
    """Return the values of all processes, by rank. Every process waits for all others."""
    if group.world == 1:
        return [value]
    import torch.distributed as dist

    values: list[Any] = [None] * group.world
    dist.all_gather_object(values, value)
    return values


def merge(work: Mergeable, group: Group) -> None:
    """Merge the states of all processes; afterwards every process has all of it.

    Raises:
        RuntimeError: another process is gone.
    """
    if group.world == 1:
        return
    import torch.distributed as dist

    # Step 1: rank 0 receives and merges one state after the other. States are large: a gather
    # would hold all of them in memory at once.
    if group.rank == 0:
        for other in range(1, group.world):
            received: list[Any] = [None]
            dist.recv_object_list(received, src=other)
            work.merge_state(received[0])
        states: list[Any] = [work.state_dict()]
    else:
        dist.send_object_list([work.state_dict()], dst=0)
        states = [None]
    # Step 2: rank 0 sends the merged state to all. The others forget their own share first, which
    # the merged state contains; otherwise it would be counted twice.
    dist.broadcast_object_list(states, src=0)
    if group.rank != 0:
        work.reset()
        work.merge_state(states[0])
