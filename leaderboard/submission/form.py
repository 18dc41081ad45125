"""The form of a submission: what is asked, and how a file of it is read without trust."""

from __future__ import annotations

import os
import re
import unicodedata
from pathlib import Path
from typing import Annotated, Any

import yaml
from pydantic import (
    AfterValidator,
    BeforeValidator,
    ConfigDict,
    Field,
    ValidationError,
    model_validator,
)
from pydantic import BaseModel as _BaseModel

from leaderboard.ranking.tracks import Track
from leaderboard.record_format.method_info import About
from milannotations.errors import InputError, did_you_mean
from milannotations.utils.files import check_is_file

FORM_NAME = "submission.yaml"
PREDICTIONS_FOLDER = "predictions"
SCHEMA_VERSION = 1

MAX_FORM = 65_536
"""Bytes of a form."""

MAX_TEXT = 2_000
"""Characters of a text in it."""

MAX_LEVELS = 8
"""Of lists and mappings in one another; a form has four."""

MAX_FILES = 64
"""Files of predictions: seeds and tracks."""

_RESERVED = {"con", "prn", "aux", "nul"}
"""Names that some systems keep for themselves."""


def find_hidden_character(text: str) -> str | None:
    """Return the name of the first character that shows nothing or turns the text around.

    Letters of scripts that are written from right to left are letters like any other.

    Example:
        >>> hidden("red\\u202eder")
        'U+202E RIGHT-TO-LEFT OVERRIDE'
        >>> hidden("a red ball") is None
        True
    """
    for character in text if not text.isprintable() else "":
        if unicodedata.category(character) in ("Cc", "Cf", "Co", "Cs", "Zl", "Zp"):
            name = unicodedata.name(character, "a control character")
            return f"U+{ord(character):04X} {name}"
    return None


def _text(value: str) -> str:
    if (found := find_hidden_character(value)) is not None:
        raise ValueError(f"it holds {found}; plain text in one line is expected")
    return value.strip()


def _name(value: str) -> str:
    if not re.fullmatch(r"[a-z0-9]+(-[a-z0-9]+)*", value) or value in _RESERVED:
        raise ValueError("lower case letters, digits and single dashes are expected")
    return value


def _version(value: str) -> str:
    if not re.fullmatch(r"[A-Za-z0-9]+([._+-][A-Za-z0-9]+)*", value):
        raise ValueError("letters and digits with single dots or dashes between are expected")
    return value


def _address(value: str) -> str:
    if value and not re.fullmatch(r"https?://[^\s\"'<>`\\]+", value):
        raise ValueError("an address that begins with https:// is expected")
    return value


def _unknown(value: Any) -> Any:
    return None if isinstance(value, str) and value.strip().lower() in ("", "null", "~") else value


Text = Annotated[str, Field(max_length=MAX_TEXT), AfterValidator(_text)]
Words = Annotated[Text, Field(min_length=1)]
Lines = Annotated[list[Words], Field(max_length=100)]
Digest = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]


class Predicted(_BaseModel):
    """A file of predictions, and what it was made for.

    Attributes:
        track: its key, `name@version`.
        file: name within the folder `predictions`; computed from track and seed.
        sha256: of the file.
        seed: of the method's draws; None where there is only one run.
        units_digest, edition_digest: of the units described and of the edition they were read
            from, as the track has them; None where the edition was not at hand.
    """

    model_config = ConfigDict(extra="forbid")

    track: Annotated[str, Field(max_length=100)]
    file: Annotated[str, Field(max_length=200)]
    sha256: Digest
    seed: Annotated[Annotated[int, Field(ge=0, le=2**32 - 1)] | None, BeforeValidator(_unknown)] = (
        None
    )
    units_digest: Annotated[Digest | None, BeforeValidator(_unknown)] = None
    edition_digest: Annotated[Digest | None, BeforeValidator(_unknown)] = None


class Submission(About):
    """A submission, as its makers fill it in; fields of `About` are described there.

    Attributes:
        name, version: of the method; the folder is named by them.
        contact: whom to ask.
        predictions: files, at least one.
    """

    schema_version: Annotated[int, Field(ge=SCHEMA_VERSION, le=SCHEMA_VERSION)] = SCHEMA_VERSION
    name: Annotated[str, Field(max_length=64), AfterValidator(_name)]
    version: Annotated[str, Field(max_length=32), AfterValidator(_version)]
    title: Words
    authors: Annotated[Lines, Field(min_length=1)]
    paper: Text = ""
    licence: Words
    code: Annotated[Text, AfterValidator(_address)] = ""
    commit: Annotated[str, Field(pattern=r"^([0-9a-f]{7,64})?$")] = ""
    command: Words
    requires: Lines = Field(default_factory=list)
    trained_on: Lines = Field(default_factory=list)
    saw_test_units: bool
    external_data: Lines = Field(default_factory=list)
    external_models: Lines = Field(default_factory=list)
    hardware: Words
    cost: Words
    seed: None = None
    contact: Words
    predictions: Annotated[list[Predicted], Field(min_length=1, max_length=MAX_FILES)]

    @model_validator(mode="after")
    def _one_file_each(self) -> Submission:
        seen = set()
        for each in self.predictions:
            if (each.track, each.seed) in seen:
                raise ValueError(f"{each.track} stands twice with seed {each.seed}")
            seen.add((each.track, each.seed))
        return self

    @property
    def path(self) -> Path:
        """Where the submission belongs, below the folder of all submissions."""
        return Path(self.name) / self.version

    def about(self, predicted: Predicted) -> About:
        """Return what a record of one file says of the method. Contacts stay in the form."""
        return About(**{**self.model_dump(include=set(About.model_fields)), "seed": predicted.seed})


def predictions_file_name(track: Track, seed: int | None) -> str:
    """Return the name of a file of predictions: `<edition>-<config>.csv`, and what tells it.

    Example:
        >>> from leaderboard import tracks
        >>> file_name(tracks.get("mini"), None), file_name(tracks.get("mini"), 1)
        ('mini-mini.csv', 'mini-mini-seed1.csv')
    """
    return track.stem + ("" if seed is None else f"-seed{seed}") + ".csv"


def parse(content: bytes, where: str = FORM_NAME) -> Submission:
    """Return the form in the bytes of a file.

    Every value is read as the text that stands there, so that version 1.0 is "1.0"; tags,
    anchors and keys that stand twice are refused.

    Raises:
        InputError: not UTF-8, not such YAML, or not such a form.
    """
    if len(content) > MAX_FORM:
        raise InputError(f"{where} has {len(content):,} bytes; a form has {MAX_FORM:,} at most.")
    try:
        raw = yaml.load(content.decode("utf-8-sig"), Loader=_Plain)  # noqa: S506 - builds text alone
    except UnicodeDecodeError as error:
        raise InputError(f"{where} is not UTF-8 (byte {error.start}).") from None
    except yaml.YAMLError as error:
        raise InputError(f"{where} is not a form in YAML: {_said(error)}") from None
    if not isinstance(raw, dict):
        raise InputError(f"{where} holds no fields; 'milan submit new NAME' writes a form.")
    try:
        return Submission.model_validate(raw)
    except ValidationError as error:
        raise InputError(f"{where}: {describe_first_error(error)}") from None


def load_form(folder: str | os.PathLike[str]) -> Submission:
    """Return the form in a submission's folder.

    Raises:
        InputError: see `parse`; no such file, or it is a link.
    """
    path = Path(folder) / FORM_NAME
    if path.is_symlink():
        raise InputError(f"{path} is a link; a file was expected.")
    check_is_file(path)
    with open(path, "rb") as stream:
        return parse(stream.read(MAX_FORM + 1), str(path))


def dumps(submission: Submission) -> str:
    """Return a form as YAML, in the order of its fields."""
    order = ["schema_version", "name", "version", "title", "authors", "contact"]
    fields = submission.model_dump(exclude={"seed"})
    ordered = {name: fields[name] for name in [*order, *(f for f in fields if f not in order)]}
    return yaml.safe_dump(ordered, sort_keys=False, allow_unicode=True, width=100)


class _Plain(yaml.BaseLoader):
    """Lists, mappings and texts, a few levels deep; no tag, no anchor, no key twice."""

    level = 0

    def compose_node(self, parent: Any, index: Any) -> Any:
        self.level += 1
        if self.level > MAX_LEVELS:
            raise yaml.YAMLError("it is nested too deeply")
        try:
            return self._compose(parent, index)
        finally:
            self.level -= 1

    def _compose(self, parent: Any, index: Any) -> Any:
        event: Any = self.peek_event()  # type: ignore[no-untyped-call]
        if isinstance(event, yaml.AliasEvent) or getattr(event, "anchor", None):
            raise yaml.YAMLError(f"an anchor or alias{_at(event)}; write the text out")
        if getattr(event, "tag", None):
            raise yaml.YAMLError(f"a tag{_at(event)}; plain text is expected")
        return super().compose_node(parent, index)

    def construct_mapping(self, node: Any, deep: bool = False) -> Any:
        seen = set()
        for key, _ in node.value:
            if not isinstance(key, yaml.ScalarNode):
                raise yaml.YAMLError(f"a key that is no word{_at(key)}")
            if key.value in seen:
                raise yaml.YAMLError(f"'{key.value[:60]}' stands twice{_at(key)}")
            seen.add(key.value)
        return super().construct_mapping(node, deep=deep)


def _at(thing: Any) -> str:
    return f" in line {thing.start_mark.line + 1}"


def _said(error: yaml.YAMLError) -> str:
    mark = getattr(error, "problem_mark", None)
    problem = getattr(error, "problem", None) or str(error)
    return str(problem).splitlines()[0][:200] + (f", line {mark.line + 1}" if mark else "")


def describe_first_error(error: ValidationError) -> str:
    """Return what is wrong with the first field, and how many more are wrong."""
    wrong = error.errors(include_url=False, include_context=False)
    one = wrong[0]
    where = ".".join(str(part)[:60] for part in one["loc"]) or "the form"
    said = one["msg"].removeprefix("Value error, ")
    if one["type"] == "extra_forbidden":
        known = [*Submission.model_fields, *Predicted.model_fields]
        said = (
            f"no such field.{did_you_mean(where.rpartition('.')[2], known)} "
            "Scores are computed anew; what is claimed of them has no place here"
        )
    more = f" ({len(wrong) - 1} more fields are wrong.)" if len(wrong) > 1 else ""
    return f"{where}: {said}.{more}"
