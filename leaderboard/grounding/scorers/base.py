"""Interface of a scorer, and the presences that it gives in one set of images."""

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
    """Interface of a scorer: presence of descriptions in images.

    Attributes:
        source: description of the scorer for records, with its name in `scorer` and a `digest`.
        has_regions: True if it can tell where in an image a description holds.
    """

    source: dict[str, Any]
    has_regions: bool

    def presence(self, texts: Sequence[str], probe: Probe, grid: int | None) -> Floats:
        """Return the presence of descriptions in images, or in cells of a grid.

        Args:
            texts: normalised descriptions.
            probe: the images.
            grid: cells per side, numbered row by row; None for whole images.

        Returns:
            float64 from 0 to 1, (text, image) or (text, image * cell); a row of nan for a text
            that cannot be read.
        """


class Presences:
    """Presences of one scorer in one set of images; each text is scored once.

    Args:
        scorer: the scorer.
        probe: the images.
        grid: cells per side; None for whole images.

    Raises:
        InputError: a grid for a scorer without regions.
    """

    def __init__(self, scorer: Scorer, probe: Probe, grid: int | None = None) -> None:
        if grid is not None and not scorer.has_regions:
            raise InputError(
                f"The scorer '{scorer.source['scorer']}' tells what is in an image, not where. "
                "Leave --grid out, or use --scorer grammar or labels with images that have label "
                "maps."
            )
        self.scorer, self.probe, self.grid = scorer, probe, grid
        self._known: dict[str, Floats] = {}

    def of(self, texts: Sequence[str]) -> Floats:
        """Return the presence of texts, float64 (text, sample); a row of nan if unreadable.

        Raises:
            InputError: the scorer returned values outside 0 to 1.
        """
        new = [text for text in dict.fromkeys(texts) if text not in self._known]
        if new:
            presence = self.scorer.presence(new, self.probe, self.grid)
            finite = presence[np.isfinite(presence)]
            if finite.size and not 0 <= finite.min() <= finite.max() <= 1:
                raise InputError(
                    f"The scorer '{self.scorer.source['scorer']}' returned presences from "
                    f"{finite.min():.4g} to {finite.max():.4g}; expected 0 to 1."
                )
            self._known.update(zip(new, presence, strict=True))
        samples = len(self.probe) * (1 if self.grid is None else self.grid**2)
        return np.stack([self._known[text] for text in texts]) if texts else np.empty((0, samples))

    def readable(self, text: str) -> bool:
        """Return True if the scorer can read a text."""
        return bool(np.isfinite(self.of([text])).all())

    @cached_property
    def digest(self) -> str:
        """Digest of the scorer: equal digests, equal presences in equal images."""
        source = repr(sorted(self.scorer.source.items()))
        return hashlib.sha256(source.encode()).hexdigest()[:24]
