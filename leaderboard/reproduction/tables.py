"""Tables 2 and 3 of Hernandez et al. 2022, trained and scored again on the official splits.

Table 2: a model is trained on all networks but one, and describes that one. Table 3: it is trained
on some units of a network and describes others, or on one kind of network and describes another.
Each training (a fold and a seed) leaves its descriptions in a file:

    OUT/
      features.npy                    features of all units, computed once
      answers/<fold>-seed<n>.json     greedy descriptions, and the beam with both scores of every
                                      candidate
      table2.json, table2.csv         the table; a unit's values, one row each

Greedy is the paper's p(d | E), which had no beam. The beam without mutual information stands beside
it, so that the gain of mutual information is seen apart from that of the beam.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from leaderboard.reproduction.fold_training import TrainingJob, train_folds
from leaderboard.reproduction.folds import create_folds, open_all_units
from leaderboard.reproduction.lambda_choice import LAMBDAS
from leaderboard.reproduction.paper_scores import PAPER
from leaderboard.reproduction.table_scores import choose_table_lambda, score_units, summarize
from milannotations.editions.configs import edition_name
from milannotations.errors import InputError
from milannotations.utils.files import replacing

if TYPE_CHECKING:
    import pandas as pd

SYNTHETIC_METRICS = ("concept-f1", "identification", "rouge-l")
"""Metrics for synthetic editions; lambda is chosen by the first."""

ANNOTATION_METRICS = ("rouge-l", "retrieval-tfidf-auc")
"""Metrics for editions with human annotations; lambda is chosen by the first."""


@dataclass(frozen=True)
class ReproducedTable:
    """A reproduced table.

    Attributes:
        name: `table2` or `table3`.
        rows: mean over units and seeds, lift, and spread over seeds, per fold and method.
        differences: differences of `pmi` from other methods, paired by unit, with intervals.
        lam: the chosen lambda.
        made_from: edition, encoder, seeds and settings.
    """

    name: str
    rows: pd.DataFrame
    differences: pd.DataFrame
    lam: float
    made_from: dict[str, Any]


def reproduce(
    table: str,
    data: str = "mini",
    out: str = "reproduced",
    *,
    seeds: Sequence[int] = (0,),
    encoder: Mapping[str, Any] | None = None,
    sizes: str | None = None,
    settings: Mapping[str, Any] | None = None,
    metrics: Sequence[str] | None = None,
    draws: int = 1000,
    tell: Callable[[str], Any] = lambda line: None,
) -> ReproducedTable:
    """Train and score a table of the paper on an edition.

    Models that are in `out` are not trained again.

    Args:
        table: `table2` or `table3`.
        data: edition: `mini`, the published networks, or any other of several networks.
        out: folder of features, descriptions and the table.
        seeds: random seeds of training; several give a spread.
        encoder: arguments of `milan.encoder.build` (default: the encoder of the mini world).
        sizes: `2022` or `small` (default: small with the encoder of the mini world).
        settings: fields of `milan.config.TrainingConfig` that differ from those of the sizes.
        metrics: names of metrics; lambda is chosen by the first (default: concept-f1,
            identification and rouge-l for synthetic editions; rouge-l and retrieval-tfidf-auc).
        draws: bootstrap resamples over units.
        tell: called with each line of progress.

    Raises:
        InputError: no such table or edition; networks that the table needs are missing.
    """
    from milan import encoder as encoders
    from milan.config import DEFAULTS
    from milan.features import features_of

    if table not in PAPER:
        raise InputError(f"No table '{table}' (tables: {', '.join(PAPER)}).")
    folder, encoder_options = Path(out), dict(encoder or {})
    units = open_all_units(data)
    folds = create_folds(table, units)
    is_synthetic = set(units["unit_kind"]) == {"synthetic"}
    if not encoder_options and not is_synthetic:
        raise InputError("No encoder: add --encoder NETWORK, such as torchvision:resnet50.")
    if sizes is None:
        is_mini = encoder_options.get("backbone", encoders.MINI) == encoders.MINI
        sizes = "small" if is_mini else "2022"
    built_encoder = encoders.build(**encoder_options)
    tell(f"features of {len(units):,} units")
    features = features_of(
        units, built_encoder, file=folder / "features.npy", progress=os.isatty(2)
    )
    training = {**asdict(DEFAULTS[sizes]), **(settings or {})}
    jobs = [
        TrainingJob(
            fold, seed, folder, units["descriptions"], encoder_options, sizes,
            {**training, "seed": seed},
        )
        for fold in folds
        for seed in seeds
    ]  # fmt: skip
    for done, job in enumerate(train_folds(jobs), 1):
        tell(f"{done} of {len(jobs)}: {job.fold.name}, seed {job.seed}")
    names = list(metrics or (SYNTHETIC_METRICS if is_synthetic else ANNOTATION_METRICS))
    lam = choose_table_lambda(jobs, units, names[0])
    values = score_units(jobs, units, features, names, lam, tell)
    rows, differences = summarize(values, PAPER[table], draws)
    made_from = {
        "edition": edition_name(data),
        "synthetic": is_synthetic,
        "encoder": asdict(built_encoder.config),
        "seeds": list(seeds),
        "lambda": lam,
        "lambdas": list(LAMBDAS),
        "settings": jobs[0].settings,
        "units": {fold.name: {"train": len(fold.train), "test": len(fold.test)} for fold in folds},
    }
    result = ReproducedTable(table, rows, differences, lam, made_from)
    _write(result, values, folder)
    return result


def _write(table: ReproducedTable, values: pd.DataFrame, folder: Path) -> None:
    with replacing(folder / f"{table.name}.csv") as temporary:
        values.to_csv(temporary, index=False)
    content = {
        "table": table.name,
        **table.made_from,
        "rows": _to_json_rows(table.rows),
        "differences": _to_json_rows(table.differences),
    }
    with replacing(folder / f"{table.name}.json") as temporary:
        temporary.write_text(json.dumps(content, indent=1, allow_nan=False) + "\n")


def _to_json_rows(table: pd.DataFrame) -> list[dict[str, Any]]:
    """Return the rows of a table, with null for NaN."""
    return [
        {key: None if value != value else value for key, value in row.items()}
        for row in table.to_dict("records")
    ]
