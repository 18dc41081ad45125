"""Networks by name: torchvision's, timm's, transformers', and those of one's own files."""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import TYPE_CHECKING, Any

from milannotations.errors import InputError, did_you_mean
from milannotations.exemplars.networks.base import (
    SEED,
    Loaded,
    default_name,
    filled,
    model_name,
    prefix_tokens,
    record,
    seeded,
)
from milannotations.exemplars.networks.preprocessing import Preprocessing
from milannotations.utils import python_file
from milannotations.utils.files import sha256

if TYPE_CHECKING:
    from torch import nn

__all__ = [
    "SEED",
    "Loaded",
    "default_name",
    "load_model",
    "load_module",
    "model_name",
    "preprocessing_of",
]

FORMS = (
    "torchvision:NAME[@WEIGHTS], timm:NAME[@WEIGHTS], hf:NAME_OR_FOLDER or path/to/file.py:factory"
)

LIBRARIES = {"torchvision": "torchvision", "timm": "timm", "hf": "transformers"}
"""What stands before the colon, and which module knows those networks."""


def load_model(spec: str, *, weights: str | Path | None = None, random: bool = False) -> Loaded:
    """Return a network by name.

    - `torchvision:NAME@WEIGHTS`: weights by torchvision's name for them, or `DEFAULT`; fetched
      unless torch's cache has them. `torchvision:NAME` needs `weights` or `random`. Its
      preprocessing is that of the weights named, else of those that `weights` is a copy of (by
      the digest in their published name), else of DEFAULT.
    - `timm:NAME@TAG`, `timm:NAME.TAG` or `timm:NAME@DEFAULT`: likewise, of timm.
    - `hf:FOLDER` or `hf:NAME[@REVISION]`: the network without its head, of a folder that
      `save_pretrained` wrote or a name on the hub; of a text-image model, the part that sees.
    - `path/to/file.py:factory`: `factory()` gives a module, or a module and its preprocessing
      (a callable: PIL picture -> tensor).

    Args:
        spec: see above.
        weights: a file of weights, safetensors or .pth; see `weights.read`. With `@WEIGHTS` it
            takes their place, and nothing is fetched.
        random: random weights, of a fixed seed.

    Raises:
        InputError: no such network or weights; weights that do not fit it; no weights asked
            for; a library that is not installed; the network cannot be reached.

    Example:
        >>> load_model("torchvision:squeezenet1_1", random=True).name
        'squeezenet1-1'
        >>> load_model("torchvision:resnet18")
        Traceback (most recent call last):
        ...
        milannotations.errors.InputError: torchvision:resnet18 says no weights. Add them: \
torchvision:resnet18@DEFAULT (IMAGENET1K_V1; fetched), or --weights FILE, or --random.
    """
    if weights is not None and random:
        raise InputError("Both weights and random weights were asked for; expected one of them.")
    if python_file.parse_spec(spec):
        return _file(spec, weights, random)
    library, name, variant = _parts(spec)
    return library.load(name, variant, weights, random)


def _parts(spec: str) -> tuple[Any, str, str]:
    """Return the module that knows a library's networks, a network's name, and its variant."""
    kind, _, rest = spec.partition(":")
    if kind not in LIBRARIES or not rest:
        raise InputError(f"No model '{spec}'.{_suggestion(spec)} Expected {FORMS}.")
    library = importlib.import_module(f"milannotations.exemplars.networks.{LIBRARIES[kind]}")
    name, at, variant = rest.rpartition("@")
    if not at or (kind == "hf" and Path(rest).expanduser().exists()):
        return library, rest, ""
    return library, name, variant


def load_module(spec: str) -> nn.Module:
    """Return the module of `path/to/file.py:factory`, such as an SAE to lay over a layer.

    Raises:
        InputError: see `load_model`.
    """
    return _made(spec)[0]


def preprocessing_of(spec: str) -> Preprocessing:
    """Return the preprocessing of a network of a library, without making the network.

    Args:
        spec: as of `load_model`.

    Raises:
        InputError: no such network; it says nothing of its preprocessing.
    """
    library, name, variant = _parts(spec)
    made: Preprocessing | None = library.preprocessing(name, variant)
    if made is None:
        raise InputError(f"{spec} says nothing of preprocessing (no preprocessor_config.json).")
    return made


def _suggestion(spec: str) -> str:
    import torchvision

    name, at, variant = spec.rpartition(":")[2].partition("@")
    if name in torchvision.models.list_models():
        return f" Did you mean 'torchvision:{name}{at}{variant}'?"
    if Path(spec).is_dir():
        return f" Did you mean 'hf:{spec}'?"
    return did_you_mean(spec.partition(":")[0], LIBRARIES)


def _file(spec: str, path: str | Path | None, random: bool) -> Loaded:
    found = python_file.parse_spec(spec)
    assert found is not None
    network, preprocessing = _made(spec)
    missing: tuple[str, ...] = ()
    used: dict[str, Any] | None = None
    if path is not None:
        network, missing, used = filled(lambda: network, path, resize=False)
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


def _made(spec: str) -> tuple[nn.Module, Preprocessing | None]:
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
        preprocessing = Preprocessing.of_transform(preprocessing)
    return made.eval(), preprocessing
