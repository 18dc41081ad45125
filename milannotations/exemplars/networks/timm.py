"""Networks of timm, where it is installed."""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import TYPE_CHECKING, Any

from milannotations.errors import InputError, did_you_mean, some
from milannotations.exemplars.networks.loaded_network import (
    LoadedNetwork,
    build_with_weights,
    fixed_seed,
)
from milannotations.exemplars.networks.preprocessing import Preprocessing

if TYPE_CHECKING:
    from torch import nn


def load(name: str, variant: str, path: str | Path | None, random: bool) -> LoadedNetwork:
    """Load a network of timm; see `loading.load_model`.

    Args:
        name: timm's name, with or without the tag of its weights (`resnet18.a1_in1k`).
        variant: that tag, `DEFAULT`, or "".
        path: file of weights, which takes precedence over those named; or None.
        random: random weights; a tag then selects the preprocessing alone.
    """
    timm = _import_timm()
    full_name, tag = _resolve(name, variant)
    spec = f"timm:{name}" + (f"@{variant}" if variant else "")
    if random and variant:
        raise InputError(f"{spec} names weights, and random ones were asked for; expected one.")
    if not (tag or path or random):
        raise InputError(
            f"{spec} names no weights. Add them: {spec}@DEFAULT (downloaded), or --weights FILE, "
            "or --random."
        )
    missing: tuple[str, ...] = ()
    record: dict[str, Any] | None
    if random or path is not None:

        def build(**more: int) -> nn.Module:
            return timm.create_model(full_name, pretrained=False, **more)

        network, missing, record = build_with_weights(build, path, resize=True)
    else:
        network, record = _download(full_name, spec), {"name": full_name, "sha256": None}
    return LoadedNetwork.from_module(
        network,
        Preprocessing.from_timm(network),
        spec=spec,
        library="timm",
        weights_record=record,
        random=random,
        missing=missing,
        prefix=getattr(network, "num_prefix_tokens", None),
    )


def preprocessing(name: str, variant: str) -> Preprocessing:
    """Return the preprocessing of a network without building it."""
    config = _import_timm().get_pretrained_cfg(_resolve(name, variant)[0])
    return Preprocessing.from_timm(config.to_dict())


def _import_timm() -> Any:
    try:
        return importlib.import_module("timm")
    except ModuleNotFoundError:
        raise InputError(
            "The library timm is not installed; names with timm: need it: pip install timm"
        ) from None


def _resolve(name: str, variant: str) -> tuple[str, str]:
    """Return timm's name of a network with the tag of its weights, and that tag or ""."""
    timm = _import_timm()
    bare_name, _, tag = name.partition(".")
    if not timm.is_model(bare_name):
        raise InputError(
            f"timm has no model '{bare_name}'.{did_you_mean(bare_name, timm.list_models())} "
            'See: python -c "import timm; print(timm.list_models())"'
        )
    tags = [
        tagged.partition(".")[2]
        for tagged in timm.list_models(f"{bare_name}*", pretrained=True, include_tags=True)
        if tagged.partition(".")[0] == bare_name
    ]
    if tag and variant not in ("", "DEFAULT", tag):
        raise InputError(f"timm:{name}@{variant} names two sets of weights; expected one.")
    chosen = tag or variant
    if chosen == "DEFAULT" and tags:
        chosen = timm.get_pretrained_cfg(bare_name).tag
        # a network may have weights that have no tag
        return (f"{bare_name}.{chosen}", chosen) if chosen else (bare_name, "DEFAULT")
    if chosen and chosen not in tags:
        raise InputError(
            f"timm has no weights '{chosen}' for {bare_name}.{did_you_mean(chosen, tags)} "
            + (f"Known: {some(tags, 10)}." if tags else "Give --weights FILE, or --random.")
        )
    return (f"{bare_name}.{chosen}" if chosen else bare_name), chosen


def _download(full_name: str, spec: str) -> nn.Module:
    """Return a network with published weights, from the hub's cache or downloaded."""
    timm = _import_timm()
    try:
        with fixed_seed():
            return timm.create_model(full_name, pretrained=True)
    except Exception as error:  # of the hub, requests, httpx or urllib
        config = timm.get_pretrained_cfg(full_name)
        raise InputError(
            f"{spec} could not be downloaded ({type(error).__name__}). Download model.safetensors "
            f"of {config.hf_hub_id or config.url} elsewhere and give it with --weights FILE, or "
            "put it into the hub's cache (HF_HOME)."
        ) from error
