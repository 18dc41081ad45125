"""The parts of the command `milan`. A command parses, calls one public function and prints."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Sequence
from typing import Annotated, Any

import typer

Json = Annotated[bool, typer.Option("--json", help="Print JSON instead of a table.")]


def examples(*commands: str) -> str:
    """Return the end of a help text: commands that work."""
    return "Examples:\n\n" + "\n\n".join(f"  {command}" for command in commands)


def console() -> Any:
    """Return a console; a pipe or a file has no width of its own and is given room."""
    from rich.console import Console

    width = None if sys.stdout.isatty() or "COLUMNS" in os.environ else 200
    return Console(width=width, highlight=False, markup=False)


def print_json(value: Any) -> None:
    """Print strict JSON."""
    print(json.dumps(value, indent=1, sort_keys=True, allow_nan=False))


def print_table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Print rows under a header, as wide as the terminal."""
    from rich.table import Table

    table = Table(*header, box=None, pad_edge=False, header_style="bold")
    for row in rows:
        table.add_row(*row)
    console().print(table)
