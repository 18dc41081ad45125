"""Terminal input and output of every command: options, tables, JSON, errors, exit status."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from milannotations.errors import InputError

MULTI_VALUE_OPTIONS = (
    "--metrics",
    "--layer",
    "--encoder-layer",
    "--constant",
    "--methods",
    "--tasks",
)
"""Options that take several values: `--metrics a b`, `--metrics a,b` or one by one."""

MULTI_VALUE_OPTIONS_OF = {
    "board": ("--records", "--editions"),
    "check": ("--metric", "--network"),
    "train": ("--data",),
}
"""Options that take several values in one command only, by command."""

Json = Annotated[bool, typer.Option("--json", help="Print JSON instead of a table.")]


def examples(*commands: str) -> str:
    """Return the epilog of a help text: commands that work."""
    return "Examples:\n\n" + "\n\n".join(f"  {command}" for command in commands)


def console() -> Any:
    """Return a console of the terminal's width, or of 200 columns for pipes and files."""
    from rich.console import Console

    width = None if sys.stdout.isatty() or "COLUMNS" in os.environ else 200
    return Console(width=width, highlight=False, markup=False)


def print_json(value: Any) -> None:
    """Print a value as strict JSON with sorted keys."""
    print(json.dumps(value, indent=1, sort_keys=True, allow_nan=False))


def print_table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Print a table as wide as the terminal."""
    from rich.table import Table

    table = Table(*header, box=None, pad_edge=False, header_style="bold")
    for row in rows:
        table.add_row(*row)
    console().print(table)


def expand_options(words: Sequence[str]) -> list[str]:
    """Expand options with several values into one option per value, as the parser wants them.

    The values of an option end at the next option, at `--`, and, for `score`, at a word that is a
    file or has the form layer=FILE.

    Example:
        >>> expand_options(["score", "--metrics", "rouge-l", "bleu-4", "--seed", "1"])
        ['score', '--metrics', 'rouge-l', '--metrics', 'bleu-4', '--seed', '1']
    """
    expanded: list[str] = []
    names = (*MULTI_VALUE_OPTIONS, *MULTI_VALUE_OPTIONS_OF.get(words[0] if words else "", ()))
    takes_files = words[:1] == ["score"]  # the only command that takes files beside its options
    option: str | None = None  # the option whose values are being read
    n_values = 0
    for i, word in enumerate(words):
        if word == "--":
            return [*expanded, *words[i:]]
        if word in names:
            option, n_values = word, 0
            continue
        name, equals, value = word.partition("=")
        if equals and name in names:  # --metrics=a,b
            option, n_values = name, 1
            expanded += [part for value in value.split(",") for part in (option, value)]
            continue
        is_file = takes_files and n_values > 0 and ("=" in word or Path(word).exists())
        if option and not (word.startswith("-") or is_file):
            values = [word] if option == "--constant" else word.split(",")
            expanded += [part for value in values for part in (option, value)]
            n_values += 1
            continue
        if option and not n_values:
            expanded.append(option)  # the parser reports the missing value
        option = None
        expanded.append(word)
    return expanded + ([option] if option and not n_values else [])


def run_command(command: Callable[[], None]) -> None:
    """Run a command and exit: 0 success, 1 error of the user, 2 wrong usage, 130 interrupted."""
    os.environ.setdefault("HF_DATASETS_DISABLE_PROGRESS_BARS", "1")  # ours say more
    try:
        command()
    except InputError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(1)
    except OSError as error:  # permissions, a full disk, a name that is too long
        where = f": {error.filename}" if error.filename else ""
        print(f"error: {error.strerror or error}{where}", file=sys.stderr)
        sys.exit(1)
    except KeyboardInterrupt:
        print("stopped", file=sys.stderr)
        sys.exit(130)
