"""Scorer of labelled probe datasets: finds the labels that a description names.

A lexicon lists the words of each label. It is a file in one of three formats:

    label,word                             .csv: one row per label and word
    {"n01440764": ["tench"]}               .json
    n01440764 tench, Tinca tinca           any other: one label per line, words between commas

Without a lexicon, labels are matched by their own names.
"""

from __future__ import annotations

import csv
import hashlib
import json
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from baselines.shared.concept_formulas import readable_name
from leaderboard.metrics.base import Floats
from milannotations.errors import InputError, some
from milannotations.utils.files import check_is_file

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from milannotations.probes import Probe

MAP_SIDE = 112
"""Height and width, in pixels, at which label maps are read."""

Tokens = tuple[str, ...]


class LabelScorer:
    """Presence of the labels that a description names; any of them counts.

    From the left of a description, the longest runs of words in the lexicon are matched, singular
    or plural; other words are skipped. A description that names no label is unreadable.

    Args:
        lexicon: words by label; None uses the labels' own names.
        digest: digest of the lexicon.
    """

    has_regions = True
    source: dict[str, Any]

    def __init__(
        self, lexicon: Mapping[str, Sequence[str]] | None = None, digest: str = "own names"
    ) -> None:
        self._lexicon = lexicon
        self.source = {"scorer": "labels", "digest": digest}

    def presence(self, texts: Sequence[str], probe: Probe, grid: int | None) -> Floats:
        """Return presence; see `Scorer.presence`. In a cell, it is the share of pixels covered.

        Raises:
            InputError: no label of the images is in the lexicon; a grid for images with classes
                only.
        """
        if grid is not None and all(concept.category == "class" for concept in probe.concepts):
            raise InputError(
                f"{probe.name} has a class per image and no label maps. Leave --grid out, or give "
                "images with maps: --images broden:DIR, coco:DIR or segments:DIR."
            )
        words = self._words(probe)
        named = [named_labels(text, words) for text in texts]
        numbers = sorted(set().union(*named))
        label_presence = _label_presence(probe, numbers, grid)
        presence = np.full((len(texts), label_presence.shape[1]), np.nan)
        row_of = {number: row for row, number in enumerate(numbers)}
        for row, members in zip(presence, named, strict=True):
            if members:
                row[:] = label_presence[[row_of[number] for number in sorted(members)]].max(0)
        return presence

    def _words(self, probe: Probe) -> dict[Tokens, set[int]]:
        """Return the numbers of the labels that each word names, by the word's tokens."""
        names = [concept.name for concept in probe.concepts]
        if not names:
            raise InputError(
                f"{probe.name} has no labels. Give labelled images (one folder per class, "
                "broden:DIR, coco:DIR or segments:DIR), or use --scorer clip:MODEL."
            )
        lexicon = self._lexicon
        if lexicon is None:
            lexicon = {name: [readable_name(name)] for name in names}
        shared = [name for name in names if name in lexicon]
        if not shared:
            raise InputError(
                f"No label of {probe.name} ({some(names, 3)}) is in the lexicon "
                f"({some(list(lexicon), 3)}). Expected words by label."
            )
        words: dict[Tokens, set[int]] = {}
        for number, name in enumerate(names, start=1):
            for word in lexicon.get(name, ()):
                if tokens := tuple(_tokenize(word)):
                    words.setdefault(tokens, set()).add(number)
        return words


def named_labels(text: str, words: Mapping[Tokens, set[int]]) -> set[int]:
    """Return the numbers of the labels that a text names.

    Args:
        text: a description.
        words: numbers of labels by the tokens of a word (`_tokenize`).

    Example:
        >>> named_labels("polar bears near a bear", {("polar", "bear"): {1}, ("bear",): {2}})
        {1, 2}
    """
    tokens = list(_tokenize(text))
    longest = max(map(len, words), default=0)
    numbers: set[int] = set()
    start = 0
    while start < len(tokens):
        # Greedy: the longest word that begins here wins, and its tokens are used up.
        for length in range(min(longest, len(tokens) - start), 0, -1):
            run = tuple(tokens[start : start + length])
            if run in words:
                numbers |= words[run]
                start += length
                break
        else:
            start += 1
    return numbers


def _tokenize(text: str) -> Iterator[str]:
    """Yield words in lower case, without the s of a plural."""
    for word in re.findall(r"[^\W_]+", text.lower()):
        plural = len(word) > 3 and word.endswith("s") and not word.endswith("ss")
        yield word[:-1] if plural else word


def _label_presence(probe: Probe, numbers: Sequence[int], grid: int | None) -> Floats:
    """Return the presence of labels: float64 (label, image) or (label, image * cell)."""
    side = MAP_SIDE if grid is None else grid * max(1, MAP_SIDE // grid)
    cells = 1 if grid is None else grid**2
    presence = np.zeros((len(numbers), len(probe), cells))
    if not numbers:
        return presence.reshape(0, len(probe) * cells)
    wanted = np.array(list(numbers))
    for i in range(len(probe)):
        # Reading the maps is slow, so only the wanted labels that occur in this image are located.
        maps = probe.labels(i, (side, side))
        for row in np.flatnonzero(np.isin(wanted, np.unique(maps))):
            presence[row, i] = _cell_shares((maps == wanted[row]).any(0), grid)
    return presence.reshape(len(numbers), -1)


def _cell_shares(mask: NDArray[np.bool_], grid: int | None) -> Floats | float:
    """Return the share of pixels that a mask covers in each cell; 1 without a grid."""
    if grid is None:
        return 1.0
    # (h, w) -> (grid, step, grid, step): a cell is a block of step x step pixels.
    step = len(mask) // grid
    shares: Floats = mask.reshape(grid, step, grid, step).mean((1, 3)).ravel()
    return shares


def read_lexicon(path: Path) -> dict[str, list[str]]:
    """Read words by label from a file.

    Raises:
        InputError: no such file; a file without labels and words.
    """
    text = check_is_file(path).read_text(encoding="utf-8")
    lexicon: dict[str, list[str]] = {}
    for label, words in _entries(path, text):
        lexicon.setdefault(label, []).extend(word.strip() for word in words if word.strip())
    if not any(lexicon.values()):
        raise InputError(
            f"{path} holds no label with a word. Expected .csv with label,word; .json with words "
            "by label; or lines such as 'n01440764 tench, Tinca tinca'."
        )
    return lexicon


def _entries(path: Path, text: str) -> Iterable[tuple[str, Sequence[str]]]:
    """Return labels with their words; a label may occur several times."""
    if path.suffix == ".json":
        try:
            content = json.loads(text)
        except ValueError as error:
            raise InputError(f"{path} is not valid JSON: {error}") from None
        if not isinstance(content, dict):
            raise InputError(
                f"{path} is no object of words by label; expected {{'n01440764': ['tench']}}."
            )
        return [
            (label, [words] if isinstance(words, str) else words)
            for label, words in content.items()
        ]
    if path.suffix == ".csv":
        rows = list(csv.DictReader(text.splitlines()))
        if rows and not {"label", "word"} <= set(rows[0]):
            raise InputError(
                f"{path} has the columns {', '.join(map(str, rows[0]))}; expected label,word."
            )
        return [(row["label"], [row["word"]]) for row in rows]
    lines = (line.split(maxsplit=1) for line in text.splitlines())
    return [(parts[0], parts[1].split(",")) for parts in lines if len(parts) == 2]


def create(argument: str = "", *, cache: str | None = None) -> LabelScorer:
    """Create the scorer, with the lexicon in a file if one is given.

    Raises:
        InputError: as `read_lexicon`.
    """
    if not argument:
        return LabelScorer()
    lexicon = read_lexicon(Path(argument).expanduser())
    content = json.dumps(lexicon, sort_keys=True)
    return LabelScorer(lexicon, hashlib.sha256(content.encode()).hexdigest()[:24])
