"""Named checks of a submission; the submitter and CI run the same list."""

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
"""Largest size of a predictions file, in bytes."""

MAX_ROWS = 250_000
"""Most rows of a predictions file; the largest condition has 10,336 units, some with senses."""

MAX_SHARE_OF_ONE = 0.5
"""Share of the most common description above which there is a warning."""

MAX_SHARE_OF_TEN = 0.9
"""Share of the ten most common descriptions above which there is a warning."""

MIN_FOR_TEN = 100
"""Fewest descriptions for the warning about the ten most common ones."""

MAX_MESSAGE = 600
"""Most characters of a check's message."""

_FORMULA_STARTS = ("=", "+", "-", "@")
"""First characters by which a spreadsheet takes a cell for a formula."""

Seen = Iterator[tuple[Status, str]]


@dataclass(frozen=True)
class SubmissionFiles:
    """Form and predictions of a submission under examination; each file is read once.

    Attributes:
        folder: folder of the submission.
        data: folders of editions that do not ship, by name.
    """

    folder: Path
    data: Mapping[str, str]

    @cached_property
    def form(self) -> Submission:
        """The submission form."""
        return forms.load_form(self.folder)

    @cached_property
    def files(self) -> list[tuple[Predicted, Track, Path]]:
        """Entry of the form, track and path of each predictions file."""
        return [
            (entry, tracks.get(entry.track), self.folder / PREDICTIONS_FOLDER / entry.file)
            for entry in self.form.predictions
        ]

    @cached_property
    def tables(self) -> list[tuple[str, list[tuple[int, dict[str, str]]]]]:
        """Name and unparsed rows, with their line numbers, of each predictions file."""
        return [(path.name, list(TextTable(path))) for _, _, path in self.files]

    @cached_property
    def predictions(self) -> list[tuple[Predictions, Track, Path]]:
        """Parsed predictions, track and path of each predictions file."""
        return [(predictions.read(path), track, path) for _, track, path in self.files]

    def references(self, track: Track) -> References | None:
        """Return the references of a track, or None if its edition is not available."""
        if track.key not in self._references:
            source = "mini" if track.edition == "mini" else self.data.get(track.edition)
            self._references[track.key] = (
                None if source is None else track_units.open_references(track, source)
            )
        return self._references[track.key]

    @cached_property
    def _references(self) -> dict[str, References | None]:
        return {}


def check_submission(
    folder: str | os.PathLike[str], *, data: Mapping[str, str] | None = None
) -> list[CheckResult]:
    """Run the checks in order; stop after a failure without which the next checks make no sense.

    Args:
        folder: folder of the submission, with `submission.yaml` in it.
        data: editions that do not ship, by name (`release`): a folder or an `annotations.csv`.

    Raises:
        InputError: no such folder, or an edition of `data` cannot be opened.
    """
    submission = SubmissionFiles(Path(folder), data or {})
    if not submission.folder.is_dir():
        raise InputError(f"{folder} is not a folder. Make one: milan submit new NAME")
    results: list[CheckResult] = []
    for name, (check, required) in CHECKS.items():
        try:
            seen = list(check(submission)) or [("pass", "nothing to check")]
        except InputError as error:
            seen = [("fail", str(error))]
        worst = max((status for status, _ in seen), key=get_args(Status).index)
        messages = dict.fromkeys(message for status, message in seen if status == worst)
        # Messages quote third-party text: show it without hidden characters, and cut it.
        message = _visible("; ".join(messages).replace("\n", " "), MAX_MESSAGE)
        results.append(CheckResult(name, worst, message))
        if required and worst == "fail":
            break
    return results


def _check_files(submission: SubmissionFiles) -> Seen:
    """Nothing but a form and predictions files; no links, and no file that is too large."""
    allowed = {Path(FORM_NAME), Path(PREDICTIONS_FOLDER)}
    names: list[Path] = []
    for entry in _walk(submission.folder):
        path = Path(entry.path).relative_to(submission.folder)
        if len(names) > forms.MAX_FILES + len(allowed):
            yield "fail", f"more than {forms.MAX_FILES} files"
            return
        names.append(path)
        inside = path.parent == Path(PREDICTIONS_FOLDER) and path.suffix == ".csv"
        size = entry.stat(follow_symlinks=False).st_size
        if entry.is_symlink():
            yield "fail", f"{_visible(path)} is a link"
        elif path not in allowed and not inside:
            yield "fail", f"{_visible(path)} does not belong to a submission"
        elif inside and not entry.is_file(follow_symlinks=False):
            yield "fail", f"{_visible(path)} is not a regular file"
        elif inside and size > MAX_BYTES:
            yield "fail", f"{_visible(path)} has {size:,} bytes; expected at most {MAX_BYTES:,}"
    for path in allowed - set(names):
        yield "fail", f"{path} is missing"
    n_files = len([name for name in names if name.parent == Path(PREDICTIONS_FOLDER)])
    yield "pass", f"{n_files} in {PREDICTIONS_FOLDER}/"


def _walk(folder: Path) -> Iterator[os.DirEntry[str]]:
    """Yield the entries of the submission and of its predictions folder; links are not followed."""
    with os.scandir(folder) as entries:
        for entry in sorted(entries, key=lambda entry: entry.name):
            yield entry
            if entry.name == PREDICTIONS_FOLDER and entry.is_dir(follow_symlinks=False):
                yield from _walk(Path(entry.path))


def _check_schema(submission: SubmissionFiles) -> Seen:
    """The form is valid, and names existing tracks that take predictions."""
    form = submission.form
    for _, track, _ in submission.files:
        if track.task != "agreement":
            yield "fail", f"{track.key} takes no predictions; score it with: milan {track.task}"
    n_files = len(form.predictions)
    yield "pass", f"{form.name}@{form.version}, predictions files: {n_files}"


def _check_path(submission: SubmissionFiles) -> Seen:
    """Folder and files have the names that follow from the form."""
    expected = submission.form.path
    if Path(*submission.folder.resolve().parts[-2:]) != expected:
        yield "fail", f"the folder is {_visible(submission.folder)}; its form requires {expected}"
    listed = {path.name for _, _, path in submission.files}
    for predicted, track, path in submission.files:
        name = predictions_file_name(track, predicted.seed)
        if predicted.file != name:
            yield "fail", f"'{predicted.file[:60]}' must be named {name}"
        elif not path.is_file():
            yield "fail", f"{PREDICTIONS_FOLDER}/{name} is missing"
    names = sorted(path.name for path in (submission.folder / PREDICTIONS_FOLDER).iterdir())
    unlisted = [name for name in names if name not in listed]
    if unlisted:
        yield "fail", f"the form does not name {some(map(_visible, unlisted), 3)}"
    yield "pass", str(expected)


def _check_encoding(submission: SubmissionFiles) -> Seen:
    """The files are UTF-8 and CSV, with the suite's columns and not too many rows."""
    layout = LAYOUTS[0]
    required = ("network", "layer", *layout.required)
    for _, _, path in submission.files:
        # Count lines in chunks: a row limit must hold before the file is parsed.
        with open(path, "rb") as stream:
            lines = sum(chunk.count(b"\n") for chunk in iter(lambda: stream.read(1 << 20), b""))
        if lines > MAX_ROWS + 1:
            yield "fail", f"{path.name} has {lines:,} lines; expected at most {MAX_ROWS:,}"
            return
        columns = TextTable(path).columns
        unknown = [c for c in columns if c not in (*layout.required, *layout.optional)]
        missing = [c for c in required if c not in columns]
        if unknown or missing:
            yield (
                "fail",
                f"{path.name} has the columns {some(c[:40] for c in columns)}; expected "
                f"{layout.header}, with network and layer",
            )
            return
    yield "pass", ", ".join(f"{name}: {len(rows):,} rows" for name, rows in submission.tables)


def _check_duplicates(submission: SubmissionFiles) -> Seen:
    """No unit has two rows of the same rank."""
    for name, rows in submission.tables:
        counts: Counter[tuple[str, ...]] = Counter()
        for line, cells in rows:
            where = f"{name}, line {line}"
            unit = parse_whole_number(cells["unit"], where)
            rank = parse_whole_number(cells.get("rank") or "1", where, "rank")
            network = cells["network"].strip().replace("/", "-")
            counts[network, cells["layer"].strip(), str(unit), str(rank)] += 1
        repeated = ["/".join(key[:3]) for key, count in counts.items() if count > 1]
        if repeated:
            yield "fail", f"{name} describes {_visible(some(repeated, 3), 200)} more than once"
    yield "pass", "each unit once"


def _check_rows(submission: SubmissionFiles) -> Seen:
    """Every row is a description, an abstention or a failure of a unit."""
    for predicted, _, path in submission.predictions:
        rows = [predicted.first(unit) for unit in predicted.units]
        counts = Counter(row.status for row in rows if row is not None)
        listed = ", ".join(f"{count:,} {status}" for status, count in sorted(counts.items()))
        yield "pass", f"{path.name}: {listed}"


def _check_characters(submission: SubmissionFiles) -> Seen:
    """No text hides characters, changes the writing direction, or is a spreadsheet formula."""
    for name, rows in submission.tables:
        for line, cells in rows:
            for column, cell in cells.items():
                text = cell.strip(" ")
                if (character := find_hidden_character(text)) is not None:
                    yield "fail", f"{name}, line {line}: {column} holds {character}"
                    return
                numeric = column in ("score", "unit", "rank")
                if text.startswith(_FORMULA_STARTS) and not numeric:
                    yield (
                        "fail",
                        f"{name}, line {line}: {column} begins with '{text[0]}', which a "
                        "spreadsheet takes for a formula",
                    )
                    return
    yield "pass", "plain text"


def _check_digests(submission: SubmissionFiles) -> Seen:
    """Files, units and edition are those that the form states."""
    for predicted, track, path in submission.files:
        if sha256(path) != predicted.sha256:
            yield "fail", f"{path.name} is not the file that the form was written for (sha256)"
        if predicted.units_digest not in (None, track.units_digest):
            yield "fail", f"{path.name} was made for other units than those of {track.key}"
        known = submission.references(track)
        for digest in {track.edition_digest, None if known is None else known.digest}:
            if digest and predicted.edition_digest not in (None, digest):
                yield "fail", f"{path.name} was made for another edition than that of {track.key}"
        if known is None:
            yield "skip", _not_available(track)
    yield "pass", "as stated"


def _check_coverage(submission: SubmissionFiles) -> Seen:
    """Units of the track are described or count as failed; there are no units of other editions."""
    for predicted, track, path in submission.predictions:
        expected, others = track_units.split_units(track, submission.references(track))
        if expected is None or others is None:
            yield "skip", _not_available(track)
            continue
        unknown = [u for u in predicted.units if u not in expected and u not in others]
        if unknown:
            yield (
                "fail",
                f"{path.name} describes {_visible(some(unknown, 3), 200)}, not in "
                f"{track.edition} / {track.config}",
            )
            continue
        rows = [predicted.first(unit) for unit in expected]
        n_described = sum(row is not None and row.status == "ok" for row in rows)
        n_failed = len(expected) - n_described
        n_others = sum(unit in others for unit in predicted.units)
        message = f"{track.key}: {n_described:,} of {len(expected):,} units described"
        if n_failed:
            message += f", {n_failed:,} count as failed"
        if n_others:
            message += f", {n_others:,} of other splits ignored"
        yield ("pass" if n_described else "fail"), message


def _check_training(submission: SubmissionFiles) -> Seen:
    """The method learned only from what the condition allows."""
    form = submission.form
    if form.saw_test_units:
        yield "warn", "the method has seen units of its test set; the leaderboard shows this"
    for _, track, _ in submission.files:
        if not track.condition or track.condition.startswith("within-network"):
            continue
        train, test = track_units.condition_networks(track)
        stated = [name.strip().replace("/", "-") for name in form.trained_on]
        # `base` and other groups stand for their networks.
        learned = {n for name in stated for n in catalog.GROUPS.get(name, (name,))}
        if not form.saw_test_units and learned & set(test):
            yield (
                "fail",
                f"the method learned from {some(sorted(learned & set(test)))}, whose units test on "
                f"{track.key}, but its form denies that it saw test units",
            )
        beyond = (learned & set(catalog.NETWORKS)) - set(train) - set(test)
        if beyond:
            yield (
                "warn",
                f"the method learned from {some(sorted(beyond))}, which {track.key} leaves out",
            )
    yield "pass", f"trained on {some(map(_visible, form.trained_on), 3) or 'no network or edition'}"


def _check_constants(submission: SubmissionFiles) -> Seen:
    """Descriptions differ between units, and are no error messages or refusals."""
    for predicted, _, path in submission.predictions:
        texts = [normalise(row.description) for row in predicted.rows if row.status == "ok"]
        counts = Counter(texts)
        if not texts:
            continue
        (most_common, n_most_common), *_ = counts.most_common(1)
        share_of_one = n_most_common / len(texts)
        share_of_ten = sum(count for _, count in counts.most_common(10)) / len(texts)
        if share_of_one > MAX_SHARE_OF_ONE and len(texts) > 1:
            yield (
                "warn",
                f"{path.name} describes {share_of_one:.0%} of units as '{_visible(most_common)}'",
            )
        elif share_of_ten > MAX_SHARE_OF_TEN and len(texts) >= MIN_FOR_TEN:
            yield "warn", f"{path.name}: ten descriptions make up {share_of_ten:.0%} of all"
        n_refusals = sum(text.startswith(REFUSALS) for text in texts)
        if n_refusals:
            yield (
                "warn",
                f"{path.name}: {n_refusals:,} descriptions begin like an error or a refusal",
            )
        yield (
            "pass",
            f"{path.name}: {len(counts):,} distinct, the ten most common {share_of_ten:.0%} of all",
        )


def _check_leakage(submission: SubmissionFiles) -> Seen:
    """Long descriptions are not copied from references more often than a human's would be."""
    for predicted, track, path in submission.predictions:
        known = submission.references(track)
        if known is None:
            yield "skip", _not_available(track)
            continue
        rows = [predicted.first(unit) for unit in known.units]
        texts = [normalise(row.description) if row is not None else None for row in rows]
        leak = leakage.measure_leakage(texts, known, track_units.units_in_scope(track, known))
        human = "simulated annotator" if track.synthetic else "leave-one-out human"
        rate, human_rate, limit = (
            f"{round(share, 4) + 0.0:.2%}" for share in (leak.rate, leak.human, leak.limit)
        )
        message = (
            f"{path.name}: {leak.n_same:,} of {leak.n_units:,} descriptions are, word for word, "
            f"a reference of their unit with {leakage.MIN_WORDS} words or more, "
            f"{leak.n_shuffled:.1f} expected by chance; rate on matched references {rate}, "
            f"{human} {human_rate}, limit {limit}"
        )
        yield ("warn" if leak.warns else "pass"), message


CHECKS: dict[str, tuple[Callable[[SubmissionFiles], Seen], bool]] = {
    "files": (_check_files, True),
    "schema": (_check_schema, True),
    "path": (_check_path, True),
    "encoding": (_check_encoding, True),
    "duplicates": (_check_duplicates, True),
    "rows": (_check_rows, True),
    "characters": (_check_characters, False),
    "digests": (_check_digests, False),
    "coverage": (_check_coverage, False),
    "training": (_check_training, False),
    "constants": (_check_constants, False),
    "leakage": (_check_leakage, False),
}
"""Check by name, and whether the later checks require it to pass."""


def _not_available(track: Track) -> str:
    return f"the edition {track.edition} is not available; give --data {track.edition}=FOLDER"


def _visible(text: object, limit: int = 60) -> str:
    """Return a text without hidden characters, cut to a number of characters."""
    visible = "".join(c if c.isprintable() else "?" for c in str(text))
    return visible if len(visible) <= limit else visible[:limit] + "..."
