"""The named checks of a submission: one list, for its author and for CI alike."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import get_args

from baselines.framework.conformance import REFUSALS
from leaderboard.evaluation import predictions
from leaderboard.evaluation.file_formats import LAYOUTS
from leaderboard.evaluation.predictions import Predictions
from leaderboard.evaluation.references import References
from leaderboard.metrics.text import normalise
from leaderboard.ranking import tracks
from leaderboard.ranking.tracks import Track
from leaderboard.submission import form as forms
from leaderboard.submission import leakage, track_units
from leaderboard.submission.form import (
    FORM_NAME,
    PREDICTIONS_FOLDER,
    Predicted,
    Submission,
    find_hidden_character,
    predictions_file_name,
)
from milannotations import catalog
from milannotations.errors import InputError, some
from milannotations.utils.check_result import CheckResult, Status
from milannotations.utils.files import TextTable, parse_whole_number, sha256

MAX_BYTES = 64 << 20
"""Of a file of predictions."""

MAX_ROWS = 250_000
"""Of a file of predictions: the largest condition has 10,336 units, of which some have senses."""

MAX_SHARE = 0.5
MAX_TEN = 0.9
"""Share of the commonest answer, and of the ten commonest, above which there is a warning."""

MAX_SAID = 600
"""Characters of what a check says."""

_FORMULA = ("=", "+", "-", "@")
"""What a spreadsheet takes a cell for a formula by."""


@dataclass(frozen=True)
class SubmissionFiles:
    """A submission under examination; what is read of it is read once.

    Attributes:
        folder: of the submission.
        data: where editions that do not ship are found, by name.
    """

    folder: Path
    data: Mapping[str, str]

    @cached_property
    def form(self) -> Submission:
        return forms.load_form(self.folder)

    @cached_property
    def files(self) -> list[tuple[Predicted, Track, Path]]:
        return [
            (each, tracks.get(each.track), self.folder / PREDICTIONS_FOLDER / each.file)
            for each in self.form.predictions
        ]

    @cached_property
    def tables(self) -> list[tuple[str, list[tuple[int, dict[str, str]]]]]:
        return [(path.name, list(TextTable(path))) for _, _, path in self.files]

    @cached_property
    def said(self) -> list[Predictions]:
        return [predictions.read(path) for _, _, path in self.files]

    def known(self, track: Track) -> References | None:
        """Return the references of a track, or None if its edition is not at hand."""
        if track.key not in self._known:
            source = "mini" if track.edition == "mini" else self.data.get(track.edition)
            self._known[track.key] = (
                None if source is None else track_units.open_references(track, source)
            )
        return self._known[track.key]

    @cached_property
    def _known(self) -> dict[str, References | None]:
        return {}


Found = Iterator[tuple[Status, str]]


def check_submission(
    folder: str | os.PathLike[str], *, data: Mapping[str, str] | None = None
) -> list[CheckResult]:
    """Return what the checks find, in order; they end where going on makes no sense.

    Args:
        folder: of the submission, with `submission.yaml` in it.
        data: where editions that do not ship are found: name (`release`) to a folder, or to an
            `annotations.csv`.

    Raises:
        InputError: the folder is not there, or an edition of `data` cannot be opened.
    """
    case = SubmissionFiles(Path(folder), data or {})
    if not case.folder.is_dir():
        raise InputError(f"{folder} is not a folder; 'milan submit new NAME' makes one.")
    results: list[CheckResult] = []
    for name, (examine, vital) in CHECKS.items():
        try:
            found = list(examine(case)) or [("pass", "nothing to look at")]
        except InputError as error:
            found = [("fail", str(error))]
        worst = max((status for status, _ in found), key=get_args(Status).index)
        shown = [says for status, says in found if status == worst]
        # a stranger's words may stand in what is said of them
        says = _short("; ".join(dict.fromkeys(shown)).replace("\n", " "), MAX_SAID)
        results.append(CheckResult(name, worst, says))
        if vital and worst == "fail":
            break
    return results


def _files(case: SubmissionFiles) -> Found:
    """Nothing but a form and files of predictions, no link, nothing too large."""
    allowed = {Path(FORM_NAME), Path(PREDICTIONS_FOLDER)}
    names: list[Path] = []
    for entry in _walk(case.folder):
        path = Path(entry.path).relative_to(case.folder)
        if len(names) > forms.MAX_FILES + len(allowed):
            yield "fail", f"more than {forms.MAX_FILES} files"
            return
        names.append(path)
        inside = path.parent == Path(PREDICTIONS_FOLDER) and path.suffix == ".csv"
        size = entry.stat(follow_symlinks=False).st_size
        if entry.is_symlink():
            yield "fail", f"{_short(path)} is a link"
        elif path not in allowed and not inside:
            yield "fail", f"{_short(path)} does not belong to a submission"
        elif inside and not entry.is_file(follow_symlinks=False):
            yield "fail", f"{_short(path)} is no file"
        elif inside and size > MAX_BYTES:
            yield "fail", f"{_short(path)} has {size:,} bytes; {MAX_BYTES:,} is the most"
    for needed in allowed - set(names):
        yield "fail", f"{needed} is missing"
    yield (
        "pass",
        f"{len([n for n in names if n.parent == Path(PREDICTIONS_FOLDER)])} of predictions",
    )


def _walk(folder: Path) -> Iterator[os.DirEntry[str]]:
    with os.scandir(folder) as entries:
        for entry in sorted(entries, key=lambda entry: entry.name):
            yield entry
            if entry.name == PREDICTIONS_FOLDER and entry.is_dir(follow_symlinks=False):
                yield from _walk(Path(entry.path))


def _schema(case: SubmissionFiles) -> Found:
    """The form is one, and names tracks that there are."""
    form = case.form
    for _, track, _ in case.files:
        if track.task != "agreement":
            yield "fail", f"{track.key} takes no predictions; 'milan {track.task}' scores them"
    yield "pass", f"{form.name}@{form.version}, {len(form.predictions)} of predictions"


def _path(case: SubmissionFiles) -> Found:
    """Folder and files have the names that follow from their content."""
    expected = case.form.path
    if Path(*case.folder.resolve().parts[-2:]) != expected:
        yield "fail", f"the folder is {_short(case.folder)}; its form says {expected}"
    listed = {path.name for _, _, path in case.files}
    for predicted, track, path in case.files:
        name = predictions_file_name(track, predicted.seed)
        if predicted.file != name:
            yield "fail", f"'{predicted.file[:60]}' is to be called {name}"
        elif not path.is_file():
            yield "fail", f"{PREDICTIONS_FOLDER}/{name} is missing"
    beside = sorted(path.name for path in (case.folder / PREDICTIONS_FOLDER).iterdir())
    unlisted = [name for name in beside if name not in listed]
    if unlisted:
        yield "fail", f"the form does not name {some(map(_short, unlisted), 3)}"
    yield "pass", str(expected)


def _encoding(case: SubmissionFiles) -> Found:
    """UTF-8, CSV, the columns of the suite, not too many rows."""
    own = LAYOUTS[0]
    needed = ("network", "layer", *own.required)
    for _, _, path in case.files:
        with open(path, "rb") as stream:
            lines = sum(chunk.count(b"\n") for chunk in iter(lambda: stream.read(1 << 20), b""))
        if lines > MAX_ROWS + 1:
            yield "fail", f"{path.name} has {lines:,} lines; {MAX_ROWS:,} is the most"
            return
        columns = TextTable(path).columns
        odd = [c for c in columns if c not in (*own.required, *own.optional)]
        missing = [c for c in needed if c not in columns]
        if odd or missing:
            yield (
                "fail",
                f"{path.name} has the columns {some(c[:40] for c in columns)}; expected "
                f"{own.header}, with network and layer",
            )
            return
    yield "pass", ", ".join(f"{name}: {len(rows):,} rows" for name, rows in case.tables)


def _duplicates(case: SubmissionFiles) -> Found:
    """No unit twice, but for its senses."""
    for name, rows in case.tables:
        seen: Counter[tuple[str, ...]] = Counter()
        for line, cells in rows:
            unit = parse_whole_number(cells["unit"], f"{name}, line {line}")
            rank = parse_whole_number(cells.get("rank") or "1", f"{name}, line {line}", "rank")
            network = cells["network"].strip().replace("/", "-")
            seen[network, cells["layer"].strip(), str(unit), str(rank)] += 1
        twice = ["/".join(key[:3]) for key, times in seen.items() if times > 1]
        if twice:
            yield "fail", f"{name} describes {_short(some(twice, 3), 200)} more than once"
    yield "pass", "each unit once"


def _rows(case: SubmissionFiles) -> Found:
    """Every row is a description, an abstention or a failure of a unit."""
    for said, (_, _, path) in zip(case.said, case.files, strict=True):
        status = Counter(said.first(unit).status for unit in said.units)  # type: ignore[union-attr]
        yield "pass", f"{path.name}: " + ", ".join(f"{n:,} {s}" for s, n in sorted(status.items()))


def _characters(case: SubmissionFiles) -> Found:
    """Nothing that hides, turns text around, or is a formula to a spreadsheet."""
    for name, rows in case.tables:
        for line, cells in rows:
            for column, text in cells.items():
                text = text.strip(" ")
                if (found := find_hidden_character(text)) is not None:
                    yield "fail", f"{name}, line {line}: {column} holds {found}"
                    return
                formula = text.startswith(_FORMULA) and column not in ("score", "unit", "rank")
                if formula:
                    yield (
                        "fail",
                        f"{name}, line {line}: {column} begins with '{text[0]}', and a spreadsheet "
                        "would take it for a formula",
                    )
                    return
    yield "pass", "plain text"


def _digests(case: SubmissionFiles) -> Found:
    """Files, units and edition are those that the form says."""
    for predicted, track, path in case.files:
        if sha256(path) != predicted.sha256:
            yield "fail", f"{path.name} is not the file that the form was written for (sha256)"
        if predicted.units_digest not in (None, track.units_digest):
            yield "fail", f"{path.name} was made for other units than those of {track.key}"
        known = case.known(track)
        for digest in {track.edition_digest, None if known is None else known.digest}:
            if digest and predicted.edition_digest not in (None, digest):
                yield "fail", f"{path.name} was made for another edition than that of {track.key}"
        if known is None:
            yield "skip", _absent(track)
    yield "pass", "as stated"


def _coverage(case: SubmissionFiles) -> Found:
    """Every unit of the track is described, or counts as failed; no other edition's unit is."""
    for said, (_, track, path) in zip(case.said, case.files, strict=True):
        known = case.known(track)
        expected, others = track_units.split_units(track, known)
        if expected is None or others is None:
            yield "skip", _absent(track)
            continue
        unknown = [unit for unit in said.units if unit not in expected and unit not in others]
        if unknown:
            named = _short(some(unknown, 3), 200)
            at = f"{track.edition} / {track.config}"
            yield "fail", f"{path.name} describes {named}, which {at} has not"
            continue
        rows = [said.first(unit) for unit in expected]
        n = sum(row is not None and row.status == "ok" for row in rows)
        beyond = sum(unit in others for unit in said.units)
        says = f"{track.key}: {n:,} of {len(expected):,} units described"
        says += f", {len(expected) - n:,} count as failed" if n < len(expected) else ""
        says += f", {beyond:,} of other splits not looked at" if beyond else ""
        yield ("pass" if n else "fail"), says


def _training(case: SubmissionFiles) -> Found:
    """What it learned from is what the condition allows."""
    form = case.form
    if form.saw_test_units:
        yield "warn", "it has seen units of its test set; the board says so"
    for _, track, _ in case.files:
        if not track.condition or track.condition.startswith("within-network"):
            continue
        train, test = track_units.condition_networks(track)
        named = [name.strip().replace("/", "-") for name in form.trained_on]
        learned = {n for name in named for n in catalog.GROUPS.get(name, (name,))}
        if not form.saw_test_units and learned & set(test):
            yield (
                "fail",
                f"it learned from {some(sorted(learned & set(test)))}, whose units test on "
                f"{track.key}, and says that it has not seen them",
            )
        beyond = (learned & set(catalog.NETWORKS)) - set(train) - set(test)
        if beyond:
            yield "warn", f"it learned from {some(sorted(beyond))}, which {track.key} leaves out"
    yield "pass", f"trained on {some(map(_short, form.trained_on), 3) or 'nothing of the kind'}"


def _constants(case: SubmissionFiles) -> Found:
    """Answers differ between units, and are none of what programs say when they fail."""
    for said, (_, _, path) in zip(case.said, case.files, strict=True):
        texts = [normalise(row.description) for row in said.rows if row.status == "ok"]
        counts = Counter(texts)
        if not texts:
            continue
        (first, times), *_ = counts.most_common(1)
        ten = sum(n for _, n in counts.most_common(10)) / len(texts)
        if times / len(texts) > MAX_SHARE and len(texts) > 1:
            yield "warn", f"{path.name} says '{_short(first)}' of {times / len(texts):.0%} of units"
        elif ten > MAX_TEN and len(texts) >= 100:
            yield "warn", f"{path.name}: ten answers are {ten:.0%} of all"
        refused = sum(text.startswith(REFUSALS) for text in texts)
        if refused:
            yield "warn", f"{path.name}: {refused:,} answers begin as an error or a refusal does"
        yield "pass", f"{path.name}: {len(counts):,} distinct, the ten commonest {ten:.0%} of all"


def _leakage(case: SubmissionFiles) -> Found:
    """Long answers are no oftener a reference of their unit than one person's are."""
    for said, (_, track, path) in zip(case.said, case.files, strict=True):
        known = case.known(track)
        if known is None:
            yield "skip", _absent(track)
            continue
        rows = [said.first(unit) for unit in known.units]
        answers = [normalise(row.description) if row is not None else None for row in rows]
        found = leakage.measure_leakage(answers, known, track_units.units_in_scope(track, known))
        person = "one simulated annotator" if track.synthetic else "one person"
        rate, theirs, limit = (
            f"{round(share, 4) + 0.0:.2%}" for share in (found.rate, found.person, found.limit)
        )
        says = (
            f"{path.name}: {found.n_same:,} of {found.n_units:,} answers are a reference of their "
            f"unit word for word and have {leakage.MIN_WORDS} words or more, "
            f"{found.n_shuffled:.1f} expected by chance; on matched references {rate}, "
            f"{person} {theirs}, limit {limit}"
        )
        yield ("warn" if found.warns else "pass"), says


CHECKS: dict[str, tuple[Callable[[SubmissionFiles], Found], bool]] = {
    "files": (_files, True),
    "schema": (_schema, True),
    "path": (_path, True),
    "encoding": (_encoding, True),
    "duplicates": (_duplicates, True),
    "rows": (_rows, True),
    "characters": (_characters, False),
    "digests": (_digests, False),
    "coverage": (_coverage, False),
    "training": (_training, False),
    "constants": (_constants, False),
    "leakage": (_leakage, False),
}
"""Name to what is looked at, and whether nothing can be said where that is wrong."""


def _absent(track: Track) -> str:
    return f"the edition {track.edition} is not at hand: --data {track.edition}=FOLDER"


def _short(text: object, limit: int = 60) -> str:
    """Return a text as it may be shown: nothing hidden, not too long."""
    shown = "".join(c if c.isprintable() else "?" for c in str(text))
    return shown if len(shown) <= limit else shown[:limit] + "..."
