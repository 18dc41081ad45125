"""`milan convert`: a checkpoint of 2022, as a model folder."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from leaderboard.cli.options import Overwrite, examples

app = typer.Typer()

EncoderWeights = Annotated[
    str | None,
    typer.Option(
        help="File of the encoder's weights, under torchvision's names, for checkpoints that "
        "hold none."
    ),
]


@app.command(
    epilog=examples(
        "milan convert milan-base.pth milan-base",
        "milan convert decoder.pth my-model --encoder-weights resnet101.pth",
    )
)
def convert_checkpoint(
    old: Annotated[str, typer.Argument(help="A checkpoint of 2022 (.pth).")],
    out: Annotated[str, typer.Argument(help="Folder of the model.")],
    encoder_weights: EncoderWeights = None,
    overwrite: Overwrite = False,
) -> None:
    """Convert a checkpoint of 2022 to a model folder.

    Nothing in the checkpoint is executed.
    """
    from milan.legacy.convert import convert  # imports torch

    print_model(convert(old, out, encoder_weights=encoder_weights, overwrite=overwrite))


def print_model(folder: Path) -> None:
    """Print what a model folder holds, and how to open it."""
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    backbone = config["encoder"]["backbone"].partition(":")[2]
    print(f"{folder}: {len(config['vocabulary']):,} words, encoder {backbone}")
    for note in config["made"]["notes"]:
        print(f"Note: {note}")
    print(f'Open it: milan.Milan.from_pretrained("{folder}")')
