"""`milan board` and `milan report`: pages to look at, made from records and descriptions."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from leaderboard.cli.options import examples
from milannotations.errors import InputError

app = typer.Typer(
    no_args_is_help=True,
    help="Make the board: static pages from records.",
    epilog=examples("milan board build --out site", "milan board build --records out --out site"),
)
REPORT = examples(
    "milan report mini nearest.csv --out report.html",
    "milan report my-edition milan=milan.csv other=other.csv --out report.html",
)
Cache = Annotated[str, typer.Option(help="Folder of what is made once, such as thumbnails.")]


@app.command(
    "build",
    epilog=examples(
        "milan board build --out site",
        "milan board build --records shipped records --editions release --out site",
    ),
)
def build(
    out: Annotated[str, typer.Option(help="Folder of the site; an older site there is replaced.")],
    records: Annotated[
        list[str] | None,
        typer.Option(help="Folders of records; shipped (the default) are those that ship."),
    ] = None,
    editions: Annotated[
        list[str] | None, typer.Option(help="Folders of the editions that records name.")
    ] = None,
    real: Annotated[
        str | None,
        typer.Option("--with", help="Folder of real descriptions: rows of resnet152-imagenet too."),
    ] = None,
    cache: Cache = "~/.cache/milannotations",
) -> None:
    """Make static pages from records, and from the editions that they name.

    Open SITE/index.html, from a server or from a disk.
    """
    from leaderboard import site

    page = site.build(
        out,
        records or (),
        editions=editions or (),
        real=real,
        cache=cache,
        tell=_tell,
        progress=sys.stderr.isatty(),
    )
    print(page)


def report(
    edition: Annotated[str, typer.Argument(help="An edition: a folder, or mini.")],
    files: Annotated[
        list[str],
        typer.Argument(metavar="[NAME=]FILE...", help="Descriptions, a file a method."),
    ],
    out: Annotated[str, typer.Option(help="Page to write, .html.")] = "report.html",
    config: Annotated[str | None, typer.Option(help="Config of the edition.")] = None,
    network: Annotated[str | None, typer.Option(help="Where the files do not say.")] = None,
    layer: Annotated[str | None, typer.Option(help="Layer of files that name none.")] = None,
    seed: Annotated[int, typer.Option(help="Seed of every draw.", min=0)] = 0,
    cache: Cache = "~/.cache/milannotations",
) -> None:
    """Make one page of a network's units: exemplars, masks, descriptions, scores where possible."""
    from leaderboard.evaluation.score_config import ScoreConfig
    from leaderboard.site.report import report as make

    page = make(
        edition,
        files,
        out,
        config=config,
        network=network,
        layer=layer,
        settings=ScoreConfig(seed=seed),
        cache=cache,
        tell=_tell,
        progress=sys.stderr.isatty(),
    )
    print(page)


def beside(records: str, data: str = "mini") -> None:
    """Make a board of a folder of records within it, and say where it is, or why there is none."""
    from leaderboard import site

    editions = [data] if Path(data).is_dir() else []
    try:
        page = site.build(
            Path(records) / "page",
            [records],
            editions=editions,
            tell=_tell,
            progress=sys.stderr.isatty(),
        )
    except InputError as error:  # the records are there all the same
        print(f"No page was made: {error}", file=sys.stderr)
    else:
        print(f"Page: {page}", file=sys.stderr)


def _tell(line: str) -> None:
    if sys.stderr.isatty():
        print(line, file=sys.stderr)
