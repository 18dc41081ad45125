"""Submissions: a form and files of predictions in a folder, checked by name and scored anew.

    <name>/<version>/
      submission.yaml                          the form (`form.Submission`)
      predictions/<edition>-<config>.csv       one file a track and seed

`new` writes such a folder, `check` runs the named checks on it, `score` computes every score
from the predictions. What a form claims of scores is refused: there is no field for it.
"""

from leaderboard.submission.checks import CHECKS, check
from leaderboard.submission.create import drafted, new
from leaderboard.submission.form import Predicted, Submission, load
from leaderboard.submission.rescore import score

__all__ = [
    "CHECKS",
    "Predicted",
    "Submission",
    "check",
    "drafted",
    "load",
    "new",
    "score",
]
