"""`milan train`: the reference model, trained on editions."""

from __future__ import annotations

import sys
from typing import Annotated

import typer

from leaderboard.cli.options import examples

EPILOG = examples(
    "milan train --data mini --out my-milan",
    "milan train --data release:alexnet-places365 --encoder torchvision:resnet18 "
    "--encoder-weights resnet18.safetensors --out my-milan",
)


def train(
    data: Annotated[
        list[str], typer.Option(help="Editions to learn from: EDITION or EDITION:CONFIG.")
    ],
    out: Annotated[str, typer.Option(help="Folder of the model.")],
    encoder: Annotated[
        str | None,
        typer.Option(help="mini, torchvision:NAME, timm:NAME, hf:NAME_OR_FOLDER or file.py:make."),
    ] = None,
    encoder_weights: Annotated[
        str | None, typer.Option(help="Its weights: safetensors, or a .pth of tensors alone.")
    ] = None,
    encoder_layer: Annotated[
        list[str] | None, typer.Option(help="Layers that it pools (default: ResNet's, AlexNet's).")
    ] = None,
    condition: Annotated[
        str | None, typer.Option(help="Train on this official split (milan list splits).")
    ] = None,
    sizes: Annotated[
        str | None, typer.Option(help="2022, or small (default with the encoder mini).")
    ] = None,
    epochs: Annotated[int | None, typer.Option(help="At most.", min=1)] = None,
    patience: Annotated[
        int | None, typer.Option(help="Epochs that may be no better than the best.", min=0)
    ] = None,
    batch_size: Annotated[int | None, typer.Option(help="Descriptions at a time.", min=1)] = None,
    rate: Annotated[float | None, typer.Option(help="Learning rate of AdamW.")] = None,
    stop_on: Annotated[str | None, typer.Option(help="bleu or loss, of held-out units.")] = None,
    hold_out: Annotated[
        float | None, typer.Option(help="Share of units, where there is no split 'validation'.")
    ] = None,
    lam: Annotated[
        float | None, typer.Option(help="Lambda (default: chosen on held-out units).")
    ] = None,
    seed: Annotated[int, typer.Option(help="Of weights, order, draws and dropout.", min=0)] = 0,
    precision: Annotated[str, typer.Option(help="no, bf16 or fp16.")] = "no",
    track: Annotated[
        str | None, typer.Option(help="Send curves to trackio or wandb as well.")
    ] = None,
) -> None:
    """Train MILAN on what people wrote of units. Interrupted, the same command goes on.

    On several GPUs or hosts: accelerate launch -m leaderboard.cli.main train ...
    """
    from accelerate import PartialState

    from leaderboard.reproduction import training

    given = {
        "epochs": epochs,
        "patience": patience,
        "batch": batch_size,
        "rate": rate,
        "stop_on": stop_on,
        "hold_out": hold_out,
        "seed": seed,
        "precision": precision,
    }
    model = training.train(
        data,
        out,
        encoder=encoder,
        encoder_weights=encoder_weights,
        encoder_layers=encoder_layer or (),
        condition=condition,
        sizes=sizes,
        settings={name: value for name, value in given.items() if value is not None},
        lam=lam,
        track=track,
        progress=sys.stderr.isatty(),
    )
    if not PartialState().is_main_process:
        return
    made = model.config.made or {}
    learned, held_out = made["units"]["train"], made["units"]["validation"]
    best = ", ".join(f"{name} {epoch}" for name, epoch in made["best_epoch"].items())
    print(
        f"{out}: {len(model.vocabulary):,} words and signs, {learned:,} units learned from, "
        f"{held_out:,} held out; lambda {model.config.lam:g}; best epochs: {best}"
    )
    print(f"Use it: milan describe EDITION --method milan --model {out}")
