"""`milan train`: the reference model, trained on editions."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from leaderboard.cli.options import OptionsOf, examples, progress_wanted, with_options
from leaderboard.reproduction import training
from milan.config import TrainingConfig

app = typer.Typer()


@app.command(
    epilog=examples(
        "milan train --data mini --out my-milan",
        "milan train --data release:alexnet-places365 --encoder torchvision:resnet18 "
        "--encoder-weights resnet18.safetensors --out my-milan",
    )
)
@with_options
def train(
    data: Annotated[
        list[str], typer.Option(help="Editions to learn from: EDITION or EDITION:CONFIG.")
    ],
    out: Annotated[str, typer.Option(help="Folder of the model.")],
    model: Annotated[
        dict[str, Any],
        OptionsOf(
            training.train,
            without=("settings", "progress"),
            names={"encoder_layers": "--encoder-layer"},
        ),
    ],
    config: Annotated[
        dict[str, Any],
        OptionsOf(
            TrainingConfig,
            only=(
                "epochs",
                "patience",
                "batch",
                "rate",
                "stop_on",
                "hold_out",
                "seed",
                "precision",
            ),
            names={"batch": "--batch-size"},
            optional=True,
        ),
    ],
) -> None:
    """Train MILAN on human annotations.

    After an interruption the same command resumes. On several GPUs or hosts:
    accelerate launch -m leaderboard.cli train ...
    """
    from accelerate import PartialState

    trained = training.train(data, out, settings=config, progress=progress_wanted(), **model)
    if not PartialState().is_main_process:
        return
    made = trained.config.made or {}
    n_train, n_held_out = made["units"]["train"], made["units"]["validation"]
    best = ", ".join(f"{name} {epoch}" for name, epoch in made["best_epoch"].items())
    print(
        f"{out}: {len(trained.vocabulary):,} tokens in the vocabulary, {n_train:,} units to train "
        f"on, {n_held_out:,} held out; lambda {trained.config.lam:g}; best epochs: {best}"
    )
    print(f"Use it: milan describe EDITION --method milan --model {out}")
