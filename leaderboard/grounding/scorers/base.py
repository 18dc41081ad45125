"""The interface of a scorer, and its presences in one set of images."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from leaderboard.metrics.base import Floats
from milannotations.errors import InputError

if TYPE_CHECKING:
    from milannotations.probes import Probe


class Scorer(Protocol):
    """Says in which pictures descriptions hold.

    Attributes:
        source: what it is, for records, with a `digest`.
        has_regions: whether it says where in a picture, too.
    """

    source: dict[str, Any]
    has_regions: bool

    def presence(self, texts: Sequence[str], probe: Probe, grid: int | None) -> Floats:
        """Return presence in whole pictures (text, image), or by cell (text, image * cell).

        Args:
            texts: descriptions, normalised.
            probe: the pictures.
            grid: cells a side, row by row; None for whole pictures.

        Returns:
            float64 from 0 to 1; a row of nan for a text that cannot be read.
        """


class Presences:
    """Presences of a scorer in one set of pictures, each text looked for once.

    Args:
        scorer: which.
        probe: the pictures.
        grid: cells a side; None for whole pictures.

    Raises:
        InputError: regions of a scorer that sees whole pictures alone.
    """

    def __init__(self, scorer: Scorer, probe: Probe, grid: int | None = None) -> None:
        if grid is not None and not scorer.has_regions:
            raise InputError(
                f"The scorer '{scorer.source['scorer']}' says what is in a picture and not where. "
                "Leave --grid out, or take grammar, or labels of a probe data set with maps."
            )
        self.scorer, self.probe, self.grid = scorer, probe, grid
        self._known: dict[str, Floats] = {}

    def of(self, texts: Sequence[str]) -> Floats:
        """Return presence, float64 (text, sample); a row of nan for a text that cannot be read.

        Raises:
            InputError: the scorer gives something else than numbers from 0 to 1.
        """
        new = [text for text in dict.fromkeys(texts) if text not in self._known]
        if new:
            found = self.scorer.presence(new, self.probe, self.grid)
            known = found[np.isfinite(found)]
            if known.size and not 0 <= known.min() <= known.max() <= 1:
                raise InputError(
                    f"The scorer '{self.scorer.source['scorer']}' gave presences from "
                    f"{known.min():.4g} to {known.max():.4g}; expected 0 to 1."
                )
            self._known.update(zip(new, found, strict=True))
        samples = len(self.probe) * (1 if self.grid is None else self.grid**2)
        return np.stack([self._known[text] for text in texts]) if texts else np.empty((0, samples))

    def readable(self, text: str) -> bool:
        """Say whether the scorer can read a text."""
        return bool(np.isfinite(self.of([text])).all())

    @cached_property
    def digest(self) -> str:
        """Of the scorer: equal ones, equal presences in equal pictures."""
        made = repr(sorted(self.scorer.source.items()))
        return hashlib.sha256(made.encode()).hexdigest()[:24]
