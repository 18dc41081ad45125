"""`milan edit`: the units described as text are ablated, and what that repairs is measured."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from leaderboard.applications.edit.config import COLORS, EditConfig
from leaderboard.applications.edit.image_roles import write_roles
from leaderboard.applications.edit.spurious_cues import Cue
from leaderboard.cli.application import (
    Classes,
    Describe,
    Images,
    Layers,
    Method,
    Model,
    Network,
    Out,
    RunOptions,
    Seeds,
    Substrings,
    check_source,
    matching,
    network_factory,
    show,
)
from leaderboard.cli.options import (
    Cache,
    Json,
    OptionsOf,
    PredictionFiles,
    examples,
    file_names,
    progress_wanted,
    with_options,
)
from milannotations.errors import InputError
from milannotations.exemplars.options import NetworkOptions

if TYPE_CHECKING:
    from leaderboard.applications.edit.task import Edit
    from milannotations.exemplars.run_config import RunConfig

app = typer.Typer()

CUE_OPTIONS = OptionsOf(
    Cue, only=("kind", "corner", "height", "side", "seed"), names={"kind": "--cue"}
)


@app.command(
    epilog=examples(
        "milan edit --describe milan --seeds 5 --out edit",
        "milan edit mine.csv --model net.py:build --weights net.pth --layer conv4 --images val "
        "--out e",
    )
)
@with_options
def edit(
    out: Out,
    config: Annotated[
        dict[str, Any],
        OptionsOf(
            EditConfig,
            only=("words", "protocols", "placebos", "at", "oracle", "fine_tune", "seed"),
            names={"words": "--word", "protocols": "--protocol"},
            optional=True,
        ),
    ],
    cue: Annotated[Cue, CUE_OPTIONS],
    opening: Annotated[NetworkOptions, OptionsOf(NetworkOptions)],
    roles: Annotated[dict[str, Any], OptionsOf(write_roles, only=("limit",))],
    run: Annotated[dict[str, Any], RunOptions],
    files: PredictionFiles = None,
    describe: Describe = None,
    network: Network = None,
    model: Model = None,
    images: Images = None,
    layer: Layers = None,
    classes: Classes = None,
    names: Annotated[
        str | None, typer.Option(help="CSV folder,name: text to write for each class.")
    ] = None,
    substrings: Substrings = False,
    seeds: Seeds = 5,
    pictures: Annotated[
        int, typer.Option(help="Images of the mini world, of each role.", min=8)
    ] = 1000,
    prepare: Annotated[
        bool,
        typer.Option("--prepare", help="Write the exemplars to be described to --out, and stop."),
    ] = False,
    cache: Cache = None,
    method: Method = "descriptions",
    as_json: Json = False,
) -> None:
    """Ablate the units described as text, and measure what it repairs.

    The question is whether the network believes wrong names in images less afterwards.
    """
    from leaderboard.record_format import application_record
    from milannotations.exemplars.run_config import RunConfig

    if model is not None and images is None:
        raise InputError(f"--model {model} needs --images DIR (one folder per class).")
    if model is None and (images is not None or layer):
        raise InputError("--images and --layer belong to a network: add --model MODEL.")
    if not prepare or (files and describe):
        check_source(files, describe, model, " To write exemplars to describe: --prepare.")
    if cue.kind == "color":
        config.setdefault("words", COLORS)
    config.setdefault("placebos", 19 if model else 99)
    settings = EditConfig(**config, **matching(substrings))
    place = Path(out)
    if not prepare:
        application_record.check_free(place, "edit")
    edited: Edit | None
    if model is None:
        edited = _edit_mini(files, describe or method, network, settings, range(seeds), pictures,
                            cache, place, prepare)  # fmt: skip
    else:
        pass_config = RunConfig(seed=settings.seed, progress=progress_wanted(), **run)
        edited = _edit_network(
            files or [], network, settings, pass_config, model, opening, images or "",
            layer or [], classes, names, roles, cue, cache, place, prepare, method,
        )  # fmt: skip
    if edited is None:
        print(
            f"Exemplars: {place}. Describe them: milan describe {place} --config ... --method ..."
        )
        return
    show(edited.save(place), out, as_json)


def _edit_mini(
    files: list[str] | None,
    method: str,
    network: str | None,
    settings: EditConfig,
    seeds: range,
    pictures: int,
    cache: str | None,
    out: Path,
    prepare: bool,
) -> Edit | None:
    from leaderboard.applications.edit.mini import MiniEdit
    from leaderboard.evaluation import predictions

    mini = MiniEdit(network_factory(cache), seeds, pictures)
    if prepare:
        mini.write_exemplars(out)
        return None
    given = predictions.read(*files, network=network) if files else None
    return mini.run(method, given, settings, {"files": file_names(files), "seeds": len(seeds)})


def _edit_network(
    files: list[str],
    network: str | None,
    settings: EditConfig,
    run: RunConfig,
    model: str,
    opening: NetworkOptions,
    images: str,
    layers: list[str],
    classes: str | None,
    names: str | None,
    roles: dict[str, Any],
    cue: Cue,
    cache: str | None,
    out: Path,
    prepare: bool,
    method: str,
) -> Edit | None:
    import tempfile

    from leaderboard.applications.common.open_network import read_lines
    from leaderboard.applications.common.task_result import TaskInfo
    from leaderboard.applications.edit import real_networks, task
    from leaderboard.evaluation import predictions as prediction_files
    from milannotations.exemplars import load_model
    from milannotations.exemplars.networks.names import default_config_name

    if not layers:
        raise InputError(
            f"No layers: add --layer NAME (milan exemplars {model} --list-layers shows them)."
        )
    predictions = prediction_files.read(*files, network=network) if files else None
    name = network or default_config_name(model, Path(images).resolve().name)
    if predictions is not None:
        networks = list(dict.fromkeys(unit.network for unit in predictions.units))
        if len(networks) != 1:
            raise InputError(f"The predictions are of {len(networks)} networks; expected one.")
        name = networks[0]
    loaded = load_model(model, **asdict(opening))
    with tempfile.TemporaryDirectory(prefix="milan-edit-") as temporary:
        work = Path(cache or temporary)
        written = write_roles(
            images,
            work / "pictures",
            cue,
            classes=read_lines(classes) if classes else None,
            names=class_names(names),
            progress=run.progress,
            **roles,
        )
        if prepare:
            real_networks.write_exemplars(loaded, name, layers, written, out, run=run)
            return None
        assert predictions is not None  # check_source refuses a model without files
        prepared = real_networks.prepare_network(
            loaded, name, layers, written, seed=settings.seed, run=run, folder=work
        )
        return task.edit(
            predictions,
            [prepared],
            settings,
            TaskInfo(
                method,
                Path(images).resolve().name,
                {"files": file_names(files), "model": model, "layers": layers},
            ),
        )


def class_names(path: str | None) -> dict[str, str] | None:
    """Return the text to write for each class folder, from a CSV folder,name."""
    if path is None:
        return None
    from milannotations.utils.files import TextTable

    table = TextTable(path)
    if not {"folder", "name"} <= set(table.columns):
        raise InputError(f"{path}: expected the columns folder,name.")
    return {row["folder"]: row["name"] for _, row in table}
