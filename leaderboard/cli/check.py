"""`milan check`: tests of a method, and of the metrics themselves."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from leaderboard.cli.network import DeviceOptions
from leaderboard.cli.options import (
    Cache,
    Json,
    MethodOptions,
    OptionsOf,
    console,
    examples,
    method_options,
    print_json,
    print_table,
    progress_wanted,
    with_options,
)
from leaderboard.grounding.score_files import GroundOptions
from milannotations.exemplars.options import NetworkOptions

app = typer.Typer()


@app.command(
    epilog=examples(
        "milan check nearest",
        "milan check path/to/my_method.py --json",
        "milan check captioner --model NAME --set url=http://localhost:8000/v1",
        "milan check --metric pearson path/to/my_metric.py",
        "milan check --metric f1 --ratings ratings.csv --ground torchvision:resnet50@DEFAULT "
        "--images val --scorer clip:MODEL",
    )
)
@with_options
def check(
    ground_options: Annotated[
        GroundOptions,
        OptionsOf(
            GroundOptions,
            only=("images", "scorer"),
            help={
                "images": "With --ratings: held-out images, a folder or broden:DIR, coco:DIR, "
                "segments:DIR.",
                "scorer": "With --ratings: labels[:LEXICON], clip:MODEL or table:FILE "
                "(default: labels).",
            },
        ),
    ],
    opening: Annotated[NetworkOptions, OptionsOf(NetworkOptions)],
    device: Annotated[dict[str, Any], DeviceOptions],
    method: Annotated[
        str | None,
        typer.Argument(help="Name of a method (milan list methods), or path/to/file.py."),
    ] = None,
    model: Annotated[
        str | None, typer.Option(help="Folder or name of the method's model, if it has one.")
    ] = None,
    set_: MethodOptions = None,
    metric: Annotated[
        list[str] | None,
        typer.Option(
            help="Grounded metrics to test instead: names, all, or path/to/file.py with "
            "metric(presence, activations)."
        ),
    ] = None,
    network: Annotated[
        list[str] | None,
        typer.Option(help="With --metric: networks of the mini world whose units are used."),
    ] = None,
    ratings: Annotated[
        str | None,
        typer.Option(help="With --metric and --ground: CSV of human ratings of descriptions."),
    ] = None,
    ground: Annotated[
        str | None, typer.Option(help="With --ratings: the network whose units were rated.")
    ] = None,
    seed: Annotated[int, typer.Option(help="Random seed of every draw.", min=0)] = 0,
    cache: Cache = None,
    as_json: Json = False,
) -> None:
    """Check that a method works, or that a metric notices wrong descriptions."""
    if (method is None) == (metric is None):
        raise typer.BadParameter("give either a method, or --metric NAME")
    if (ratings is None) != (ground is None) or (ratings and metric is None):
        raise typer.BadParameter("--metric NAME --ratings FILE --ground MODEL go together")
    if method is not None:
        _check_method(method, model, set_, seed, as_json)
    elif ratings is not None:
        _check_against_ratings(
            _metric_specs(metric or []), ratings, str(ground), ground_options, opening, seed,
            as_json, cache=cache, **device,
        )  # fmt: skip
    else:
        _check_metrics(_metric_specs(metric or []), network or [], seed, as_json)


def _check_method(
    method: str, model: str | None, given: list[str] | None, seed: int, as_json: bool
) -> None:
    from baselines.framework import conformance

    options = method_options(method, model=model, given=given)
    results = conformance.check(method, options, seed=seed)
    if as_json:
        print_json([{"name": r.name, "ok": r.passed, "says": r.message} for r in results])
    else:
        print_table(
            ("check", "", "seen"),
            [(r.name, "pass" if r.passed else "FAIL", r.message) for r in results],
        )
    if not all(result.passed for result in results):
        raise typer.Exit(1)


def _metric_specs(names: list[str]) -> list[Any]:
    from leaderboard.grounding.metrics import ACTIVATION_METRICS, get

    every = [kind.name for kind in ACTIVATION_METRICS if kind.name != "prevalence"]
    expanded = [name for given in names for name in (every if given == "all" else [given])]
    return [get(name) for name in expanded]


def _check_metrics(kinds: list[Any], networks: list[str], seed: int, as_json: bool) -> None:
    from leaderboard.console import sanity_table
    from leaderboard.grounding import sanity_checks
    from leaderboard.grounding.activations import probe_mini

    held = probe_mini(networks=networks)
    pool = sanity_checks.UnitPool.of_mini(held)
    verdicts = [
        verdict
        for kind in kinds
        for verdict in sanity_checks.run_sanity_tests(kind, pool, seed=seed)
    ]
    rankings = [sanity_checks.rank_truths(kind, held) for kind in kinds]
    if as_json:
        print_json(
            {
                "sanity": [verdict.to_dict() for verdict in verdicts],
                "ranking": [ranking.to_dict() for ranking in rankings],
            }
        )
    else:
        screen = console()
        screen.print(sanity_table.verdict_table(verdicts, screen.width), "")
        screen.print(sanity_table.ranking_table(rankings), "")
        screen.print(*sanity_table.verdict_notes(verdicts), sep="\n", style="dim")
    low = [verdict for verdict in verdicts if verdict.prevalence <= sanity_checks.RARE_PREVALENCE]
    if any(verdict.verdict != "pass" for verdict in low):
        raise typer.Exit(1)


def _check_against_ratings(
    kinds: list[Any],
    ratings: str,
    model: str,
    options: GroundOptions,
    opening: NetworkOptions,
    seed: int,
    as_json: bool,
    *,
    cache: str | None,
    device: str | None = None,
) -> None:
    from leaderboard.console.cells import digits
    from leaderboard.grounding import human_ratings
    from leaderboard.grounding.metrics import GroundedMetric
    from leaderboard.grounding.score_files import open_held_out
    from leaderboard.grounding.scorers import Presences, open_scorer

    rated = human_ratings.read_ratings(ratings, model)
    scorer = open_scorer(options.scorer or "labels", cache=cache)
    held = open_held_out(
        model, [rating.unit for rating in rated], options, opening, seed=seed, device=device,
        cache=cache, progress=progress_wanted(),
    )  # fmt: skip
    presences = Presences(scorer, held.probe)
    agreements = [
        human_ratings.rating_agreement(GroundedMetric(kind, held, presences), rated, seed)
        for kind in kinds
    ]
    if as_json:
        print_json([agreement.to_dict() for agreement in agreements])
        return
    print_table(
        ("metric", "agrees with humans", "95 %", "one human with another", "pairs", "units"),
        [
            (
                a.metric, digits(a.share), f"{digits(a.low)} to {digits(a.high)}",
                digits(a.people), f"{a.n_pairs:,}", f"{a.n_units:,}",
            )
            for a in agreements
        ],
    )  # fmt: skip
