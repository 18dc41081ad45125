"""Form of a submission: its fields, and a parser for untrusted files."""

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
    Field,
    ValidationError,
    model_validator,
)

from leaderboard.ranking.tracks import Track
from leaderboard.record_format.base import StrictModel
from leaderboard.record_format.method_info import About
from milannotations.errors import InputError, did_you_mean
from milannotations.utils.files import check_is_file

FORM_NAME = "submission.yaml"
PREDICTIONS_FOLDER = "predictions"
SCHEMA_VERSION = 1

MAX_FORM = 65_536
"""Largest size of a form, in bytes."""

MAX_TEXT = 2_000
"""Most characters of a text in the form."""

MAX_LEVELS = 8
"""Most levels of nested lists and mappings; a form has four."""

MAX_FILES = 64
"""Most predictions files of a submission, over tracks and seeds."""

_RESERVED = {"con", "prn", "aux", "nul"}
"""Names that are reserved on some systems."""


def find_hidden_character(text: str) -> str | None:
    """Return the first character that is invisible or changes the writing direction, by name.

    Letters of right-to-left scripts are allowed.

    Example:
        >>> find_hidden_character("red\\u202eder")
        'U+202E RIGHT-TO-LEFT OVERRIDE'
        >>> find_hidden_character("a red ball") is None
        True
    """
    for character in text if not text.isprintable() else "":
        if unicodedata.category(character) in ("Cc", "Cf", "Co", "Cs", "Zl", "Zp"):
            name = unicodedata.name(character, "a control character")
            return f"U+{ord(character):04X} {name}"
    return None


def _text(value: str) -> str:
    if (character := find_hidden_character(value)) is not None:
        raise ValueError(f"it holds {character}; expected plain text in one line")
    return value.strip()


def _name(value: str) -> str:
    if not re.fullmatch(r"[a-z0-9]+(-[a-z0-9]+)*", value) or value in _RESERVED:
        raise ValueError("expected lower case letters, digits and single dashes")
    return value


def _version(value: str) -> str:
    if not re.fullmatch(r"[A-Za-z0-9]+([._+-][A-Za-z0-9]+)*", value):
        raise ValueError("expected letters and digits, separated by single dots or dashes")
    return value


def _address(value: str) -> str:
    if value and not re.fullmatch(r"https?://[^\s\"'<>`\\]+", value):
        raise ValueError("expected an address that begins with https://")
    return value


def _unknown(value: Any) -> Any:
    return None if isinstance(value, str) and value.strip().lower() in ("", "null", "~") else value


Text = Annotated[str, Field(max_length=MAX_TEXT), AfterValidator(_text)]
Words = Annotated[Text, Field(min_length=1)]
Lines = Annotated[list[Words], Field(max_length=100)]
Digest = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]


class Predicted(StrictModel):
    """A predictions file, with the track, units and edition that it was made for.

    Attributes:
        track: key of the track, `name@version`.
        file: name in the folder `predictions`, computed from track and seed.
        sha256: digest of the file.
        seed: random seed of the method; None for a single run.
        units_digest, edition_digest: digests of the described units and of their edition, as the
            track has them; None if the edition was not available.
    """

    track: Annotated[str, Field(max_length=100)]
    file: Annotated[str, Field(max_length=200)]
    sha256: Digest
    seed: Annotated[Annotated[int, Field(ge=0, le=2**32 - 1)] | None, BeforeValidator(_unknown)] = (
        None
    )
    units_digest: Annotated[Digest | None, BeforeValidator(_unknown)] = None
    edition_digest: Annotated[Digest | None, BeforeValidator(_unknown)] = None


class Submission(About):
    """Form of a submission, as the submitter fills it in; see `About` for the other fields.

    Attributes:
        name, version: of the method; they name the folder.
        contact: person to ask; it stays in the form.
        predictions: predictions files, at least one.
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
        keys = set()
        for entry in self.predictions:
            if (entry.track, entry.seed) in keys:
                raise ValueError(f"{entry.track} is listed twice with seed {entry.seed}")
            keys.add((entry.track, entry.seed))
        return self

    @property
    def path(self) -> Path:
        """Path of the submission, relative to the folder of all submissions."""
        return Path(self.name) / self.version

    def about(self, predicted: Predicted) -> About:
        """Return the method's description for the record of one file, without the contact."""
        return About(**{**self.model_dump(include=set(About.model_fields)), "seed": predicted.seed})


def predictions_file_name(track: Track, seed: int | None) -> str:
    """Return the name of a predictions file: `<edition>-<config>[-<condition>][-seed<N>].csv`.

    Example:
        >>> from leaderboard.ranking import tracks
        >>> [predictions_file_name(tracks.get("mini"), seed) for seed in (None, 1)]
        ['mini-mini.csv', 'mini-mini-seed1.csv']
    """
    return track.stem + ("" if seed is None else f"-seed{seed}") + ".csv"


def parse(content: bytes, where: str = FORM_NAME) -> Submission:
    """Parse a form from the bytes of a file.

    Every value is read as text, so that version 1.0 is "1.0". Tags, anchors and repeated keys are
    refused.

    Args:
        content: bytes of the file; of a larger file, more than `MAX_FORM` bytes suffice.
        where: name of the file, for messages.

    Raises:
        InputError: not UTF-8, invalid YAML, or fields that a form does not have.
    """
    if len(content) > MAX_FORM:
        raise InputError(f"{where} is too large: a form has {MAX_FORM:,} bytes at most.")
    try:
        raw = yaml.load(content.decode("utf-8-sig"), Loader=_Plain)  # noqa: S506 - builds only text
    except UnicodeDecodeError as error:
        raise InputError(f"{where} is not UTF-8 (byte {error.start}). Save it as UTF-8.") from None
    except yaml.YAMLError as error:
        raise InputError(f"{where} is not valid YAML: {_yaml_message(error)}") from None
    if not isinstance(raw, dict):
        raise InputError(f"{where} holds no fields. Write a form with: milan submit new NAME")
    try:
        return Submission.model_validate(raw)
    except ValidationError as error:
        raise InputError(f"{where}: {describe_first_error(error)}") from None


def load_form(folder: str | os.PathLike[str]) -> Submission:
    """Read the form in a submission's folder.

    Raises:
        InputError: as `parse`; no such file, or a link.
    """
    path = Path(folder) / FORM_NAME
    if path.is_symlink():
        raise InputError(f"{path} is a link; expected a regular file.")
    check_is_file(path)
    with open(path, "rb") as stream:
        return parse(stream.read(MAX_FORM + 1), str(path))


def dumps(submission: Submission) -> str:
    """Return a form as YAML; fields are in reading order, name and authors first."""
    order = ["schema_version", "name", "version", "title", "authors", "contact"]
    fields = submission.model_dump(exclude={"seed"})
    ordered = {name: fields[name] for name in [*order, *(f for f in fields if f not in order)]}
    return yaml.safe_dump(ordered, sort_keys=False, allow_unicode=True, width=100)


class _Plain(yaml.BaseLoader):
    """YAML loader for untrusted files: lists, mappings and texts, without tags and anchors.

    Aliases can expand a small file to gigabytes, tags can build Python objects, and deep nesting
    exhausts the stack, so the composer refuses all three before it builds a node.
    """

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
        # Look at the next event before the node is built from it.
        event: Any = self.peek_event()  # type: ignore[no-untyped-call]
        if isinstance(event, yaml.AliasEvent) or getattr(event, "anchor", None):
            raise yaml.YAMLError(f"an anchor or alias{_at(event)}; write the text out")
        if getattr(event, "tag", None):
            raise yaml.YAMLError(f"a tag{_at(event)}; expected plain text")
        return super().compose_node(parent, index)

    def construct_mapping(self, node: Any, deep: bool = False) -> Any:
        keys = set()
        for key, _ in node.value:
            if not isinstance(key, yaml.ScalarNode):
                raise yaml.YAMLError(f"a key that is not plain text{_at(key)}")
            if key.value in keys:
                raise yaml.YAMLError(f"the key '{key.value[:60]}' is repeated{_at(key)}")
            keys.add(key.value)
        return super().construct_mapping(node, deep=deep)


def _at(node: Any) -> str:
    """Return the line of a YAML node or event, in words."""
    return f" in line {node.start_mark.line + 1}"


def _yaml_message(error: yaml.YAMLError) -> str:
    """Return the problem and its line, in one line."""
    mark = getattr(error, "problem_mark", None)
    problem = getattr(error, "problem", None) or str(error)
    return str(problem).splitlines()[0][:200] + (f", line {mark.line + 1}" if mark else "")


def describe_first_error(error: ValidationError) -> str:
    """Return the error in the first wrong field, and the number of other wrong fields."""
    errors = error.errors(include_url=False, include_context=False)
    first = errors[0]
    field = ".".join(str(part)[:60] for part in first["loc"]) or "the form"
    message = first["msg"].removeprefix("Value error, ")
    if first["type"] == "extra_forbidden":
        known = [*Submission.model_fields, *Predicted.model_fields]
        message = (
            f"no such field.{did_you_mean(field.rpartition('.')[2], known)} Leave it out: a form "
            "claims no scores, they are computed from the predictions"
        )
    more = f" ({len(errors) - 1} more fields are wrong.)" if len(errors) > 1 else ""
    return f"{field}: {message}.{more}"
