"""Networks of torchvision."""

from __future__ import annotations

import inspect
import re
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any

from milannotations.errors import InputError, did_you_mean
from milannotations.exemplars.networks.loaded_network import (
    LoadedNetwork,
    build_with_weights,
    prefix_tokens,
    record,
)
from milannotations.exemplars.networks.preprocessing import Preprocessing
from milannotations.utils.files import sha256

if TYPE_CHECKING:
    from torch import nn


def load(name: str, variant: str, path: str | Path | None, random: bool) -> LoadedNetwork:
    """Return a network of torchvision; see `models.load_model`.

    Args:
        name: torchvision's.
        variant: of its weights, `DEFAULT`, or "".
        path: a file of weights, or None.
        random: random weights.
    """
    import torchvision

    enumeration = list_weights(name)
    spec = f"torchvision:{name}" + (f"@{variant}" if variant else "")
    chosen = _member(enumeration, variant) if variant else None
    if random and chosen:
        raise InputError(f"{spec} names weights, and random ones were asked for; expected one.")
    if not (chosen or path or random):
        default = enumeration.__members__.get("DEFAULT")
        fetched = f"{spec}@DEFAULT ({default.name}; fetched), or " if default else ""
        raise InputError(f"{spec} says no weights. Add them: {fetched}--weights FILE, or --random.")
    missing: tuple[str, ...] = ()
    used: dict[str, Any] | None
    if path is None and chosen is not None:
        network, used = _fetched(name, chosen)
    else:
        options: dict[str, Any] = {"weights": None}
        builder = torchvision.models.get_model_builder(name)
        if "weights_backbone" in inspect.signature(builder).parameters:
            options["weights_backbone"] = None  # else those are fetched

        def build(**more: int) -> nn.Module:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # of how slowly some initialise
                return torchvision.models.get_model(name, **options, **more)

        network, missing, used = build_with_weights(build, path, resize=True)
        if path is not None and hasattr(network, "transform_input"):
            network.transform_input = True  # as get_model does for the published weights
    digest = str(used["sha256"]) if used else ""
    return record(
        spec,
        network,
        preprocessing(name, variant, digest),
        library="torchvision",
        used=used,
        random=random,
        missing=missing,
        prefix=prefix_tokens(network.named_parameters()) or None,
    )


def list_weights(name: str) -> Any:
    """Return torchvision's enumeration of the weights of a network; InputError if none is so."""
    import torchvision

    known = torchvision.models.list_models()
    if name not in known:
        raise InputError(
            f"torchvision has no model '{name}'.{did_you_mean(name, known)} It has {len(known)}: "
            'python -c "import torchvision; print(torchvision.models.list_models())"'
        )
    return torchvision.models.get_model_weights(name)


def preprocessing(name: str, variant: str, digest: str = "") -> Preprocessing:
    """Return the preprocessing of weights.

    Args:
        name: of the network.
        variant: of the weights, or "".
        digest: sha256 of a file of weights. If the published name of some weights carries its
            beginning, the file is a copy of those, and theirs is the preprocessing.
    """
    enumeration = list_weights(name)
    copies = [w for w in enumeration if _is_copy(w.url, digest)]
    if variant:
        return Preprocessing.from_torchvision(_member(enumeration, variant))
    if copies:
        return Preprocessing.from_torchvision(copies[0])
    if "DEFAULT" in enumeration.__members__:
        return Preprocessing.from_torchvision(enumeration["DEFAULT"])
    return Preprocessing.imagenet()


def _member(enumeration: Any, variant: str) -> Any:
    names = list(enumeration.__members__)
    wanted = variant.rpartition(".")[2]  # ResNet18_Weights.DEFAULT
    if wanted not in names:
        raise InputError(
            f"{enumeration.__name__} has no '{variant}'.{did_you_mean(wanted, names)} "
            f"Known: {', '.join(names)}."
        )
    return enumeration[wanted]


def _is_copy(url: str, digest: str) -> bool:
    found = re.search(r"-([0-9a-f]{8,})\.\w+$", url)
    return bool(digest and found and digest.startswith(found[1]))


def _fetched(name: str, chosen: Any) -> tuple[nn.Module, dict[str, Any]]:
    import torch
    import torchvision

    file = Path(torch.hub.get_dir()) / "checkpoints" / chosen.url.rpartition("/")[2]
    try:
        network = torchvision.models.get_model(name, weights=chosen)
    except (OSError, RuntimeError) as error:  # URLError is an OSError; RuntimeError: wrong digest
        raise InputError(
            f"{chosen} could not be fetched ({error}). Fetch {chosen.url} elsewhere and put it at "
            f"{file}, or give it with --weights FILE."
        ) from error
    return network, {"name": str(chosen), "sha256": sha256(file) if file.is_file() else None}
