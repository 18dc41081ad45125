"""Networks that a function in a user's Python file returns."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from milannotations.errors import InputError
from milannotations.exemplars.networks.loaded_network import (
    LoadedNetwork,
    build_with_weights,
    count_prefix_tokens,
    fixed_seed,
)
from milannotations.exemplars.networks.preprocessing import Preprocessing
from milannotations.utils import python_file
from milannotations.utils.files import sha256

if TYPE_CHECKING:
    from torch import nn


def load(spec: str, path: str | Path | None, random: bool) -> LoadedNetwork:
    """Load the network that a factory in a user's file returns; see `loading.load_model`.

    Args:
        spec: `path/to/file.py:factory`.
        path: file of weights; None for those that the factory gives the network.
        random: random weights were asked for.
    """
    parsed = python_file.parse_spec(spec)
    assert parsed is not None
    file, factory = parsed
    network, preprocessing = call_factory(spec)
    missing: tuple[str, ...] = ()
    record: dict[str, Any] | None = None
    if path is not None:
        network, missing, record = build_with_weights(lambda: network, path, resize=False)
    return LoadedNetwork.from_module(
        network,
        preprocessing,
        spec=f"{file.name}:{factory}",
        library="",
        weights_record=record,
        random=random,
        missing=missing,
        prefix=count_prefix_tokens(network.named_parameters()) or None,
        file={"name": file.name, "sha256": sha256(file)},
    )


def call_factory(spec: str) -> tuple[nn.Module, Preprocessing | None]:
    """Return the module that the factory of a file returns, and its preprocessing or None.

    Args:
        spec: `path/to/file.py:name` of a factory, or of a module itself.

    Raises:
        InputError: no such file or object; the factory fails, or returns something else.
    """
    from torch import nn

    result = python_file.load_object(spec)
    parsed = python_file.parse_spec(spec)
    assert parsed is not None
    if not isinstance(result, nn.Module):
        if not callable(result):
            raise InputError(
                f"{spec} is a {type(result).__name__}; expected a function without arguments that "
                "returns a torch.nn.Module."
            )
        with python_file.run_user_code(parsed[0]), fixed_seed():
            result = result()
    preprocessing: Any = None
    if isinstance(result, tuple) and len(result) == 2:
        result, preprocessing = result
    if not isinstance(result, nn.Module):
        hint = ""
        if isinstance(result, dict):
            hint = "; that looks like its weights: load them into it"
        raise InputError(
            f"{spec} returned a {type(result).__name__}{hint}; expected a torch.nn.Module, or "
            "a module and its preprocessing (a callable: PIL image -> tensor)."
        )
    if preprocessing is not None:
        preprocessing = Preprocessing.from_transform(preprocessing)
    return result.eval(), preprocessing
