"""Scores of tables 2 and 3: values per unit, means per fold, and differences between methods."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from baselines.shared.text import medoid_text
from leaderboard import statistics
from leaderboard.evaluation import predictions, references
from leaderboard.evaluation.score_config import ScoreConfig
from leaderboard.evaluation.scoring import score
from leaderboard.metrics import build
from leaderboard.record_format.score_record import HUMAN
from leaderboard.reproduction.fold_training import TrainingJob, read_descriptions
from leaderboard.reproduction.folds import Fold
from leaderboard.reproduction.lambda_choice import best_of_beam, choose_lambda
from milannotations.schema import Unit

if TYPE_CHECKING:
    import pandas as pd

    from milan.features import Features

METHODS = ("greedy", "beam", "pmi", "nearest")
"""Methods that are compared. `greedy` is the paper's p(d | E), `pmi` is MILAN; `beam` is the beam
search without mutual information, and `nearest` lends the description of the closest unit."""

ONE_HUMAN = "one person"
"""Value of column `method` of the rows of the leave-one-out human."""


def choose_table_lambda(jobs: Sequence[TrainingJob], units: Any, metric: str) -> float:
    """Return the lambda of a table: the best on all validation units, of the first seed."""
    validation = []
    for job in jobs:
        if job.seed == jobs[0].seed:
            rows, _, beams = read_descriptions(job, "validation")
            validation.append((units.select(rows), beams))
    return choose_lambda(validation, metric)


def score_units(
    jobs: Sequence[TrainingJob],
    units: Any,
    features: Features,
    metrics: Sequence[str],
    lam: float,
    tell: Callable[[str], Any],
) -> pd.DataFrame:
    """Score the descriptions of each test unit.

    Args:
        jobs: jobs that are done.
        units: all units of the edition.
        features: features of all units.
        metrics: names of metrics.
        lam: weight of log p(d).
        tell: called with each line of progress.

    Returns:
        One row per fold, seed, method, metric and unit, with value and lift; and one per fold and
        metric for the leave-one-out human.
    """
    import pandas as pd

    built, tables = build(list(metrics)), []
    for job in jobs:
        tell(f"scoring {job.fold.name}, seed {job.seed}")
        rows, greedy, beams = read_descriptions(job, "test")
        texts_of = {
            "greedy": greedy,
            "beam": best_of_beam(beams, 0.0),
            "pmi": best_of_beam(beams, lam),
        }
        if job.seed == jobs[0].seed:  # it is not trained, so all seeds give the same
            texts_of["nearest"] = nearest_descriptions(job.fold, features, units["descriptions"])
        fold_references = _fold_references(units, job.fold)
        keys = [
            Unit(*key) for key in zip(*(units.select(rows)[c] for c in Unit._fields), strict=True)
        ]
        for method, texts in texts_of.items():
            result = score(
                predictions.from_texts(keys, texts), fold_references, built, split="test",
                settings=ScoreConfig(draws=10),
            )  # fmt: skip
            table = result.units.assign(fold=job.fold.name, seed=job.seed, method=method)
            tables.append(table)
            if method == "nearest":  # once per fold
                tables.append(_human_rows(result.record.floors.get(HUMAN, {}), job))
    return pd.concat(tables, ignore_index=True)


def nearest_descriptions(fold: Fold, features: Features, texts: Sequence[list[str]]) -> list[str]:
    """Return the description of the training unit with the closest mean features (cosine).

    Args:
        fold: training and test units.
        features: features of all units.
        texts: human descriptions of all units; their medoid is lent.

    Returns:
        One description per test unit.
    """
    normalized = []
    for rows in (fold.train, fold.test):
        values, present = features.of(rows).tensors()
        # an exemplar whose mask is empty has features of 0, which do not count
        counted = (present & (values.abs().amax(2) > 0)).double()[..., None]
        means = (values.double() * counted).sum(1) / counted.sum(1).clamp(min=1)
        normalized.append(means / means.norm(dim=1, keepdim=True).clamp(min=1e-12))
    # rounded, so that units that are equal but for the last bits tie on every machine
    closest = (normalized[1] @ normalized[0].T).round(decimals=6).argmax(1).tolist()
    return [medoid_text([text for text in texts[fold.train[i]] if text.strip()]) for i in closest]


def summarize(
    values: pd.DataFrame, paper: Mapping[str, Mapping[str, float]], draws: int
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Return means per fold and method, and differences of `pmi` from other methods.

    Args:
        values: see `score_units`.
        paper: the paper's figures by fold and method.
        draws: bootstrap resamples over units.

    Returns:
        Means with the spread of lift over seeds; differences paired by unit, with intervals and
        Holm-adjusted p.
    """
    import pandas as pd

    per_seed = values.groupby(["fold", "metric", "method", "seed"], sort=False)[["value", "lift"]]
    means = per_seed.mean().groupby(level=[0, 1, 2], sort=False)
    rows = means.mean().rename(columns={"value": "mean"})
    rows["spread"] = means["lift"].std()
    rows = rows.reset_index()
    rows["paper"] = [
        paper.get(fold, {}).get(method) for fold, method in zip(rows.fold, rows.method, strict=True)
    ]
    keys = ["fold", "network", "layer", "unit"]
    lines = []
    for metric, table in values[values.method != ONE_HUMAN].groupby("metric", sort=False):
        by_method = table.groupby([*keys, "method"])["value"].mean().unstack("method")
        for other in [method for method in METHODS if method != "pmi"]:
            for fold, part in [("all", by_method), *by_method.groupby("fold", sort=False)]:
                difference = (part["pmi"] - part[other]).dropna().to_numpy()
                weights = statistics.bootstrap_weights(len(difference), draws, 0)
                resampled = statistics.resampled_means(difference, weights)
                low, high = statistics.interval(resampled)
                lines.append(
                    {
                        "metric": metric, "fold": fold, "pmi less": other,
                        "difference": difference.mean(), "low": float(low), "high": float(high),
                        "p": statistics.two_sided_p(resampled), "n": len(difference),
                    }
                )  # fmt: skip
    differences = pd.DataFrame(lines)
    # Holm's families are what stands in one table: the rows over all folds, and those by fold.
    for _, family in differences.groupby(differences.fold == "all"):
        differences.loc[family.index, "p_holm"] = statistics.holm(family["p"].tolist())
    return rows, differences


def _human_rows(estimates: Mapping[str, Any], job: TrainingJob) -> pd.DataFrame:
    """Return the mean and lift of the leave-one-out human, as rows without a unit."""
    import pandas as pd

    return pd.DataFrame(
        {
            "network": None, "layer": None, "unit": -1, "metric": name, "value": estimate.mean,
            "lift": estimate.lift, "fold": job.fold.name, "seed": job.seed, "method": ONE_HUMAN,
        }
        for name, estimate in estimates.items()
    )  # fmt: skip


def _fold_references(units: Any, fold: Fold) -> references.References:
    """Return the human descriptions of the tested networks; the fold's units are split `test`."""
    networks = set(units.select(fold.test)["network"])
    others = sorted(
        {i for i, name in enumerate(units["network"]) if name in networks} - set(fold.test)
    )
    parts = {"test": units.select(fold.test)}
    if others:
        parts["others"] = units.select(others)
    return references.from_dataset(parts, edition="reproduced", config=fold.name.replace("/", "-"))
