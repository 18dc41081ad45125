"""The command `milan` (also installed as `milannotations`).

A command parses, calls one public function and prints. Nothing heavy is imported
before a command needs it, so that `--help` answers at once.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from leaderboard.cli import analyze_audit, board, describe, edit, models, reproduce, submit, train
from leaderboard.cli import check as checking
from leaderboard.cli import data as data_commands
from leaderboard.cli import ground as grounding
from leaderboard.cli import list as lists
from leaderboard.cli.options import Json, console, examples, print_json
from leaderboard.cli.subject import Cache, Device, Model, Probe, Random, Weights, subject_of
from milannotations.errors import InputError
from milannotations.exemplars import command
from milannotations.utils.terminal import expand_options, run_command

if TYPE_CHECKING:
    from leaderboard.evaluation.scoring import Score


app = typer.Typer(
    name="milan",
    help="Describe what the units of vision networks respond to, and score the descriptions.",
    epilog=examples("milan run", "milan list metrics"),
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
)
app.add_typer(lists.app, name="list")
app.add_typer(data_commands.app, name="data")
app.add_typer(submit.app, name="submit")
app.add_typer(board.app, name="board")
app.command("report", epilog=board.REPORT)(board.report)
app.command("exemplars", epilog=command.EPILOG)(command.exemplars)
app.command("describe", epilog=describe.EPILOG)(describe.describe)
app.command("check", epilog=checking.EPILOG)(checking.check)
app.command("train", epilog=train.EPILOG)(train.train)
app.command("reproduce", epilog=reproduce.EPILOG)(reproduce.reproduce)
app.command("analyze", epilog=analyze_audit.ANALYZE)(analyze_audit.analyze)
app.command("audit", epilog=analyze_audit.AUDIT)(analyze_audit.audit)
app.command("edit", epilog=edit.EPILOG)(edit.edit)
data_commands.app.command("cues", epilog=edit.CUES)(edit.cues)
app.command("convert", epilog=models.CONVERT)(models.convert)
app.command("download", epilog=models.DOWNLOAD)(models.download)


def _version(wanted: bool) -> None:
    if wanted:
        from importlib.metadata import version

        print(f"milannotations {version('milannotations')}")
        raise typer.Exit


@app.callback()
def root(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    """Describe what the units of vision networks respond to, and score the descriptions."""


@app.command(
    "score",
    epilog=examples(
        "milan score milan.csv --references annotations.csv --network resnet152-imagenet",
        "milan score layer1=dnd1.csv layer2=dnd2.csv --data edition --allow-missing --out record",
        "milan score mine.csv --ground torchvision:resnet18@DEFAULT --images val --scorer labels",
    ),
)
def score(
    files: Annotated[
        list[str],
        typer.Argument(
            metavar="[LAYER=]FILE...",
            help="Descriptions of one method, in one file or several (CSV or parquet).",
        ),
    ],
    data: Annotated[str | None, typer.Option(help="Edition: a folder.")] = None,
    config: Annotated[str | None, typer.Option(help="Config of the edition.")] = None,
    references: Annotated[
        str | None, typer.Option(help="A published annotations.csv instead of an edition.")
    ] = None,
    network: Annotated[str | None, typer.Option(help="Where the files do not say.")] = None,
    layer: Annotated[
        list[str] | None,
        typer.Option(help="Score these layers alone; the layer of files that name none."),
    ] = None,
    split: Annotated[str | None, typer.Option(help="Score one split (test) alone.")] = None,
    metrics: Annotated[
        list[str] | None,
        typer.Option(help="Metrics or sets of them: default, lexical, neural, all."),
    ] = None,
    allow_missing: Annotated[
        bool, typer.Option("--allow-missing", help="Count units without a row as failures.")
    ] = False,
    unlisted: Annotated[
        bool,
        typer.Option(
            "--unlisted", help="Accept layers and units that the published network lacks."
        ),
    ] = False,
    method: Annotated[
        str | None, typer.Option(help="Name for the table and record, or name@version.")
    ] = None,
    constant: Annotated[
        list[str] | None, typer.Option(help="A string to score as a floor; may be repeated.")
    ] = None,
    seed: Annotated[int, typer.Option(help="Seed of every draw.", min=0)] = 0,
    draws: Annotated[int, typer.Option(help="Bootstrap resamples.", min=10, max=100_000)] = 1000,
    out: Annotated[str | None, typer.Option(help="Folder to write the record to.")] = None,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Replace another method's record.")
    ] = False,
    ground: grounding.Model = None,
    images: grounding.Images = None,
    scorer: grounding.ScorerName = None,
    grid: grounding.Grid = None,
    limit: grounding.Limit = None,
    keep_exemplars: grounding.Keep = False,
    weights: Weights = None,
    random: Random = False,
    device: Device = None,
    cache: Cache = None,
    as_json: Json = False,
) -> None:
    """Score descriptions against people's, or with --ground by what the units do.

    Floors, one person and intervals stand beside.
    """
    if ground is not None and references is not None:
        raise typer.BadParameter("--ground takes --data EDITION, or no references")
    if ground is None and (images or scorer or grid or limit or keep_exemplars):
        raise typer.BadParameter("--images, --scorer, --grid and --limit go with --ground MODEL")
    if ground is None and (data is None) == (references is None):
        raise typer.BadParameter("give either --data EDITION or --references annotations.csv")
    if out is not None:
        from leaderboard.record_format import score_record

        score_record.check_free(out)  # before hours are spent
    import leaderboard
    from leaderboard.evaluation.score_config import ScoreConfig

    settings = ScoreConfig(seed=seed, draws=draws)
    if constant:
        settings = ScoreConfig(seed=seed, draws=draws, constants=tuple(constant))
    if ground is not None:
        made = grounding.of_command(
            files, ground, images=images, scorer=scorer, data=data, config=config,
            network=network, layers=layer or [], split=split, metrics=metrics, settings=settings,
            grid=grid, limit=limit, keep_exemplars=keep_exemplars, weights=weights,
            random=random, device=device, cache=cache, allow_missing=allow_missing, method=method,
        )  # fmt: skip
    else:
        made = leaderboard.score(
            files,
            _edition(data) if data is not None else _file(references or ""),
            metrics or ["default"],
            network=network,
            config=config,
            layers=layer or [],
            split=split,
            allow_missing=allow_missing,
            unlisted=unlisted,
            method=method,
            settings=settings,
            progress=sys.stderr.isatty(),
        )
    if out is not None:  # first: a reader of the table may leave
        print(f"Record: {made.save(out, overwrite=overwrite)}", file=sys.stderr)
    _show(made, as_json)


@app.command(
    "run", epilog=examples("milan run --fast", "milan run --methods nearest truth --out records")
)
def run(
    data: Annotated[str, typer.Option(help="Edition: a folder, or mini.")] = "mini",
    methods: Annotated[
        list[str] | None, typer.Option(help="Methods (default: all that need no download).")
    ] = None,
    fast: Annotated[
        bool, typer.Option("--fast", help="Of methods, nearest and milan alone: a minute.")
    ] = False,
    subject: Model = None,
    probe: Probe = None,
    weights: Weights = None,
    random: Random = False,
    device: Device = None,
    cache: Cache = None,
    blind: Annotated[
        bool,
        typer.Option(
            "--blind",
            help="Describe shuffled exemplars too, as a floor: what looks at them "
            "has no lift then.",
        ),
    ] = False,
    config: Annotated[str | None, typer.Option(help="Config of the edition.")] = None,
    split: Annotated[str, typer.Option(help="Split to describe and score.")] = "test",
    metrics: Annotated[
        list[str] | None, typer.Option(help="Metrics or sets (default: by the edition).")
    ] = None,
    track: Annotated[
        str | None,
        typer.Option(help="Run for a track of the board: it says config, split and metrics."),
    ] = None,
    tasks: Annotated[
        list[str] | None,
        typer.Option(
            help="Put descriptions to work instead, on the mini world: all, analyze, audit, edit."
        ),
    ] = None,
    seeds: Annotated[int, typer.Option(help="Of tasks: networks of each kind.", min=1)] = 3,
    placebos: Annotated[int, typer.Option(help="Of edits: placebo flags.", min=1)] = 19,
    seed: Annotated[int, typer.Option(help="Seed of every draw.", min=0)] = 0,
    draws: Annotated[int, typer.Option(help="Bootstrap resamples.", min=10, max=100_000)] = 1000,
    out: Annotated[
        str | None, typer.Option(help="Folder to write a record a method to, and a page.")
    ] = None,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Replace other methods' records.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Run the main job: several methods describe an edition's units, and all are scored."""
    if tasks:
        if data != "mini":
            raise InputError(
                f"--tasks are of the mini world, and --data is {data}. For networks of your own: "
                "milan analyze, milan audit, milan edit."
            )
        analyze_audit.run(tasks, methods, seeds, placebos, seed, out, cache, as_json)
        return
    from leaderboard import run_methods
    from leaderboard.console import synthetic_table
    from leaderboard.evaluation.score_config import ScoreConfig

    screen = console()
    tell = (lambda line: print(line, file=sys.stderr)) if sys.stderr.isatty() else None
    scores = run_methods.run(
        data,
        methods,
        fast=fast,
        config=config,
        split=split,
        metrics=metrics,
        settings=ScoreConfig(seed=seed, draws=draws),
        subject=subject_of(subject, probe, weights, random, device, cache),
        blind=blind,
        track=track,
        out=out,
        overwrite=overwrite,
        **({"tell": tell} if tell else {}),
    )
    made = {name: score.record for name, score in scores.items()}
    if as_json:
        print_json({name: record.model_dump() for name, record in made.items()})
    elif next(iter(made.values())).edition.synthetic:
        screen.print(synthetic_table.board(made, screen.width))
    else:
        for score in scores.values():
            screen.print(score.render(screen.width))
    if out is not None:
        print(f"Records: {out}", file=sys.stderr)
        board.beside(out, data)


@app.command("doctor", epilog=examples("milan doctor", "milan doctor --json"))
def doctor(
    images: Annotated[
        str | None, typer.Option(help="Check a folder of ImageNet validation pictures too.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Check this installation: who owns which package, versions, models at hand."""
    from leaderboard import doctor as clinic

    results = clinic.run_checks(images)
    if as_json:
        print_json([{"name": r.name, "ok": r.passed, "says": r.message} for r in results])
    else:
        for result in results:
            print(f"{'ok  ' if result.passed else 'FAIL'}  {result.name}: {result.message}")
    if not all(result.passed for result in results):
        raise typer.Exit(1)


def _edition(name: str) -> str:
    from milannotations.editions.configs import locate

    if Path(name).is_file():
        raise InputError(f"{name} is a file; an edition is a folder. Use --references for a CSV.")
    locate(name or "./")
    return name


def _file(name: str) -> str:
    from milannotations.utils.files import check_is_file

    return str(check_is_file(name))


def _show(made: Score, as_json: bool) -> None:
    if as_json:
        from leaderboard.record_format import score_record

        sys.stdout.write(score_record.dumps(made.record))
        return
    screen = console()
    screen.print(made.render(screen.width))


def main(words: Sequence[str] | None = None) -> None:
    """Run the command and leave with 0 (done), 1 (mend your input), 2 (usage), 130 (stopped)."""
    words = list(sys.argv[1:] if words is None else words)
    run_command(lambda: app(args=expand_options(words), prog_name="milan"))
