"""`milan report`: one page of a network's units and their descriptions."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from leaderboard.cli.options import (
    Edition,
    OptionsOf,
    examples,
    print_line,
    progress_wanted,
    with_options,
)
from leaderboard.evaluation.score_config import ScoreConfig
from leaderboard.site.report import report as write_report

app = typer.Typer()


@app.command(
    epilog=examples(
        "milan report mini nearest.csv --out report.html",
        "milan report my-edition milan=milan.csv other=other.csv --out report.html",
    )
)
@with_options
def report(
    edition: Edition,
    files: Annotated[
        list[str], typer.Argument(metavar="[NAME=]FILE...", help="Descriptions, one file a method.")
    ],
    scope: Annotated[
        dict[str, Any],
        OptionsOf(write_report, only=("config", "network", "layer", "cache")),
    ],
    settings: Annotated[ScoreConfig, OptionsOf(ScoreConfig, only=("seed",))],
    out: Annotated[str, typer.Option(help="Page to write, .html.")] = "report.html",
) -> None:
    """Make one page of a network's units and their descriptions.

    It shows exemplars, masks, descriptions and, where there are annotations, scores.
    """
    page = write_report(
        edition, files, out, settings=settings, tell=print_line, progress=progress_wanted(), **scope
    )
    print(page)
