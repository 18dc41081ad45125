"""Constant: a floor that describes every unit by the same text."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from baselines.framework.context import Context
from baselines.framework.method import Description, MethodSpec
from baselines.shared.text import most_common_text
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
    """Describe every unit by one text."""

    spec: MethodSpec = SPEC

    def __init__(self, text: str | None) -> None:
        self.text = text
        if text is not None:
            self.spec = replace(SPEC, trained_on="", requires=())

    def describe(self, units: Any, context: Context) -> list[Description]:
        text = self.text
        if text is None:
            text = context.cached(
                "constant", lambda: most_common_text(text for _, text in context.descriptions)
            )
        return [Description.of(str(text))] * len(units)


def create(text: str | None = None) -> Constant:
    """Return the floor.

    Args:
        text: description of every unit (default: the most common training description).

    Raises:
        InputError: a text without a word.
    """
    if text is not None and not has_words(text):
        raise InputError(f"'constant': the text {text!r} has no word.")
    return Constant(text)
