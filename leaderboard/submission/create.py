"""Writer of submissions: a form, and predictions files under their expected names."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from baselines.framework import provenance
from leaderboard.evaluation import predictions
from leaderboard.evaluation.references import References
from leaderboard.ranking import tracks
from leaderboard.submission import form, track_units
from leaderboard.submission.form import (
    FORM_NAME,
    PREDICTIONS_FOLDER,
    SCHEMA_VERSION,
    Submission,
    predictions_file_name,
)
from milannotations import catalog
from milannotations.errors import InputError
from milannotations.utils.files import replacing, sha256

HOME = Path("leaderboard") / "submissions"
"""Folder of all submissions in the repository."""


def create_submission(
    fields: Mapping[str, Any],
    files: Sequence[str | os.PathLike[str]],
    *,
    track: str = "mini",
    seeds: Sequence[int] = (),
    data: str | os.PathLike[str] | None = None,
    root: str | os.PathLike[str] = HOME,
    overwrite: bool = False,
) -> Path:
    """Write a submission's folder, atomically, and return its path.

    Args:
        fields: fields of the form (`form.Submission`), without `predictions`.
        files: descriptions of the track's units, in any layout; one file per seed.
        track: name or key of the track.
        seeds: random seeds of the files, if there are several.
        data: edition of the track, if it does not ship; its digest goes into the form.
        root: folder of all submissions.
        overwrite: replace a submission of the same name and version.

    Raises:
        InputError: wrong fields, files that cannot be read, a number of seeds that differs from the
            number of files, or a folder that exists already.
    """
    entered = tracks.get(track)
    if entered.task != "agreement":
        raise InputError(f"{entered.key} takes no predictions. Score it with: milan {entered.task}")
    file_seeds: Sequence[int | None] = list(seeds) or [None]
    if len(file_seeds) != len(files):
        raise InputError(
            f"{len(files)} predictions files and {len(seeds)} seeds were given; expected one file, "
            "or several with a --seed each."
        )
    known = None
    if data is not None or entered.edition == "mini":
        known = track_units.open_references(entered, data or entered.edition)
    network = entered.config if entered.config in catalog.NETWORKS else None
    parsed = [predictions.read(file, network=network) for file in files]
    # Validate a form with a placeholder digest first, so that wrong fields are reported before
    # anything is written.
    stated = {"schema_version": SCHEMA_VERSION, **fields}
    draft = _validated_form({**stated, "predictions": [_entry(entered, None, "0" * 64, known)]})
    folder = Path(root) / draft.path
    if folder.exists() and not overwrite:
        raise InputError(
            f"{folder} exists already. Give a changed method another version, or replace this one "
            "with --overwrite."
        )
    if folder.exists() and not (folder / FORM_NAME).is_file():
        raise InputError(f"{folder} holds something other than a submission. Give another --root.")
    with replacing(folder) as temporary:
        (temporary / PREDICTIONS_FOLDER).mkdir(parents=True)
        entries = []
        for file_predictions, seed in zip(parsed, file_seeds, strict=True):
            path = temporary / PREDICTIONS_FOLDER / predictions_file_name(entered, seed)
            file_predictions.write(path)
            entries.append(_entry(entered, seed, sha256(path), known))
        submission = _validated_form({**stated, "predictions": entries})
        (temporary / FORM_NAME).write_text(form.dumps(submission), encoding="utf-8")
    return folder


def _entry(
    track: tracks.Track, seed: int | None, digest: str, known: References | None
) -> dict[str, Any]:
    """Return the form's entry of a predictions file (`form.Predicted`)."""
    return {
        "track": track.key,
        "file": predictions_file_name(track, seed),
        "sha256": digest,
        "seed": seed,
        "units_digest": track.units_digest,
        "edition_digest": None if known is None else known.digest,
    }


def _validated_form(fields: Mapping[str, Any]) -> Submission:
    try:
        return Submission.model_validate(dict(fields))
    except ValidationError as error:
        raise InputError(f"The form: {form.describe_first_error(error)}") from None


def prefilled_fields(file: str | os.PathLike[str]) -> dict[str, Any]:
    """Return the fields of a form that are known from the account beside a predictions file.

    `milan describe` writes an account; for other files the result is empty.
    """
    path = Path(file)
    account = provenance.read_account(path, sha256(path)) if path.is_file() else None
    if account is None:
        return {}
    spec = {name: value for name, value in account.get("method", {}).items() if value}
    fields = {
        field: spec[name]
        for field, name in (
            ("kind", "kind"),
            ("version", "version"),
            ("title", "title"),
            ("paper", "paper"),
            ("licence", "license"),
            ("requires", "requires"),
        )
        if name in spec
    }
    if "trained_on" in spec:
        fields["trained_on"] = [spec["trained_on"]]
    if account.get("n_units"):
        fields["cost"] = f"{account['seconds']:.3g} s for {account['n_units']:,} units"
    return fields
