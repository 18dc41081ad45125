"""Configuration of an audit: the words that flag a unit, and the pairs of networks of the paper."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Annotated

from annotated_types import Ge, Interval

from leaderboard.applications.common import keyword_flags
from milannotations import catalog
from milannotations.errors import InputError, did_you_mean

NetworkPair = tuple[str, str]
"""Names of two networks; the claim is that the first has more flagged units."""

ARCHITECTURES = (
    "densenet121", "densenet201", "mobilenet_v2", "resnet18", "resnet34", "resnet50",
    "squeezenet1_0", "shufflenet_v2_x1_0", "vgg11", "vgg13", "vgg16", "vgg19",
)  # fmt: skip
"""Architectures of the audit of Hernandez et al. 2022, section 6."""

PRESETS: dict[str, tuple[NetworkPair, ...]] = {
    "milan2022": tuple(
        (catalog.canonical(f"{name}-imagenet"), catalog.canonical(f"{name}-imagenet-blurred"))
        for name in ARCHITECTURES
    )
}
"""Named lists of pairs, each a network trained on ImageNet and one trained on blurred faces."""


@dataclass(frozen=True)
class AuditConfig:
    """Configuration of `audit`."""

    words: Mapping[str, Sequence[str]] = field(
        default_factory=lambda: {"faces": keyword_flags.FACES}
    )
    """Lists of words by name; the record's number is of the first (default: the paper's faces)."""

    matching: keyword_flags.Matching = "words"
    """`words` matches whole words, singular or plural; `substrings` any part, as in 2022."""

    at: float = 0.5
    """Least measured selectivity of the units that the words should find (default: .5)."""

    seed: Annotated[int, Ge(0)] = 0
    """Random seed of the bootstrap and of the units that a contact sheet shows (default: 0)."""

    draws: Annotated[int, Interval(ge=10, le=100_000)] = 1000
    """Bootstrap resamples over units (default: 1000)."""

    def __post_init__(self) -> None:
        if not self.words:
            raise InputError("No list of words: expected --words LIST, such as face,head,nose.")
        for words in self.words.values():
            keyword_flags.check_words(words)
        if self.matching not in ("words", "substrings"):
            raise InputError(f"matching is '{self.matching}'; expected words or substrings.")


def preset_pairs(name: str) -> tuple[NetworkPair, ...]:
    """Return the pairs of networks of a preset.

    Raises:
        InputError: no such preset.
    """
    if name not in PRESETS:
        raise InputError(f"No preset '{name}' ({', '.join(PRESETS)}).{did_you_mean(name, PRESETS)}")
    return PRESETS[name]
