"""Networks and preprocessing by name: of torchvision, timm, transformers, and users' files.

`load_model` is the one way from a name to a network: it returns the network, its preprocessing,
and a record of what both were made of.
"""

from __future__ import annotations

import importlib
import sys
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
"""Forms of a network's name, for messages."""

LIBRARIES = {"torchvision": "torchvision", "timm": "timm", "hf": "transformers"}
"""Module of this package that loads the networks of a library, by the word before the colon."""

PREPROCESSING_FORMS = (
    "imagenet[:SIDE], torchvision:NAME[@WEIGHTS], timm:NAME, hf:FOLDER or path/to/file.py:name"
)
"""Forms of a preprocessing's name, for messages."""


def load_model(
    spec: str,
    *,
    weights: str | Path | None = None,
    random: bool = False,
    preprocess: str | None = None,
) -> LoadedNetwork:
    """Load a network by name.

    - `torchvision:NAME@WEIGHTS`: weights by torchvision's name for them, or `DEFAULT`; downloaded
      unless torch's cache has them. `torchvision:NAME` needs `weights` or `random`. The
      preprocessing is that of the weights named, else of the published weights that the file
      `weights` is a copy of (by the digest in their published name), else of `DEFAULT`.
    - `timm:NAME@TAG`, `timm:NAME.TAG` or `timm:NAME@DEFAULT`: likewise, for timm.
    - `hf:FOLDER` or `hf:NAME[@REVISION]`: the network without its head, from a folder that
      `save_pretrained` wrote or a name on the hub; of a text-image model, the image encoder.
    - `path/to/file.py:factory`: `factory()` returns a module, or a module and its preprocessing
      (a callable: PIL image -> tensor).

    Args:
        spec: name of the network, see above.
        weights: file of weights, safetensors or .pth; see `weights.read`. It takes precedence over
            `@WEIGHTS`, and nothing is downloaded.
        random: random weights, of a fixed seed.
        preprocess: preprocessing instead of the network's own; see `parse_preprocessing`.

    Raises:
        InputError: no such network, weights or preprocessing; weights that do not fit it; no
            weights chosen; a library that is not installed; a network that cannot be downloaded.

    Example:
        >>> load_model("torchvision:squeezenet1_1", random=True).name
        'squeezenet1-1'
        >>> load_model("torchvision:resnet18")
        Traceback (most recent call last):
        ...
        milannotations.errors.InputError: torchvision:resnet18 names no weights. Add them: \
torchvision:resnet18@DEFAULT (IMAGENET1K_V1; downloaded), or --weights FILE, or --random.
    """
    if weights is not None and random:
        raise InputError(
            "Both a file of weights and random weights were asked for; expected one of them."
        )
    if python_file.parse_spec(spec):
        loaded = user_file.load(spec, weights, random)
    else:
        library, name, variant = _parse_spec(spec)
        loaded = library.load(name, variant, weights, random)
    if preprocess:
        loaded = replace(loaded, preprocessing=parse_preprocessing(preprocess))
    return loaded


def _parse_spec(spec: str) -> tuple[Any, str, str]:
    """Return the module that loads a library's networks, a network's name, and its variant."""
    library, _, rest = spec.partition(":")
    if library not in LIBRARIES or not rest:
        raise InputError(f"No model '{spec}'.{_suggestion(spec)} Expected {FORMS}.")
    module = importlib.import_module(f"milannotations.exemplars.networks.{LIBRARIES[library]}")
    name, at, variant = rest.rpartition("@")
    if not at or (library == "hf" and Path(rest).expanduser().exists()):
        return module, rest, ""
    return module, name, variant


def build_module(spec: str) -> nn.Module:
    """Return the module of `path/to/file.py:factory`, such as a sparse autoencoder's encoder.

    Raises:
        InputError: see `load_model`.
    """
    return user_file.call_factory(spec)[0]


def declared_preprocessing(spec: str) -> Preprocessing:
    """Return the preprocessing that a library declares for a network, without building it.

    Args:
        spec: network of a library, as for `load_model`.

    Raises:
        InputError: no such network; it declares no preprocessing.
    """
    library, name, variant = _parse_spec(spec)
    preprocessing: Preprocessing | None = library.preprocessing(name, variant)
    if preprocessing is None:
        raise InputError(f"{spec} declares no preprocessing (no preprocessor_config.json).")
    return preprocessing


def resolve_preprocessing(loaded: LoadedNetwork) -> Preprocessing:
    """Return a network's preprocessing; that of ImageNet, with a note, if it declares none."""
    if loaded.preprocessing is not None:
        return loaded.preprocessing
    print(
        f"{loaded.name} declares no preprocessing: images are resized to 256, cropped to 224 and "
        "normalised as for ImageNet. Another: --preprocess",
        file=sys.stderr,
    )
    return Preprocessing.imagenet()


def parse_preprocessing(text: str) -> Preprocessing:
    """Return the preprocessing of a name, as options of the command line take it.

    Args:
        text: `imagenet`, `imagenet:32` (side), `imagenet:as-is` (no resizing);
            `torchvision:resnet50@IMAGENET1K_V2`; `timm:NAME`; `hf:FOLDER`; or
            `path/to/file.py:name`, a callable or a `Preprocessing`.

    Raises:
        InputError: no such preprocessing.

    Example:
        >>> tuple(parse_preprocessing("imagenet:64").blank().shape)
        (3, 64, 64)
    """
    if python_file.parse_spec(text):
        return Preprocessing.from_transform(python_file.load_object(text, "preprocessing"))
    name, colon, rest = text.partition(":")
    if name == "imagenet" and (not colon or rest == "as-is" or rest.isdecimal()):
        return Preprocessing.imagenet(None if rest == "as-is" else int(rest or 224))
    if name in LIBRARIES and rest:
        return declared_preprocessing(text)
    names = ("imagenet", *LIBRARIES)
    raise InputError(
        f"No preprocessing '{text}'.{did_you_mean(name, names)} Expected {PREPROCESSING_FORMS}."
    )


def _suggestion(spec: str) -> str:
    """Return what a name that lacks its library may stand for, for a message."""
    import torchvision

    name, at, variant = spec.rpartition(":")[2].partition("@")
    if name in torchvision.models.list_models():
        return f" Did you mean 'torchvision:{name}{at}{variant}'?"
    if Path(spec).is_dir():
        return f" Did you mean 'hf:{spec}'?"
    return did_you_mean(spec.partition(":")[0], LIBRARIES)
