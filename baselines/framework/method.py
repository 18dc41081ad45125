"""What a method is: a spec, and `describe(units, context)`, one answer a unit, in order."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal, Protocol, get_args, runtime_checkable

from baselines.framework.columns import VISIBLE_COLUMNS
from baselines.framework.context import Context
from milannotations import schema
from milannotations.published.annotations import has_words

Kind = Literal["floor", "method", "reference"]
Status = Literal["ok", "abstained", "failed"]

REQUIREMENTS = {
    "training": "an edition to learn from, with what people wrote",
    "activations": "the network's activations on probe images",
    "text-image model": "a model of texts and images",
    "language model": "a model of text",
    "vision-language model": "a model that writes about images, or the address of one",
    "trained model": "a model that 'milan train' or 'milan convert' made (one of mini ships)",
    "truth": "the answer itself (references alone)",
}
"""What a method may need beyond the exemplars."""


@dataclass(frozen=True)
class MethodSpec:
    """What a method is, for lists and records.

    Attributes:
        name: as it is called: lower case, digits, dashes.
        version: moves whenever its answers move.
        kind: "floor" looks at no exemplar, "reference" knows the answer, else "method".
        title: what it does, in a line.
        paper: who proposed it, or "".
        license: of the code and of what ships with it.
        trained_on: what it, or a model inside it, learned from; "" is nothing.
        requires: what it needs beyond the exemplars (`REQUIREMENTS`).

    Raises:
        ValueError: a field that holds something else.
    """

    name: str
    version: str
    kind: Kind
    title: str
    paper: str = ""
    license: str = "MIT"
    trained_on: str = ""
    requires: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if not re.fullmatch(r"[a-z0-9]+(-[a-z0-9]+)*", self.name):
            raise ValueError(f"A method is named in lower case with dashes, not {self.name!r}.")
        if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._+-]*", self.version):
            raise ValueError(f"{self.name}: the version is {self.version!r}; write one as '1.0'.")
        if self.kind not in get_args(Kind):
            raise ValueError(f"{self.name}: kind {self.kind!r} is none of {get_args(Kind)}.")
        if not has_words(self.title):
            raise ValueError(f"{self.name}: the title is empty; say in a line what it does.")
        if isinstance(self.requires, str) or not set(self.requires) <= set(REQUIREMENTS):
            raise ValueError(
                f"{self.name}: requires is {self.requires!r}; expected a tuple of "
                f"{', '.join(map(repr, REQUIREMENTS))}."
            )
        if "truth" in self.requires and self.kind != "reference":
            raise ValueError(f"{self.name}: only a reference may require the truth.")

    @property
    def columns(self) -> tuple[str, ...]:
        """Columns that the method sees of the units it describes."""
        return schema.COLUMNS if "truth" in self.requires else VISIBLE_COLUMNS

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)


@dataclass(frozen=True)
class Description:
    """What a method says of one unit.

    Attributes:
        senses: (text, confidence or None), the likeliest first; several if the unit
            means several things.
        status: "ok"; "abstained", this unit means nothing; "failed", no answer came.

    Raises:
        ValueError: an answer without a text, a text without a word, a text beside
            "abstained" or "failed", a confidence that is no finite number.

    Example:
        >>> Description.of("striped squares", 0.9).senses
        (('striped squares', 0.9),)
        >>> Description.failed().text is None
        True
    """

    senses: tuple[tuple[str, float | None], ...] = ()
    status: Status = "ok"

    def __post_init__(self) -> None:
        object.__setattr__(self, "senses", tuple(_sense(sense) for sense in self.senses))
        if self.status not in get_args(Status):
            raise ValueError(f"Status {self.status!r} is none of {get_args(Status)}.")
        if self.status == "ok" and not self.senses:
            raise ValueError("An answer without a text; say Description.failed() or abstained().")
        if self.status != "ok" and self.senses:
            raise ValueError(f"A text beside the status {self.status!r}: {self.senses[0][0]!r}.")

    @classmethod
    def of(cls, text: str, score: float | None = None) -> Description:
        """Return an answer of one sense."""
        return cls(((text, score),))

    @classmethod
    def abstained(cls) -> Description:
        """Return the answer "this unit means nothing"."""
        return cls(status="abstained")

    @classmethod
    def failed(cls) -> Description:
        """Return what stands where no answer came."""
        return cls(status="failed")

    @property
    def text(self) -> str | None:
        """The first sense, or None."""
        return self.senses[0][0] if self.senses else None

    def rows(self) -> list[tuple[str, int, float | None, Status]]:
        """Return (description, rank, score, status), a row a rank, as predictions hold them.

        Example:
            >>> Description.abstained().rows()
            [('', 1, None, 'abstained')]
        """
        if not self.senses:
            return [("", 1, None, self.status)]
        return [
            (text, rank, score, self.status) for rank, (text, score) in enumerate(self.senses, 1)
        ]


def _sense(sense: Any) -> tuple[str, float | None]:
    if not isinstance(sense, tuple | list) or len(sense) != 2:
        raise ValueError(f"A sense is (text, confidence or None), not {sense!r}.")
    text, score = sense
    if not isinstance(text, str) or not has_words(text):
        raise ValueError(f"A description holds words; this is {text!r}.")
    if any("\ud800" <= character <= "\udfff" for character in text):
        raise ValueError(f"A description with half a character (a lone surrogate): {text!r}.")
    if score is None:
        return text, None
    try:
        score = float(score)
    except (TypeError, ValueError):
        score = math.nan
    if not math.isfinite(score):
        raise ValueError(f"The confidence of {text!r} is {sense[1]!r}; give a number or None.")
    return text, score


@runtime_checkable
class Method(Protocol):
    """Anything with a spec that describes units.

    A method that pays by the token may have `tokens`: those it has read and written so far, a
    pair of numbers or None. They go into the account.
    """

    spec: MethodSpec

    def describe(self, units: Any, context: Context) -> Sequence[Description]:
        """Return one answer a unit, in the order of `units`.

        Args:
            units: `datasets.Dataset` of some units, none included, with the columns
                `spec.columns`. A picture is decoded when its column is read.
            context: the seed, and what `spec.requires` names.

        Raises:
            InputError: something that the caller can mend, with what to do. A unit
                that it cannot describe is no error: `Description.failed()`.
        """
        ...
