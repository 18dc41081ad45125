"""Flags of units whose descriptions contain any of a list of words.

The 2022 code searched for substrings, so that it found `word` in "swords" and `red` in "colored".
By default we match whole words, singular or plural; substrings remain an option.
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
"""Words of the audit of Hernandez et al. 2022, section 6."""

TEXT = ("word", "text", "letter")
"""Words of the 2022 code of section 7."""


def match_words(description: str, words: Iterable[str], matching: Matching = "words") -> list[str]:
    """Return the words that a description contains, in the order of the list.

    Args:
        description: any text; case is ignored.
        words: words to look for; an entry of several words matches if they stand together.
        matching: `words` matches whole words, singular or plural; `substrings` any part, as in
            2022.

    Example:
        >>> match_words("Faces, and swords", ["face", "word"])
        ['face']
        >>> match_words("Faces, and swords", ["face", "word"], "substrings")
        ['face', 'word']
    """
    if matching == "substrings":
        return [word for word in words if word.lower() in description.lower()]
    # Spaces at both ends let a substring search match whole words only.
    text = f" {' '.join(map(_singular, _tokenize(description)))} "
    return [word for word in words if f" {' '.join(map(_singular, _tokenize(word)))} " in text]


def flag_units(
    predictions: Predictions,
    units: Iterable[Unit],
    words: Sequence[str],
    matching: Matching = "words",
) -> dict[Unit, list[str]]:
    """Return, for each unit, the words that its description contains.

    Args:
        predictions: descriptions; only those of rank 1 are used.
        units: units to look up; one without a description has no words.
        words, matching: see `match_words`.

    Raises:
        InputError: no word, or one without a letter.
    """
    check_words(words)
    rows = {unit: predictions.first(unit) for unit in units}
    return {
        unit: match_words(row.description, words, matching) if row is not None else []
        for unit, row in rows.items()
    }


def check_words(words: Sequence[str]) -> None:
    """Raise InputError unless there is at least one word, and every word has a letter."""
    if not words or not all(_tokenize(word) for word in words):
        raise InputError(
            f"The words to look for are {list(words)}; expected at least one, with letters."
        )


def check_units(predictions: Predictions, units: Iterable[Unit], what: str = "network") -> None:
    """Raise InputError unless the networks have every unit of the predictions.

    Args:
        predictions: predictions of any networks.
        units: units of the networks.
        what: word for the networks in the message.
    """
    known = set(units)
    unknown = [unit for unit in predictions.units if unit not in known]
    if not unknown:
        return
    networks = sorted({unit.network for unit in known})
    others = sorted({unit.network for unit in unknown} - set(networks))
    if others:
        raise InputError(
            f"The predictions are of {some(others)}, and the {what} is {some(networks)}. Say "
            "which network the predictions are of with --network, or give another file."
        )
    layers: dict[str, list[int]] = {}
    for unit in sorted(known):
        if unit.network == unknown[0].network:
            layers.setdefault(unit.layer, []).append(unit.unit)
    listed = ", ".join(
        f"{layer} ({len(indices)} units, {indices[0]}-{indices[-1]})"
        for layer, indices in layers.items()
    )
    raise InputError(f"{some(unknown)}: no such unit. {unknown[0].network} has layers {listed}.")


def _tokenize(text: str) -> list[str]:
    return re.findall(r"[^\W_]+(?:'[^\W_]+)?", text.lower())


def _singular(word: str) -> str:
    """Return a word without the ending of the regular plural.

    Example:
        >>> [_singular(word) for word in ("faces", "eyes", "boxes", "glass", "nose", "berries")]
        ['face', 'eye', 'box', 'glass', 'nose', 'berry']
    """
    word = word.removesuffix("'s")
    # Few rules, for both descriptions and words: an odd stem does no harm where both have it.
    if len(word) > 4 and word.endswith("ies"):
        return word[:-3] + "y"
    if word.endswith(("xes", "ches", "shes", "sses")):
        return word[:-2]
    if len(word) > 3 and word.endswith("s") and not word.endswith(("ss", "us", "is")):
        return word[:-1]
    return word
