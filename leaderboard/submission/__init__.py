"""Submissions: a form and files of predictions in a folder, checked by name and scored again.

    <name>/<version>/
      submission.yaml                          the form (`form.Submission`)
      predictions/<edition>-<config>.csv       one file per track and seed

`create_submission` writes such a folder, `check_submission` runs the named checks on it, and
`rescore_submission` computes every score from the predictions. A form has no field for scores:
claimed scores are refused.
"""

from leaderboard.submission.checks import CHECKS, check_submission
from leaderboard.submission.create import create_submission, prefilled_fields
from leaderboard.submission.form import Predicted, Submission, load_form
from leaderboard.submission.rescore import rescore_submission

__all__ = [
    "CHECKS",
    "Predicted",
    "Submission",
    "check_submission",
    "create_submission",
    "load_form",
    "prefilled_fields",
    "rescore_submission",
]
