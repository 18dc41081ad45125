"""What all ways to a network share: random draws that repeat, weights put in, a record."""

from __future__ import annotations

import importlib.metadata
import re
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from milannotations.exemplars.networks import weights
from milannotations.exemplars.networks.names import network_name
from milannotations.utils.files import sha256

if TYPE_CHECKING:
    from torch import nn

    from milannotations.exemplars.networks.preprocessing import Preprocessing

SEED = 0
"""Of random weights, and of entries that a file of weights lacks."""

_PREFIXES = re.compile(
    r"(?:cls|class|dist|distillation|reg|register|storage)(?:_tokens?|_embedding)?|cls_register_token"
)


@dataclass(frozen=True)
class LoadedNetwork:
    """A network, ready to be looked into.

    Attributes:
        model: on the CPU, in evaluation mode, float32.
        preprocessing: its own; None where nothing says what it is.
        name: its name in file names: lower case, dashes.
        missing: entries of its state that the weights lack, and which are random: what comes
            after them in the network means nothing.
        prefix: class and register tokens before the tokens of patches, as the network declares
            them; None where it declares none and may have no tokens.
        source: what it was made of, for a record: no absolute paths, no times.
    """

    model: nn.Module
    preprocessing: Preprocessing | None
    name: str
    missing: tuple[str, ...] = ()
    prefix: int | None = None
    source: dict[str, Any] = field(default_factory=dict)


def prefix_tokens(names: Iterable[tuple[str, Any]]) -> int:
    """Count class and register tokens among a network's parameters, by their usual names.

    Args:
        names: (dotted name, parameter), as `named_parameters` gives them. What stands inside a
            numbered block is of that block alone, and is not counted.
    """
    count = 0
    for name, parameter in names:
        *path, last = name.split(".")
        if _PREFIXES.fullmatch(last) and not any(part.isdigit() for part in path):
            count += 1 if parameter.ndim < 2 else int(parameter.shape[-2])
    return count


@contextmanager
def seeded() -> Iterator[None]:
    """Draw as if the process had just begun with the seed `SEED`; leave the caller's draws be."""
    import torch

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(SEED)
        yield


def build_with_weights(
    build: Callable[..., nn.Module], path: str | Path | None, *, resize: bool
) -> tuple[nn.Module, tuple[str, ...], dict[str, Any] | None]:
    """Return a network with the weights of a file, what they lack, and a record of them.

    Args:
        build: makes the network, and takes `num_classes` where `resize` says so.
        path: the file; None leaves the network as it is made.
        resize: make the network anew with as many classes as the weights tell apart, if that
            is all in which they do not fit.

    Raises:
        InputError: see `weights.read` and `weights.load_into`.
    """
    if path is None:
        with seeded():
            return build(), (), None
    state = weights.read(path)
    with seeded():
        network = build()
        number = weights.infer_class_count(network, state) if resize else None
        if number is not None:
            network = build(num_classes=number)
    missing = weights.load_into(network, state, path)
    return network, missing, {"file": Path(path).name, "sha256": sha256(path)}


def record(
    spec: str,
    network: nn.Module,
    preprocessing: Preprocessing | None,
    *,
    library: str,
    used: dict[str, Any] | None,
    random: bool,
    missing: tuple[str, ...] = (),
    prefix: int | None = None,
    **more: Any,
) -> LoadedNetwork:
    """Return a network with the record of what it was made of.

    Args:
        spec: without folders.
        library: what knows the network, besides torch, or "".
        used: which weights; None for random ones, and those that a factory gave.
        random, missing, prefix: see `load_model` and `LoadedNetwork`.
        more: further entries of the record.
    """
    import torch

    versions = {"torch": str(torch.__version__)}
    if library:
        versions[library] = importlib.metadata.version(library)
    source = {
        "spec": spec,
        **more,
        "weights": used,
        "random_seed": SEED if random else None,
        "missing": len(missing),
        "versions": versions,
    }
    return LoadedNetwork(
        network.float().eval(), preprocessing, network_name(spec), missing, prefix, source
    )
