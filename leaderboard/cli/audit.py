"""`milan audit`: units described with given words, counted and compared between networks."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from leaderboard.applications.audit.config import AuditConfig, preset_pairs
from leaderboard.cli.application import (
    Describe,
    Method,
    Network,
    Out,
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
    with_options,
)
from milannotations.errors import InputError

app = typer.Typer()


@app.command(
    epilog=examples(
        "milan audit --describe milan --seeds 5 --out audit",
        "milan audit a.csv b.csv --pair resnet18-imagenet:resnet18-imagenet-blurred --out audit",
    )
)
@with_options
def audit(
    out: Out,
    config: Annotated[
        dict[str, Any], OptionsOf(AuditConfig, only=("at", "seed", "draws"), optional=True)
    ],
    files: PredictionFiles = None,
    describe: Describe = None,
    network: Network = None,
    pair: Annotated[
        list[str] | None,
        typer.Option(help="FIRST:SECOND, networks to compare; may be repeated."),
    ] = None,
    preset: Annotated[
        str | None, typer.Option(help="milan2022: the paper's twelve pairs of networks.")
    ] = None,
    words: Annotated[
        list[str] | None,
        typer.Option(
            help="List of words, as face,head,nose; may be repeated (default: the paper's faces)."
        ),
    ] = None,
    substrings: Substrings = False,
    edition: Annotated[
        str | None, typer.Option(help="Edition of the units, with exemplars, for a contact sheet.")
    ] = None,
    selectivity: Annotated[
        str | None,
        typer.Option(help="CSV network,layer,unit,selectivity, measured on region labels."),
    ] = None,
    seeds: Seeds = 5,
    cache: Cache = None,
    method: Method = "descriptions",
    as_json: Json = False,
) -> None:
    """Count the units described with given words, and compare networks.

    Exemplars should come from the same unblurred images for all networks.
    """
    from leaderboard.applications.audit import task
    from leaderboard.applications.common.open_network import open_exemplars, read_selectivity
    from leaderboard.applications.common.task_result import TaskInfo
    from leaderboard.evaluation import predictions as prediction_files
    from leaderboard.record_format import application_record

    if not files or describe is not None:
        check_source(files, describe)
    if pair and preset:
        raise InputError("--pair and --preset were both given; expected one of them.")
    pairs = preset_pairs(preset) if preset else [_pair(text) for text in pair or ()]
    config |= matching(substrings)
    lists = [tuple(filter(None, map(str.strip, text.split(",")))) for text in words or ()]
    if lists:
        config["words"] = {entry[0]: entry for entry in lists if entry}
    application_record.check_free(out, "audit")
    asked: dict[str, Any] = {"files": file_names(files), "preset": preset}
    if describe is not None:
        from leaderboard.applications.audit.mini import AT, MiniAudit

        mini = MiniAudit(network_factory(cache), range(seeds))
        asked |= {"seeds": list(range(seeds))}
        result = mini.run(describe, None, AuditConfig(**{"at": AT, **config}), asked)
        show(result.save(out), out, as_json)
        return
    predictions = prediction_files.read(*files or (), network=network)
    units, exemplars, images = open_exemplars(edition, predictions) if edition else (None, {}, {})
    result = task.audit(
        predictions,
        units,
        pairs=pairs,
        config=AuditConfig(**config),
        selectivity=read_selectivity(selectivity) if selectivity else None,
        images=images,
        exemplars=exemplars,
        info=TaskInfo(
            method,
            Path(edition).resolve().name if edition else "",
            {**asked, "edition": Path(edition).name if edition else None},
        ),
    )
    show(result.save(out), out, as_json)


def _pair(text: str) -> tuple[str, str]:
    from milannotations import catalog

    first, colon, second = text.partition(":")
    if not (first and colon and second):
        raise InputError(f"--pair {text}: expected FIRST:SECOND, two networks.")
    return catalog.canonical(first), catalog.canonical(second)
