"""Compute every score of a submission anew, from its predictions."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

from leaderboard.evaluation import scoring
from leaderboard.evaluation.predictions import read
from leaderboard.evaluation.score_config import ScoreConfig
from leaderboard.evaluation.scoring import Score
from leaderboard.metrics import build
from leaderboard.ranking.tracks import get, record_path
from leaderboard.submission import track_units
from leaderboard.submission.checks import check_submission
from leaderboard.submission.form import PREDICTIONS_FOLDER, load_form
from milannotations.errors import InputError


def rescore_submission(
    folder: str | os.PathLike[str],
    *,
    data: Mapping[str, str] | None = None,
    out: str | os.PathLike[str] | None = None,
    settings: ScoreConfig | None = None,
    overwrite: bool = False,
    progress: bool = False,
) -> list[Score]:
    """Return the scores of a submission's files, in order of its form.

    Units without a row count as failed.

    Args:
        folder: of the submission.
        data: as in `check_submission`.
        out: folder to write records to, `<track>/<method>-<version>[-seed<N>]`.
        settings: seeds and numbers of draws.
        overwrite: replace another submission's record.
        progress: show a progress bar.

    Raises:
        InputError: a check fails; an edition is not at hand.
    """
    failed = [result for result in check_submission(folder, data=data) if not result.passed]
    if failed:
        raise InputError(
            f"{folder} is not scored: {failed[0].name}: {failed[0].message}. "
            "See: milan submit check"
        )
    form, scores = load_form(folder), []
    built = build(dict.fromkeys(m for p in form.predictions for m in get(p.track).metrics))
    for predicted in form.predictions:
        track = get(predicted.track)
        source = (data or {}).get(track.edition, "mini" if track.edition == "mini" else None)
        if source is None:
            raise InputError(
                f"{track.key} is scored against the edition {track.edition}, which does not ship; "
                f"say where it is: --data {track.edition}=FOLDER"
            )
        made = scoring.score(
            read(Path(folder) / PREDICTIONS_FOLDER / predicted.file),
            track_units.open_references(track, source),
            {name: metric for name, metric in built.items() if name in track.metrics},
            split=track.split,
            allow_missing=True,
            method=f"{form.name}@{form.version}",
            settings=settings,
            accounts=[],
            progress=progress,
        )
        about = form.about(predicted)
        made.record = made.record.model_copy(update={"track": track.key, "about": about})
        if out is not None:
            at = record_path(track, form.name, form.version, predicted.seed)
            made.save(Path(out) / at, overwrite=overwrite)
        scores.append(made)
    return scores
