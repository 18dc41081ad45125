"""`milan run`: several methods describe the units of an edition, and all are scored alike."""

from __future__ import annotations

import sys
from typing import Annotated, Any

import typer

from leaderboard import run_methods
from leaderboard.cli.network import DeviceOptions, Probe, SubjectModel, open_subject
from leaderboard.cli.options import (
    Cache,
    Json,
    OptionsOf,
    console,
    examples,
    print_json,
    print_line,
    with_options,
)
from leaderboard.evaluation.score_config import ScoreConfig
from milannotations.errors import InputError
from milannotations.exemplars.options import NetworkOptions

app = typer.Typer()


@app.command(epilog=examples("milan run --fast", "milan run --methods nearest truth --out records"))
@with_options
def run(
    selection: Annotated[
        dict[str, Any],
        OptionsOf(run_methods.run, without=("settings", "subject", "tell", "out", "overwrite")),
    ],
    settings: Annotated[ScoreConfig, OptionsOf(ScoreConfig, only=("seed", "draws"))],
    network: Annotated[NetworkOptions, OptionsOf(NetworkOptions)],
    device: Annotated[dict[str, Any], DeviceOptions],
    records: Annotated[dict[str, Any], OptionsOf(run_methods.run, only=("out", "overwrite"))],
    subject: SubjectModel = None,
    probe: Probe = None,
    cache: Cache = None,
    tasks: Annotated[
        list[str] | None,
        typer.Option(
            help="Applications to run instead, on the mini world: all, analyze, audit, edit."
        ),
    ] = None,
    seeds: Annotated[
        int, typer.Option(help="With --tasks: networks of each kind, one a seed.", min=1)
    ] = 3,
    placebos: Annotated[
        int, typer.Option(help="With --tasks: draws of placebo flags of an edit.", min=1)
    ] = 19,
    as_json: Json = False,
) -> None:
    """Describe an edition's units with several methods, and score them all."""
    out = records.get("out")
    if tasks:
        data = selection["data"]
        if data != "mini":
            raise InputError(
                f"--tasks run on the mini world, and --data is {data}. For your own networks: "
                "milan analyze, milan audit, milan edit."
            )
        _run_tasks(tasks, selection.get("methods"), seeds, placebos, settings.seed, out, cache,
                   as_json)  # fmt: skip
        return
    from leaderboard.console import score_table, synthetic_table

    scores = run_methods.run(
        settings=settings,
        subject=open_subject(subject, probe, network, device, cache),
        tell=print_line,
        **selection,
        **records,
    )
    if as_json:
        print_json({name: score.record.model_dump() for name, score in scores.items()})
    else:
        screen = console()
        by_method = {name: score.record for name, score in scores.items()}
        if next(iter(by_method.values())).edition.synthetic:
            screen.print(synthetic_table.render_methods(by_method, screen.width))
        else:
            for score in scores.values():
                screen.print(score_table.render(score.record, screen.width))
    if out is not None:
        _write_page(out, selection["data"])


def _run_tasks(
    tasks: list[str],
    methods: list[str] | None,
    seeds: int,
    placebos: int,
    seed: int,
    out: str | None,
    cache: str | None,
    as_json: bool,
) -> None:
    """Run applications for several methods, and print one table per application."""
    from leaderboard.applications import run_tasks
    from leaderboard.console.application_table import render

    records = run_tasks.run(
        tasks, methods, seeds=seeds, placebos=placebos, seed=seed, out=out, cache=cache,
        tell=print_line,
    )  # fmt: skip
    if as_json:
        print_json([record.model_dump() for record in records])
    else:
        screen = console()
        screen.print(render(records, screen.width))
    if out is not None:
        _write_page(out)


def _write_page(records: str, data: str = "mini") -> None:
    """Build a board within a folder of records, and print where it is or why there is none."""
    from pathlib import Path

    from leaderboard import site
    from leaderboard.cli.options import progress_wanted

    print(f"Records: {records}", file=sys.stderr)
    editions = [data] if Path(data).is_dir() else []
    try:
        page = site.build(
            Path(records) / "page",
            [records],
            editions=editions,
            tell=print_line,
            progress=progress_wanted(),
        )
    except InputError as error:  # the records are written all the same
        print(f"No page was written: {error}", file=sys.stderr)
    else:
        print(f"Page: {page}", file=sys.stderr)
