"""The floor that says the same of every unit."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from baselines.framework.context import Context
from baselines.framework.method import Description, MethodSpec
from baselines.shared.text import commonest
from milannotations.errors import InputError
from milannotations.published.annotations import has_words

SPEC = MethodSpec(
    name="constant",
    version="1.0",
    kind="floor",
    title="The commonest training description, or a given text, for every unit",
    trained_on="the training split",
    requires=("training",),
)


class Constant:
    """Says one text of every unit."""

    spec: MethodSpec = SPEC

    def __init__(self, text: str | None) -> None:
        self.text = text
        if text is not None:
            self.spec = replace(SPEC, trained_on="", requires=())

    def describe(self, units: Any, context: Context) -> list[Description]:
        text = self.text
        if text is None:
            text = context.cached(
                "constant", lambda: commonest(text for _, text in context.descriptions)
            )
        return [Description.of(str(text))] * len(units)


def create(text: str | None = None) -> Constant:
    """Return the floor; `text` is said instead of the commonest description.

    Raises:
        InputError: a text without a word.
    """
    if text is not None and not has_words(text):
        raise InputError(f"'constant': the text {text!r} has no word.")
    return Constant(text)
