"""Digest of a network's parameters and buffers."""

from __future__ import annotations

import hashlib
from typing import Any


def network_digest(network: Any) -> str | None:
    """Return the sha256 of a network's parameters and buffers, by name, type and shape.

    Returns:
        The digest in hexadecimal; None for a function, which has no parameters.
    """
    import torch

    if not isinstance(network, torch.nn.Module):
        return None
    digest = hashlib.sha256()
    for name, value in sorted(network.state_dict().items()):
        digest.update(f"{name} {value.dtype} {tuple(value.shape)} ".encode())
        # as bytes, since numpy has no bfloat16
        digest.update(value.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy())
    return digest.hexdigest()
