"""`milan data`: editions, made and looked at."""

from __future__ import annotations

import sys
from typing import Annotated, Any

import typer

from leaderboard.cli import release
from leaderboard.cli.options import examples

app = typer.Typer(
    no_args_is_help=True,
    help="Make editions, folders that datasets.load_dataset opens, and look at them.",
    epilog=examples(
        "milan data show mini",
        "milan data annotations annotations.csv --network resnet152-imagenet --out edition",
    ),
)

app.command("prepare", epilog=release.PREPARE)(release.prepare)
app.command("check", epilog=release.CHECK)(release.check)
app.command("push", epilog=release.PUSH)(release.push)


@app.command(
    "annotations",
    epilog=examples(
        "milan data annotations annotations.csv --network resnet152-imagenet --out edition",
        "milan data annotations mine.csv --network my-network --out edition",
    ),
)
def data_annotations(
    file: Annotated[str, typer.Argument(help="A published annotations.csv (layer,unit,summary).")],
    network: Annotated[str, typer.Option(help="Which network it describes.")],
    out: Annotated[str, typer.Option(help="Folder of the edition; made, or added to.")],
    unlisted: Annotated[
        bool,
        typer.Option(
            "--unlisted", help="Accept layers and units that the published network lacks."
        ),
    ] = False,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Replace the network if it is there.")
    ] = False,
) -> None:
    """Make a text-only edition, which datasets.load_dataset opens, from an annotations.csv."""
    from milannotations.published import annotations as published

    made = published.build_edition(file, network, out, unlisted=unlisted, overwrite=overwrite)
    print(
        f"{made.network}: {len(made.descriptions):,} units, {made.n_descriptions:,} descriptions"
        + (f", {made.n_empty:,} empty ones left out" if made.n_empty else "")
        + f'\nOpen it: datasets.load_dataset("{out}", "{made.network}")'
    )


@app.command(
    "build",
    epilog=examples("milan data build mini --out edition", "milan data build mini --help"),
)
def data_build(
    edition: Annotated[str, typer.Argument(help="Which embedded edition: mini.")],
    out: Annotated[str, typer.Option(help="Folder of the edition; made, or made anew.")],
    seed: Annotated[int, typer.Option(help="Of everything that is drawn.", min=0)] = 0,
) -> None:
    """Make an embedded edition anew, from nothing but its seed. Takes minutes."""
    from milannotations.editions.configs import check_embedded
    from milannotations.synthetic.edition import build

    check_embedded(edition)
    made = build(out, seed, progress=sys.stderr.isatty())
    print(f'{made}: open it with datasets.load_dataset("{out}", "{edition}")')


@app.command(
    "show",
    epilog=examples(
        "milan data show mini mini-sharp layer3 7 --out unit.png",
        "milan data show mini --scenes 60 --out scenes.png",
    ),
)
def data_show(
    edition: Annotated[str, typer.Argument(help="An edition: a folder, or mini.")],
    network: Annotated[str | None, typer.Argument(help="Units of this network.")] = None,
    layer: Annotated[str | None, typer.Argument(help="Units of this layer.")] = None,
    unit: Annotated[int | None, typer.Argument(help="This unit.", min=0)] = None,
    config: Annotated[str | None, typer.Option(help="Config of the edition.")] = None,
    split: Annotated[str | None, typer.Option(help="Units of this split.")] = None,
    count: Annotated[int, typer.Option(help="Units drawn, where several fit.", min=1)] = 12,
    exemplars: Annotated[int, typer.Option(help="Pictures of each unit.", min=1)] = 15,
    scenes: Annotated[
        int, typer.Option(help="Show this many scenes of the mini world instead.", min=0)
    ] = 0,
    seed: Annotated[int, typer.Option(help="Of the draw.", min=0)] = 0,
    out: Annotated[str, typer.Option(help="Picture to write (PNG).")] = "units.png",
) -> None:
    """Draw units: exemplars dimmed outside their masks, the truth, what was written of them."""
    from milannotations.editions import loading
    from milannotations.editions.configs import check_embedded
    from milannotations.errors import InputError
    from milannotations.utils import contact_sheet
    from milannotations.utils.files import replacing

    if not out.lower().endswith(".png"):
        raise InputError(f"--out {out}: a name that ends in .png was expected.")
    if scenes:
        from milannotations.synthetic.scenes import World

        check_embedded(edition)
        sheet = contact_sheet.tile_images(
            [scene.image for scene in World().scenes(seed, scenes)], 12, 128
        )
    else:
        rows = loading.select(
            edition, network, layer, unit, config=config, split=split, count=count, seed=seed
        )
        # one unit is looked at closely, several beside one another
        close: dict[str, Any] = {"columns": 5, "side": 160} if len(rows) == 1 else {}
        sheet = contact_sheet.unit_sheet(rows, exemplars=exemplars, **close)
        if "synthetic" in rows["unit_kind"]:
            print(contact_sheet.SYNTHETIC_NOTE + "\n")
        for row in rows:
            print("\n".join(contact_sheet.unit_lines(row)) + "\n")
    with replacing(out) as temporary:
        sheet.save(temporary)
    print(f"Picture: {out}")
