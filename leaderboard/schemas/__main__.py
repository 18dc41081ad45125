"""Command that writes the JSON Schemas: `python -m leaderboard.schemas --out DIR`."""

from __future__ import annotations

import argparse

from leaderboard.schemas import write


def main() -> None:
    """Write the schemas and print their paths."""
    parser = argparse.ArgumentParser(
        prog="python -m leaderboard.schemas", description="Write the JSON Schemas."
    )
    parser.add_argument("--out", required=True, metavar="DIR", help="folder to write them into")
    print(*write(parser.parse_args().out), sep="\n")


if __name__ == "__main__":
    main()
