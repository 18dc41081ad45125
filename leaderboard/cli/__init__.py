"""The command `milan`: one module per verb."""

from leaderboard.cli.main import main

__all__ = ["main"]
