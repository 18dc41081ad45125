"""A network that is ready to be read, and the steps that all ways of loading one share."""

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
"""Random seed of random weights, and of entries that a file of weights lacks."""

_PREFIX_TOKENS = re.compile(
    r"(?:cls|class|dist|distillation|reg|register|storage)(?:_tokens?|_embedding)?|cls_register_token"
)
"""Usual names of the parameters of class, distillation and register tokens."""


@dataclass(frozen=True)
class LoadedNetwork:
    """A network that is ready to be read.

    Attributes:
        model: the network on the CPU, in evaluation mode, float32.
        preprocessing: the network's own, or the one asked for; None if nothing states it.
        name: name in file names: lower case, dashes.
        missing: entries of the network's state that the weights lack. They are random, so
            activations that depend on them mean nothing.
        prefix: number of class and register tokens before the patch tokens, as the network
            declares it; None if it declares none and may have no tokens.
        source: record of what the network was made of, without absolute paths and times.
    """

    model: nn.Module
    preprocessing: Preprocessing | None
    name: str
    missing: tuple[str, ...] = ()
    prefix: int | None = None
    source: dict[str, Any] = field(default_factory=dict)

    @classmethod
    def from_module(
        cls,
        module: nn.Module,
        preprocessing: Preprocessing | None,
        *,
        spec: str,
        library: str,
        weights_record: dict[str, Any] | None,
        random: bool,
        missing: tuple[str, ...] = (),
        prefix: int | None = None,
        **more: Any,
    ) -> LoadedNetwork:
        """Return a network with the record of what it was made of.

        Args:
            module: the network; converted to float32 and evaluation mode in place.
            preprocessing: see `LoadedNetwork`.
            spec: name of the network, without folders.
            library: package that knows the network, besides torch; "" if none does.
            weights_record: which weights; None for random ones, and for those of a factory.
            random: random weights were asked for.
            missing: see `LoadedNetwork`.
            prefix: see `LoadedNetwork`.
            more: further entries of the record.
        """
        import torch

        versions = {"torch": str(torch.__version__)}
        if library:
            versions[library] = importlib.metadata.version(library)
        source = {
            "spec": spec,
            **more,
            "weights": weights_record,
            "random_seed": SEED if random else None,
            "missing": len(missing),
            "versions": versions,
        }
        model = module.float().eval()
        return cls(model, preprocessing, network_name(spec), missing, prefix, source)


def count_prefix_tokens(parameters: Iterable[tuple[str, Any]]) -> int:
    """Return the number of class and register tokens of a network, by the usual names.

    Args:
        parameters: (dotted name, parameter), as `named_parameters` yields them. Parameters inside
            a numbered block belong to that block alone, and are not counted.
    """
    count = 0
    for name, parameter in parameters:
        *path, last = name.split(".")
        if _PREFIX_TOKENS.fullmatch(last) and not any(part.isdigit() for part in path):
            # (..., token, width); a vector is one token
            count += 1 if parameter.ndim < 2 else int(parameter.shape[-2])
    return count


@contextmanager
def fixed_seed() -> Iterator[None]:
    """Draw random numbers with the seed `SEED`, and leave the caller's random state unchanged."""
    import torch

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(SEED)
        yield


def build_with_weights(
    build: Callable[..., nn.Module], path: str | Path | None, *, resize: bool
) -> tuple[nn.Module, tuple[str, ...], dict[str, Any] | None]:
    """Build a network and load the weights of a file into it.

    Args:
        build: function that builds the network; takes `num_classes` if `resize` is set.
        path: file of weights; None for random weights.
        resize: build the network with as many classes as the weights have, if the number of
            classes is all in which they do not fit.

    Returns:
        The network, the entries that the weights lack, and a record of the weights.

    Raises:
        InputError: see `weights.read` and `weights.load_into`.
    """
    if path is None:
        with fixed_seed():
            return build(), (), None
    state = weights.read(path)
    with fixed_seed():
        network = build()
        classes = weights.infer_class_count(network, state) if resize else None
        if classes is not None:
            network = build(num_classes=classes)
    missing = weights.load_into(network, state, path)
    return network, missing, {"file": Path(path).name, "sha256": sha256(path)}
