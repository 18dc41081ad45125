"""`milan convert` and `milan download`: the models of 2022, as model folders."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from leaderboard.cli.options import examples

CONVERT = examples(
    "milan convert milan-base.pth milan-base",
    "milan convert decoder.pth my-model --encoder-weights resnet101.pth",
)
DOWNLOAD = examples(
    "milan download base",
    "milan download places365 --out milan-places365 --overwrite",
)

Weights = Annotated[
    str | None,
    typer.Option(
        "--encoder-weights",
        help="The encoder's weights, under torchvision's names, if the file has none.",
    ),
]
Overwrite = Annotated[bool, typer.Option("--overwrite", help="Replace a model that is there.")]


def convert(
    old: Annotated[str, typer.Argument(help="A checkpoint of 2022 (.pth).")],
    out: Annotated[str, typer.Argument(help="Folder of the model; made.")],
    encoder_weights: Weights = None,
    overwrite: Overwrite = False,
) -> None:
    """Write a checkpoint of 2022 as a model folder. Nothing in the checkpoint is run."""
    from milan.legacy import convert as conversion

    _say(conversion.convert(old, out, encoder_weights=encoder_weights, overwrite=overwrite))


def download(
    name: Annotated[
        str,
        typer.Argument(help="base, cls, gen, imagenet, places365, alexnet, resnet152 or biggan."),
    ],
    out: Annotated[
        str | None, typer.Option(help="Folder of the model; made (default: milan-NAME).")
    ] = None,
    downloads: Annotated[
        str, typer.Option(help="Folder of downloaded files.")
    ] = "~/.cache/milannotations",
    mirror: Annotated[str | None, typer.Option(help="Address of the folder of models.")] = None,
    lock: Annotated[str | None, typer.Option(help="Lock file with known checksums.")] = None,
    require_checksum: Annotated[
        bool, typer.Option("--require-checksum", help="Refuse files of unknown checksum.")
    ] = False,
    encoder_weights: Weights = None,
    overwrite: Overwrite = False,
) -> None:
    """Fetch a model that was published in 2022, and write it as a model folder."""
    from milan.legacy import convert as conversion

    made = conversion.download(
        name,
        out,
        folder=downloads,
        encoder_weights=encoder_weights,
        overwrite=overwrite,
        base=mirror,
        lock=lock,
        require_checksum=require_checksum,
        tell=lambda line: print(line, file=sys.stderr),
        progress=sys.stderr.isatty(),
    )
    _say(made)


def _say(folder: Path) -> None:
    import json

    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    network = config["encoder"]["backbone"].partition(":")[2]
    print(f"{folder}: {len(config['vocabulary']):,} words, encoder {network}")
    for note in config["made"]["notes"]:
        print(f"Note: {note}")
    print(f'Open it: milan.Milan.from_pretrained("{folder}")')
