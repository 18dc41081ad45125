"""`milan exemplars` in several processes, on one host or many, with the same arguments.

torchrun --nproc-per-node=N -m milannotations.exemplars MODEL --layer L --images D --out O
"""

from __future__ import annotations

import sys

from milannotations.exemplars import distributed
from milannotations.exemplars.checkpoint import StoppedError
from milannotations.exemplars.command import app
from milannotations.utils.terminal import expand_options, run_command


def main() -> None:
    """Join the process group, if there is one, and run the command."""
    with distributed.joined():
        try:
            app(args=expand_options(sys.argv[1:]), prog_name="python -m milannotations.exemplars")
        except StoppedError as stopped:
            if stopped.is_first:
                raise
            sys.exit(1)  # one process prints the message


if __name__ == "__main__":
    run_command(main)
