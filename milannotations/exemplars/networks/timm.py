"""Networks of timm, where it is installed."""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import TYPE_CHECKING, Any

from milannotations.errors import InputError, did_you_mean, some
from milannotations.exemplars.networks.loaded_network import (
    LoadedNetwork,
    build_with_weights,
    record,
    seeded,
)
from milannotations.exemplars.networks.preprocessing import Preprocessing

if TYPE_CHECKING:
    from torch import nn


def load(name: str, variant: str, path: str | Path | None, random: bool) -> LoadedNetwork:
    """Return a network of timm; see `models.load_model`.

    Args:
        name: timm's, with or without the tag of weights (`resnet18.a1_in1k`).
        variant: that tag, `DEFAULT`, or "".
        path: a file of weights, or None; takes the place of those named.
        random: random weights; a tag then says the preprocessing alone.
    """
    timm = _library()
    full, tag = _resolved(name, variant)
    spec = f"timm:{name}" + (f"@{variant}" if variant else "")
    if random and variant:
        raise InputError(f"{spec} names weights, and random ones were asked for; expected one.")
    if not (tag or path or random):
        raise InputError(
            f"{spec} says no weights. Add them: {spec}@DEFAULT (fetched), or --weights FILE, or "
            "--random."
        )
    missing: tuple[str, ...] = ()
    used: dict[str, Any] | None
    if random or path is not None:

        def build(**more: int) -> nn.Module:
            return timm.create_model(full, pretrained=False, **more)

        network, missing, used = build_with_weights(build, path, resize=True)
    else:
        network, used = _fetched(full, spec), {"name": full, "sha256": None}
    return record(
        spec,
        network,
        Preprocessing.from_timm(network),
        library="timm",
        used=used,
        random=random,
        missing=missing,
        prefix=getattr(network, "num_prefix_tokens", None),
    )


def preprocessing(name: str, variant: str) -> Preprocessing:
    """Return the preprocessing of a network without making it."""
    config = _library().get_pretrained_cfg(_resolved(name, variant)[0])
    return Preprocessing.from_timm(config.to_dict())


def _library() -> Any:
    try:
        return importlib.import_module("timm")
    except ModuleNotFoundError:
        raise InputError("timm: names need the library timm: pip install timm") from None


def _resolved(name: str, variant: str) -> tuple[str, str]:
    """Return timm's name of a network, with the tag of its weights, and that tag or ""."""
    timm = _library()
    bare, _, tag = name.partition(".")
    if not timm.is_model(bare):
        raise InputError(
            f"timm has no model '{bare}'.{did_you_mean(bare, timm.list_models())} "
            'See: python -c "import timm; print(timm.list_models())"'
        )
    tags = [
        each.partition(".")[2]
        for each in timm.list_models(f"{bare}*", pretrained=True, include_tags=True)
        if each.partition(".")[0] == bare
    ]
    if tag and variant not in ("", "DEFAULT", tag):
        raise InputError(f"timm:{name}@{variant} names two sets of weights; expected one.")
    wanted = tag or variant
    if wanted == "DEFAULT" and tags:
        wanted = timm.get_pretrained_cfg(bare).tag
        return (f"{bare}.{wanted}", wanted) if wanted else (bare, "DEFAULT")
    if wanted and wanted not in tags:
        raise InputError(
            f"timm has no weights '{wanted}' for {bare}.{did_you_mean(wanted, tags)} "
            + (f"Known: {some(tags, 10)}." if tags else "Give --weights FILE, or --random.")
        )
    return (f"{bare}.{wanted}" if wanted else bare), wanted


def _fetched(full: str, spec: str) -> nn.Module:
    timm = _library()
    try:
        with seeded():
            return timm.create_model(full, pretrained=True)
    except Exception as error:  # the hub's, requests', httpx's and urllib's
        config = timm.get_pretrained_cfg(full)
        raise InputError(
            f"{spec} could not be fetched ({type(error).__name__}). Fetch model.safetensors of "
            f"{config.hf_hub_id or config.url} elsewhere and give it with --weights FILE, or put "
            "it into the hub's cache (HF_HOME)."
        ) from error
