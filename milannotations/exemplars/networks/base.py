"""What all ways to a network share: random draws that repeat, weights put in, a record."""

from __future__ import annotations

import hashlib
import importlib.metadata
import re
import unicodedata
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from milannotations import catalog
from milannotations.exemplars.networks import weights
from milannotations.utils import python_file
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
class Loaded:
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


def default_name(spec: str, images_name: str) -> str:
    """Return the name of exemplars of a network on some images: config and network of an edition.

    Args:
        spec: as of `load_model`.
        images_name: of the folder or data set.

    Example:
        >>> default_name("torchvision:resnet18@DEFAULT", "imagenet-sample")
        'resnet18-imagenet-sample'
        >>> default_name("nets/Small_CNN.py:build", "val")
        'small-cnn-build-val'
    """
    made = f"{model_name(spec)}-{_slug(images_name) or 'images'}"
    if made in catalog.GROUPS:
        made += "-own"
    if len(made) > 100:
        made = f"{made[:91].strip('-')}-{hashlib.sha256(made.encode()).hexdigest()[:8]}"
    return catalog.canonical(made)


def model_name(spec: str) -> str:
    """Return a network's name in file names: without library, folder and `@WEIGHTS`.

    Example:
        >>> model_name("torchvision:vit_b_16"), model_name("hf:google/vit-base-patch16-224")
        ('vit-b-16', 'vit-base-patch16-224')
        >>> model_name("nets/resnet20.py:resnet20")
        'resnet20'
    """
    found = python_file.parse_spec(spec)
    if found is not None:
        stem, factory = _slug(found[0].stem), _slug(found[1])
        return stem if factory in ("", stem) else f"{stem}-{factory}"
    kind, _, rest = spec.partition(":")
    if kind == "hf" and Path(rest).exists():
        return _slug(Path(rest).resolve().name) or "model"
    return _slug((rest or kind).partition("@")[0].rstrip("/").rpartition("/")[2]) or "model"


def _slug(text: str) -> str:
    plain = unicodedata.normalize("NFKD", text).encode("ascii", "ignore").decode()
    return re.sub(r"[^a-z0-9]+", "-", plain.lower()).strip("-")


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


def filled(
    build: Callable[..., nn.Module], path: str | Path | None, *, resize: bool
) -> tuple[nn.Module, tuple[str, ...], dict[str, Any] | None]:
    """Return a network with the weights of a file, what they lack, and a record of them.

    Args:
        build: makes the network, and takes `num_classes` where `resize` says so.
        path: the file; None leaves the network as it is made.
        resize: make the network anew with as many classes as the weights tell apart, if that
            is all in which they do not fit.

    Raises:
        InputError: see `weights.read` and `weights.put`.
    """
    if path is None:
        with seeded():
            return build(), (), None
    state = weights.read(path)
    with seeded():
        network = build()
        number = weights.classes(network, state) if resize else None
        if number is not None:
            network = build(num_classes=number)
    missing = weights.put(network, state, path)
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
) -> Loaded:
    """Return a network with the record of what it was made of.

    Args:
        spec: without folders.
        library: what knows the network, besides torch, or "".
        used: which weights; None for random ones, and those that a factory gave.
        random, missing, prefix: see `load_model` and `Loaded`.
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
    return Loaded(network.float().eval(), preprocessing, model_name(spec), missing, prefix, source)
