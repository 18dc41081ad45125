"""Interface of vision-language models that write about images."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

if TYPE_CHECKING:
    from PIL import Image


@dataclass(frozen=True)
class Answer:
    """Text that a model wrote.

    Attributes:
        text: the text, as written; "" if there is none.
        reason: why there is no text: "refused", "malformed", or "".
        tokens_in, tokens_out: tokens of images and prompt, and of the text; None is unknown.
        ids: tokens of the text and its end, if the model runs on this machine.
    """

    text: str
    reason: str = ""
    tokens_in: int | None = None
    tokens_out: int | None = None
    ids: tuple[int, ...] = ()


class LogProbability(NamedTuple):
    """Log-probability of a given text.

    Attributes:
        log_p: natural logarithm, summed over the tokens of the text; None if not available.
        tokens: tokens read.
        reason: why `log_p` is None, or "".
    """

    log_p: float | None
    tokens: int = 0
    reason: str = ""


class VisionLanguageModel(Protocol):
    """A model that answers prompts about images."""

    @property
    def identity(self) -> dict[str, Any]:
        """JSON of everything that decides an answer, as part of a cache key."""
        ...

    def open(self) -> None:
        """Load the model if it is not loaded yet."""
        ...

    def write(self, images: Sequence[Image.Image], prompt: str) -> Answer:
        """Return the likeliest answer."""
        ...

    def candidates(self, images: Sequence[Image.Image], prompt: str, n: int) -> list[Answer]:
        """Return up to n answers."""
        ...

    def log_p(self, images: Sequence[Image.Image], prompt: str, answer: Answer) -> LogProbability:
        """Return log p(answer | images, prompt)."""
        ...
