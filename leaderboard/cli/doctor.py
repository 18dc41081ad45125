"""`milan doctor`: this installation, checked."""

from __future__ import annotations

from typing import Annotated

import typer

from leaderboard.cli.options import Json, examples, print_json

app = typer.Typer()


@app.command(epilog=examples("milan doctor", "milan doctor --json"))
def doctor(
    images: Annotated[
        str | None, typer.Option(help="Folder of ImageNet validation images to check too.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Check this installation.

    It names the owners of packages, versions that are too old, and the available models.
    """
    from leaderboard.doctor import run_checks

    checks = run_checks(images)
    if as_json:
        print_json([{"name": c.name, "ok": c.passed, "says": c.message} for c in checks])
    else:
        for check in checks:
            print(f"{'ok  ' if check.passed else 'FAIL'}  {check.name}: {check.message}")
    if not all(check.passed for check in checks):
        raise typer.Exit(1)
