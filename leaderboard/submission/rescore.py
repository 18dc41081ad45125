"""Scores of a submission, computed from its predictions."""

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
    """Score the predictions files of a submission, in the order of its form.

    Units without a row count as failed.

    Args:
        folder: folder of the submission.
        data: as for `check_submission`.
        out: folder for the records, `<track>/<method>-<version>[-seed<N>]`.
        settings: random seed and numbers of draws.
        overwrite: replace the record of another submission.
        progress: show a progress bar.

    Raises:
        InputError: a check fails, or an edition is not available.
    """
    failed = [result for result in check_submission(folder, data=data) if not result.passed]
    if failed:
        raise InputError(
            f"{folder} is not scored, check '{failed[0].name}' fails: {failed[0].message}. "
            "See: milan submit check"
        )
    form, scores = load_form(folder), []
    # Build each metric once: a text model encodes the texts of all files in one cache.
    names = dict.fromkeys(name for entry in form.predictions for name in get(entry.track).metrics)
    metrics = build(names)
    for predicted in form.predictions:
        track = get(predicted.track)
        source = (data or {}).get(track.edition, "mini" if track.edition == "mini" else None)
        if source is None:
            raise InputError(
                f"{track.key} needs the edition {track.edition}, which does not ship. Give its "
                f"folder: --data {track.edition}=FOLDER"
            )
        score = scoring.score(
            read(Path(folder) / PREDICTIONS_FOLDER / predicted.file),
            track_units.open_references(track, source),
            {name: metric for name, metric in metrics.items() if name in track.metrics},
            split=track.split,
            allow_missing=True,
            method=f"{form.name}@{form.version}",
            settings=settings,
            accounts=[],
            progress=progress,
        )
        about = form.about(predicted)
        score.record = score.record.model_copy(update={"track": track.key, "about": about})
        if out is not None:
            path = record_path(track, form.name, form.version, predicted.seed)
            score.save(Path(out) / path, overwrite=overwrite)
        scores.append(score)
    return scores
