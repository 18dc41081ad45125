"""Networks that a function in a user's Python file returns."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from milannotations.errors import InputError
from milannotations.exemplars.networks.loaded_network import (
    LoadedNetwork,
    build_with_weights,
    prefix_tokens,
    record,
    seeded,
)
from milannotations.exemplars.networks.preprocessing import Preprocessing
from milannotations.utils import python_file
from milannotations.utils.files import sha256

if TYPE_CHECKING:
    from torch import nn


def load(spec: str, path: str | Path | None, random: bool) -> LoadedNetwork:
    """Return the network that a factory in a user's file makes; see `loading.load_model`.

    Args:
        spec: `path/to/file.py:factory`.
        path: a file of weights, or None.
        random: whether random weights were asked for.
    """
    found = python_file.parse_spec(spec)
    assert found is not None
    network, preprocessing = call_factory(spec)
    missing: tuple[str, ...] = ()
    used: dict[str, Any] | None = None
    if path is not None:
        network, missing, used = build_with_weights(lambda: network, path, resize=False)
    return record(
        f"{found[0].name}:{found[1]}",
        network,
        preprocessing,
        library="",
        used=used,
        random=random,
        missing=missing,
        prefix=prefix_tokens(network.named_parameters()) or None,
        file={"name": found[0].name, "sha256": sha256(found[0])},
    )


def call_factory(spec: str) -> tuple[nn.Module, Preprocessing | None]:
    """Return what the factory of a file makes: a module, and its preprocessing or None."""
    from torch import nn

    made = python_file.load_object(spec)
    found = python_file.parse_spec(spec)
    assert found is not None
    if not isinstance(made, nn.Module):
        if not callable(made):
            raise InputError(
                f"{spec} is a {type(made).__name__}; expected a function without arguments that "
                "returns a torch.nn.Module."
            )
        with python_file.run_user_code(found[0]), seeded():
            made = made()
    preprocessing: Any = None
    if isinstance(made, tuple) and len(made) == 2:
        made, preprocessing = made
    if not isinstance(made, nn.Module):
        state = isinstance(made, dict) and "; that looks like its weights: load them into it"
        raise InputError(
            f"{spec} returned a {type(made).__name__}{state or ''}; expected a torch.nn.Module, or "
            "a module and its preprocessing (a callable: PIL picture -> tensor)."
        )
    if preprocessing is not None:
        preprocessing = Preprocessing.from_transform(preprocessing)
    return made.eval(), preprocessing
