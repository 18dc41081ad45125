"""`milan submit`: a submission, made, checked and scored."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from leaderboard import submission
from leaderboard.cli.options import (
    Json,
    OptionsOf,
    Overwrite,
    console,
    examples,
    print_json,
    print_table,
    progress_wanted,
    with_options,
)
from leaderboard.evaluation.score_config import ScoreConfig
from leaderboard.ranking import tracks
from milannotations.errors import InputError

HOME = "leaderboard/submissions"

app = typer.Typer(
    no_args_is_help=True,
    help="Make a submission, check it as CI does, and score it.",
    epilog=examples(
        "milan submit check leaderboard/submissions/my-method/1.0",
        "milan submit score leaderboard/submissions/my-method/1.0 --out records",
    ),
)

QUESTIONS = {
    "version": "Version (a new one whenever the descriptions change)",
    "title": "What the method does, in one line",
    "authors": "Authors, separated by commas",
    "contact": "Contact",
    "licence": "Licence",
    "command": "Exact command that made the predictions",
    "saw_test_units": "Did the method learn from any test unit of the track? (yes or no)",
    "hardware": "Hardware",
    "cost": "Cost (time, money)",
}
"""Required fields of the form, and the question that asks for each on a terminal."""

EditionFolders = Annotated[
    list[str] | None,
    typer.Option(
        "--data",
        metavar="EDITION=FOLDER",
        help="Folder of an edition that does not ship: release=FOLDER, or =annotations.csv.",
    ),
]
Folder = Annotated[
    str, typer.Argument(metavar="PATH", help="Folder of the submission, with its form.")
]


@app.command(
    "new",
    epilog=examples(
        "milan submit new my-method --predictions mine.csv",
        "milan submit new my-method --predictions s0.csv --seed 0 --predictions s1.csv --seed 1",
    ),
)
@with_options
def new(
    name: Annotated[str, typer.Argument(help="Name of the method: lower case with dashes.")],
    predictions: Annotated[
        list[str], typer.Option(help="Descriptions of the track's units; one file per seed.")
    ],
    fields: Annotated[
        dict[str, Any],
        OptionsOf(
            submission.Submission,
            only=(
                "version",
                "title",
                "contact",
                "licence",
                "paper",
                "code",
                "commit",
                "command",
                "trained_on",
                "saw_test_units",
                "external_data",
                "external_models",
                "hardware",
                "cost",
            ),
            names={"saw_test_units": "--saw-test-units/--not-saw-test-units"},
            optional=True,
        ),
    ],
    track: Annotated[str, typer.Option(help="Track to enter: milan list tracks.")] = "mini",
    seed: Annotated[
        list[int] | None, typer.Option(help="Random seed of each predictions file.")
    ] = None,
    authors: Annotated[str | None, typer.Option(help="Authors, separated by commas.")] = None,
    data: EditionFolders = None,
    root: Annotated[str, typer.Option(help="Folder of all submissions.")] = HOME,
    overwrite: Overwrite = False,
) -> None:
    """Write a submission's folder. On a terminal, missing fields are asked for.

    What 'milan describe' recorded beside the predictions is filled in.
    """
    chosen = tracks.get(track)
    form = submission.prefilled_fields(predictions[0]) | {
        field: list(value) if isinstance(value, tuple) else value for field, value in fields.items()
    }
    if authors is not None:
        form["authors"] = _split(authors)
    form |= _ask([field for field in QUESTIONS if field not in form])
    folder = submission.create_submission(
        {"name": name, **form},
        predictions,
        track=chosen.key,
        seeds=seed or (),
        data=_edition_folders(data).get(chosen.edition),
        root=root,
        overwrite=overwrite,
    )
    print(f"{folder}\nCheck it: milan submit check {folder}")


@app.command(
    "check",
    epilog=examples(
        "milan submit check leaderboard/submissions/my-method/1.0",
        "milan submit check leaderboard/submissions/my-method/1.0 --data release=release --json",
    ),
)
def check(folder: Folder, data: EditionFolders = None, as_json: Json = False) -> None:
    """Run the named checks on a submission, the same as CI does."""
    results = submission.check_submission(folder, data=_edition_folders(data))
    if as_json:
        print_json([{"name": r.name, "status": r.status, "says": r.message} for r in results])
    else:
        words = {"fail": "FAIL", "warn": "WARN"}
        print_table(
            ("check", "", "seen"),
            [(r.name, words.get(r.status, r.status), r.message) for r in results],
        )
    if any(result.status == "fail" for result in results):
        raise typer.Exit(1)


@app.command(
    "score",
    epilog=examples(
        "milan submit score leaderboard/submissions/my-method/1.0",
        "milan submit score leaderboard/submissions/my-method/1.0 --out records",
    ),
)
@with_options
def score(
    folder: Folder,
    settings: Annotated[ScoreConfig, OptionsOf(ScoreConfig, only=("draws",))],
    records: Annotated[
        dict[str, Any], OptionsOf(submission.rescore_submission, only=("out", "overwrite"))
    ],
    data: EditionFolders = None,
    as_json: Json = False,
) -> None:
    """Compute every score again, from the predictions alone."""
    from leaderboard.console import score_table

    scores = submission.rescore_submission(
        folder,
        data=_edition_folders(data),
        settings=settings,
        progress=progress_wanted(),
        **records,
    )
    if as_json:
        print_json([score.record.model_dump() for score in scores])
    else:
        screen = console()
        for score in scores:
            screen.print(score_table.render(score.record, screen.width))
    if records.get("out") is not None:
        print(f"Records: {records['out']}", file=sys.stderr)


def _ask(missing: list[str]) -> dict[str, Any]:
    """Return the missing fields of a form, asked for on a terminal.

    Raises:
        InputError: fields are missing, and there is no terminal to ask on.
    """
    if missing and not sys.stdin.isatty():
        options = ", ".join(f"--{field.replace('_', '-')}" for field in missing)
        raise InputError(f"The form still needs {options}.")
    answers: dict[str, Any] = {}
    for field in missing:
        answer = typer.prompt(QUESTIONS[field])
        answers[field] = _split(answer) if field == "authors" else answer
    return answers


def _split(text: str) -> list[str]:
    return [part.strip() for part in text.split(",") if part.strip()]


def _edition_folders(words: list[str] | None) -> dict[str, str]:
    """Return the folder of each edition, from words such as `release=FOLDER`."""
    folders = {}
    for word in words or []:
        name, equals, folder = word.partition("=")
        if not equals or not folder:
            raise InputError(f"--data {word}: expected EDITION=FOLDER, such as release=release.")
        if not Path(folder).exists():
            raise InputError(f"--data {word}: there is no {folder}.")
        folders[name] = folder
    return folders
