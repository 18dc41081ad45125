"""`milan reproduce`: the paper's tables and applications, made anew."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from leaderboard.cli.options import Json, console, examples

EPILOG = examples(
    "milan reproduce table2 --out table2",
    "milan reproduce table3 --data release --encoder torchvision:resnet50@DEFAULT --out table3",
    "milan reproduce audit --out audit",
    "milan reproduce edit --images imagenette --milan milan-base --out edit",
    "milan reproduce analyze --predictions milan.csv --images imagenet/val --out analysis",
)


def reproduce(
    table: Annotated[str, typer.Argument(help="table2, table3, analyze, audit or edit.")],
    out: Annotated[str, typer.Option(help="Folder of features, answers and the table.")],
    data: Annotated[str, typer.Option(help="Edition of several networks.")] = "mini",
    seeds: Annotated[
        int | None,
        typer.Option(help="Seeds of training: 0, 1, ... (default: 1; of applications, 5).", min=1),
    ] = None,
    encoder: Annotated[str | None, typer.Option(help="See milan train.")] = None,
    encoder_weights: Annotated[str | None, typer.Option(help="A file of its weights.")] = None,
    encoder_layer: Annotated[list[str] | None, typer.Option(help="Layers that it pools.")] = None,
    sizes: Annotated[str | None, typer.Option(help="2022 or small.")] = None,
    epochs: Annotated[int | None, typer.Option(help="At most.", min=1)] = None,
    metrics: Annotated[
        list[str] | None, typer.Option(help="Metrics; lambda is chosen by the first.")
    ] = None,
    predictions: Annotated[
        list[str] | None,
        typer.Option(help="Of applications: MILAN's descriptions (default: the mini world's)."),
    ] = None,
    images: Annotated[
        str | None,
        typer.Option(
            help="Of analyze: test pictures, such as imagenet/val. Of edit: all pictures."
        ),
    ] = None,
    milan: Annotated[
        str | None, typer.Option(help="Of edit with --images: folder of a MILAN model.")
    ] = None,
    limit: Annotated[
        int | None, typer.Option(help="Of edit: so many pictures, evenly.", min=2)
    ] = None,
    cache: Annotated[
        str | None, typer.Option(help="Of applications: folder that keeps mini networks.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Make a table or an application of the paper anew, with the paper's figures beside.

    Tables are trained by the official splits: greedy, beam, MILAN and a person.
    """
    from leaderboard.applications import TASKS

    watched = sys.stderr.isatty()
    if table in TASKS:
        from leaderboard.cli.analyze_audit import show
        from leaderboard.reproduction import applications

        more: dict[str, Any] = (
            {"model": milan, "limit": limit, "epochs": epochs} if table == "edit" else {}
        )
        made = applications.reproduce(
            table,
            out,
            predictions or (),
            images=images,
            seeds=seeds or applications.SEEDS,
            cache=cache,
            tell=lambda line: print(line, file=sys.stderr) if watched else None,
            **more,
        )
        show(made, out, as_json)
        return
    from leaderboard.reproduction import tables

    given = {"backbone": encoder, "weights": encoder_weights, "layers": encoder_layer}
    found = tables.reproduce(
        table,
        data,
        out,
        seeds=range(seeds or 1),
        encoder={name: value for name, value in given.items() if value},
        sizes=sizes,
        settings={} if epochs is None else {"epochs": epochs},
        metrics=metrics,
        tell=lambda line: print(line, file=sys.stderr) if watched else None,
    )
    if as_json:
        sys.stdout.write((Path(out) / f"{table}.json").read_text())
    else:
        console().print(tables.render(found))
        print(f"Written: {Path(out) / table}.json, {table}.csv", file=sys.stderr)
