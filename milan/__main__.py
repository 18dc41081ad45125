"""`python -m milan`: the command `milan`, where no script is on the PATH."""

from __future__ import annotations

import runpy

if __name__ == "__main__":
    # By name: this package must not import the harness, which builds on it.
    runpy.run_module("leaderboard.cli", run_name="__main__", alter_sys=True)
