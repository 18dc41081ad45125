"""Networks by name: torchvision's, timm's, transformers', and those of one's own files."""

from __future__ import annotations

import importlib
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from milannotations.errors import InputError, did_you_mean
from milannotations.exemplars.networks import user_file
from milannotations.exemplars.networks.loaded_network import LoadedNetwork
from milannotations.exemplars.networks.preprocessing import Preprocessing
from milannotations.utils import python_file

if TYPE_CHECKING:
    from torch import nn

FORMS = (
    "torchvision:NAME[@WEIGHTS], timm:NAME[@WEIGHTS], hf:NAME_OR_FOLDER or path/to/file.py:factory"
)

LIBRARIES = {"torchvision": "torchvision", "timm": "timm", "hf": "transformers"}
"""What stands before the colon, and which module knows those networks."""

PREPROCESSING_FORMS = (
    "imagenet[:SIDE], torchvision:NAME[@WEIGHTS], timm:NAME, hf:FOLDER or path/to/file.py:name"
)


def load_model(
    spec: str,
    *,
    weights: str | Path | None = None,
    random: bool = False,
    preprocess: str | None = None,
) -> LoadedNetwork:
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
        preprocess: instead of the network's own preprocessing; see `parse_preprocessing`.

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
        loaded = user_file.load(spec, weights, random)
    else:
        library, name, variant = _parts(spec)
        loaded = library.load(name, variant, weights, random)
    if preprocess:
        loaded = replace(loaded, preprocessing=parse_preprocessing(preprocess))
    return loaded


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


def build_module(spec: str) -> nn.Module:
    """Return the module of `path/to/file.py:factory`, such as an SAE to lay over a layer.

    Raises:
        InputError: see `load_model`.
    """
    return user_file.call_factory(spec)[0]


def declared_preprocessing(spec: str) -> Preprocessing:
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


def parse_preprocessing(text: str) -> Preprocessing:
    """Return the preprocessing that a word on the command line stands for.

    Args:
        text: `imagenet`, `imagenet:32` (side), `imagenet:as-is` (no resizing);
            `torchvision:resnet50@IMAGENET1K_V2`; `timm:NAME`; `hf:FOLDER`; or
            `path/to/file.py:name`, a callable or a `Preprocessing`.

    Raises:
        InputError: it stands for none.

    Example:
        >>> tuple(parse_preprocessing("imagenet:64").blank().shape)
        (3, 64, 64)
    """
    if python_file.parse_spec(text):
        return Preprocessing.from_transform(python_file.load_object(text, "preprocessing"))
    kind, colon, rest = text.partition(":")
    if kind == "imagenet" and (not colon or rest == "as-is" or rest.isdecimal()):
        return Preprocessing.imagenet(None if rest == "as-is" else int(rest or 224))
    if kind in LIBRARIES and rest:
        return declared_preprocessing(text)
    kinds = ("imagenet", *LIBRARIES)
    raise InputError(
        f"No preprocessing '{text}'.{did_you_mean(kind, kinds)} Expected {PREPROCESSING_FORMS}."
    )


def _suggestion(spec: str) -> str:
    import torchvision

    name, at, variant = spec.rpartition(":")[2].partition("@")
    if name in torchvision.models.list_models():
        return f" Did you mean 'torchvision:{name}{at}{variant}'?"
    if Path(spec).is_dir():
        return f" Did you mean 'hf:{spec}'?"
    return did_you_mean(spec.partition(":")[0], LIBRARIES)
