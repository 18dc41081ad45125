"""`milan check`: does a method keep the contract?"""

from __future__ import annotations

from typing import Annotated

import typer

from leaderboard.commands import Json, Options, examples, options_of, print_json, print_table

EPILOG = examples(
    "milan check nearest",
    "milan check path/to/my_method.py --json",
    "milan check captioner --model NAME --set url=http://localhost:8000/v1",
)


def check(
    method: Annotated[
        str, typer.Argument(help="Name of a method (milan list methods), or path/to/file.py.")
    ],
    model: Annotated[
        str | None, typer.Option(help="Folder or name of the method's model, if it has one.")
    ] = None,
    set_: Options = None,
    seed: Annotated[int, typer.Option(help="Seed of every draw.", min=0)] = 0,
    as_json: Json = False,
) -> None:
    """Run a method on a few units of the mini edition: does it keep the contract?"""
    from baselines import checking

    found = checking.check(method, options_of(method, model=model, given=set_), seed=seed)
    if as_json:
        print_json([vars(each) for each in found])
    else:
        print_table(
            ("check", "", "seen"),
            [(each.name, "pass" if each.ok else "FAIL", each.says) for each in found],
        )
    if not all(each.ok for each in found):
        raise typer.Exit(1)
