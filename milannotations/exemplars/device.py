"""Choice of the device that a network runs on, and its out-of-memory errors."""

from __future__ import annotations

from typing import TYPE_CHECKING

from milannotations.errors import InputError

if TYPE_CHECKING:
    import torch

    from milannotations.exemplars.distributed import Group


def best_device(group: Group | None = None) -> str:
    """Return the fastest available device: `cuda:N`, `mps` or `cpu`.

    Args:
        group: this process among those of a distributed run, so that the processes of a host
            take different GPUs.
    """
    import torch

    if torch.cuda.is_available():
        return f"cuda:{(group.local_rank if group else 0) % torch.cuda.device_count()}"
    return "mps" if torch.backends.mps.is_available() else "cpu"


def open_device(name: str) -> torch.device:
    """Return the device of a name.

    Raises:
        InputError: this machine has no such device.
    """
    import torch

    try:
        device = torch.device(name)
        torch.empty(0, device=device)  # a name may be valid and the device absent
    except (RuntimeError, AssertionError) as error:
        raise InputError(f"No device '{name}' here: {str(error).splitlines()[0]}") from None
    return device


def is_out_of_memory(error: RuntimeError) -> bool:
    """Return whether torch ran out of a device's memory, or of the machine's."""
    import torch

    message = str(error)
    return (
        isinstance(error, torch.cuda.OutOfMemoryError)
        or "out of memory" in message
        or "can't allocate memory" in message
    )
