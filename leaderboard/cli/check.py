"""`milan check`: does a method keep the contract; does a metric notice wrong descriptions?"""

from __future__ import annotations

from typing import Annotated, Any

import typer

from leaderboard.cli.options import (
    Json,
    Options,
    console,
    examples,
    options_of,
    print_json,
    print_table,
)
from leaderboard.cli.subject import Cache, Device, Random, Weights

EPILOG = examples(
    "milan check nearest",
    "milan check path/to/my_method.py --json",
    "milan check captioner --model NAME --set url=http://localhost:8000/v1",
    "milan check --metric pearson path/to/my_metric.py",
    "milan check --metric f1 --ratings ratings.csv --ground torchvision:resnet50@DEFAULT "
    "--images val --scorer clip:MODEL",
)


def check(
    method: Annotated[
        str | None,
        typer.Argument(help="Name of a method (milan list methods), or path/to/file.py."),
    ] = None,
    model: Annotated[
        str | None, typer.Option(help="Folder or name of the method's model, if it has one.")
    ] = None,
    set_: Options = None,
    metric: Annotated[
        list[str] | None,
        typer.Option(
            help="Test metrics of activations instead: names, all, or path/to/file.py with "
            "metric(presence, activations)."
        ),
    ] = None,
    network: Annotated[
        list[str] | None,
        typer.Option(help="With --metric: networks of the mini world whose units are taken."),
    ] = None,
    ratings: Annotated[
        str | None,
        typer.Option(help="With --metric and --ground: people's ratings of descriptions, a CSV."),
    ] = None,
    ground: Annotated[
        str | None, typer.Option(help="With --ratings: the network that was rated.")
    ] = None,
    images: Annotated[str | None, typer.Option(help="With --ratings: held-out pictures.")] = None,
    scorer: Annotated[
        str, typer.Option(help="With --ratings: labels[:LEXICON], clip:MODEL, table:FILE.")
    ] = "labels",
    weights: Weights = None,
    random: Random = False,
    device: Device = None,
    cache: Cache = None,
    seed: Annotated[int, typer.Option(help="Seed of every draw.", min=0)] = 0,
    as_json: Json = False,
) -> None:
    """Check that a method keeps the contract, or that a metric notices wrong descriptions."""
    if (method is None) == (metric is None):
        raise typer.BadParameter("give either a method, or --metric NAME")
    if (ratings is None) != (ground is None) or (ratings and metric is None):
        raise typer.BadParameter("--metric NAME --ratings FILE --ground MODEL go together")
    if metric is not None and ratings is not None:
        subject = {"weights": weights, "random": random, "device": device, "cache": cache}
        _rated(metric, ratings, str(ground), images, scorer, subject, seed, as_json)
        return
    if metric is not None:
        _metrics(metric, network or [], seed, as_json)
        return
    from baselines.framework import conformance

    assert method is not None
    results = conformance.check(method, options_of(method, model=model, given=set_), seed=seed)
    if as_json:
        print_json([{"name": r.name, "ok": r.passed, "says": r.message} for r in results])
    else:
        print_table(
            ("check", "", "seen"),
            [(r.name, "pass" if r.passed else "FAIL", r.message) for r in results],
        )
    if not all(result.passed for result in results):
        raise typer.Exit(1)


def _kinds(names: list[str]) -> list[Any]:
    from leaderboard.grounding.metrics import ACTIVATION_METRICS, get

    every = [kind.name for kind in ACTIVATION_METRICS if kind.name != "prevalence"]
    return [get(name) for asked in names for name in (every if asked == "all" else [asked])]


def _metrics(names: list[str], networks: list[str], seed: int, as_json: bool) -> None:
    kinds = _kinds(names)  # before minutes are spent
    from leaderboard.console import sanity_table
    from leaderboard.grounding import sanity_checks
    from leaderboard.grounding.activations import probe_mini

    held = probe_mini(networks=networks)
    pool = sanity_checks.UnitPool.of_mini(held)
    verdicts = [
        each for kind in kinds for each in sanity_checks.run_sanity_tests(kind, pool, seed=seed)
    ]
    rankings = [sanity_checks.rank_truths(kind, held) for kind in kinds]
    if as_json:
        print_json(
            {
                "sanity": [each.to_dict() for each in verdicts],
                "ranking": [each.to_dict() for each in rankings],
            }
        )
    else:
        screen = console()
        screen.print(
            sanity_table.verdict_table(verdicts, screen.width),
            "",
            sanity_table.ranking_table(rankings),
            "",
        )
        screen.print(*sanity_table.verdict_notes(verdicts), sep="\n", style="dim")
    low = [each for each in verdicts if each.prevalence <= sanity_checks.RARE_PREVALENCE]
    if any(each.verdict != "pass" for each in low):
        raise typer.Exit(1)


def _rated(
    names: list[str],
    ratings: str,
    model: str,
    images: str | None,
    scorer: str,
    subject: dict[str, Any],
    seed: int,
    as_json: bool,
) -> None:
    kinds = _kinds(names)
    from leaderboard.cli.ground import held_of
    from leaderboard.grounding import human_ratings
    from leaderboard.grounding.metrics import GroundedMetric
    from leaderboard.grounding.scorers import Presences, open_scorer

    rated = human_ratings.read_ratings(ratings, model)
    made = open_scorer(scorer, cache=subject["cache"])
    held = held_of(model, [each.unit for each in rated], images, seed=seed, **subject)
    presences = Presences(made, held.probe)
    found = [
        human_ratings.rating_agreement(GroundedMetric(kind, held, presences), rated, seed)
        for kind in kinds
    ]
    if as_json:
        print_json([each.to_dict() for each in found])
        return
    from leaderboard.console.cells import digits

    print_table(
        ("metric", "prefers as people", "95 %", "one person as another", "pairs", "units"),
        [
            (
                each.metric, digits(each.share), f"{digits(each.low)}..{digits(each.high)}",
                digits(each.people), f"{each.n_pairs:,}", f"{each.n_units:,}",
            )
            for each in found
        ],
    )  # fmt: skip
