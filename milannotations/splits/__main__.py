"""Command `python -m milannotations.splits --out DIR`: write the official splits as DIR/v1.json."""

from __future__ import annotations

import argparse
import sys

from milannotations.errors import InputError
from milannotations.splits.generation import write


def main() -> None:
    """Write the file and print its path."""
    parser = argparse.ArgumentParser(
        prog="python -m milannotations.splits", description="Write the official splits as JSON."
    )
    parser.add_argument("--out", required=True, metavar="DIR", help="folder to write v1.json into")
    try:
        print(write(parser.parse_args().out))
    except InputError as error:
        sys.exit(str(error))


if __name__ == "__main__":
    main()
