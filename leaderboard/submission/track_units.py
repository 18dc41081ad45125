"""The units of a track: which an entry describes, and what people wrote of them."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable
from dataclasses import replace
from itertools import compress
from pathlib import Path

import numpy as np

from leaderboard.evaluation import references
from leaderboard.evaluation.references import Mask, References
from leaderboard.ranking.tracks import Track
from milannotations import catalog
from milannotations.errors import InputError
from milannotations.schema import Unit
from milannotations.splits import Split, split


def open_references(track: Track, source: str | os.PathLike[str]) -> References:
    """Return what people wrote of the units of a track, under the name of its edition.

    Args:
        track: of agreement.
        source: the edition's folder or name, or an `annotations.csv` of the track's network.

    Raises:
        InputError: no such edition, or it lacks the track's config; it is another than the track's.
    """
    csv = Path(source).is_file()
    opened = references.load(
        source, config=None if csv else track.config, network=track.config if csv else None
    )
    known = replace(opened, edition=track.edition)
    if track.edition_digest and known.digest != track.edition_digest:
        raise InputError(
            f"{source} is not the edition of {track.key}: its digest is {known.digest[:12]}, "
            f"expected {track.edition_digest[:12]}. See: milan list tracks"
        )
    if not units_in_scope(track, known).any():
        raise InputError(f"{source} has none of the units of {track.key}.")
    return known


def units_in_scope(track: Track, known: References) -> Mask:
    """Return which units (n,) of the references an entry is to describe."""
    made = known.has_texts | known.has_truth
    if track.condition:
        wanted = set(_split(track).test)
        return made & np.array([unit in wanted for unit in known.units])
    wanted_split = (track.split or "+".join(set(known.splits))).split("+")
    return made & np.array([side in wanted_split for side in known.splits])


def split_units(
    track: Track, known: References | None
) -> tuple[set[Unit] | None, set[Unit] | None]:
    """Return the units that an entry is to describe, and the others of the same networks.

    Published units are known without their edition; elsewhere (None, None) without references.
    """
    if track.condition:
        test = set(_split(track).test)
        every = {
            unit for name in condition_networks(track)[1] for unit in catalog.NETWORKS[name].units()
        }
        return test, every - test
    if known is None:
        return None, None
    inside = set(compress(known.units, units_in_scope(track, known)))
    return inside, set(known.units) - inside


def condition_networks(track: Track) -> tuple[list[str], list[str]]:
    """Return the published networks that a condition trains on, and those that it tests on."""
    train, test = (list(dict.fromkeys(unit.network for unit in side)) for side in _split(track))
    return train, test


def units_digest(split_units: Iterable[Unit]) -> str:
    """Return the sha256 of the keys of units, sorted, a line each."""
    lines = "".join(f"{unit}\n" for unit in sorted(split_units))
    return hashlib.sha256(lines.encode()).hexdigest()


def _split(track: Track) -> Split:
    return split(track.condition, 1)
