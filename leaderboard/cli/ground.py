"""`milan score --ground`: descriptions scored by what units do on held-out pictures."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from milannotations.errors import InputError

if TYPE_CHECKING:
    from leaderboard.evaluation.score_config import ScoreConfig
    from leaderboard.evaluation.scoring import Score
    from leaderboard.grounding.activations import HeldOutActivations
    from milannotations.schema import Unit

Model = Annotated[
    str | None,
    typer.Option(
        "--ground",
        metavar="MODEL",
        help="Score by what units do: their network, as of milan exemplars, or mini.",
    ),
]
Images = Annotated[
    str | None,
    typer.Option(
        help="With --ground: held-out pictures, a folder or broden:DIR, coco:DIR, segments:DIR."
    ),
]
ScorerName = Annotated[
    str | None,
    typer.Option(
        "--scorer",
        help="With --ground: what says in which pictures a description holds: grammar, "
        "labels[:LEXICON], clip:MODEL, table:FILE.",
    ),
]
Grid = Annotated[
    int | None,
    typer.Option(help="With --ground: regions a side, instead of whole pictures.", min=1),
]
Limit = Annotated[int | None, typer.Option(help="With --ground: pictures, drawn uniformly.", min=1)]
Keep = Annotated[
    bool,
    typer.Option(
        "--keep-exemplars",
        help="With --ground: score on pictures that are exemplars, too; the record says so.",
    ),
]


def of_command(
    files: Sequence[str],
    model: str,
    *,
    images: str | None,
    scorer: str | None,
    data: str | None,
    config: str | None,
    network: str | None,
    layers: Sequence[str],
    split: str | None,
    metrics: Sequence[str] | None,
    settings: ScoreConfig,
    grid: int | None = None,
    limit: int | None = None,
    keep_exemplars: bool = False,
    weights: str | None = None,
    random: bool = False,
    device: str | None = None,
    cache: str | None = None,
    allow_missing: bool = False,
    method: str | None = None,
) -> Score:
    """Return the score of descriptions by what units do.

    Raises:
        InputError: as `grounding.score` and `Subject.probings`.
    """
    from leaderboard.evaluation import references, scoring
    from leaderboard.grounding import score
    from leaderboard.grounding.activations import exemplar_source_ids
    from leaderboard.grounding.scorers import open_scorer

    mini = model == "mini"
    if mini and (images or limit or weights or random):
        raise InputError("The mini world has scenes of its own: leave --images and others out.")
    made_scorer = open_scorer(scorer or ("grammar" if mini else "labels"), cache=cache)
    known: Any = None if data is None else references.of(data, config=config)
    if known is None and network is None:
        network = None if mini else model.rpartition(":")[2].partition("@")[0]
    said = scoring.read_predictions(list(files), known, network, list(layers))
    units = [unit for unit in said.units if not layers or unit.layer in layers]
    shown = frozenset() if data is None else exemplar_source_ids(data, config)
    held = held_of(
        model, units, images, without=frozenset() if keep_exemplars else shown, grid=grid,
        limit=limit, seed=settings.seed, weights=weights, random=random, device=device, cache=cache,
    )  # fmt: skip
    there = {held.probe.source_id(i) for i in range(len(held.probe))}
    return score(
        said,
        held,
        made_scorer,
        metrics or ["headline"],
        references=known,
        config=config,
        network=network,
        layers=list(layers),
        split=split,
        allow_missing=allow_missing,
        method=method,
        settings=settings,
        exemplars_seen=bool(there & shown) if shown else None,
        progress=sys.stderr.isatty(),
    )


def held_of(
    model: str,
    units: Sequence[Unit],
    images: str | None,
    *,
    without: frozenset[str] = frozenset(),
    grid: int | None = None,
    limit: int | None = None,
    seed: int = 0,
    **network: Any,
) -> HeldOutActivations:
    """Return what units do on held-out pictures.

    Args:
        model: `mini`, or as of `milan exemplars`.
        units: whose layers are looked at.
        images: a folder, or the name of a probe data set.
        without: source ids of pictures that are left out.
        grid: regions a side.
        limit: pictures, drawn uniformly.
        seed: of the draw.
        network: what `baselines.Subject` takes else.

    Raises:
        InputError: no pictures; as `Subject.probings` and `Sampling`.
    """
    from leaderboard.grounding import activations as held

    if model == "mini":
        return held.probe_mini(grid=grid, networks=list(dict.fromkeys(u.network for u in units)))
    if images is None:
        raise InputError(
            "Held-out pictures are needed: --images DIR, or broden:DIR, coco:DIR, segments:DIR."
        )
    from baselines import Subject

    probe = images if not Path(images).is_dir() else f"images:{images}"
    subject = Subject(model, probe, **network, progress=sys.stderr.isatty())
    return held.probe_subject(subject, units, held.ImageSampling(limit, seed, without), grid=grid)
