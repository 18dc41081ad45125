"""Rows from other people's real descriptions of resnet152-imagenet, where they are at hand.

They have no licence to be given on, so neither they nor their records are part of the package;
they are scored once and kept in the cache.
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
VERSION = 1
"""Moves whenever the same files would make other records."""


@dataclass(frozen=True)
class PublishedMethod:
    """One method's published descriptions.

    `files` are below the folder, with the layer that a file is of where it does not say.
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
            title="Describe-and-Dissect: captions of exemplars, summed up, tested on made pictures",
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
            title="CLIP-Dissect: the concept whose text-image similarity goes with the activations",
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
    """Return a folder of records and one of their edition, from the cache or made now.

    Rows whose files are not in `folder` are left out, and `tell` says so.

    Raises:
        InputError: no annotations in `folder`, or no row's descriptions.
    """
    root = Path(folder)
    if not (root / ANNOTATIONS).is_file():
        raise InputError(f"--with {folder}: {ANNOTATIONS} was expected there.")
    found = []
    for row in PUBLISHED_METHODS:
        if all((root / path).is_file() for _, path in row.files):
            found.append(row)
        else:
            tell(f"{row.name}: left out, {root / row.files[0][1]} is not there")
    if not found:
        raise InputError(f"--with {folder}: it holds descriptions of no method that is known here.")
    entry = _entry(root, found, Cache(cache))
    assert entry.path is not None
    if not entry.path.is_dir():
        entry.write(lambda temporary: _make(root, found, temporary, tell))
    return entry.path / "records", entry.path / "release"


def _entry(root: Path, found: Sequence[PublishedMethod], cache: Cache) -> CacheEntry:
    rows = [
        (
            row.name,
            row.version,
            row.about.model_dump(mode="json"),
            sha256(root / ANNOTATIONS, *(root / path for _, path in row.files)),
        )
        for row in found
    ]
    return cache.entry("published-rows", VERSION, tracks.get(TRACK).to_dict(), rows)


def _make(
    root: Path, found: Sequence[PublishedMethod], folder: Path, tell: Callable[[str], Any]
) -> None:
    folder.mkdir()
    track = tracks.get(TRACK)
    published.build_edition(root / ANNOTATIONS, NETWORK, folder / "release")
    known = open_references(track, folder / "release")
    metrics = build(track.metrics)
    for row in found:
        tell(f"{row.name}: scoring, once")
        files = [
            f"{layer}={root / path}" if layer else str(root / path) for layer, path in row.files
        ]
        score = scoring.score(
            predictions.read(*files, network=NETWORK),
            known,
            metrics,
            allow_missing=True,
            method=f"{row.name}@{row.version}",
            accounts=[],
        )
        score.record = score.record.model_copy(update={"track": track.key, "about": row.about})
        score.save(folder / "records" / tracks.record_path(track, row.name, row.version))
