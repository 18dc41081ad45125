"""The main job: several methods describe an edition's units, and all are scored alike."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import baselines
from baselines.running import keys
from leaderboard import predictions, references, scoring
from leaderboard.metrics import build, expand
from leaderboard.outcomes import Settings
from leaderboard.scoring import Score
from milannotations import editions
from milannotations.errors import InputError


def offline_methods() -> list[str]:
    """Return the methods that need nothing but an edition: floors, methods, truth."""
    at_hand = {"training", "truth"}
    return [
        spec.name
        for spec in baselines.specs()
        if set(spec.requires) <= at_hand and spec.name != "human"
    ]


def run(
    data: str | os.PathLike[str] = "mini",
    methods: Sequence[str] | None = None,
    *,
    config: str | None = None,
    split: str | None = "test",
    metrics: Sequence[str] | None = None,
    settings: Settings | None = None,
    out: str | os.PathLike[str] | None = None,
    overwrite: bool = False,
    tell: Callable[[str], Any] = lambda line: None,
) -> dict[str, Score]:
    """Describe and score an edition's units with several methods.

    Args:
        data: edition: a folder, or the name of an embedded one.
        methods: names or paths (default: all that need nothing but the edition).
        config: config of the edition; may be left out if there is only one.
        split: describe and score this split; None is all of them.
        metrics: names or sets (default: `synthetic` where the truth is known, else `default`).
        settings: seeds and numbers of draws.
        out: folder to write a record a method to, `<edition>-<config>-<split>/<method>`.
        overwrite: replace records that are there.
        tell: called with a line of progress.

    Returns:
        The score of each method, in the order asked.

    Raises:
        InputError: as `baselines.describe` and `leaderboard.score` do.
    """
    settings = settings or Settings()
    known = references.of(data, config=config)
    names = list(methods or offline_methods())
    if not known.synthetic and not methods:
        names.remove("truth")
    twice = [name for name in names if names.count(name) > 1]
    if twice:
        raise InputError(f"'{twice[0]}' is asked for twice.")
    units = baselines.open_units(data, config=config, split=split)
    context = baselines.Context(seed=settings.seed, training=baselines.open_training(data, config))
    place = None
    if out is not None:
        place = Path(out) / "-".join((editions.name_of(data), known.config, split or "all"))
    asked = list(metrics or (["synthetic"] if known.synthetic else ["default"]))
    built = build(expand(asked))  # once: what a text model has encoded serves all methods
    scores: dict[str, Score] = {}
    for name in names:
        method = baselines.get(name)
        title = f"{method.spec.name}@{method.spec.version}"
        tell(f"{method.spec.name}: describing {len(units):,} units")
        said = predictions.of_descriptions(
            zip(
                keys(units),
                baselines.run(method, units, context),
                strict=True,
            )
        )
        tell(f"{method.spec.name}: scoring")
        scores[title] = scoring.score(
            said,
            known,
            built,
            split=split,
            method=title,
            settings=settings,
        )
        if place is not None:
            scores[title].save(place / title.replace("@", "-"), overwrite=overwrite)
    return {title.partition("@")[0]: made for title, made in scores.items()}
