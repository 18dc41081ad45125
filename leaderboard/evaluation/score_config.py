"""Configuration of a score: random seed, resamples and floors."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Annotated

from annotated_types import Ge, Interval

from milannotations.errors import InputError

CONSTANT = "animals and objects"
"""Default constant floor. It beats every method and every human by raw overlap on the published
annotations."""


@dataclass(frozen=True)
class ScoreConfig:
    """Everything that a score depends on besides its input. The record holds all of it."""

    seed: Annotated[int, Ge(0)] = 0
    """Random seed of the bootstrap and of the derangements."""
    draws: Annotated[int, Interval(ge=10, le=100_000)] = 1000
    """Number of bootstrap resamples (10 to 100,000)."""
    level: float = 0.95
    """Level of the intervals."""
    derangements: int = 20
    """Number of shuffles (even) for metrics that cannot afford all pairs."""
    constants: tuple[str, ...] | None = None
    """Strings scored as floors besides the most common reference. By default "animals and
    objects", and none where annotators are simulated."""

    def __post_init__(self) -> None:
        if self.seed < 0:
            raise InputError(f"seed {self.seed}; a seed is a whole number from 0.")
        if not 10 <= self.draws <= 100_000:
            raise InputError(f"{self.draws} draws; 10 to 100,000 resamples were expected.")
        if not 0 < self.level < 1:
            raise InputError(f"level {self.level}; a share between 0 and 1 was expected.")
        if self.derangements < 2 or self.derangements % 2:
            raise InputError(f"{self.derangements} derangements; an even number was expected.")
        if isinstance(self.constants, str):
            raise InputError("constants is one string; a tuple of strings was expected.")

    def resolved(self, synthetic: bool) -> ScoreConfig:
        """Return the configuration with the default constants filled in."""
        if self.constants is not None:
            return self
        return replace(self, constants=() if synthetic else (CONSTANT,))
