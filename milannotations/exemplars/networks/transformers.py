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
    prefix_tokens,
    record,
    seeded,
)
from milannotations.exemplars.networks.preprocessing import Preprocessing
from milannotations.utils.files import sha256


def load(name: str, variant: str, path: str | Path | None, random: bool) -> LoadedNetwork:
    """Return the network of a folder or name; see `models.load_model`.

    Args:
        name: a folder that `save_pretrained` wrote, or a name on the hub.
        variant: revision of the hub, or "".
        path: a file of weights in place of its own, under any names that transformers knows to
            translate; the rest of a larger model is passed over. Or None.
        random: make the network without weights.
    """
    revision = variant or None
    state = weights.read(path) if path is not None else None
    where = _checked(name)
    with _explained(name), silence_transformers(), seeded():
        config, kind = _vision(where, revision)
        options: dict[str, Any] = {"output_loading_info": True, "ignore_mismatched_sizes": True}
        if random:
            network, info = kind._from_config(config), {}
        elif state is None:
            network, info = kind.from_pretrained(where, revision=revision, **options)
        else:
            own = {key.removeprefix("module."): value for key, value in state.items()}
            network, info = kind.from_pretrained(None, config=config, state_dict=own, **options)
    missing = _missing(network, info, path or name)
    prefix: int | None = prefix_tokens(network.named_parameters())
    if not prefix and getattr(config, "patch_size", None) is None:
        prefix = None  # it has no tokens
    if random:
        used = None
    elif path is not None:
        used = {"file": Path(path).name, "sha256": sha256(path)}
    else:
        used = _own_weights(where, network)
    shown = Path(where).resolve().name if os.path.isdir(where) else name
    return record(
        f"hf:{shown}" + (f"@{variant}" if variant else ""),
        network,
        preprocessing(name, variant),
        library="transformers",
        used=used,
        random=random,
        missing=missing,
        prefix=prefix,
    )


def _missing(network: Any, info: Any, source: str | Path) -> tuple[str, ...]:
    """Return the entries without weights; raise InputError if that is all, or some do not fit."""
    entries = [key for key in network.state_dict() if not key.endswith(weights.BATCH_COUNTER)]
    unlike = info.get("mismatched_keys", ())
    if unlike:
        names = sorted(each if isinstance(each, str) else each[0] for each in unlike)
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

    where = _checked(name)
    names = ("preprocessor_config.json", "processor_config.json", "image_processor_config.json")
    if os.path.isdir(where) and not any(os.path.isfile(os.path.join(where, n)) for n in names):
        return None
    with _explained(name), silence_transformers():
        processor = AutoImageProcessor.from_pretrained(where, revision=variant or None)
    return Preprocessing.from_hf(processor)


def _checked(name: str) -> str:
    """Return a folder or name as transformers wants it; raise InputError for a mistyped path."""
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


def _vision(where: str, revision: str | None) -> tuple[Any, Any]:
    """Return the config and class of a network that takes pictures and nothing else."""
    from transformers import AutoConfig
    from transformers.models.auto.modeling_auto import MODEL_MAPPING

    config = AutoConfig.from_pretrained(where, revision=revision)
    if getattr(config, "vision_config", None) is not None:
        config = config.vision_config  # CLIP, SigLIP: the part that sees
    kind = MODEL_MAPPING.get(type(config), None)
    if isinstance(kind, (tuple, list)):
        kind = kind[0]
    if kind is None:
        raise InputError(
            f"transformers has no network without a head for '{config.model_type}'. Load it "
            "yourself: path/to/file.py:factory."
        )
    first = list(inspect.signature(kind.forward).parameters)[1]
    if first != "pixel_values":
        raise InputError(
            f"{kind.__name__} takes {first} first, not pixel_values: it is no network of pictures. "
            "Load the part that sees yourself: path/to/file.py:factory."
        )
    if getattr(config, "mask_ratio", None):
        raise InputError(
            f"{kind.__name__} hides parts of each picture at random. Load it as the plain network "
            "that it trains (for vit_mae: ViTModel), by path/to/file.py:factory."
        )
    return config, kind


def _own_weights(where: str, network: Any) -> dict[str, Any]:
    """Return the record of a network's own weights: their digest, or the hub's revision."""
    if not os.path.isdir(where):
        return {"name": where, "revision": getattr(network.config, "_commit_hash", None)}
    ends = (".safetensors", ".bin", ".index.json")
    files = [f for f in sorted(Path(where).iterdir()) if f.name.endswith(ends)]
    return {"files": [f.name for f in files], "sha256": sha256(*files) if files else None}


@contextmanager
def _explained(name: str) -> Iterator[None]:
    try:
        yield
    except InputError:
        raise
    except (OSError, ValueError, KeyError, ImportError, RuntimeError) as error:
        why = " ".join(str(error).split()) or type(error).__name__
        hint = (
            "Is that a folder that save_pretrained wrote, whole?"
            if os.path.isdir(os.path.expanduser(name))
            else "If it is to be a folder: there is none of that name. If it is a name on the hub: "
            "fetch it where there is a network (hf download), and give the folder."
        )
        raise InputError(f"transformers could not load {name}: {why[:400]} {hint}") from error


@contextmanager
def silence_transformers() -> Iterator[None]:
    """Keep transformers from showing bars, and from reporting what its caller checks."""
    from transformers.utils import logging

    level, bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity(logging.CRITICAL)
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(level)
        if bars:
            logging.enable_progress_bar()


@contextmanager
def explain_load_errors(what: str, where: str, expected: str) -> Iterator[None]:
    """Say what to type where transformers cannot read a folder or a name.

    Args:
        what: is read, in a word or two.
        where: the folder or name.
        expected: there.

    Raises:
        InputError: instead of what transformers raises; ours pass.
    """
    with silence_transformers():
        try:
            yield
        except InputError:
            raise
        except (OSError, ValueError, KeyError, TypeError, RuntimeError, ImportError) as error:
            said = (str(error).strip() or repr(error)).splitlines()[0]
            raise InputError(f"No {what} '{where}' ({said}). Expected {expected}.") from error
