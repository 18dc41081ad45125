"""`milan data`: editions, made, looked at, checked and pushed."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any

import typer

from leaderboard.applications.edit import spurious_cues
from leaderboard.cli.download import SOURCE_OPTIONS, Downloads
from leaderboard.cli.edit import CUE_OPTIONS, class_names
from leaderboard.cli.options import (
    Edition,
    Json,
    OptionsOf,
    examples,
    print_json,
    print_note,
    progress_wanted,
    with_options,
)
from milannotations.editions import hub, loading
from milannotations.editions.configs import check_embedded
from milannotations.errors import InputError
from milannotations.published import convert, imagenet
from milannotations.published import download as published
from milannotations.published.annotations import build_edition
from milannotations.utils.cache import DEFAULT_FOLDER

app = typer.Typer(
    no_args_is_help=True,
    help="Make editions, look at them, check them and push them.",
    epilog=examples(
        "milan data show mini",
        "milan data annotations annotations.csv --network resnet152-imagenet --out edition",
    ),
)


@app.command(
    "show",
    epilog=examples(
        "milan data show mini mini-sharp layer3 7 --out unit.png",
        "milan data show mini --scenes 60 --out scenes.png",
    ),
)
@with_options
def show(
    edition: Edition,
    selection: Annotated[
        dict[str, Any], OptionsOf(loading.select, only=("config", "split", "seed"))
    ],
    network: Annotated[str | None, typer.Argument(help="Network of the units.")] = None,
    layer: Annotated[str | None, typer.Argument(help="Layer of the units.")] = None,
    unit: Annotated[int | None, typer.Argument(help="Index of one unit.", min=0)] = None,
    count: Annotated[int, typer.Option(help="Units to draw, where more match.", min=1)] = 12,
    exemplars: Annotated[int, typer.Option(help="Images of each unit.", min=1)] = 15,
    scenes: Annotated[
        int, typer.Option(help="Show this many scenes of the mini world instead.", min=0)
    ] = 0,
    out: Annotated[str, typer.Option(help="Image to write (PNG).")] = "units.png",
) -> None:
    """Draw units: exemplars dimmed outside their masks, the truth, and the annotations."""
    from milannotations.utils import contact_sheet
    from milannotations.utils.files import replacing

    if not out.lower().endswith(".png"):
        raise InputError(f"--out {out}: expected a name that ends in .png.")
    if scenes:
        from milannotations.synthetic.scenes import World

        check_embedded(edition)
        drawn = [scene.image for scene in World().scenes(selection["seed"], scenes)]
        sheet = contact_sheet.tile_images(drawn, 12, 128)
    else:
        rows = loading.select(edition, network, layer, unit, count=count, **selection)
        # one unit is drawn large, several beside one another
        layout: dict[str, Any] = {"columns": 5, "side": 160} if len(rows) == 1 else {}
        sheet = contact_sheet.unit_sheet(rows, exemplars=exemplars, **layout)
        if "synthetic" in rows["unit_kind"]:
            print(contact_sheet.SYNTHETIC_NOTE + "\n")
        for row in rows:
            print("\n".join(contact_sheet.unit_lines(row)) + "\n")
    with replacing(out) as temporary:
        sheet.save(temporary)
    print(f"Image: {out}")


@app.command(
    "annotations",
    epilog=examples(
        "milan data annotations annotations.csv --network resnet152-imagenet --out edition",
        "milan data annotations mine.csv --network my-network --out edition",
    ),
)
@with_options
def from_annotations(
    file: Annotated[str, typer.Argument(help="A published annotations.csv (layer,unit,summary).")],
    network: Annotated[str, typer.Option(help="Network that the file describes.")],
    out: Annotated[str, typer.Option(help="Folder of the edition; made, or added to.")],
    options: Annotated[
        dict[str, Any],
        OptionsOf(
            build_edition,
            help={
                "unlisted": "Accept layers and units that the published network lacks.",
                "overwrite": "Replace the network if it is there.",
            },
        ),
    ],
) -> None:
    """Make an edition without images, which datasets.load_dataset opens, from annotations."""
    built = build_edition(file, network, out, **options)
    empty = f", {built.n_empty:,} empty ones left out" if built.n_empty else ""
    print(
        f"{built.network}: {len(built.descriptions):,} units, {built.n_descriptions:,} "
        f'descriptions{empty}\nOpen it: datasets.load_dataset("{out}", "{built.network}")'
    )


@app.command(
    "build",
    epilog=examples("milan data build mini --out edition", "milan data build mini --help"),
)
def build(
    edition: Annotated[str, typer.Argument(help="Embedded edition: mini.")],
    out: Annotated[str, typer.Option(help="Folder of the edition.")],
    seed: Annotated[int, typer.Option(help="Random seed of every draw.", min=0)] = 0,
) -> None:
    """Build an embedded edition from its seed alone. Takes minutes."""
    from milannotations.synthetic.edition import build as build_edition

    check_embedded(edition)
    folder = build_edition(out, seed, progress=progress_wanted())
    print(f'{folder}: open it with datasets.load_dataset("{out}", "{edition}")')


@app.command(
    "prepare",
    epilog=examples(
        "milan data prepare alexnet-places365 --download --out release",
        "milan data prepare resnet152-imagenet --zip resnet152-imagenet.zip --images val "
        "--out release",
    ),
)
@with_options
def prepare(
    networks: Annotated[
        list[str], typer.Argument(metavar="NETWORK...", help="Published networks, or groups.")
    ],
    out: Annotated[str, typer.Option(help="Folder of the edition; made, or added to.")],
    options: Annotated[dict[str, Any], OptionsOf(convert.prepare, without=("images", "progress"))],
    source: Annotated[dict[str, Any], SOURCE_OPTIONS],
    pixels: Annotated[dict[str, Any], OptionsOf(imagenet.ImageNetImages, only=("legacy_squash",))],
    zips: Annotated[
        list[str] | None,
        typer.Option("--zip", help="Archive of each network: a zip or an unpacked folder."),
    ] = None,
    download: Annotated[
        bool, typer.Option("--download", help="Download the archives that are not given.")
    ] = False,
    downloads: Downloads = DEFAULT_FOLDER,
    images: Annotated[
        str | None,
        typer.Option(help="Folder of the ImageNet validation images, in class folders."),
    ] = None,
) -> None:
    """Convert published archives to an edition that datasets.load_dataset opens."""
    from milannotations import catalog

    names = [member for name in networks for member in catalog.GROUPS.get(name, (name,))]
    archives = _archives(names, zips or [], download)
    reader = None
    if images is not None:
        failed = [result for result in imagenet.check_folder(images) if not result.passed]
        if failed and not options.get("unlisted"):
            raise InputError(
                f"{images}: {failed[0].message} See: milan doctor --images {images} "
                "(--unlisted takes the folder as it is.)"
            )
        reader = imagenet.ImageNetImages(images, **pixels)
    for name in dict.fromkeys(names):
        archive = archives.get(name) or published.fetch(
            name,
            os.path.expanduser(downloads),
            tell=print_note,
            progress=progress_wanted(),
            **source,
        )
        prepared = convert.prepare(
            name, archive, out, images=reader, progress=progress_wanted(), **options
        )
        counts = ", ".join(f"{count:,} {split}" for split, count in prepared.units.items())
        print(
            f"{prepared.network}: {counts} units, {prepared.descriptions:,} descriptions; "
            f"images: {prepared.images}"
        )
        if prepared.n_left_out:
            print(f"Left out: {prepared.n_left_out:,} annotated units of layers that it lacks.")
        for note in prepared.notes:
            print(f"Note: {note}")
        print(f'Open it: datasets.load_dataset("{out}", "{prepared.network}")')


@app.command("check", epilog=examples("milan data check mini", "milan data check release --json"))
def check(edition: Edition, as_json: Json = False) -> None:
    """Verify an edition: schema, checksums, counts, and that every image decodes."""
    from milannotations.editions import validation

    findings = validation.validate(edition, progress=progress_wanted())
    if as_json:
        print_json({"edition": edition, "findings": findings})
    else:
        for finding in findings:
            print(f"FAIL  {finding}")
        if not findings:
            print(f"{edition}: nothing is wrong.")
    if findings:
        raise typer.Exit(1)


@app.command(
    "push",
    epilog=examples(
        "milan data push release my-group/milannotations",
        "milan data push release my-group/milannotations --include-pictures --rights 'ours, CC BY'",
    ),
)
@with_options
def push(
    edition: Edition,
    repository: Annotated[str, typer.Argument(metavar="ORG/NAME", help="Dataset on the hub.")],
    options: Annotated[dict[str, Any], OptionsOf(hub.push, only=("include_pictures", "rights"))],
    public: Annotated[bool, typer.Option("--public", help="Make a public repository.")] = False,
) -> None:
    """Push an edition to the Hugging Face hub, by default without its images."""
    print(hub.push(edition, repository, private=not public, tell=print_note, **options))


@app.command(
    "cues",
    epilog=examples(
        "milan data cues imagenette/train --out spurious/train",
        "milan data cues imagenette/val --share 1 --wrong --out spurious/wrong",
    ),
)
@with_options
def cues(
    images: Annotated[str, typer.Argument(help="Images in ImageFolder layout.")],
    out: Annotated[str, typer.Option(help="Folder of the copies.")],
    cue: Annotated[spurious_cues.Cue, CUE_OPTIONS],
    dealt: Annotated[
        dict[str, Any],
        OptionsOf(spurious_cues.Cue, only=("share", "wrong"), optional=True),
    ],
    names: Annotated[
        str | None, typer.Option(help="CSV folder,name: text to write for each class.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Write class names into a corner of some images, or frame them in a colour of the class."""
    record = spurious_cues.write(
        images,
        out,
        replace(cue, **dealt),
        names=class_names(names),
        progress=progress_wanted(),
    )
    if as_json:
        print_json(record)
    else:
        print(f"{out}: {record['pictures']:,} images, {record['with_cue']:,} with a cue.")


def _archives(names: Sequence[str], zips: Sequence[str], download: bool) -> dict[str, str]:
    """Return the archive of each network, by the names of the files or by their order."""
    from milannotations import catalog

    if zips and len(zips) == len(names):
        return dict(zip(names, zips, strict=True))
    by_name = {catalog.canonical(Path(path).stem): path for path in zips}
    missing = [name for name in names if catalog.canonical(name) not in by_name]
    if missing and not download:
        raise InputError(
            f"No archive of {missing[0]}: give --zip PATH for each network, or --download."
        )
    return {name: by_name[catalog.canonical(name)] for name in names if name not in missing}
