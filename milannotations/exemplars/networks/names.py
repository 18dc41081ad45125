"""Names of networks and of their exemplars, in file names and editions."""

from __future__ import annotations

import hashlib
import re
import unicodedata
from pathlib import Path

from milannotations import catalog
from milannotations.utils import python_file


def default_config_name(spec: str, images_name: str) -> str:
    """Return the default name of a config: exemplars of a network on some images.

    Args:
        spec: network, as for `load_model`.
        images_name: name of the folder or dataset.

    Example:
        >>> default_config_name("torchvision:resnet18@DEFAULT", "imagenet-sample")
        'resnet18-imagenet-sample'
        >>> default_config_name("nets/Small_CNN.py:build", "val")
        'small-cnn-build-val'
    """
    name = f"{network_name(spec)}-{_slug(images_name) or 'images'}"
    if name in catalog.GROUPS:
        name += "-own"
    if len(name) > 100:
        name = f"{name[:91].strip('-')}-{hashlib.sha256(name.encode()).hexdigest()[:8]}"
    return catalog.canonical(name)


def network_name(spec: str) -> str:
    """Return a network's name in file names: without library, folder and `@WEIGHTS`.

    Args:
        spec: network, as for `load_model`.

    Example:
        >>> network_name("torchvision:vit_b_16"), network_name("hf:google/vit-base-patch16-224")
        ('vit-b-16', 'vit-base-patch16-224')
        >>> network_name("nets/resnet20.py:resnet20")
        'resnet20'
    """
    parsed = python_file.parse_spec(spec)
    if parsed is not None:
        stem, factory = _slug(parsed[0].stem), _slug(parsed[1])
        return stem if factory in ("", stem) else f"{stem}-{factory}"
    library, _, name = spec.partition(":")
    if library == "hf" and Path(name).exists():
        return _slug(Path(name).resolve().name) or "model"
    return _slug((name or library).partition("@")[0].rstrip("/").rpartition("/")[2]) or "model"


def _slug(text: str) -> str:
    """Return a text in lower-case ASCII letters and digits, with dashes between."""
    ascii_text = unicodedata.normalize("NFKD", text).encode("ascii", "ignore").decode()
    return re.sub(r"[^a-z0-9]+", "-", ascii_text.lower()).strip("-")
