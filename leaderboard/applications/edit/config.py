"""Configuration of an edit: which words flag a unit, and how the number to ablate is chosen."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal

from annotated_types import Ge

from leaderboard.applications.common import keyword_flags
from milannotations.errors import InputError

Protocol = Literal["edit-plain", "edit-conflict"]

PROTOCOLS: dict[Protocol, str] = {
    "edit-plain": "validation-clean",
    "edit-conflict": "validation-conflict",
}
"""Protocols, each with the role of the images that units are ordered and counts are chosen on."""

TESTS = ("test-conflict", "test-clean")
"""Roles of the images that results are reported on."""

WORDS = (*keyword_flags.TEXT, "lettering", "writing")
"""Words that flag a unit as responding to text."""

COLORS = (
    "red", "yellow", "green", "blue", "cyan", "purple", "brown", "black", "white", "gray",
)  # fmt: skip
"""Words that flag a unit as responding to a color, where the cue is one (the 2022 code)."""

AT = 0.43
"""Least share of a unit's exemplar masks inside text, averaged over exemplars, of the units that
flags should find. At .42 to .44, precision and recall of MILAN's flags are about equal, on two
networks of the mini world that are kept apart (seeds 5 and 6) and on the five reported ones, which
were looked at too."""

ORACLE = 0.5
"""Least share of a unit's active area inside text, over all images, of the units that the oracle
flags. Exemplar masks give no ceiling: a third of the first layer's units respond to strokes of any
kind, and their masks lie in text. The measure and the share were chosen on four networks of the
mini world that are kept apart (seeds 5 to 8), after units selected by their exemplar masks, at .4
and at .6, had beaten placebos on three of the five reported networks."""

SHARES = (0, 1 / 16, 1 / 8, 1 / 4, 3 / 8, 1 / 2, 3 / 4, 1)
"""Shares of the flagged units that are tried: at most eight counts."""


@dataclass(frozen=True)
class EditConfig:
    """Configuration of `edit`."""

    protocols: tuple[Protocol, ...] = ("edit-conflict", "edit-plain")
    """Protocols of choosing: `edit-conflict`, `edit-plain` (default: both).

    The record's number is of the first.
    """

    words: tuple[str, ...] = WORDS
    """Words that flag a unit (default: words for text, or colors with --cue color)."""

    matching: keyword_flags.Matching = "words"
    """`words` matches whole words, singular or plural; `substrings` any part, as in 2022."""

    placebos: Annotated[int, Ge(1)] = 99
    """Draws of placebo flags (default: 99; 19 with --model)."""

    shuffles: int = 5
    """Draws of descriptions shuffled within layers (default: 5)."""

    shares: tuple[float, ...] = SHARES
    """Shares of the flagged units to try: two to eight, ascending, from 0 (default: `SHARES`)."""

    loss: float = 0.01
    """Loss of validation accuracy that `edit-plain` accepts (default: .01)."""

    at: float = AT
    """Least share of exemplar masks in text, of units that flags should find (default: .43)."""

    oracle: float = ORACLE
    """Least share of active area in text, of units that the oracle flags (default: .5)."""

    fine_tune: Annotated[int, Ge(0)] = 0
    """Epochs for which the last layer is trained after units are ablated (default: 0)."""

    seed: Annotated[int, Ge(0)] = 0
    """Random seed of all draws (default: 0)."""

    def __post_init__(self) -> None:
        keyword_flags.check_words(self.words)
        unknown = [protocol for protocol in self.protocols if protocol not in PROTOCOLS]
        if unknown or not self.protocols:
            listed = ", ".join(unknown) or "none"
            raise InputError(f"No protocol '{listed}' (protocols: {', '.join(PROTOCOLS)}).")
        shares = list(self.shares)
        if not 2 <= len(shares) <= 8 or shares != sorted(set(shares)) or shares[0] != 0:
            raise InputError(f"Shares {shares}: expected two to eight, ascending, from 0.")
        if self.placebos < 1 or self.shuffles < 0 or not 0 <= self.loss < 1:
            raise InputError("Expected at least one placebo, and a loss from 0 to 1.")
