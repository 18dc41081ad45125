"""Options and output that `milan analyze`, `milan audit` and `milan edit` share."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from leaderboard.cli.options import OptionsOf, console, print_line
from milannotations.errors import InputError
from milannotations.exemplars.run_config import RunConfig

if TYPE_CHECKING:
    from leaderboard.applications.common.mini_networks import MiniNetworkFactory
    from leaderboard.record_format.application_record import ApplicationRecord

Describe = Annotated[
    str | None,
    typer.Option(help="Method that describes the networks of the mini world, instead of files."),
]
Seeds = Annotated[
    int, typer.Option(help="Networks of the mini world, or pairs of them, one a seed.", min=1)
]
Network = Annotated[str | None, typer.Option(help="Network of files that do not name one.")]
Out = Annotated[str, typer.Option(help="Folder of the record, with curves and figures.")]
Method = Annotated[str, typer.Option(help="Name for the record, or name@version.")]
Model = Annotated[
    str | None,
    typer.Option(help="A network, as in milan exemplars (default: those of the mini world)."),
]
Images = Annotated[
    str | None, typer.Option(help="Test images in ImageFolder layout (one folder per class).")
]
Layers = Annotated[list[str] | None, typer.Option("--layer", help="Layers whose units are used.")]
Classes = Annotated[
    str | None,
    typer.Option(
        help="File of class folders, one per output of the network (default: sorted by name)."
    ),
]
Substrings = Annotated[
    bool, typer.Option("--substrings", help="Match the words inside other words too, as in 2022.")
]
RunOptions = OptionsOf(RunConfig, only=("batch_size", "device"))


def show(record: ApplicationRecord, out: str, as_json: bool) -> None:
    """Print the number of an application, and where its record is."""
    from leaderboard.console.application_table import render
    from leaderboard.record_format.base import dumps

    if as_json:
        sys.stdout.write(dumps(record))
    else:
        screen = console()
        screen.print(render([record], screen.width))
    print(f"Record: {out}", file=sys.stderr)


def check_source(
    files: list[str] | None, describe: str | None, model: str | None = None, hint: str = ""
) -> None:
    """Raise InputError unless descriptions come from files, or from a method on the mini world.

    Args:
        files, describe, model: as given on the command line.
        hint: what else could be typed where there are no descriptions.
    """
    if files and describe:
        raise InputError("Files and --describe were both given; expected one of them.")
    if not files and (describe is None or model is not None):
        raise InputError(
            "No descriptions: give files of them, or on the mini world --describe METHOD." + hint
        )
    if describe is not None:
        from leaderboard.applications.common.mini_networks import check_method_available

        check_method_available(describe)


def network_factory(cache: str | None) -> MiniNetworkFactory:
    """Return the factory of the networks of the mini world; `cache` keeps them."""
    from leaderboard.applications.common.mini_networks import MiniNetworkFactory

    return MiniNetworkFactory(Path(cache) if cache else None, tell=print_line)


def matching(substrings: bool) -> dict[str, Any]:
    """Return the setting that `--substrings` stands for."""
    return {"matching": "substrings" if substrings else "words"}
