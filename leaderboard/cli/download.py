"""`milan download`: a model published in 2022, as a model folder."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from leaderboard.cli.convert import EncoderWeights, print_model
from leaderboard.cli.options import (
    OptionsOf,
    Overwrite,
    examples,
    print_note,
    progress_wanted,
    with_options,
)
from milannotations.published import download as published
from milannotations.utils.cache import DEFAULT_FOLDER

app = typer.Typer()


Downloads = Annotated[str, typer.Option(help="Folder of downloaded files.")]
SOURCE_OPTIONS = OptionsOf(
    published.fetch, only=("base", "lock", "require_checksum"), names={"base": "--mirror"}
)


@app.command(
    epilog=examples(
        "milan download base",
        "milan download places365 --out milan-places365 --overwrite",
    )
)
@with_options
def download_model(
    name: Annotated[
        str,
        typer.Argument(help="base, cls, gen, imagenet, places365, alexnet, resnet152 or biggan."),
    ],
    source: Annotated[dict[str, Any], SOURCE_OPTIONS],
    out: Annotated[
        str | None, typer.Option(help="Folder of the model (default: milan-NAME).")
    ] = None,
    downloads: Downloads = DEFAULT_FOLDER,
    encoder_weights: EncoderWeights = None,
    overwrite: Overwrite = False,
) -> None:
    """Download a model published in 2022, as a model folder."""
    from milan.legacy.convert import download  # imports torch

    folder = download(
        name,
        out,
        folder=downloads,
        encoder_weights=encoder_weights,
        overwrite=overwrite,
        tell=print_note,
        progress=progress_wanted(),
        **source,
    )
    print_model(folder)
