"""Interface of methods: `MethodSpec`, `Description`, and the protocol `Method`."""

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
    "training": "an annotated edition to learn from",
    "activations": "the network's activations on probe images",
    "text-image model": "a model of texts and images",
    "language model": "a model of text",
    "vision-language model": "a model that writes about images, or the address of one",
    "trained model": "a model that 'milan train' or 'milan convert' made (one of mini ships)",
    "truth": "the planted truth (references only)",
}
"""Requirements that a method may have beyond exemplars, by name in `MethodSpec.requires`."""


@dataclass(frozen=True)
class MethodSpec:
    """Metadata of a method, for lists and records.

    Attributes:
        name: lower case letters, digits and dashes.
        version: changes whenever the method's descriptions do.
        kind: "floor" looks at no exemplar, "reference" knows the answer, all others are "method".
        title: one line on how the method describes a unit.
        paper: authors, year and title of the paper that proposed it, or "".
        license: license of the code and of what ships with it.
        trained_on: data that the method, or a model inside it, learned from; "" is none.
        requires: what it needs beyond exemplars (`REQUIREMENTS`).

    Raises:
        ValueError: a field has another form.
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
            raise ValueError(f"The name is {self.name!r}; write it in lower case with dashes.")
        if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._+-]*", self.version):
            raise ValueError(f"{self.name}: the version is {self.version!r}; write one as '1.0'.")
        if self.kind not in get_args(Kind):
            raise ValueError(f"{self.name}: kind {self.kind!r} is none of {get_args(Kind)}.")
        if not has_words(self.title):
            raise ValueError(f"{self.name}: the title is empty; write one line on what it does.")
        if isinstance(self.requires, str) or not set(self.requires) <= set(REQUIREMENTS):
            raise ValueError(
                f"{self.name}: requires is {self.requires!r}; expected a tuple of "
                f"{', '.join(map(repr, REQUIREMENTS))}."
            )
        if "truth" in self.requires and self.kind != "reference":
            raise ValueError(f"{self.name}: only a reference may require the truth.")

    @property
    def columns(self) -> tuple[str, ...]:
        """Columns of the units to describe that the method sees."""
        return schema.COLUMNS if "truth" in self.requires else VISIBLE_COLUMNS

    def to_dict(self) -> dict[str, Any]:
        """Return the spec as JSON."""
        return asdict(self)


@dataclass(frozen=True)
class Description:
    """Description of one unit.

    Attributes:
        senses: (text, confidence or None) pairs, the likeliest first; several if the unit
            responds to several things.
        status: "ok"; "abstained": the unit responds to nothing that can be named; "failed": no
            description could be made.

    Raises:
        ValueError: status "ok" without a text, another status with one, a text without a word,
            or a confidence that is no finite number.

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
            raise ValueError(
                "A description without a text; use Description.failed() or abstained()."
            )
        if self.status != "ok" and self.senses:
            raise ValueError(f"A text with the status {self.status!r}: {self.senses[0][0]!r}.")

    @classmethod
    def of(cls, text: str, score: float | None = None) -> Description:
        """Return a description with one sense."""
        return cls(((text, score),))

    @classmethod
    def abstained(cls) -> Description:
        """Return the description of a unit that responds to nothing that can be named."""
        return cls(status="abstained")

    @classmethod
    def failed(cls) -> Description:
        """Return the description of a unit for which none could be made."""
        return cls(status="failed")

    @property
    def text(self) -> str | None:
        """Text of the first sense, or None."""
        return self.senses[0][0] if self.senses else None

    def rows(self) -> list[tuple[str, int, float | None, Status]]:
        """Return the rows of a predictions file: (description, rank, score, status) per sense.

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
        raise ValueError(f"A description needs words; this is {text!r}.")
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

    A method with a language model may have an attribute `tokens`: the numbers of tokens read and
    written so far, each an integer or None. They go into the account.
    """

    spec: MethodSpec

    def describe(self, units: Any, context: Context) -> Sequence[Description]:
        """Return one description per unit, in the order of `units`.

        Args:
            units: `datasets.Dataset` of any number of units, with the columns `spec.columns`. An
                image is decoded when its column is read.
            context: the seed, and what `spec.requires` names.

        Raises:
            InputError: something that the user can correct, with what to do. A unit that cannot
                be described is no error: return `Description.failed()`.
        """
        ...
