"""`milan reproduce`: the paper's tables, trained and scored anew."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from leaderboard.commands import Json, console, examples

EPILOG = examples(
    "milan reproduce table2 --out table2",
    "milan reproduce table3 --data release --encoder torchvision:resnet50@DEFAULT --out table3",
)


def reproduce(
    table: Annotated[str, typer.Argument(help="table2 or table3.")],
    out: Annotated[str, typer.Option(help="Folder of features, answers and the table.")],
    data: Annotated[str, typer.Option(help="Edition of several networks.")] = "mini",
    seeds: Annotated[int, typer.Option(help="Seeds of training: 0, 1, ...", min=1)] = 1,
    encoder: Annotated[str | None, typer.Option(help="See milan train.")] = None,
    encoder_weights: Annotated[str | None, typer.Option(help="A file of its weights.")] = None,
    encoder_layer: Annotated[list[str] | None, typer.Option(help="Layers that it pools.")] = None,
    sizes: Annotated[str | None, typer.Option(help="2022 or small.")] = None,
    epochs: Annotated[int | None, typer.Option(help="At most.", min=1)] = None,
    metrics: Annotated[
        list[str] | None, typer.Option(help="Metrics; lambda is chosen by the first.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Train by the official splits, and print greedy, beam, MILAN, a person and the paper."""
    from leaderboard import reproduce as reproducing

    watched = sys.stderr.isatty()
    given = {"backbone": encoder, "weights": encoder_weights, "layers": encoder_layer}
    found = reproducing.reproduce(
        table,
        data,
        out,
        seeds=range(seeds),
        encoder={name: value for name, value in given.items() if value},
        sizes=sizes,
        settings={} if epochs is None else {"epochs": epochs},
        metrics=metrics,
        tell=lambda line: print(line, file=sys.stderr) if watched else None,
    )
    if as_json:
        sys.stdout.write((Path(out) / f"{table}.json").read_text())
    else:
        console().print(reproducing.render(found))
        print(f"Written: {Path(out) / table}.json, {table}.csv", file=sys.stderr)
