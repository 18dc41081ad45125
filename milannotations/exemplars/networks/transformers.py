"""Vision networks of transformers, from a folder or by their name on the hub."""

from __future__ import annotations

import inspect
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from milannotations.errors import InputError, some
from milannotations.exemplars.networks import weights
from milannotations.exemplars.networks.loaded_network import (
    LoadedNetwork,
    count_prefix_tokens,
    fixed_seed,
)
from milannotations.exemplars.networks.preprocessing import Preprocessing
from milannotations.utils.files import sha256


def load(name: str, variant: str, path: str | Path | None, random: bool) -> LoadedNetwork:
    """Load the network of a folder or name; see `loading.load_model`.

    Args:
        name: folder that `save_pretrained` wrote, or name on the hub.
        variant: revision on the hub, or "".
        path: file of weights instead of its own, under any names that transformers can translate;
            the rest of a larger model is ignored. Or None.
        random: random weights.
    """
    revision = variant or None
    state = weights.read(path) if path is not None else None
    location = _check_location(name)
    with _explain_network_errors(name), silence_transformers(), fixed_seed():
        config, network_class = _vision_class(location, revision)
        options: dict[str, Any] = {"output_loading_info": True, "ignore_mismatched_sizes": True}
        if random:
            network, info = network_class._from_config(config), {}
        elif state is None:
            network, info = network_class.from_pretrained(location, revision=revision, **options)
        else:
            state = {key.removeprefix("module."): value for key, value in state.items()}
            network, info = network_class.from_pretrained(
                None, config=config, state_dict=state, **options
            )
    missing = _missing_entries(network, info, path or name)
    prefix: int | None = count_prefix_tokens(network.named_parameters())
    if not prefix and getattr(config, "patch_size", None) is None:
        prefix = None  # a convolutional network: 0 would state that it has tokens
    record: dict[str, Any] | None
    if random:
        record = None
    elif path is not None:
        record = {"file": Path(path).name, "sha256": sha256(path)}
    else:
        record = _describe_own_weights(location, network)
    shown = Path(location).resolve().name if os.path.isdir(location) else name
    return LoadedNetwork.from_module(
        network,
        preprocessing(name, variant),
        spec=f"hf:{shown}" + (f"@{variant}" if variant else ""),
        library="transformers",
        weights_record=record,
        random=random,
        missing=missing,
        prefix=prefix,
    )


def _missing_entries(network: Any, info: Any, source: str | Path) -> tuple[str, ...]:
    """Return the entries of a network that its weights lack.

    Raises:
        InputError: all are missing, or some have another shape.
    """
    entries = [key for key in network.state_dict() if not key.endswith(weights.BATCH_COUNTER)]
    mismatched = info.get("mismatched_keys", ())
    if mismatched:
        # tuples with both shapes, or names alone, by the version of transformers
        names = sorted(entry if isinstance(entry, str) else entry[0] for entry in mismatched)
        raise InputError(
            f"{source} does not fit this network; of other shapes are {some(names, 3)}."
        )
    lacking = set(info.get("missing_keys", ()))
    missing = tuple(key for key in entries if key in lacking)
    if missing and len(missing) == len(entries):
        raise InputError(
            f"{source} holds no weights of this network; expected names such as {some(entries, 3)}."
        )
    return missing


def preprocessing(name: str, variant: str) -> Preprocessing | None:
    """Return the preprocessing that a folder or name declares, or None if it declares none."""
    from transformers import AutoImageProcessor

    location = _check_location(name)
    names = ("preprocessor_config.json", "processor_config.json", "image_processor_config.json")
    if os.path.isdir(location) and not any(
        os.path.isfile(os.path.join(location, file)) for file in names
    ):
        return None
    with _explain_network_errors(name), silence_transformers():
        processor = AutoImageProcessor.from_pretrained(location, revision=variant or None)
    return Preprocessing.from_hf(processor)


def _check_location(name: str) -> str:
    """Return a folder or name as transformers takes it.

    Raises:
        InputError: a file, a folder without config.json, or a path that does not exist, which
            transformers would look for on the hub.
    """
    folder = Path(name).expanduser()
    if folder.is_dir():
        if not (folder / "config.json").is_file():
            raise InputError(
                f"{name} has no config.json; expected a folder that save_pretrained wrote. "
                f"It holds {some(sorted(os.listdir(folder))) or 'nothing'}."
            )
        return str(folder)
    if folder.exists():
        raise InputError(f"{name} is a file; expected a folder that save_pretrained wrote.")
    if name.count("/") > 1 or name.startswith((".", "/", "~")) or "\\" in name:
        raise InputError(f"No such folder: {name}")
    return name


def _vision_class(location: str, revision: str | None) -> tuple[Any, Any]:
    """Return the config and class of a network that takes images and nothing else.

    Raises:
        InputError: transformers has no such network for the config.
    """
    from transformers import AutoConfig
    from transformers.models.auto.modeling_auto import MODEL_MAPPING

    config = AutoConfig.from_pretrained(location, revision=revision)
    if getattr(config, "vision_config", None) is not None:
        config = config.vision_config  # CLIP, SigLIP: the image encoder
    network_class = MODEL_MAPPING.get(type(config), None)
    if isinstance(network_class, (tuple, list)):
        network_class = network_class[0]
    if network_class is None:
        raise InputError(
            f"transformers has no network without a head for '{config.model_type}'. Load it in a "
            "file of your own: path/to/file.py:factory."
        )
    name = network_class.__name__
    first = list(inspect.signature(network_class.forward).parameters)[1]  # after self
    if first != "pixel_values":
        raise InputError(
            f"{name} takes {first} first, not pixel_values: it is not a vision network. Load its "
            "image encoder in a file of your own: path/to/file.py:factory."
        )
    if getattr(config, "mask_ratio", None):
        raise InputError(
            f"{name} masks parts of each image at random. Load the network without masking (for "
            "vit_mae: ViTModel) in a file of your own: path/to/file.py:factory."
        )
    return config, network_class


def _describe_own_weights(location: str, network: Any) -> dict[str, Any]:
    """Return the record of a network's own weights: digest of a folder's, or the hub's revision."""
    if not os.path.isdir(location):
        return {"name": location, "revision": getattr(network.config, "_commit_hash", None)}
    suffixes = (".safetensors", ".bin", ".index.json")
    files = [file for file in sorted(Path(location).iterdir()) if file.name.endswith(suffixes)]
    return {"files": [file.name for file in files], "sha256": sha256(*files) if files else None}


@contextmanager
def _explain_network_errors(name: str) -> Iterator[None]:
    """Turn errors of transformers over a network into `InputError`s that say what to do."""
    try:
        yield
    except InputError:
        raise
    except (OSError, ValueError, KeyError, ImportError, RuntimeError) as error:
        reason = " ".join(str(error).split()) or type(error).__name__
        if os.path.isdir(os.path.expanduser(name)):
            hint = "Is that a complete folder that save_pretrained wrote?"
        else:
            hint = (
                "If it should be a folder: there is none of that name. If it is a name on the hub: "
                "download it on a machine with access (hf download), and give the folder."
            )
        raise InputError(f"transformers could not load {name}: {reason[:400]} {hint}") from error


@contextmanager
def silence_transformers() -> Iterator[None]:
    """Keep transformers from showing progress bars and from reporting what its caller checks."""
    from transformers.utils import logging

    level, has_bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity(logging.CRITICAL)
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(level)
        if has_bars:
            logging.enable_progress_bar()


@contextmanager
def explain_load_errors(what: str, where: str, expected: str) -> Iterator[None]:
    """Turn errors of transformers into an `InputError` that says what was expected.

    Args:
        what: what is loaded, in a word or two.
        where: folder or name that it is loaded from.
        expected: what the folder or name should be.

    Raises:
        InputError: instead of what transformers raises; other `InputError`s pass.
    """
    with silence_transformers():
        try:
            yield
        except InputError:
            raise
        except (OSError, ValueError, KeyError, TypeError, RuntimeError, ImportError) as error:
            reason = (str(error).strip() or repr(error)).splitlines()[0]
            raise InputError(f"No {what} '{where}' ({reason}). Expected {expected}.") from error
