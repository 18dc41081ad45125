"""The metrics as modules of the `evaluate` library, loaded by path and offline.

`leaderboard/metrics/<family>/<family>.py` holds a class of a few lines over
`info` and `compute` here, because `evaluate` wants one file a module.
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
        description=f"Descriptions of units, scored by {family}.\n{listed}",
        citation="\n".join(dict.fromkeys(spec.source for spec in specs)),
        inputs_description=(
            "predictions: one description a unit. references: the unit's descriptions (one or "
            "several; formulas or truths, where the metric is held against these). per_unit: "
            "return the values of units too. model: a name or folder (folder:LAYER for BERTScore), "
            "where a model is needed. The config name, if given, picks one metric of the family."
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
    """Return the mean of every metric of a family (or of the one that `config` names).

    Texts are normalised first; IDF tables are fitted on the references given; for
    retrieval the references given are the candidates.

    Args:
        family: name of the module.
        config: a metric's name, or "default" for all of the family that can be computed
            (BERTScore: the raw variants).
        predictions: n texts.
        references: n texts, or n lists of texts.
        model: what stands behind `@` in a metric's name.
        per_unit: add `<name>_values`, a list of n values.

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
    else:  # rescaled scores need a baseline that few models have: only when asked for
        names = [n for n in names if "rescaled" not in n]
        names = [n for n in names if not (needs_model(n) and n.endswith("-2022"))]
    if model is None and config == "default":
        # a family that has lexical members too works without a model at hand
        lexical = [n for n in names if not needs_model(n)]
        names = names if is_available() else lexical or names
    behind = f"@{model}" if model else ""
    texts = [normalise(text) for text in predictions]
    sets = [
        [read(text) for text in ([given] if isinstance(given, str) else given)]
        for given in (references if references is not None else [])
    ]
    if not texts:
        raise InputError("There are no predictions to score.")
    if any(not members for members in sets):
        raise InputError("A unit has no references; leave it out, or give it at least one.")
    made: dict[str, Any] = {}
    for name, metric in build(n + behind * needs_model(n) for n in names).items():
        if isinstance(metric, TextMetric):
            values = metric.values(texts)
        else:
            metric.fit([text for members in sets for text in members])
            if not isinstance(metric, PairMetric | RowMetric):
                raise TypeError(f"{name} cannot be computed as a module")
            values = metric.rows(texts, sets)
        if isinstance(metric, RowMetric) and metric.spec.corpus:
            count = np.array(float(len(texts)))
            made[name] = float(metric.aggregate(values.sum(axis=0), count))
            continue
        known = values[~np.isnan(values)]  # top-1 retrieval needs 100 candidates
        made[name] = float(known.mean()) if len(known) else None
        if per_unit:
            made[f"{name}_values"] = [None if np.isnan(v) else float(v) for v in values]
    return made
