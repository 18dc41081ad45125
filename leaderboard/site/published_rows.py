"""Rows of published methods, built from their real descriptions of resnet152-imagenet.

These descriptions have no licence to redistribute, so neither they nor their records are part of
the package. If a user has the files, they are scored once, and the records are cached.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from leaderboard.evaluation import predictions, scoring
from leaderboard.metrics import build
from leaderboard.ranking import tracks
from leaderboard.record_format.method_info import About
from leaderboard.submission.track_units import open_references
from milannotations.errors import InputError
from milannotations.published import annotations as published
from milannotations.utils.cache import DEFAULT_FOLDER, Cache, CacheEntry
from milannotations.utils.files import sha256

TRACK = "leave-one-out/resnet152-imagenet"
NETWORK = "resnet152-imagenet"
ANNOTATIONS = "annotations/milannotations_resnet152_imagenet.csv"
"""Path of the human annotations, relative to the user's folder."""

VERSION = 1
"""Version of the cached records; increase it if the same files would give other records."""


@dataclass(frozen=True)
class PublishedMethod:
    """A method with published descriptions.

    Attributes:
        name, version: of the method.
        files: layer and path, relative to the user's folder, of each file; the layer is None if the
            file has a column for it.
        about: description of the method for the records.
    """

    name: str
    version: str
    files: tuple[tuple[str | None, str], ...]
    about: About


PUBLISHED_METHODS = (
    PublishedMethod(
        "milan-places365",
        "2022",
        ((None, "descriptions/milan/resnet152_imagenet__milan-places365.csv"),),
        About(
            title="MILAN, trained on the networks of Places365",
            authors=["Hernandez et al."],
            paper="https://arxiv.org/abs/2201.11114",
            requires=["training"],
            trained_on=["alexnet-places365", "resnet152-places365", "biggan-places365"],
            saw_test_units=False,
        ),
    ),
    PublishedMethod(
        "describe-and-dissect",
        "2024",
        tuple(
            (layer, f"descriptions/dnd/resnet152_imagenet_{layer}.csv")
            for layer in ("layer1", "layer2", "layer3", "layer4")
        ),
        About(
            title="Describe-and-Dissect: captions of exemplars, tested on generated images",
            authors=["Bai et al."],
            paper="https://arxiv.org/abs/2403.13771",
            requires=["language model", "vision-language model"],
        ),
    ),
    PublishedMethod(
        "clip-dissect",
        "2023",
        ((None, "descriptions/clip-dissect/resnet152_imagenet.csv"),),
        About(
            title="CLIP-Dissect: the concept whose text-image similarity matches activations",
            authors=["Oikarinen and Weng"],
            paper="https://arxiv.org/abs/2204.10965",
            requires=["activations", "text-image model"],
        ),
    ),
)


def build_records(
    folder: str | os.PathLike[str],
    *,
    cache: str | os.PathLike[str] = DEFAULT_FOLDER,
    tell: Callable[[str], Any] = lambda line: None,
) -> tuple[Path, Path]:
    """Score the published descriptions in a folder, or take their records from the cache.

    Methods whose files are missing are left out, and `tell` names them.

    Args:
        folder: folder with annotations and descriptions.
        cache: cache folder.
        tell: called with each line of progress.

    Returns:
        Folder of the records, and folder of their edition.

    Raises:
        InputError: no annotations in `folder`, or no method's descriptions.
    """
    root = Path(folder)
    if not (root / ANNOTATIONS).is_file():
        raise InputError(f"--with {folder} has no {ANNOTATIONS}; expected the annotations there.")
    methods = []
    for method in PUBLISHED_METHODS:
        if all((root / path).is_file() for _, path in method.files):
            methods.append(method)
        else:
            tell(f"{method.name}: left out, {root / method.files[0][1]} is missing")
    if not methods:
        names = ", ".join(method.files[0][1] for method in PUBLISHED_METHODS)
        raise InputError(
            f"--with {folder} has no descriptions of a known method; expected one of {names}."
        )
    entry = _cache_entry(root, methods, Cache(cache))
    assert entry.path is not None
    if not entry.path.is_dir():
        entry.write(lambda temporary: _write_records(root, methods, temporary, tell))
    return entry.path / "records", entry.path / "release"


def _cache_entry(root: Path, methods: Sequence[PublishedMethod], cache: Cache) -> CacheEntry:
    """Return the cache entry, named by track, methods and contents of the files."""
    parts = [
        (
            method.name,
            method.version,
            method.about.model_dump(mode="json"),
            sha256(root / ANNOTATIONS, *(root / path for _, path in method.files)),
        )
        for method in methods
    ]
    return cache.entry("published-rows", VERSION, tracks.get(TRACK).to_dict(), parts)


def _write_records(
    root: Path, methods: Sequence[PublishedMethod], folder: Path, tell: Callable[[str], Any]
) -> None:
    """Write edition and records to a new folder."""
    folder.mkdir()
    track = tracks.get(TRACK)
    published.build_edition(root / ANNOTATIONS, NETWORK, folder / "release")
    known = open_references(track, folder / "release")
    metrics = build(track.metrics)
    for method in methods:
        tell(f"{method.name}: scoring (once)")
        files = [
            f"{layer}={root / path}" if layer else str(root / path) for layer, path in method.files
        ]
        score = scoring.score(
            predictions.read(*files, network=NETWORK),
            known,
            metrics,
            allow_missing=True,
            method=f"{method.name}@{method.version}",
            accounts=[],
        )
        update = {"track": track.key, "about": method.about}
        score.record = score.record.model_copy(update=update)
        path = tracks.record_path(track, method.name, method.version)
        score.save(folder / "records" / path)
