"""`milan score`: descriptions scored against annotations, or on the network's activations."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated, Any

import typer

import leaderboard
from leaderboard.cli.network import DeviceOptions
from leaderboard.cli.options import (
    Cache,
    Data,
    Json,
    OptionsOf,
    Overwrite,
    console,
    examples,
    progress_wanted,
    with_options,
)
from leaderboard.evaluation.score_config import ScoreConfig
from leaderboard.grounding.score_files import GroundOptions, score_files
from milannotations.errors import InputError
from milannotations.exemplars.options import NetworkOptions

app = typer.Typer()


@app.command(
    epilog=examples(
        "milan score milan.csv --references annotations.csv --network resnet152-imagenet",
        "milan score layer1=dnd1.csv layer2=dnd2.csv --data edition --allow-missing --out record",
        "milan score mine.csv --ground torchvision:resnet18@DEFAULT --images val --scorer labels",
    )
)
@with_options
def score(
    files: Annotated[
        list[str],
        typer.Argument(
            metavar="[LAYER=]FILE...",
            help="Descriptions of one method, in one file or several (CSV or parquet).",
        ),
    ],
    scope: Annotated[
        dict[str, Any],
        OptionsOf(
            leaderboard.score,
            only=("config", "network", "layers", "split", "allow_missing", "unlisted", "method"),
            names={"layers": "--layer"},
        ),
    ],
    settings: Annotated[
        ScoreConfig,
        OptionsOf(
            ScoreConfig, only=("seed", "draws", "constants"), names={"constants": "--constant"}
        ),
    ],
    ground_options: Annotated[GroundOptions, OptionsOf(GroundOptions)],
    network: Annotated[NetworkOptions, OptionsOf(NetworkOptions)],
    device: Annotated[dict[str, Any], DeviceOptions],
    data: Data = None,
    references: Annotated[
        str | None, typer.Option(help="A published annotations.csv instead of an edition.")
    ] = None,
    metrics: Annotated[
        list[str] | None,
        typer.Option(help="Metrics or sets of them: default, lexical, neural, all."),
    ] = None,
    ground: Annotated[
        str | None,
        typer.Option(
            metavar="MODEL",
            help="Score on the activations of this network, as in milan exemplars, or mini.",
        ),
    ] = None,
    out: Annotated[str | None, typer.Option(help="Folder to write the record to.")] = None,
    overwrite: Overwrite = False,
    cache: Cache = None,
    as_json: Json = False,
) -> None:
    """Score descriptions against annotations, or on the network's activations.

    Floors, a leave-one-out human and intervals stand beside every score.
    """
    if ground is not None and references is not None:
        raise typer.BadParameter("--ground takes --data EDITION, or no references")
    if ground is None and ground_options != GroundOptions():
        raise typer.BadParameter("--images, --scorer, --grid and --limit go with --ground MODEL")
    if ground is None and (data is None) == (references is None):
        raise typer.BadParameter("give either --data EDITION or --references annotations.csv")
    if out is not None:
        from leaderboard.record_format.score_record import check_free

        check_free(out)  # before the work, which can take hours
    if ground is not None:
        scope.pop("unlisted")
        scored = score_files(
            files, ground, ground_options, network, data=data, metrics=metrics, settings=settings,
            scope=scope, **device, cache=cache, progress=progress_wanted(),
        )  # fmt: skip
    else:
        scored = leaderboard.score(
            files,
            _edition(data) if data is not None else _file(references or ""),
            metrics or ["default"],
            settings=settings,
            progress=progress_wanted(),
            **scope,
        )
    if out is not None:  # before the table, whose reader may leave
        print(f"Record: {scored.save(out, overwrite=overwrite)}", file=sys.stderr)
    if as_json:
        from leaderboard.record_format.base import dumps

        sys.stdout.write(dumps(scored.record))
        return
    from leaderboard.console import score_table

    screen = console()
    screen.print(score_table.render(scored.record, screen.width))


def _edition(name: str) -> str:
    from milannotations.editions.configs import locate

    if Path(name).is_file():
        raise InputError(f"{name} is a file; an edition is a folder. Use --references for a CSV.")
    locate(name or "./")
    return name


def _file(name: str) -> str:
    from milannotations.utils.files import check_is_file

    return str(check_is_file(name))
