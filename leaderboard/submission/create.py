"""Write the folder of a submission: the form, and predictions under the names they should have."""

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
"""Where submissions lie, in the repository."""


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
    """Write a submission's folder, whole or not at all, and return its path.

    Args:
        fields: of the form (`form.Submission`), without `predictions`.
        files: descriptions of the units of the track, in any layout; one a seed.
        track: name or key.
        seeds: of the files, where there are several.
        data: the track's edition, where it does not ship: it gives its digest to the form.
        root: folder of all submissions.
        overwrite: replace a submission of this name and version.

    Raises:
        InputError: fields that a form has not, or not so; files that cannot be read; as many seeds
            as files were expected; the folder is there already.
    """
    found = tracks.get(track)
    if found.task != "agreement":
        raise InputError(f"{found.key} takes no predictions; 'milan {found.task}' scores them.")
    numbered: Sequence[int | None] = list(seeds) or [None]
    if len(numbered) != len(files):
        raise InputError(
            f"{len(files)} files of predictions and {len(seeds)} seeds were given; "
            "give one file, or several with a --seed each."
        )
    known = None
    if data is not None or found.edition == "mini":
        known = track_units.open_references(found, data or found.edition)
    network = found.config if found.config in catalog.NETWORKS else None
    said = [predictions.read(file, network=network) for file in files]
    # a form without files first: what is wrong with its fields is said before anything is written
    stated = {"schema_version": SCHEMA_VERSION, **fields}
    draft = _form({**stated, "predictions": [_entry(found, None, "0" * 64, known)]})
    folder = Path(root) / draft.path
    if folder.exists() and not overwrite:
        raise InputError(
            f"{folder} is there already. Another state of a method is another version; "
            "--overwrite replaces this one."
        )
    if folder.exists() and not (folder / FORM_NAME).is_file():
        raise InputError(f"{folder} holds something else than a submission. Give another --root.")
    with replacing(folder) as temporary:
        (temporary / PREDICTIONS_FOLDER).mkdir(parents=True)
        entries = []
        for each, seed in zip(said, numbered, strict=True):
            path = temporary / PREDICTIONS_FOLDER / predictions_file_name(found, seed)
            each.write(path)
            entries.append(_entry(found, seed, sha256(path), known))
        made = _form({**stated, "predictions": entries})
        (temporary / FORM_NAME).write_text(form.dumps(made), encoding="utf-8")
    return folder


def _entry(
    track: tracks.Track, seed: int | None, digest: str, known: References | None
) -> dict[str, Any]:
    return {
        "track": track.key,
        "file": predictions_file_name(track, seed),
        "sha256": digest,
        "seed": seed,
        "units_digest": track.units_digest,
        "edition_digest": None if known is None else known.digest,
    }


def _form(fields: Mapping[str, Any]) -> Submission:
    try:
        return Submission.model_validate(dict(fields))
    except ValidationError as error:
        raise InputError(f"The form: {form.describe_first_error(error)}") from None


def prefilled_fields(file: str | os.PathLike[str]) -> dict[str, Any]:
    """Return the fields of a form that the account beside a file of predictions answers.

    `milan describe` writes one; a file of other making has none, and answers nothing.
    """
    path = Path(file)
    found = provenance.read_account(path, sha256(path)) if path.is_file() else None
    if found is None:
        return {}
    spec = {name: value for name, value in found.get("method", {}).items() if value}
    made = {
        name: spec[said]
        for name, said in (
            ("kind", "kind"),
            ("version", "version"),
            ("title", "title"),
            ("paper", "paper"),
            ("licence", "license"),
            ("requires", "requires"),
        )
        if said in spec
    }
    if "trained_on" in spec:
        made["trained_on"] = [spec["trained_on"]]
    if found.get("n_units"):
        made["cost"] = f"{found['seconds']:.3g} s for {found['n_units']:,} units"
    return made
