"""Options that several verbs share, and what verbs print while they work."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from milannotations.errors import InputError
from milannotations.utils.options import OptionsOf, with_options
from milannotations.utils.terminal import Json, console, examples, print_json, print_table

__all__ = [
    "Cache",
    "Data",
    "Edition",
    "Json",
    "MethodOptions",
    "OptionsOf",
    "Overwrite",
    "PredictionFiles",
    "console",
    "examples",
    "method_options",
    "print_json",
    "print_line",
    "print_note",
    "print_table",
    "progress_wanted",
    "with_options",
]

Edition = Annotated[str, typer.Argument(help="Edition: a folder, or mini.")]
Data = Annotated[str | None, typer.Option(help="Edition: a folder, or mini.")]
PredictionFiles = Annotated[
    list[str] | None,
    typer.Argument(metavar="[PREDICTIONS...]", help="Files of descriptions (CSV or parquet)."),
]
Cache = Annotated[
    str | None,
    typer.Option(help="Folder that keeps what took long to compute, by content (default: none)."),
]
Overwrite = Annotated[bool, typer.Option("--overwrite", help="Replace what is there.")]
MethodOptions = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="NAME=VALUE", help="An option of the method; may be repeated."),
]


def method_options(
    method: str, *, given: Sequence[str] | None, **named: str | None
) -> dict[str, Any]:
    """Return a method's options: those with command-line names of their own, and those of `--set`.

    Raises:
        InputError: as `baselines.parse_options`; an option that is given both ways.
    """
    import baselines

    options = {name: value for name, value in named.items() if value is not None}
    others = baselines.parse_options(method, given or ())
    for name in options.keys() & others.keys():
        raise InputError(f"'{name}' is given twice: --{name} and --set {name}=. Remove one.")
    return {**options, **others}


def progress_wanted() -> bool:
    """Return whether somebody watches: standard error is a terminal."""
    return sys.stderr.isatty()


def print_note(line: str) -> None:
    """Print a line for the user beside the output of a command."""
    print(line, file=sys.stderr)


def print_line(line: str) -> None:
    """Print a line of progress where somebody watches."""
    if progress_wanted():
        print_note(line)


def file_names(files: Sequence[str] | None) -> list[str]:
    """Return the names of files, without folders, as records state them."""
    return [Path(file).name for file in files or ()]
