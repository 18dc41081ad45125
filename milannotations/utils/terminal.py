"""What every command does with words, tables and errors, whoever starts it."""

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
"""Options that do so for one command alone."""


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


def expand_options(words: Sequence[str]) -> list[str]:
    """Write options with several values out, as the parser wants them: one option a value.

    Values end at the next option, at `--`, and, for `score`, at a word that is a file or
    names a layer's file.

    Example:
        >>> spread(["score", "--metrics", "rouge-l", "bleu-4", "--seed", "1"])
        ['score', '--metrics', 'rouge-l', '--metrics', 'bleu-4', '--seed', '1']
    """
    made: list[str] = []
    many = (*MULTI_VALUE_OPTIONS, *MULTI_VALUE_OPTIONS_OF.get(words[0] if words else "", ()))
    files = words[:1] == ["score"]  # the one command that takes files beside its options
    option: str | None = None
    taken = 0
    for place, word in enumerate(words):
        if word == "--":
            return [*made, *words[place:]]
        if word in many:
            option, taken = word, 0
            continue
        named, equals, value = word.partition("=")
        if equals and named in many:  # --metrics=a,b
            option, taken, word = named, 0, value
            made += [part for value in word.split(",") for part in (option, value)]
            taken = 1
            continue
        ends = word.startswith("-") or (files and taken and ("=" in word or Path(word).exists()))
        if option and not ends:
            values = word.split(",") if option != "--constant" else [word]
            made += [part for value in values for part in (option, value)]
            taken += 1
            continue
        if option and not taken:
            made.append(option)  # the parser says that a value is missing
        option = None
        made.append(word)
    return made + ([option] if option and not taken else [])


def run_command(command: Callable[[], None]) -> None:
    """Run a command and leave with 0 (done), 1 (mend your input), 2 (usage), 130 (stopped)."""
    os.environ.setdefault("HF_DATASETS_DISABLE_PROGRESS_BARS", "1")  # theirs; ours say more
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
