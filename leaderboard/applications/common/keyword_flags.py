"""Which units are described with any of a list of words.

The 2022 code looked for substrings, so that `word` was found in "swords" and `red` in "colored".
Whole words are the default here, in singular or plural; substrings remain an option.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from typing import Literal

from leaderboard.evaluation.predictions import Predictions
from milannotations.errors import InputError, some
from milannotations.schema import Unit

Matching = Literal["words", "substrings"]

FACES = ("face", "head", "nose", "eyes", "mouth")
"""Hernandez et al. 2022, section 6."""

TEXT = ("word", "text", "letter")
"""The 2022 code of section 7."""


def found(description: str, words: Iterable[str], matching: Matching = "words") -> list[str]:
    """Return which of the words a description holds, in the order of the list.

    Args:
        description: any text; its case does not count.
        words: what is looked for; several words in one must stand together.
        matching: `words`: whole ones, singular or plural; `substrings`: anywhere, as in 2022.

    Example:
        >>> found("Faces, and swords", ["face", "word"])
        ['face']
        >>> found("Faces, and swords", ["face", "word"], "substrings")
        ['face', 'word']
    """
    if matching == "substrings":
        return [word for word in words if word.lower() in description.lower()]
    said = f" {' '.join(map(_stem, _tokens(description)))} "
    return [word for word in words if f" {' '.join(map(_stem, _tokens(word)))} " in said]


def flagged(
    predictions: Predictions,
    units: Iterable[Unit],
    words: Sequence[str],
    matching: Matching = "words",
) -> dict[Unit, list[str]]:
    """Return, of each unit, the words that its description holds; none where it has none.

    Args:
        predictions: rank 1 is read.
        units: in question.
        words, matching: see `found`.

    Raises:
        InputError: no word, or one without a letter.
    """
    check_words(words)
    rows = {unit: predictions.first(unit) for unit in units}
    return {
        unit: found(row.description, words, matching) if row is not None else []
        for unit, row in rows.items()
    }


def check_words(words: Sequence[str]) -> None:
    """Raise InputError unless there are words to look for."""
    if not words or not all(_tokens(word) for word in words):
        raise InputError(f"The words to look for are {list(words)}; expected some, with letters.")


def check_units(predictions: Predictions, units: Iterable[Unit], what: str = "network") -> None:
    """Raise InputError unless all predictions are of units that the networks have.

    Args:
        predictions: of any networks.
        units: of the networks.
        what: the networks are called in the message.
    """
    known = set(units)
    strange = [unit for unit in predictions.units if unit not in known]
    if not strange:
        return
    networks = sorted({unit.network for unit in known})
    others = sorted({unit.network for unit in strange} - set(networks))
    if others:
        raise InputError(
            f"The predictions are of {some(others)}, and the {what} is {some(networks)}. Say "
            "which network the predictions are of with --network, or give another file."
        )
    layers: dict[str, list[int]] = {}
    for unit in sorted(known):
        if unit.network == strange[0].network:
            layers.setdefault(unit.layer, []).append(unit.unit)
    listed = ", ".join(
        f"{layer} ({len(own)} units, {own[0]}-{own[-1]})" for layer, own in layers.items()
    )
    raise InputError(f"{some(strange)}: no such unit. {strange[0].network} has layers {listed}.")


def _tokens(text: str) -> list[str]:
    return re.findall(r"[^\W_]+(?:'[^\W_]+)?", text.lower())


def _stem(word: str) -> str:
    """Return a word without the ending of the regular plural.

    Example:
        >>> [_stem(word) for word in ("faces", "eyes", "boxes", "glass", "nose", "berries")]
        ['face', 'eye', 'box', 'glass', 'nose', 'berry']
    """
    word = word.removesuffix("'s")
    if len(word) > 4 and word.endswith("ies"):
        return word[:-3] + "y"
    if word.endswith(("xes", "ches", "shes", "sses")):
        return word[:-2]
    if len(word) > 3 and word.endswith("s") and not word.endswith(("ss", "us", "is")):
        return word[:-1]
    return word
