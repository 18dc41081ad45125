"""`milan submit`: from a file of predictions to a row of the board."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from leaderboard.cli.options import Json, console, examples, print_json, print_table
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

_ASKED = {
    "version": "Version (it moves whenever the answers move)",
    "title": "What it does, in a line",
    "authors": "Authors, with commas between",
    "contact": "Whom to ask",
    "licence": "Licence",
    "command": "Exact command that made the predictions",
    "saw_test_units": "Has it learned from any unit that the track tests? (yes or no)",
    "hardware": "What it ran on",
    "cost": "What that took (time, money)",
}
"""What a form must have, and how it is asked for."""

Data = Annotated[
    list[str] | None,
    typer.Option(
        "--data",
        metavar="EDITION=FOLDER",
        help="Where an edition that does not ship lies: release=FOLDER, or =annotations.csv.",
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
def new(
    name: Annotated[str, typer.Argument(help="Of the method: lower case with dashes.")],
    predictions: Annotated[
        list[str], typer.Option(help="Descriptions of the track's units; one file a seed.")
    ],
    track: Annotated[str, typer.Option(help="Where it is to stand: milan list tracks.")] = "mini",
    seed: Annotated[list[int] | None, typer.Option(help="Of each file, if several.")] = None,
    version: Annotated[str | None, typer.Option(help="Of the method.")] = None,
    title: Annotated[str | None, typer.Option(help="What it does, in a line.")] = None,
    authors: Annotated[str | None, typer.Option(help="With commas between.")] = None,
    contact: Annotated[str | None, typer.Option(help="Whom to ask.")] = None,
    licence: Annotated[str | None, typer.Option(help="Of method and predictions.")] = None,
    paper: Annotated[str | None, typer.Option(help="Where it is described.")] = None,
    code: Annotated[str | None, typer.Option(help="Address of its code.")] = None,
    commit: Annotated[str | None, typer.Option(help="State of the code that ran.")] = None,
    command: Annotated[str | None, typer.Option(help="That made the predictions.")] = None,
    trained_on: Annotated[
        list[str] | None, typer.Option(help="A network or edition it learned from; repeat.")
    ] = None,
    saw_test_units: Annotated[
        bool | None,
        typer.Option("--saw-test-units/--not-saw-test-units", help="Were test units among them?"),
    ] = None,
    external_data: Annotated[
        list[str] | None, typer.Option(help="Other data that went into it; repeat.")
    ] = None,
    external_models: Annotated[
        list[str] | None, typer.Option(help="A model that went into it; repeat.")
    ] = None,
    hardware: Annotated[str | None, typer.Option(help="What it ran on.")] = None,
    cost: Annotated[str | None, typer.Option(help="What that took.")] = None,
    data: Data = None,
    root: Annotated[str, typer.Option(help="Folder of all submissions.")] = HOME,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Replace this version of the method.")
    ] = False,
) -> None:
    """Write a submission's folder. On a terminal, what is not given is asked for.

    What 'milan describe' knows of the method is taken from beside the predictions.
    """
    from leaderboard import submission
    from leaderboard.ranking import tracks

    given: dict[str, Any] = {
        "version": version,
        "title": title,
        "authors": _listed(authors),
        "contact": contact,
        "licence": licence,
        "paper": paper,
        "code": code,
        "commit": commit,
        "command": command,
        "trained_on": trained_on,
        "saw_test_units": saw_test_units,
        "external_data": external_data,
        "external_models": external_models,
        "hardware": hardware,
        "cost": cost,
    }
    found = tracks.get(track)
    fields = submission.prefilled_fields(predictions[0])
    fields |= {key: value for key, value in given.items() if value is not None}
    fields |= _ask([key for key in _ASKED if key not in fields])
    made = submission.create_submission(
        {"name": name, **fields},
        predictions,
        track=found.key,
        seeds=seed or (),
        data=_places(data).get(found.edition),
        root=root,
        overwrite=overwrite,
    )
    print(f"{made}\nCheck it: milan submit check {made}")


@app.command(
    "check",
    epilog=examples(
        "milan submit check leaderboard/submissions/my-method/1.0",
        "milan submit check leaderboard/submissions/my-method/1.0 --data release=release --json",
    ),
)
def check(folder: Folder, data: Data = None, as_json: Json = False) -> None:
    """Run the named checks on a submission, the same as CI does."""
    from leaderboard import submission

    results = submission.check_submission(folder, data=_places(data))
    if as_json:
        print_json([{"name": r.name, "status": r.status, "says": r.message} for r in results])
    else:
        words = {"fail": "FAIL", "warn": "WARN"}
        rows = [(r.name, words.get(r.status, r.status), r.message) for r in results]
        print_table(("check", "", "seen"), rows)
    if not all(result.passed for result in results):
        raise typer.Exit(1)


@app.command(
    "score",
    epilog=examples(
        "milan submit score leaderboard/submissions/my-method/1.0",
        "milan submit score leaderboard/submissions/my-method/1.0 --out records",
    ),
)
def score(
    folder: Folder,
    data: Data = None,
    draws: Annotated[int, typer.Option(help="Bootstrap resamples.", min=10, max=100_000)] = 1000,
    out: Annotated[str | None, typer.Option(help="Folder to write records to.")] = None,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Replace a record that is there.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Compute every score anew, from the predictions alone."""
    from leaderboard import submission
    from leaderboard.evaluation.score_config import ScoreConfig

    scores = submission.rescore_submission(
        folder,
        data=_places(data),
        out=out,
        settings=ScoreConfig(draws=draws),
        overwrite=overwrite,
        progress=sys.stderr.isatty(),
    )
    if as_json:
        print_json([made.record.model_dump() for made in scores])
    else:
        screen = console()
        for made in scores:
            screen.print(made.render(screen.width))
    if out is not None:
        print(f"Records: {out}", file=sys.stderr)


def _ask(missing: list[str]) -> dict[str, Any]:
    """Return answers to what a form still needs: asked on a terminal, an error elsewhere."""
    if missing and not sys.stdin.isatty():
        flags = ", ".join(f"--{key.replace('_', '-')}" for key in missing)
        raise InputError(f"The form still needs {flags}.")
    answers: dict[str, Any] = {}
    for key in missing:
        said = typer.prompt(_ASKED[key])
        answers[key] = _listed(said) if key == "authors" else said
    return answers


def _listed(text: str | None) -> list[str] | None:
    if text is None:
        return None
    return [part.strip() for part in text.split(",") if part.strip()]


def _places(data: list[str] | None) -> dict[str, str]:
    """Return where editions lie, by name, of words such as `release=FOLDER`."""
    found = {}
    for word in data or []:
        name, equals, place = word.partition("=")
        if not equals or not place:
            raise InputError(f"--data {word}: expected EDITION=FOLDER, such as release=release.")
        if not Path(place).exists():
            raise InputError(f"--data {word}: there is no {place}.")
        found[name] = place
    return found
