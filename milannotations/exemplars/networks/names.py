"""Names of networks and of their exemplars, as used in file names and editions."""

from __future__ import annotations

import hashlib
import re
import unicodedata
from pathlib import Path

from milannotations import catalog
from milannotations.utils import python_file


def default_config_name(spec: str, images_name: str) -> str:
    """Return the name of exemplars of a network on some images: config and network of an edition.

    Args:
        spec: as of `load_model`.
        images_name: of the folder or data set.

    Example:
        >>> default_config_name("torchvision:resnet18@DEFAULT", "imagenet-sample")
        'resnet18-imagenet-sample'
        >>> default_config_name("nets/Small_CNN.py:build", "val")
        'small-cnn-build-val'
    """
    made = f"{network_name(spec)}-{_slug(images_name) or 'images'}"
    if made in catalog.GROUPS:
        made += "-own"
    if len(made) > 100:
        made = f"{made[:91].strip('-')}-{hashlib.sha256(made.encode()).hexdigest()[:8]}"
    return catalog.canonical(made)


def network_name(spec: str) -> str:
    """Return a network's name in file names: without library, folder and `@WEIGHTS`.

    Example:
        >>> network_name("torchvision:vit_b_16"), network_name("hf:google/vit-base-patch16-224")
        ('vit-b-16', 'vit-base-patch16-224')
        >>> network_name("nets/resnet20.py:resnet20")
        'resnet20'
    """
    found = python_file.parse_spec(spec)
    if found is not None:
        stem, factory = _slug(found[0].stem), _slug(found[1])
        return stem if factory in ("", stem) else f"{stem}-{factory}"
    kind, _, rest = spec.partition(":")
    if kind == "hf" and Path(rest).exists():
        return _slug(Path(rest).resolve().name) or "model"
    return _slug((rest or kind).partition("@")[0].rstrip("/").rpartition("/")[2]) or "model"


def _slug(text: str) -> str:
    plain = unicodedata.normalize("NFKD", text).encode("ascii", "ignore").decode()
    return re.sub(r"[^a-z0-9]+", "-", plain.lower()).strip("-")
