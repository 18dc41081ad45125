"""Units of a track: those that an entry must describe, and their references."""

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
    """Open the references of a track's units, under the name of the track's edition.

    Args:
        track: track of agreement.
        source: folder or name of the edition, or an `annotations.csv` of the track's network.

    Raises:
        InputError: no such edition, an edition without the track's config, or another edition.
    """
    is_csv = Path(source).is_file()
    opened = references.load(
        source,
        config=None if is_csv else track.config,
        network=track.config if is_csv else None,
    )
    known = replace(opened, edition=track.edition)
    if track.edition_digest and known.digest != track.edition_digest:
        raise InputError(
            f"{source} is not the edition of {track.key}: its digest is {known.digest[:12]}, "
            f"expected {track.edition_digest[:12]}. See: milan list tracks"
        )
    if not units_in_scope(track, known).any():
        raise InputError(
            f"{source} has none of the units of {track.key}; expected the edition "
            f"{track.edition} / {track.config}."
        )
    return known


def units_in_scope(track: Track, known: References) -> Mask:
    """Return which units of the references (n,) an entry must describe."""
    # Agreement needs references, or the truth of a synthetic unit.
    answerable = known.has_texts | known.has_truth
    if track.condition:
        test_units = set(_condition_split(track).test)
        return answerable & np.array([unit in test_units for unit in known.units])
    splits = (track.split or "+".join(set(known.splits))).split("+")
    return answerable & np.array([name in splits for name in known.splits])


def split_units(
    track: Track, known: References | None
) -> tuple[set[Unit] | None, set[Unit] | None]:
    """Return the units that an entry must describe, and the other units of the same networks.

    Units of published networks are known without their edition; for other tracks the result is
    (None, None) without references.
    """
    if track.condition:
        test_units = set(_condition_split(track).test)
        test_networks = condition_networks(track)[1]
        units = {unit for name in test_networks for unit in catalog.NETWORKS[name].units()}
        return test_units, units - test_units
    if known is None:
        return None, None
    inside = set(compress(known.units, units_in_scope(track, known)))
    return inside, set(known.units) - inside


def condition_networks(track: Track) -> tuple[list[str], list[str]]:
    """Return the published networks that a condition trains on, and those that it tests on."""
    train, test = (
        list(dict.fromkeys(unit.network for unit in part)) for part in _condition_split(track)
    )
    return train, test


def units_digest(units: Iterable[Unit]) -> str:
    """Return the sha256 of the units' keys, sorted, one per line."""
    lines = "".join(f"{unit}\n" for unit in sorted(units))
    return hashlib.sha256(lines.encode()).hexdigest()


def _condition_split(track: Track) -> Split:
    return split(track.condition, 1)
