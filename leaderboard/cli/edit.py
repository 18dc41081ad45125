"""`milan edit`: delete the units whose descriptions speak of text; `milan data cues`."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from leaderboard.cli.analyze_audit import Method, Network, Out, Seed, check_source, show, workshop
from leaderboard.cli.options import Json, examples, print_json
from milannotations.errors import InputError

if TYPE_CHECKING:
    from leaderboard.applications.edit.config import EditConfig
    from leaderboard.applications.edit.real_networks import Roles
    from leaderboard.applications.edit.spurious_cues import Cue
    from milannotations.exemplars import RunConfig

EPILOG = examples(
    "milan edit --describe milan --seeds 5 --out edit",
    "milan edit mine.csv --model net.py:build --weights net.pth --layer conv4 --images val --out e",
)
CUES = examples(
    "milan data cues imagenette/train --out spurious/train",
    "milan data cues imagenette/val --share 1 --wrong --out spurious/wrong",
)

Corner = Annotated[str, typer.Option(help="top-left, top-right, bottom-left, bottom-right, any.")]
Kind = Annotated[str, typer.Option("--cue", help="text, or color: a frame of a colour a class.")]
Height = Annotated[float, typer.Option(help="Of letters, as a share of the picture's height.")]
Side = Annotated[
    int, typer.Option(help="Pictures are resized and cropped to this; 0 leaves them.", min=0)
]
Names = Annotated[str | None, typer.Option(help="CSV folder,name: what is written for each class.")]


def edit(
    out: Out,
    files: Annotated[
        list[str] | None,
        typer.Argument(metavar="[PREDICTIONS...]", help="Descriptions (CSV or parquet)."),
    ] = None,
    describe: Annotated[
        str | None, typer.Option(help="On the mini world, let this method describe instead.")
    ] = None,
    network: Network = None,
    model: Annotated[
        str | None, typer.Option(help="A network; see milan exemplars (default: the mini world's).")
    ] = None,
    weights: Annotated[str | None, typer.Option(help="Weights: safetensors, or a .pth.")] = None,
    random: Annotated[bool, typer.Option("--random", help="Random weights.")] = False,
    images: Annotated[
        str | None, typer.Option(help="Pictures that it can tell: a folder with a folder a class.")
    ] = None,
    layer: Annotated[list[str] | None, typer.Option(help="Layers whose units take part.")] = None,
    classes: Annotated[
        str | None,
        typer.Option(help="File of class folders' names, a line an output (default: by name)."),
    ] = None,
    names: Names = None,
    limit: Annotated[int | None, typer.Option(help="So many pictures, evenly.", min=2)] = None,
    cue: Kind = "text",
    corner: Corner = "top-left",
    height: Height = 0.09,
    side: Side = 224,
    word: Annotated[
        list[str] | None,
        typer.Option(help="Words that flag a unit (default: of text, or colours)."),
    ] = None,
    substrings: Annotated[
        bool, typer.Option("--substrings", help="Words anywhere in words, as in 2022.")
    ] = False,
    protocol: Annotated[
        list[str] | None, typer.Option(help="edit-plain, edit-conflict (default: both).")
    ] = None,
    placebos: Annotated[
        int | None, typer.Option(help="Draws (default: 99; 19 with --model).", min=1)
    ] = None,
    seeds: Annotated[int, typer.Option(help="Networks of the mini world.", min=1)] = 5,
    pictures: Annotated[int, typer.Option(help="Of the mini world, of each role.", min=8)] = 1000,
    at: Annotated[
        float | None,
        typer.Option(help="Flags should find units with this share of masks in text (.43)."),
    ] = None,
    oracle: Annotated[
        float | None,
        typer.Option(help="The oracle's units are active in text to this share (.5)."),
    ] = None,
    fine_tune: Annotated[
        int, typer.Option(help="Epochs that the head is trained for, once units are gone.", min=0)
    ] = 0,
    prepare: Annotated[
        bool,
        typer.Option("--prepare", help="Write the exemplars to be described to --out, and stop."),
    ] = False,
    cache: Annotated[
        str | None, typer.Option(help="Folder that keeps networks, pictures and what was measured.")
    ] = None,
    seed: Seed = 0,
    batch_size: Annotated[int, typer.Option(help="Pictures at a time.", min=1)] = 32,
    device: Annotated[str | None, typer.Option(help="cpu, cuda, cuda:1, mps.")] = None,
    method: Method = "descriptions",
    as_json: Json = False,
) -> None:
    """Delete the units that are described as text: are wrong names believed less?"""
    from leaderboard.applications.edit.config import COLORS, EditConfig
    from leaderboard.record_format import application_record
    from milannotations.exemplars import RunConfig

    if model is not None and images is None:
        raise InputError(
            "Which pictures can it tell? Add --images, a folder with a folder a class."
        )
    if model is None and (images is not None or layer):
        raise InputError("Of which network? Add --model, as of milan exemplars.")
    if not prepare or (files and describe):
        check_source(files, describe, model, " Exemplars to describe: --prepare.")
    given: dict[str, Any] = {"words": tuple(word)} if word else {}
    if cue == "color" and not word:
        given["words"] = COLORS
    if protocol:
        given["protocols"] = tuple(protocol)
    given |= {k: v for k, v in (("at", at), ("oracle", oracle)) if v is not None}
    settings = EditConfig(
        placebos=placebos or (19 if model else 99),
        matching="substrings" if substrings else "words",
        seed=seed,
        fine_tune=fine_tune,
        **given,
    )
    run = RunConfig(batch_size=batch_size, device=device, seed=seed, progress=sys.stderr.isatty())
    place = Path(out)
    if not prepare:
        application_record.check_free(place, "edit")
    if model is None:
        made = _mini(files, describe, network, settings, seeds, pictures, cache, place, prepare,
                     method)  # fmt: skip
    else:
        asked = cue_of(cue, corner, height, side, seed)
        made = _real(
            files or [], network, settings, run, model, weights, random, images or "", layer or [],
            classes, names, limit, asked, cache, place, prepare, method,
        )  # fmt: skip
    if made is None:
        print(
            f"Exemplars: {place}. Describe them: milan describe {place} --config ... --method ..."
        )
        return
    show(made.save(place), out, as_json)


def cues(
    images: Annotated[str, typer.Argument(help="Pictures: a folder with a folder a class.")],
    out: Annotated[str, typer.Option(help="Folder of the copies; made.")],
    cue: Kind = "text",
    share: Annotated[float, typer.Option(help="Of the pictures of each class.")] = 0.5,
    wrong: Annotated[bool, typer.Option("--wrong", help="Another class's than its own.")] = False,
    corner: Corner = "top-left",
    height: Height = 0.09,
    side: Side = 224,
    names: Names = None,
    seed: Seed = 0,
    as_json: Json = False,
) -> None:
    """Write class names into a corner of some pictures, or frame them in a colour of the class."""
    from leaderboard.applications.edit import spurious_cues

    asked = replace(cue_of(cue, corner, height, side, seed), share=share, wrong=wrong)
    made = spurious_cues.write(
        images, out, asked, names=_names(names), progress=sys.stderr.isatty()
    )
    if as_json:
        print_json(made)
    else:
        print(f"{out}: {made['pictures']:,} pictures, {made['with_cue']:,} with a cue.")


def cue_of(kind: str, corner: str, height: float, side: int, seed: int) -> Cue:
    """Return the cue that options ask for."""
    from leaderboard.applications.edit.spurious_cues import Cue

    return Cue(kind, corner=corner, height=height, side=side or None, seed=seed)  # type: ignore[arg-type]


def _mini(
    files: list[str] | None,
    describe: str | None,
    network: str | None,
    settings: EditConfig,
    seeds: int,
    pictures: int,
    cache: str | None,
    out: Path,
    prepare: bool,
    method: str,
) -> Any:
    from leaderboard.applications.edit.mini import MiniTrials
    from leaderboard.evaluation import predictions

    made = MiniTrials(workshop(cache), range(seeds), pictures)
    if prepare:
        made.write_exemplars(out)
        return None
    said = predictions.read(*files, network=network) if files else None
    asked = {"files": [Path(file).name for file in files or ()], "seeds": seeds}
    return made.edit(describe or method, said, settings, asked)


def _real(
    files: list[str],
    network: str | None,
    settings: EditConfig,
    run: RunConfig,
    model: str,
    weights: str | None,
    random: bool,
    images: str,
    layers: list[str],
    classes: str | None,
    names: str | None,
    limit: int | None,
    cue: Cue,
    cache: str | None,
    out: Path,
    prepare: bool,
    method: str,
) -> Any:
    import tempfile

    from leaderboard.applications.common.open_network import lines
    from leaderboard.applications.edit import real_networks
    from leaderboard.applications.edit.task import edit as edited
    from leaderboard.evaluation import predictions
    from milannotations.exemplars import load_model
    from milannotations.exemplars.networks.loading import default_name

    if not layers:
        raise InputError("Which layers? Add --layer; see milan exemplars MODEL --list-layers.")
    said = predictions.read(*files, network=network) if files else None
    name = network or default_name(model, Path(images).resolve().name)
    if said is not None:
        known = list(dict.fromkeys(unit.network for unit in said.units))
        if len(known) != 1:
            raise InputError(f"The predictions are of {len(known)} networks; expected one.")
        name = known[0]
    loaded = load_model(model, weights=weights, random=random)
    with tempfile.TemporaryDirectory(prefix="milan-edit-") as temporary:
        work = Path(cache or temporary)
        roles: Roles = real_networks.write_roles(
            images,
            work / "pictures",
            cue,
            classes=lines(classes) if classes else None,
            names=_names(names),
            limit=limit,
            progress=run.progress,
        )
        if prepare:
            real_networks.write_exemplars(loaded, name, layers, roles, out, run=run)
            return None
        assert said is not None
        trial = real_networks.trial_of(
            loaded, name, layers, roles, seed=settings.seed, run=run, folder=work
        )
        return edited(
            [trial],
            said,
            settings=settings,
            method=method,
            data=Path(images).resolve().name,
            asked={"files": [Path(file).name for file in files], "model": model, "layers": layers},
        )


def _names(path: str | None) -> dict[str, str] | None:
    """Return what is written, by class folder, of a CSV folder,name."""
    if path is None:
        return None
    from milannotations.utils.files import TextTable

    table = TextTable(path)
    if not {"folder", "name"} <= set(table.columns):
        raise InputError(f"{path}: columns folder,name were expected.")
    return {row["folder"]: row["name"] for _, row in table}
