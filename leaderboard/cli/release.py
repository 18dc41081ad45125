"""`milan data prepare`, `check` and `push`: published archives, made into editions."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer

from leaderboard.cli.options import Json, examples, print_json
from milannotations.errors import InputError

PREPARE = examples(
    "milan data prepare alexnet-places365 --download --out release",
    "milan data prepare resnet152-imagenet --zip resnet152-imagenet.zip --images val --out release",
)
CHECK = examples("milan data check mini", "milan data check release --json")
PUSH = examples(
    "milan data push release my-group/milannotations",
    "milan data push release my-group/milannotations --include-pictures --rights 'ours, CC BY'",
)


def prepare(
    networks: Annotated[
        list[str], typer.Argument(metavar="NETWORK...", help="Published networks, or groups.")
    ],
    out: Annotated[str, typer.Option(help="Folder of the edition; made, or added to.")],
    zips: Annotated[
        list[str] | None,
        typer.Option("--zip", help="Its archive: a zip or an unpacked folder; one a network."),
    ] = None,
    download: Annotated[
        bool, typer.Option("--download", help="Fetch the archives that are not at hand.")
    ] = False,
    downloads: Annotated[
        str, typer.Option(help="Folder of downloaded archives.")
    ] = "~/.cache/milannotations",
    mirror: Annotated[str | None, typer.Option(help="Address of the folder of zips.")] = None,
    lock: Annotated[str | None, typer.Option(help="Lock file with known checksums.")] = None,
    require_checksum: Annotated[
        bool, typer.Option("--require-checksum", help="Refuse archives of unknown checksum.")
    ] = False,
    images: Annotated[
        str | None,
        typer.Option(help="Folder of the ImageNet validation pictures, in class folders."),
    ] = None,
    legacy_squash: Annotated[
        bool, typer.Option("--legacy-squash", help="Squash pictures as 2022's code did.")
    ] = False,
    quality: Annotated[
        int | None, typer.Option(help="Of lossy WebP (default: lossless).", min=1, max=100)
    ] = None,
    repair_dino_shift: Annotated[
        bool, typer.Option("--repair-dino-shift", help="Move the masks of DINO back by a patch.")
    ] = False,
    unlisted: Annotated[
        bool, typer.Option("--unlisted", help="Accept shapes that the catalog does not know.")
    ] = False,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Replace networks that are there.")
    ] = False,
) -> None:
    """Convert published archives into an edition that datasets.load_dataset opens."""
    from milannotations import catalog
    from milannotations.published import convert, imagenet
    from milannotations.published import download as fetching

    names = [member for name in networks for member in catalog.GROUPS.get(name, (name,))]
    sources = _sources(names, zips or [], download)
    pixels = None
    if images is not None:
        wrong = [result for result in imagenet.check_folder(images) if not result.passed]
        if wrong and not unlisted:
            raise InputError(
                f"{images}: {wrong[0].message} See: milan doctor --images {images} "
                "(--unlisted takes the folder as it is.)"
            )
        pixels = imagenet.ImageNetImages(images, legacy_squash=legacy_squash)
    for name in dict.fromkeys(names):
        source = sources.get(name) or fetching.fetch(
            name,
            os.path.expanduser(downloads),
            base=mirror,
            lock=lock,
            require_checksum=require_checksum,
            tell=_tell,
            progress=sys.stderr.isatty(),
        )
        made = convert.prepare(
            name,
            source,
            out,
            pixels=pixels,
            quality=quality,
            repair_dino_shift=repair_dino_shift,
            unlisted=unlisted,
            overwrite=overwrite,
            progress=sys.stderr.isatty(),
        )
        counts = ", ".join(f"{count:,} {split}" for split, count in made.units.items())
        print(f"{made.network}: {counts} units, {made.descriptions:,} descriptions; "
              f"pictures: {made.pictures}")  # fmt: skip
        if made.n_left_out:
            print(f"Left out: {made.n_left_out:,} annotated units of layers that it lacks.")
        for note in made.notes:
            print(f"Note: {note}")
        print(f'Open it: datasets.load_dataset("{out}", "{made.network}")')


def _sources(names: Sequence[str], zips: Sequence[str], download: bool) -> dict[str, str]:
    """Return the archive of each network, by the names of the files or by their order."""
    from milannotations import catalog

    if zips and len(zips) == len(names):
        return dict(zip(names, zips, strict=True))
    found = {catalog.canonical(Path(each).stem): each for each in zips}
    missing = [name for name in names if catalog.canonical(name) not in found]
    if missing and not download:
        raise InputError(
            f"No archive of {missing[0]}: give --zip PATH for each network, or --download."
        )
    return {name: found[catalog.canonical(name)] for name in names if name not in missing}


def check(
    edition: Annotated[str, typer.Argument(help="An edition: a folder, or mini.")],
    as_json: Json = False,
) -> None:
    """Verify an edition: schema, checksums, counts, and that every picture decodes."""
    from milannotations.editions import validation

    findings = validation.validate(edition, progress=sys.stderr.isatty())
    if as_json:
        print_json({"edition": edition, "findings": findings})
    else:
        for finding in findings:
            print(f"FAIL  {finding}")
        if not findings:
            print(f"{edition}: nothing is wrong.")
    if findings:
        raise typer.Exit(1)


def push(
    edition: Annotated[str, typer.Argument(help="An edition: a folder, or mini.")],
    repository: Annotated[str, typer.Argument(metavar="ORG/NAME", help="Dataset on the hub.")],
    include_pictures: Annotated[
        bool, typer.Option("--include-pictures", help="Upload the pictures too.")
    ] = False,
    rights: Annotated[
        str | None, typer.Option(help="For the card: why the pictures may be given on.")
    ] = None,
    public: Annotated[bool, typer.Option("--public", help="Make a public repository.")] = False,
) -> None:
    """Upload an edition to the Hugging Face hub, by default without its pictures."""
    from milannotations.editions import hub

    address = hub.push(
        edition,
        repository,
        include_pictures=include_pictures,
        rights=rights,
        private=not public,
        tell=_tell,
    )
    print(address)


def _tell(line: str) -> None:
    print(line, file=sys.stderr)
