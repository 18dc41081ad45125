"""`milan analyze`: units ablated in the order of their descriptions' scores."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from leaderboard.applications.analyze.config import AnalyzeConfig
from leaderboard.applications.common.open_network import open_network
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
    check_source,
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

app = typer.Typer()


@app.command(
    epilog=examples(
        "milan analyze milan.csv --model torchvision:resnet18@DEFAULT --layer layer3 layer4 "
        "--images imagenet/val --out analysis",
        "milan analyze --describe milan --seeds 3 --out analysis",
    )
)
@with_options
def analyze(
    out: Out,
    config: Annotated[
        AnalyzeConfig,
        OptionsOf(AnalyzeConfig, without=("orders",), names={"scores": "--score"}),
    ],
    opening: Annotated[NetworkOptions, OptionsOf(NetworkOptions)],
    test_images: Annotated[dict[str, Any], OptionsOf(open_network, only=("limit",))],
    run: Annotated[dict[str, Any], RunOptions],
    files: PredictionFiles = None,
    describe: Describe = None,
    network: Network = None,
    model: Model = None,
    images: Images = None,
    layer: Layers = None,
    classes: Classes = None,
    language: Annotated[
        str | None,
        typer.Option(help="spaCy pipeline, mini, or a CSV word,class (default: spaCy's)."),
    ] = None,
    seeds: Seeds = 3,
    pictures: Annotated[int, typer.Option(help="Test images of the mini world.", min=8)] = 500,
    cache: Cache = None,
    method: Method = "descriptions",
    as_json: Json = False,
) -> None:
    """Ablate units in the order of their descriptions' scores.

    The record shows which kinds of units the network's accuracy depends on.
    """
    from dataclasses import asdict

    from leaderboard.applications.analyze import task
    from leaderboard.applications.analyze.language import open_language
    from leaderboard.applications.common.ablated_accuracy import TEST
    from leaderboard.applications.common.task_result import TaskInfo
    from leaderboard.evaluation import predictions as prediction_files
    from leaderboard.record_format import application_record
    from milannotations.exemplars.run_config import RunConfig

    check_source(files, describe, model)
    if model is None and (images is not None or layer):
        raise InputError("--images and --layer belong to a network: add --model MODEL.")
    application_record.check_free(out, "analyze")
    predictions = prediction_files.read(*files, network=network) if files else None
    asked: dict[str, Any] = {"files": file_names(files)}
    if model is None:
        from leaderboard.applications.analyze.mini import MiniAnalysis

        mini = MiniAnalysis(
            network_factory(cache), range(seeds), pictures, open_language(language or "mini")
        )
        asked |= {"seeds": list(range(seeds))}
        analysis = mini.run(describe or method, predictions, config, asked)
        show(analysis.save(out), out, as_json)
        return
    if images is None or not layer:
        raise InputError(
            f"--model {model} needs --images DIR (one folder per class) and --layer NAME."
        )
    assert predictions is not None  # check_source refuses a model without files
    predictions = predictions.of_layers(layer)
    counter = open_language(language)
    opened = open_network(
        predictions,
        model,
        images,
        layer,
        **asdict(opening),
        classes=classes,
        **test_images,
        run=RunConfig(seed=config.seed, progress=progress_wanted(), **run),
    )
    analysis = task.analyze(
        predictions,
        [opened],
        counter,
        config,
        TaskInfo(
            method,
            str(opened.images[TEST].source.get("name", "")),
            {**asked, "model": model, "layers": layer},
        ),
    )
    show(analysis.save(out), out, as_json)
