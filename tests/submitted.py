"""A valid submission for tests, on the track `mini`, from given texts."""

from contextlib import contextmanager
from pathlib import Path

import pytest
import yaml

from leaderboard import submission
from leaderboard.evaluation import predictions
from leaderboard.ranking import tracks
from leaderboard.submission import track_units
from milannotations.utils.files import sha256

FIELDS = {
    "name": "made-up",
    "version": "1.0",
    "title": "Says what the tests tell it to say",
    "authors": ["A. Tester"],
    "contact": "tester@example.org",
    "licence": "MIT",
    "command": "python made_up.py",
    "saw_test_units": False,
    "hardware": "none",
    "cost": "nothing",
}
FILE = "predictions/mini-mini.csv"
SHAPES = ("circles", "squares", "stars", "moons", "rings")


@contextmanager
def opened_once():
    """Open the references of `mini` once, so that each check takes milliseconds."""
    mini, open_references = tracks.get("mini"), track_units.open_references
    opened = open_references(mini, "mini")

    def open_(track, source):
        return opened if (track, source) == (mini, "mini") else open_references(track, source)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(track_units, "open_references", open_)
        yield opened


def answers(known, track):
    """Return a harmless description of each unit of a track, in order."""
    inside, _ = track_units.split_units(track, known)
    return {
        unit: f"{SHAPES[i % 5]} beside number {i // 5}" for i, unit in enumerate(sorted(inside))
    }


def write(folder, said, **fields):
    """Write a submission under a folder; return its path."""
    file = folder / "said.csv"
    predictions.from_texts(list(said), said.values()).write(file)
    return submission.create_submission({**FIELDS, **fields}, [file], root=folder / "submissions")


def edit(made, change):
    """Edit the form of a submission: `change` takes its fields."""
    form = Path(made) / "submission.yaml"
    fields = yaml.safe_load(form.read_text())
    change(fields)
    form.write_text(yaml.safe_dump(fields, sort_keys=False, allow_unicode=True))


def replace_file(made, content):
    """Replace the content of the predictions file, and its digest in the form."""
    path = Path(made) / FILE
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    edit(made, lambda fields: fields["predictions"][0].update(sha256=sha256(path)))
    return path


def found(made, **options):
    """Return the results of the checks by name."""
    return {each.name: each for each in submission.check_submission(made, **options)}
