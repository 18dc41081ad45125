"""Metrics as modules of the `evaluate` library, loaded by path and offline.

`evaluate` wants one file per module, so `leaderboard/metrics/<family>/<family>.py` holds a class
of a few lines that calls `info` and `compute`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from leaderboard.metrics import build, catalogue, needs_model
from leaderboard.metrics.base import PairMetric, RowMetric, TextMetric
from leaderboard.metrics.text import normalise
from leaderboard.metrics.text_models import is_available
from milannotations.errors import InputError

WITHOUT_REFERENCES = ("diversity",)
"""Families of metrics of the predictions alone."""


def info(family: str) -> Any:
    """Return the `evaluate.MetricInfo` of a family of metrics."""
    import datasets
    import evaluate

    text = datasets.Value("string")
    features: Any = datasets.Features({"predictions": text})
    if family not in WITHOUT_REFERENCES:
        features = [
            datasets.Features({"predictions": text, "references": datasets.List(text)}),
            datasets.Features({"predictions": text, "references": text}),
        ]
    specs = [spec for spec in catalogue() if spec.family == family]
    listed = "\n".join(f"{spec.name}: {spec.title}" for spec in specs)
    return evaluate.MetricInfo(
        description=f"Scores of unit descriptions: {family}.\n{listed}",
        citation="\n".join(dict.fromkeys(spec.source for spec in specs)),
        inputs_description=(
            "predictions: one description per unit. references: the unit's annotations (one or "
            "several; formulas or truths for metrics that score against these). per_unit: also "
            "return the values of the units. model: a name or folder (folder:LAYER for "
            "BERTScore), if the metric needs a model. The config name selects one metric of the "
            "family."
        ),
        features=features,
    )


def compute(
    family: str,
    config: str,
    predictions: Sequence[str],
    references: Sequence[Any] | None = None,
    *,
    model: str | None = None,
    per_unit: bool = False,
) -> dict[str, Any]:
    """Compute the mean of every metric of a family, or of the one that `config` names.

    Texts are normalised first. IDF tables are fitted on the references given, which are also the
    candidates of retrieval.

    Args:
        family: name of the module.
        config: name of a metric, or "default" for all metrics of the family that can be computed
            (BERTScore: the raw variants).
        predictions: n texts.
        references: n texts, or n lists of texts.
        model: text model, as written after `@` in the name of a metric.
        per_unit: add `<name>_values`, a list of n values.

    Returns:
        Mean by full name of the metric; None if no prediction has a value.

    Raises:
        InputError: an unknown config; a unit without references.
    """
    specs = [spec for spec in catalogue() if spec.family == family]
    names = [spec.name.partition("@")[0] for spec in specs]
    read = str.strip if any(spec.reads_formulas for spec in specs) else normalise
    if config != "default":
        if config not in names:
            raise InputError(f"No metric '{config}' in {family} (metrics: {', '.join(names)}).")
        names = [config]
    else:  # rescaled scores need a baseline that few models have, so they must be asked for
        names = [n for n in names if "rescaled" not in n]
        names = [n for n in names if not (needs_model(n) and n.endswith("-2022"))]
    if model is None and config == "default":
        # a family with lexical metrics works without a model
        lexical = [n for n in names if not needs_model(n)]
        names = names if is_available() else lexical or names
    suffix = f"@{model}" if model else ""
    texts = [normalise(text) for text in predictions]
    sets = [
        [read(text) for text in ([members] if isinstance(members, str) else members)]
        for members in (references if references is not None else [])
    ]
    if not texts:
        raise InputError("There are no predictions to score.")
    if any(not members for members in sets):
        raise InputError("A unit has no references; leave it out, or give it at least one.")
    results: dict[str, Any] = {}
    for name, metric in build(n + suffix if needs_model(n) else n for n in names).items():
        if isinstance(metric, TextMetric):
            values = metric.values(texts)
        else:
            metric.fit([text for members in sets for text in members])
            if not isinstance(metric, PairMetric | RowMetric):
                raise TypeError(f"{name} cannot be computed as a module")
            values = metric.rows(texts, sets)
        if isinstance(metric, RowMetric) and metric.spec.corpus:
            count = np.array(float(len(texts)))
            results[name] = float(metric.aggregate(values.sum(axis=0), count))
            continue
        known = values[~np.isnan(values)]  # top-1 retrieval needs 100 candidates
        results[name] = float(known.mean()) if len(known) else None
        if per_unit:
            results[f"{name}_values"] = [None if np.isnan(v) else float(v) for v in values]
    return results
