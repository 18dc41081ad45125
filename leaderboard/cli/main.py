"""The command `milan` (also installed as `milannotations`).

Each verb is a module of this folder with an `app`. A verb parses, calls one public function and
prints. Its module is imported when the verb is used, so that `milan --help` answers at once.
"""

from __future__ import annotations

import importlib
import sys
from collections.abc import Sequence
from typing import Annotated, Any

import typer
from typer.core import TyperCommand, TyperGroup

from milannotations import __version__
from milannotations.utils.terminal import examples, expand_options, run_command

NETWORK = "Your network"
SCORES = "Describe and score"
LEADERBOARD = "Leaderboard"
APPLICATIONS = "Applications"
DATA = "Data and models"
SUITE = "This suite"

VERBS = {
    "exemplars": (NETWORK, "Find the images that activate a network's units most."),
    "describe": (SCORES, "Describe units with a method, and write its predictions."),
    "score": (SCORES, "Score descriptions against annotations, or on the network's activations."),
    "run": (SCORES, "Describe an edition's units with several methods, and score them all."),
    "report": (SCORES, "Make one page of a network's units and their descriptions."),
    "check": (SCORES, "Check that a method works, or that a metric notices wrong descriptions."),
    "submit": (LEADERBOARD, "Make a submission, check it as CI does, and score it."),
    "board": (LEADERBOARD, "Build the leaderboard: static pages from records."),
    "analyze": (APPLICATIONS, "Ablate units in the order of their descriptions' scores."),
    "audit": (APPLICATIONS, "Count the units described with given words, and compare networks."),
    "edit": (APPLICATIONS, "Ablate the units described as text, and measure what it repairs."),
    "data": (DATA, "Make editions, look at them, check them and push them."),
    "train": (DATA, "Train MILAN on human annotations."),
    "download": (DATA, "Download a model published in 2022, as a model folder."),
    "convert": (DATA, "Convert a checkpoint of 2022 to a model folder."),
    "reproduce": (DATA, "Reproduce a table or an application of the paper."),
    "list": (SUITE, "List methods, metrics, tracks, networks, editions, splits and tasks."),
    "doctor": (SUITE, "Check this installation."),
}
"""The verbs in the order of use: the heading of `milan --help` they stand under, and a summary."""

ELSEWHERE = {"exemplars": "milannotations.exemplars.command"}
"""Modules of verbs that are not `leaderboard.cli.<verb>`."""


class _Verbs(TyperGroup):
    """The verbs; a verb's module is imported when it runs or prints its own help."""

    def list_commands(self, ctx: Any) -> list[str]:
        return list(VERBS)

    def get_command(self, ctx: Any, name: str) -> TyperCommand | None:
        """Return what `milan --help` shows of a verb: its name, heading and summary."""
        if name not in VERBS:
            return None
        heading, summary = VERBS[name]
        return TyperCommand(name, help=summary, rich_help_panel=heading, rich_markup_mode="rich")

    def resolve_command(self, ctx: Any, args: list[str]) -> tuple[Any, Any, list[str]]:
        name, stub, rest = super().resolve_command(ctx, args)
        return (name, stub, rest) if stub is None else (name, load_verb(str(stub.name)), rest)


def load_verb(name: str) -> Any:
    """Return the command of a verb; its module is imported."""
    module = importlib.import_module(ELSEWHERE.get(name, f"leaderboard.cli.{name}"))
    command = typer.main.get_command(module.app)
    command.name = name
    return command


app = typer.Typer(
    name="milan",
    cls=_Verbs,
    epilog=examples("milan run --fast", "milan list methods"),
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
)


def _print_version(wanted: bool) -> None:
    if wanted:
        print(f"milannotations {__version__}")
        raise typer.Exit


@app.callback()
def root(
    version: Annotated[
        bool,
        typer.Option(
            "--version", callback=_print_version, is_eager=True, help="Print the version."
        ),
    ] = False,
) -> None:
    """Describe what the units of vision networks respond to, and score the descriptions."""


def main(words: Sequence[str] | None = None) -> None:
    """Run the command; exit with 0 (done), 1 (input to correct), 2 (usage) or 130 (interrupted)."""
    words = list(sys.argv[1:] if words is None else words)
    run_command(lambda: app(args=expand_options(words), prog_name="milan"))
