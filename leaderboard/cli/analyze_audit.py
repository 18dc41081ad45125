"""`milan analyze` and `milan audit`: descriptions at work."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from leaderboard.cli import board
from leaderboard.cli.options import Json, console, examples, print_json
from milannotations.errors import InputError

if TYPE_CHECKING:
    from leaderboard.applications.common.mini_networks import Workshop
    from leaderboard.record_format.application_record import Outcome

ANALYZE = examples(
    "milan analyze milan.csv --model torchvision:resnet18@DEFAULT --layer layer3 layer4 "
    "--images imagenet/val --out analysis",
    "milan analyze --describe milan --seeds 3 --out analysis",
)
AUDIT = examples(
    "milan audit --describe milan --seeds 5 --out audit",
    "milan audit a.csv b.csv --pair resnet18-imagenet:resnet18-imagenet-blurred --out audit",
)

Files = Annotated[
    list[str] | None,
    typer.Argument(metavar="[PREDICTIONS...]", help="Descriptions (CSV or parquet)."),
]
Describe = Annotated[
    str | None, typer.Option(help="On the mini world, let this method describe instead.")
]
Seeds = Annotated[int, typer.Option(help="Networks of the mini world, or pairs of them.", min=1)]
Cache = Annotated[
    str | None, typer.Option(help="Folder that keeps networks and descriptions of the mini world.")
]
Network = Annotated[str | None, typer.Option(help="Of files that do not say.")]
Out = Annotated[str, typer.Option(help="Folder of the record, with curves and figures.")]
Method = Annotated[str, typer.Option(help="Name for the record, or name@version.")]
Seed = Annotated[int, typer.Option(help="Seed of every draw.", min=0)]


def analyze(
    out: Out,
    files: Files = None,
    describe: Describe = None,
    network: Network = None,
    model: Annotated[
        str | None, typer.Option(help="A network; see milan exemplars (default: the mini world's).")
    ] = None,
    images: Annotated[
        str | None, typer.Option(help="Test pictures: a folder with a folder a class.")
    ] = None,
    layer: Annotated[list[str] | None, typer.Option(help="Layers whose units take part.")] = None,
    weights: Annotated[str | None, typer.Option(help="Weights: safetensors, or a .pth.")] = None,
    random: Annotated[bool, typer.Option("--random", help="Random weights.")] = False,
    preprocess: Annotated[
        str | None, typer.Option(help="imagenet[:SIDE] or file.py:name, instead of its own.")
    ] = None,
    limit: Annotated[int | None, typer.Option(help="So many pictures, evenly.", min=1)] = None,
    classes: Annotated[
        str | None,
        typer.Option(help="File of class folders' names, a line an output (default: by name)."),
    ] = None,
    language: Annotated[
        str | None,
        typer.Option(help="A spaCy pipeline, mini, or a CSV word,class (default: spaCy's)."),
    ] = None,
    similar_to: Annotated[
        list[str] | None, typer.Option(help="A word to compare descriptions with.")
    ] = None,
    score: Annotated[list[str] | None, typer.Option(help="These scores alone.")] = None,
    step: Annotated[float, typer.Option(help="Share of units ablated a step.")] = 0.02,
    most: Annotated[float, typer.Option(help="Share of units ablated at the end.")] = 0.2,
    draws: Annotated[int, typer.Option(help="Random orders, of ties and of controls.", min=2)] = 5,
    how: Annotated[str, typer.Option(help="zero, mean or resample.")] = "zero",
    seed: Seed = 0,
    batch_size: Annotated[int, typer.Option(help="Pictures at a time.", min=1)] = 32,
    device: Annotated[str | None, typer.Option(help="cpu, cuda, cuda:1, mps.")] = None,
    seeds: Seeds = 3,
    pictures: Annotated[int, typer.Option(help="Test pictures of the mini world.", min=8)] = 500,
    cache: Cache = None,
    method: Method = "descriptions",
    as_json: Json = False,
) -> None:
    """Ablate units in the order of their descriptions' scores: which kinds of units matter?"""
    from leaderboard.applications.analyze.config import AnalyzeConfig
    from leaderboard.applications.analyze.language import open_language
    from leaderboard.applications.analyze.task import analyze
    from leaderboard.applications.common.open_network import open_target
    from leaderboard.evaluation import predictions
    from leaderboard.record_format import application_record
    from milannotations.exemplars import RunConfig

    check_source(files, describe, model)
    settings = AnalyzeConfig(
        scores=tuple(score) if score else None,
        similar_to=tuple(similar_to or ()),
        step=step,
        most=most,
        draws=draws,
        how=how,
        seed=seed,
    )
    application_record.check_free(out, "analyze")
    said = predictions.read(*files, network=network) if files else None
    asked: dict[str, Any] = {"files": [Path(file).name for file in files or ()]}
    if model is None:
        from leaderboard.applications.analyze.mini import MiniAnalysis

        counts = open_language(language or "mini")
        mini = MiniAnalysis(workshop(cache), range(seeds), pictures, counts)
        asked |= {"seeds": list(range(seeds))}
        show(mini.analyze(describe or method, said, settings, asked).save(out), out, as_json)
        return
    if images is None or not layer:
        raise InputError(f"Of {model}, --images (a folder a class) and --layer are needed too.")
    assert said is not None
    counts = open_language(language)
    target = open_target(
        said,
        model,
        images,
        layer,
        weights=weights,
        random=random,
        preprocess=preprocess,
        limit=limit,
        classes=classes,
        run=RunConfig(
            batch_size=batch_size, device=device, seed=seed, progress=sys.stderr.isatty()
        ),
    )
    made = analyze(
        said,
        [target],
        counts,
        settings,
        method=method,
        data=str(target.images.get("name", "")),
        asked={**asked, "model": model, "layers": layer},
    )
    show(made.save(out), out, as_json)


def audit(
    out: Out,
    files: Files = None,
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
        typer.Option(help="A list, as face,head,nose (default: the paper's faces)."),
    ] = None,
    substrings: Annotated[
        bool, typer.Option("--substrings", help="Words anywhere in words, as in 2022.")
    ] = False,
    edition: Annotated[
        str | None, typer.Option(help="Edition of the units, with exemplars: makes a sheet.")
    ] = None,
    selectivity: Annotated[
        str | None,
        typer.Option(help="CSV network,layer,unit,selectivity, as measured on region labels."),
    ] = None,
    at: Annotated[
        float | None,
        typer.Option(help="Units measured from here on should be found (default: .5; mini: .3)."),
    ] = None,
    seed: Seed = 0,
    draws: Annotated[int, typer.Option(help="Bootstrap resamples.", min=10, max=100_000)] = 1000,
    seeds: Seeds = 5,
    cache: Cache = None,
    method: Method = "descriptions",
    as_json: Json = False,
) -> None:
    """Count units that are described with given words, and compare networks.

    Exemplars are to be of unblurred pictures, the same for all networks.
    """
    from leaderboard.applications.audit.config import AuditConfig
    from leaderboard.applications.audit.config import preset_pairs as pairs_of
    from leaderboard.applications.audit.task import audit
    from leaderboard.applications.common.open_network import open_selectivity, open_sheets
    from leaderboard.evaluation import predictions
    from leaderboard.record_format import application_record

    if not files and describe is None:
        check_source(files, describe, None)
    lists = [tuple(filter(None, (w.strip() for w in each.split(",")))) for each in words or ()]
    chosen: dict[str, Any] = {"words": {each[0]: each for each in lists if each}} if lists else {}
    chosen |= {"matching": "substrings" if substrings else "words", "seed": seed, "draws": draws}
    if pair and preset:
        raise InputError("Both --pair and --preset were given; expected one of them.")
    pairs = pairs_of(preset) if preset else [_pair(each) for each in pair or ()]
    application_record.check_free(out, "audit")
    asked = {"files": [Path(file).name for file in files or ()], "preset": preset}
    if describe is not None:
        from leaderboard.applications.audit.mini import AT, MiniAudit

        check_source(files, describe, None)
        mini = MiniAudit(workshop(cache), range(seeds))
        settings = AuditConfig(**chosen, at=AT if at is None else at)
        made = mini.audit(describe, None, settings, {**asked, "seeds": list(range(seeds))})
        show(mini.save(made, out), out, as_json)
        return
    said = predictions.read(*files or (), network=network)
    units, sheets, images = open_sheets(edition, said) if edition else (None, {}, {})
    made = audit(
        said,
        units,
        pairs=pairs,
        settings=AuditConfig(**chosen, at=0.5 if at is None else at),
        selectivity=open_selectivity(selectivity) if selectivity else None,
        method=method,
        data=Path(edition).resolve().name if edition else "",
        asked={**asked, "edition": Path(edition).name if edition else None},
        images=images,
    )
    show(made.save(out, sheets), out, as_json)


def run(
    tasks: list[str],
    methods: list[str] | None,
    seeds: int,
    placebos: int,
    seed: int,
    out: str | None,
    cache: str | None,
    as_json: bool,
) -> None:
    """Run tasks for several methods, and print a table a task; see `tasks.run`."""
    from leaderboard.applications import run_tasks
    from leaderboard.console.application_table import render

    watched = sys.stderr.isatty()
    made = run_tasks.run(
        tasks,
        methods,
        seeds=seeds,
        placebos=placebos,
        seed=seed,
        out=out,
        cache=cache,
        tell=lambda line: print(line, file=sys.stderr) if watched else None,
    )
    if as_json:
        print_json([each.model_dump() for each in made])
    else:
        screen = console()
        screen.print(render(made, screen.width))
    if out is not None:
        print(f"Records: {out}", file=sys.stderr)
        board.beside(out)


def show(made: Outcome, out: str, as_json: bool) -> None:
    """Print what an application came to, and where it lies."""
    from leaderboard.console.application_table import render
    from leaderboard.record_format.score_record import dumps

    if as_json:
        sys.stdout.write(dumps(made))
    else:
        screen = console()
        screen.print(render([made], screen.width))
    print(f"Record: {out}", file=sys.stderr)


def check_source(
    files: list[str] | None, describe: str | None, model: str | None, more: str = ""
) -> None:
    """Raise InputError unless descriptions come from files, or from a method on the mini world.

    Args:
        files, describe, model: as the options have them.
        more: what else may be done where there are none.
    """
    if files and describe:
        raise InputError("Files and --describe were given; expected one of them.")
    if not files and (describe is None or model is not None):
        raise InputError(
            f"Descriptions are needed: files of them, or on the mini world --describe METHOD.{more}"
        )
    if describe is not None:
        from leaderboard.applications.common.mini_networks import check_describer

        check_describer(describe)


def workshop(cache: str | None) -> Workshop:
    """Return what makes the networks of the mini world; a folder keeps them, if there is one."""
    from leaderboard.applications.common.mini_networks import Workshop

    watched = sys.stderr.isatty()
    return Workshop(
        Path(cache) if cache else None,
        tell=lambda line: print(line, file=sys.stderr) if watched else None,
    )


def _pair(text: str) -> tuple[str, str]:
    from milannotations import catalog

    first, colon, second = text.partition(":")
    if not (first and colon and second):
        raise InputError(f"--pair {text}: FIRST:SECOND, two networks, was expected.")
    return catalog.canonical(first), catalog.canonical(second)
