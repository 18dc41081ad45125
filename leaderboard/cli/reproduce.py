"""`milan reproduce`: tables and applications of the paper, with its figures beside ours."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from leaderboard.cli.options import (
    Cache,
    Json,
    OptionsOf,
    console,
    examples,
    print_line,
    with_options,
)
from leaderboard.reproduction import applications, tables, training
from leaderboard.reproduction.edit import reproduce_edit

app = typer.Typer()


@app.command(
    epilog=examples(
        "milan reproduce table2 --out table2",
        "milan reproduce table3 --data release --encoder torchvision:resnet50@DEFAULT --out table3",
        "milan reproduce audit --out audit",
        "milan reproduce edit --images imagenette --milan milan-base --out edit",
        "milan reproduce analyze --predictions milan.csv --images imagenet/val --out analysis",
    )
)
@with_options
def reproduce(
    table: Annotated[str, typer.Argument(help="table2, table3, analyze, audit or edit.")],
    out: Annotated[str, typer.Option(help="Folder of features, predictions and the table.")],
    encoder: Annotated[
        dict[str, Any],
        OptionsOf(
            training.train,
            only=("encoder", "encoder_weights", "encoder_layers"),
            names={"encoder_layers": "--encoder-layer"},
        ),
    ],
    options: Annotated[dict[str, Any], OptionsOf(tables.reproduce, only=("sizes", "metrics"))],
    editing: Annotated[
        dict[str, Any],
        OptionsOf(reproduce_edit, only=("model", "limit", "epochs"), names={"model": "--milan"}),
    ],
    data: Annotated[str, typer.Option(help="Edition of several networks.")] = "mini",
    seeds: Annotated[
        int | None,
        typer.Option(
            help="Random seeds of training: 0, 1, ... (default: 1; of applications, 5).", min=1
        ),
    ] = None,
    predictions: Annotated[
        list[str] | None,
        typer.Option(
            help="Of applications: MILAN's descriptions (default: those of the mini world)."
        ),
    ] = None,
    images: Annotated[
        str | None,
        typer.Option(help="Of analyze: test images, as imagenet/val. Of edit: all images."),
    ] = None,
    cache: Cache = None,
    as_json: Json = False,
) -> None:
    """Reproduce a table or an application of the paper.

    The paper's figures stand beside ours. Tables are trained by the official splits: greedy,
    beam, MILAN and a leave-one-out human.
    """
    from leaderboard.applications import TASKS

    if table in TASKS:
        from leaderboard.cli.application import show

        record = applications.reproduce(
            table,
            out,
            predictions or (),
            images=images,
            seeds=seeds or applications.SEEDS,
            cache=cache,
            tell=print_line,
            **(editing if table == "edit" else {}),
        )
        show(record, out, as_json)
        return
    from leaderboard.console.paper_table import render

    epochs = editing.get("epochs")
    renamed = {"encoder": "backbone", "encoder_weights": "weights", "encoder_layers": "layers"}
    result = tables.reproduce(
        table,
        data,
        out,
        seeds=range(seeds or 1),
        encoder={renamed[name]: value for name, value in encoder.items()},
        settings={} if epochs is None else {"epochs": epochs},
        tell=print_line,
        **options,
    )
    if as_json:
        sys.stdout.write((Path(out) / f"{table}.json").read_text())
    else:
        console().print(render(result))
        print(f"Written: {Path(out) / table}.json, {table}.csv", file=sys.stderr)
