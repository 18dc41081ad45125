"""Labels of a probe data set, found in descriptions by their words.

A lexicon says which words a label goes by. It is a file:

    label,word                             .csv: as many rows a label, or labels a word, as needed
    {"n01440764": ["tench"]}               .json
    n01440764 tench, Tinca tinca           anything else: a label a line, words between commas

Without one, labels go by their own names.
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

from baselines.shared.concept_formulas import readable
from leaderboard.metrics.base import Floats
from milannotations.errors import InputError, some
from milannotations.utils.files import check_is_file

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from milannotations.probes import Probe

SIDE = 112
"""Label maps are looked at in this size."""


class LabelScorer:
    """Says where labels are that a description names: where any of them is.

    Of a text, the longest runs of words that the lexicon has are taken, from the left, singular
    or plural; what is between them is passed over. A text that names no label is not read.

    Args:
        lexicon: words by label; None takes the labels' own names.
        digest: of the lexicon.
    """

    has_regions = True
    source: dict[str, Any]

    def __init__(
        self, lexicon: Mapping[str, Sequence[str]] | None = None, digest: str = "own names"
    ) -> None:
        self._lexicon = lexicon
        self.source = {"scorer": "labels", "digest": digest}

    def presence(self, texts: Sequence[str], probe: Probe, grid: int | None) -> Floats:
        """Return presence; see `Scorer.presence`. A cell counts by the share that is covered.

        Raises:
            InputError: no label of the pictures is in the lexicon; regions of classes.
        """
        if grid is not None and all(each.category == "class" for each in probe.concepts):
            raise InputError(
                f"{probe.name} tells the class of a picture, and not where anything is. Leave "
                "--grid out, or give pictures with maps: broden:DIR, coco:DIR, segments:DIR."
            )
        words = self._words(probe)
        named = [named_labels(text, words) for text in texts]
        wanted = sorted(set().union(*named))
        there = _there(probe, wanted, grid)
        found = np.full((len(texts), there.shape[1]), np.nan)
        place = {number: row for row, number in enumerate(wanted)}
        for row, numbers in zip(found, named, strict=True):
            if numbers:
                row[:] = there[[place[number] for number in sorted(numbers)]].max(0)
        return found

    def _words(self, probe: Probe) -> dict[tuple[str, ...], set[int]]:
        names = [concept.name for concept in probe.concepts]
        if not names:
            raise InputError(
                f"{probe.name} are pictures of which nothing is known. Give pictures with labels "
                "(a folder a class, broden:DIR, coco:DIR, segments:DIR), or clip:MODEL."
            )
        lexicon = self._lexicon
        if lexicon is None:
            lexicon = {name: [readable(name)] for name in names}
        shared = [name for name in names if name in lexicon]
        if not shared:
            raise InputError(
                f"No label of {probe.name} ({some(names, 3)}) is in the lexicon "
                f"({some(list(lexicon), 3)}). Expected words by label."
            )
        words: dict[tuple[str, ...], set[int]] = {}
        for number, name in enumerate(names, start=1):
            for word in lexicon.get(name, ()):
                if tokens := tuple(_tokens(word)):
                    words.setdefault(tokens, set()).add(number)
        return words


def named_labels(text: str, words: Mapping[tuple[str, ...], set[int]]) -> set[int]:
    """Return the labels that a text names.

    Args:
        text: a description.
        words: numbers of labels, by word: its tokens, as `_tokens` makes them.

    Example:
        >>> named_labels("polar bears near a bear", {("polar", "bear"): {1}, ("bear",): {2}})
        {1, 2}
    """
    tokens = list(_tokens(text))
    longest = max(map(len, words), default=0)
    found: set[int] = set()
    start = 0
    while start < len(tokens):
        for length in range(min(longest, len(tokens) - start), 0, -1):
            run = tuple(tokens[start : start + length])
            if run in words:
                found |= words[run]
                start += length
                break
        else:
            start += 1
    return found


def _tokens(text: str) -> Iterator[str]:
    """Yield words in lower case, the plural's s left out."""
    for word in re.findall(r"[^\W_]+", text.lower()):
        plural = len(word) > 3 and word.endswith("s") and not word.endswith("ss")
        yield word[:-1] if plural else word


def _there(probe: Probe, numbers: Sequence[int], grid: int | None) -> Floats:
    """Return where labels are: float64 (label, image), or by cell (label, image * cell)."""
    side = SIDE if grid is None else grid * max(1, SIDE // grid)
    cells = 1 if grid is None else grid**2
    found = np.zeros((len(numbers), len(probe), cells))
    if not numbers:
        return found.reshape(0, len(probe) * cells)
    wanted = np.array(list(numbers))
    for i in range(len(probe)):
        maps = probe.labels(i, (side, side))
        for row in np.flatnonzero(np.isin(wanted, np.unique(maps))):
            found[row, i] = _shares((maps == wanted[row]).any(0), grid)
    return found.reshape(len(numbers), -1)


def _shares(mask: NDArray[np.bool_], grid: int | None) -> Floats | float:
    if grid is None:
        return 1.0
    step = len(mask) // grid
    shares: Floats = mask.reshape(grid, step, grid, step).mean((1, 3)).ravel()
    return shares


def read_lexicon(path: Path) -> dict[str, list[str]]:
    """Return words by label, of a file.

    Raises:
        InputError: no such file; one without labels and words.
    """
    text = check_is_file(path).read_text(encoding="utf-8")
    made: dict[str, list[str]] = {}
    for label, words in _entries(path, text):
        made.setdefault(label, []).extend(word.strip() for word in words if word.strip())
    if not any(made.values()):
        raise InputError(
            f"{path} holds no label with a word. Expected .csv with label,word; .json with words "
            "by label; or lines such as 'n01440764 tench, Tinca tinca'."
        )
    return made


def _entries(path: Path, text: str) -> Iterable[tuple[str, Sequence[str]]]:
    if path.suffix == ".json":
        try:
            found = json.loads(text)
        except ValueError as error:
            raise InputError(f"{path} is not JSON: {error}") from None
        if not isinstance(found, dict):
            raise InputError(f"{path} holds no words by label: {{'n01440764': ['tench']}}.")
        return [(key, [said] if isinstance(said, str) else said) for key, said in found.items()]
    if path.suffix == ".csv":
        rows = list(csv.DictReader(text.splitlines()))
        if rows and not {"label", "word"} <= set(rows[0]):
            raise InputError(
                f"{path} has the columns {', '.join(map(str, rows[0]))}; expected label,word."
            )
        return [(row["label"], [row["word"]]) for row in rows]
    lines = (line.split(maxsplit=1) for line in text.splitlines())
    return [(parts[0], parts[1].split(",")) for parts in lines if len(parts) == 2]


def create(said: str = "", *, cache: str | None = None) -> LabelScorer:
    """Return the scorer, with the lexicon of a file.

    Raises:
        InputError: as `read_lexicon`.
    """
    if not said:
        return LabelScorer()
    path = Path(said).expanduser()
    lexicon = read_lexicon(path)
    made = json.dumps(lexicon, sort_keys=True)
    return LabelScorer(lexicon, hashlib.sha256(made.encode()).hexdigest()[:24])
