"""`milan board`: the leaderboard as static pages."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from leaderboard.cli.options import (
    OptionsOf,
    examples,
    print_line,
    progress_wanted,
    with_options,
)
from leaderboard.site.builder import build as build_site

app = typer.Typer(
    no_args_is_help=True,
    help="Build the leaderboard: static pages from records.",
    epilog=examples("milan board build --out site", "milan board build --records out --out site"),
)


@app.callback()
def board() -> None:
    """Build the leaderboard: static pages from records."""


@app.command(
    epilog=examples(
        "milan board build --out site",
        "milan board build --records shipped records --editions release --out site",
    )
)
@with_options
def build(
    out: Annotated[
        str, typer.Option(help="Folder of the site; an earlier site there is replaced.")
    ],
    sources: Annotated[
        dict[str, Any],
        OptionsOf(
            build_site,
            only=("folders", "editions", "real", "cache"),
            names={"folders": "--records", "real": "--with"},
        ),
    ],
) -> None:
    """Build static pages from records, and from the editions that they name.

    Open SITE/index.html, from a server or from disk.
    """
    print(build_site(out, tell=print_line, progress=progress_wanted(), **sources))
