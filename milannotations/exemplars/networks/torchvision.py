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
    count_prefix_tokens,
)
from milannotations.exemplars.networks.preprocessing import Preprocessing
from milannotations.utils.files import sha256

if TYPE_CHECKING:
    from torch import nn


def load(name: str, variant: str, path: str | Path | None, random: bool) -> LoadedNetwork:
    """Load a network of torchvision; see `loading.load_model`.

    Args:
        name: torchvision's name.
        variant: name of its weights, `DEFAULT`, or "".
        path: file of weights, or None.
        random: random weights were asked for.
    """
    import torchvision

    enumeration = list_weights(name)
    spec = f"torchvision:{name}" + (f"@{variant}" if variant else "")
    chosen = _find_weights(enumeration, variant) if variant else None
    if random and chosen:
        raise InputError(f"{spec} names weights, and random ones were asked for; expected one.")
    if not (chosen or path or random):
        default = enumeration.__members__.get("DEFAULT")
        download = f"{spec}@DEFAULT ({default.name}; downloaded), or " if default else ""
        raise InputError(
            f"{spec} names no weights. Add them: {download}--weights FILE, or --random."
        )
    missing: tuple[str, ...] = ()
    record: dict[str, Any] | None
    if path is None and chosen is not None:
        network, record = _download(name, chosen)
    else:
        options: dict[str, Any] = {"weights": None}
        builder = torchvision.models.get_model_builder(name)
        # detectors and the like download weights of their backbone unless told not to
        if "weights_backbone" in inspect.signature(builder).parameters:
            options["weights_backbone"] = None

        def build(**more: int) -> nn.Module:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # GoogLeNet and Inception warn of slow random draws
                return torchvision.models.get_model(name, **options, **more)

        network, missing, record = build_with_weights(build, path, resize=True)
        # GoogLeNet and Inception: get_model sets it for the published weights, which need it
        if path is not None and hasattr(network, "transform_input"):
            network.transform_input = True
    digest = str(record["sha256"]) if record else ""
    return LoadedNetwork.from_module(
        network,
        preprocessing(name, variant, digest),
        spec=spec,
        library="torchvision",
        weights_record=record,
        random=random,
        missing=missing,
        prefix=count_prefix_tokens(network.named_parameters()) or None,
    )


def list_weights(name: str) -> Any:
    """Return torchvision's enumeration of the weights of a network.

    Raises:
        InputError: torchvision has no such network.
    """
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
        name: name of the network.
        variant: name of the weights, or "".
        digest: sha256 of a file of weights. Published files carry the beginning of theirs in
            their name; if it is that of the file, the file is a copy and its preprocessing known.
    """
    enumeration = list_weights(name)
    copies = [weights for weights in enumeration if _is_copy(weights.url, digest)]
    if variant:
        return Preprocessing.from_torchvision(_find_weights(enumeration, variant))
    if copies:
        return Preprocessing.from_torchvision(copies[0])
    if "DEFAULT" in enumeration.__members__:
        return Preprocessing.from_torchvision(enumeration["DEFAULT"])
    return Preprocessing.imagenet()


def _find_weights(enumeration: Any, variant: str) -> Any:
    names = list(enumeration.__members__)
    name = variant.rpartition(".")[2]  # ResNet18_Weights.DEFAULT
    if name not in names:
        raise InputError(
            f"{enumeration.__name__} has no '{variant}'.{did_you_mean(name, names)} "
            f"Known: {', '.join(names)}."
        )
    return enumeration[name]


def _is_copy(url: str, digest: str) -> bool:
    match = re.search(r"-([0-9a-f]{8,})\.\w+$", url)
    return bool(digest and match and digest.startswith(match[1]))


def _download(name: str, chosen: Any) -> tuple[nn.Module, dict[str, Any]]:
    """Return a network with published weights, from torch's cache or downloaded, and a record."""
    import torch
    import torchvision

    file = Path(torch.hub.get_dir()) / "checkpoints" / chosen.url.rpartition("/")[2]
    try:
        network = torchvision.models.get_model(name, weights=chosen)
    # URLError is an OSError; torch raises RuntimeError for a wrong digest
    except (OSError, RuntimeError) as error:
        raise InputError(
            f"{chosen} could not be downloaded ({error}). Download {chosen.url} elsewhere and put "
            f"it at {file}, or give it with --weights FILE."
        ) from error
    return network, {"name": str(chosen), "sha256": sha256(file) if file.is_file() else None}
