"""The parts of the command `milan`. A command parses, calls one public function and prints."""

from collections.abc import Sequence
from typing import Annotated, Any

import typer

from milannotations.utils.terminal import Json, console, examples, print_json, print_table

__all__ = ["Json", "Options", "console", "examples", "options_of", "print_json", "print_table"]

Options = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="NAME=VALUE", help="An option of the method; may be repeated."),
]


def options_of(method: str, *, given: Sequence[str] | None, **named: str | None) -> dict[str, Any]:
    """Return a method's options: those with names of their own, and those of `--set`.

    Raises:
        InputError: as `baselines.options_of`; an option that is given in both ways.
    """
    import baselines
    from milannotations.errors import InputError

    made = {name: value for name, value in named.items() if value is not None}
    others = baselines.options_of(method, given or ())
    for name in made.keys() & others.keys():
        raise InputError(f"'{name}' is given twice: --{name} and --set {name}=.")
    return {**made, **others}
