"""Score descriptions against references, beside floors and the leave-one-out human.

`score` goes through these steps: read the references (`references`) and the predictions
(`predictions`), put the method, the floors and the human through every metric on the same units
(`evaluator`), estimate means, lift and intervals (`estimates`), and write all of it into a record
(`to_record`). Definitions: docs/scores.md.
"""

from __future__ import annotations

import os
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from baselines.framework import provenance
from leaderboard.evaluation import predictions as prediction_files
from leaderboard.evaluation import references as reference_sources
from leaderboard.evaluation.abstention import measure_abstention
from leaderboard.evaluation.estimates import METHOD, estimate
from leaderboard.evaluation.evaluator import Evaluator
from leaderboard.evaluation.floors import floor_descriptions
from leaderboard.evaluation.metric_values import Evaluation
from leaderboard.evaluation.predictions import Prediction, Predictions
from leaderboard.evaluation.references import Descriptions, Mask, References
from leaderboard.evaluation.score_config import ScoreConfig
from leaderboard.evaluation.to_record import to_record
from leaderboard.metrics import ALLREF, Metric, build, expand, left_out
from leaderboard.metrics.text import normalise
from leaderboard.record_format import score_record
from leaderboard.record_format.score_record import HUMAN, Grounding, Record
from milannotations import catalog
from milannotations.errors import InputError, some
from milannotations.schema import Unit
from milannotations.utils.progress import progress_bar

if TYPE_CHECKING:
    import pandas as pd


class ActivationGround(Protocol):
    """Activations that scores are grounded in; `leaderboard.grounding.scoring.Ground` is one."""

    def covers(self, units: Sequence[Unit]) -> Mask:
        """Return the units (n,) whose activations are known."""

    def floors(
        self, references: References, descriptions: Descriptions, constants: Sequence[str], /
    ) -> dict[str, Descriptions]:
        """Return the descriptions of the floors, among those that the scorer can read."""

    def entry(
        self,
        references: References,
        descriptions: Descriptions,
        scope: Mask,
        accounts: Sequence[Mapping[str, Any]],
        metrics: Mapping[str, Metric],
        /,
    ) -> Grounding:
        """Return the record's account of activations and scorer."""


@dataclass
class Score:
    """Result of `score`: the record, the values behind it, and the predictions."""

    record: Record
    evaluation: Evaluation
    predictions: Predictions

    def to_pandas(self) -> pd.DataFrame:
        """Return one row per metric: the score with its floors and the leave-one-out human."""
        from leaderboard.evaluation.score_frame import score_frame

        return score_frame(self.record)

    @property
    def units(self) -> pd.DataFrame:
        """Values and lifts: a DataFrame of network, layer, unit, metric, value, lift."""
        from leaderboard.evaluation.score_frame import unit_frame

        return unit_frame(self.evaluation)

    def save(self, folder: str | os.PathLike[str], *, overwrite: bool = False) -> Path:
        """Write the record's folder, whole or not at all; return its path.

        Raises:
            InputError: the folder holds another record, or no record (see `score_record.save`).
        """
        self.record = score_record.save(
            folder, self.record, self.units, self.predictions, overwrite=overwrite
        )
        return Path(folder)

    def __str__(self) -> str:
        return self.to_pandas().to_string()


def score(
    predictions: Any,
    references: Any,
    metrics: str | Sequence[str] | Mapping[str, Metric] = ("default",),
    *,
    network: str | None = None,
    config: str | None = None,
    layers: str | Sequence[str] = (),
    split: str | None = None,
    allow_missing: bool = False,
    unlisted: bool = False,
    method: str | None = None,
    settings: ScoreConfig | None = None,
    beside: Mapping[str, Predictions] | None = None,
    accounts: Sequence[Mapping[str, Any]] | None = None,
    ground: ActivationGround | None = None,
    progress: bool = False,
) -> Score:
    """Score one method's descriptions against the references, beside floors and the human.

    Args:
        predictions: `Predictions`, a DataFrame, or one path or several
            (`layer1=path` names the layer of a file that has no layer column).
        references: folder of an edition, an `annotations.csv`, `References`, or a
            `datasets.DatasetDict`.
        metrics: names or sets of names (`milan list metrics`), or the result of
            `metrics.build`, so that several scores share what a text model encoded.
        network: network of files without a network column; optional if there is only one.
        config: config of the edition; optional if there is only one.
        layers: layers to score (default: all); a single one is also the layer of files without a
            layer column.
        split: HF split to score (`test`, `train+test`; default: all). Candidates of retrieval are
            the units of all splits in any case.
        allow_missing: count units without a row as failures instead of raising an error.
        unlisted: accept layers and units that the published network does not have.
        method: name for tables and the record, or name@version (default: the file name, or the
            common start of several; the version comes from the accounts).
        settings: random seed, resamples, constants.
        beside: other predictions by name, scored like the floors. Example: `blind`, the method's
            own descriptions of units whose exemplars were shuffled.
        accounts: how the descriptions were made (default: the accounts beside the files).
        ground: the units' activations on held-out images, for metrics that score against those
            (`leaderboard.grounding.scoring`).
        progress: show a progress bar.

    Returns:
        A `Score`: `.to_pandas()` is a table, `.save(folder)` writes a record.

    Raises:
        InputError: anything that the user can fix, with what to do.

    Example:
        >>> mini = reference_sources.load("mini")
        >>> constant = prediction_files.from_texts(mini.units, ["red things"] * len(mini.units))
        >>> score(constant, mini, ["concept-f1"]).record.scores["concept-f1"].lift
        0.0
    """
    started = time.perf_counter()
    layers = [layers] if isinstance(layers, str) else list(layers)
    asked_metrics = [metrics] if isinstance(metrics, str) else list(metrics)
    built = dict(metrics) if isinstance(metrics, Mapping) else build(expand(asked_metrics))
    if network is None and _is_csv(references):
        network = _named_network(predictions)

    # references, predictions, and the units in scope
    known = reference_sources.load(references, config=config, network=network, unlisted=unlisted)
    score_config = (settings or ScoreConfig()).resolved(known.synthetic)
    _check_truths(built, known)
    predicted = prediction_files.load(
        predictions, network=network, networks=known.networks, layers=layers
    )
    scope = _scope(known, layers, split, None if ground is None else ground.covers(known.units))
    _check_units(predicted, known, scope, allow_missing, unlisted)
    rows = [predicted.first(unit) for unit in known.units]
    if not any(row is not None and wanted for row, wanted in zip(rows, scope, strict=True)):
        raise InputError("The predictions describe none of the units to be scored.")

    # systems: the method, its floors, and other predictions beside it
    descriptions = _descriptions(rows)
    answered = scope & np.array([text is not None for text in descriptions])
    constants = score_config.constants or ()
    if ground is None:
        floors = floor_descriptions(known, constants)
    else:
        floors = ground.floors(known, descriptions, constants)
    for name, others in (beside or {}).items():
        floors[name] = _descriptions([others.first(unit) for unit in known.units])

    # values of all systems under all metrics
    evaluator = Evaluator(known, scope, answered, score_config)
    evaluation = Evaluation(built, {}, known, descriptions, scope, answered)
    seconds: dict[str, float] = {}
    fitted: set[int] = set()
    for name, metric in progress_bar(built.items(), len(built), "metrics", progress, unit="metric"):
        begun = time.perf_counter()
        if metric.fits_on == "config" and id(metric) not in fitted:
            metric.fit(known.corpus)
            fitted.add(id(metric))
        allref = name.endswith(ALLREF)
        own = descriptions if metric.spec.reads == "first" else _all_ranks(predicted, known, rows)
        systems: dict[str, Descriptions] = {METHOD: own, **floors}
        evaluation.values[name] = {
            system: evaluator.evaluate(metric, texts, allref) for system, texts in systems.items()
        }
        human = None if allref else evaluator.evaluate_human(metric)
        if human is not None:
            evaluation.values[name][HUMAN] = human
        seconds[name] = time.perf_counter() - begun

    # estimates and record
    confidence = [np.nan if row is None or row.score is None else row.score for row in rows]
    abstained = [row is not None and row.status == "abstained" for row in rows]
    estimates = estimate(evaluation, score_config, np.array(confidence))
    if accounts is None:
        found = [provenance.read_account(path, digest) for path, digest in predicted.sources]
        accounts = [account for account in found if account is not None]
    record = to_record(
        evaluation,
        estimates,
        predicted,
        config=score_config,
        method=method or _versioned(_method_name(predicted), accounts),
        asked={
            "references": None if known.source is None else Path(known.source).name,
            "metrics": asked_metrics,
            "network": network,
            "config": config,
            "layers": layers,
            "split": split,
            "allow_missing": allow_missing,
        },
        accounts=accounts,
        abstention=measure_abstention(known, scope, descriptions, np.array(abstained)),
        left_out=left_out(asked_metrics),
        seconds={**seconds, "total": time.perf_counter() - started},
        grounding=(
            None if ground is None else ground.entry(known, descriptions, scope, accounts, built)
        ),
    )
    return Score(record, evaluation, predicted)


def _descriptions(rows: Sequence[Prediction | None]) -> list[str | None]:
    """Return the normalised description of each unit; None where it failed or is missing."""
    return [
        normalise(row.description) if row is not None and row.status == "ok" else None
        for row in rows
    ]


def _all_ranks(
    predictions: Predictions, references: References, rows: Sequence[Prediction | None]
) -> list[str | None]:
    """Return the normalised descriptions of all ranks of each unit, one per line."""
    return [
        "\n".join(map(normalise, predictions.senses(unit)))
        if row is not None and row.status == "ok"
        else None
        for unit, row in zip(references.units, rows, strict=True)
    ]


def _is_csv(references: Any) -> bool:
    return isinstance(references, str | os.PathLike) and Path(references).is_file()


def _named_network(predictions: Any) -> str | None:
    """Return the network that the predictions name, if they name exactly one."""
    try:
        units = prediction_files.load(predictions).units
    except InputError:  # the files do not name it; other errors are raised again later
        return None
    networks = {unit.network for unit in units}
    return networks.pop() if len(networks) == 1 else None


def _scope(
    references: References, layers: Sequence[str], split: str | None, covered: Mask | None = None
) -> Mask:
    """Return the units (n,) to be described: those of the split and layers with references.

    Units that are `covered` by activations need no annotations.
    """
    scope = references.has_texts | references.has_truth if covered is None else covered
    if layers:
        present = list(dict.fromkeys(unit.layer for unit in references.units))
        for layer in layers:
            if layer not in present:
                raise InputError(
                    f"Layer '{layer}' is not in {references.config} (layers: {', '.join(present)})."
                )
        scope = scope & np.array([unit.layer in layers for unit in references.units])
    if split is not None:
        wanted = split.split("+")
        for part in wanted:
            if part not in references.splits:
                raise InputError(
                    f"No split '{part}' (splits: {', '.join(sorted(set(references.splits)))})."
                )
        scope = scope & np.array([member in wanted for member in references.splits])
    if not scope.any():
        if references.has_texts.any() or references.has_truth.any():
            raise InputError(
                f"{references.edition} has no human descriptions of the units asked for. "
                "Ask for other ones: --layer, --split."
            )
        raise InputError(
            f"{references.edition} has no human descriptions. Score it on the network's "
            "activations: add --ground."
        )
    return scope


def _check_truths(metrics: Mapping[str, Metric], references: References) -> None:
    """Raise InputError for a metric that scores against truths if there are none."""
    truthless = ("descriptions", "activations")
    names = [name for name, metric in metrics.items() if metric.spec.against not in truthless]
    if names and not (references.synthetic and references.has_truth.any()):
        raise InputError(
            f"{names[0]} scores against the truth, and the units of {references.config} have no "
            "known truth; such scores are for synthetic editions. Use --metrics default."
        )


def _check_units(
    predictions: Predictions,
    references: References,
    scope: Mask,
    allow_missing: bool,
    unlisted: bool,
) -> None:
    """Raise InputError for units that are not in the references, or not in the predictions."""
    by_network: dict[str, list[Unit]] = {}
    for unit in predictions.units:
        by_network.setdefault(unit.network, []).append(unit)
    for network, units in by_network.items():
        if network not in references.networks:
            raise InputError(
                f"The predictions are of network '{network}'; the references are of "
                f"{', '.join(references.networks)}."
            )
        catalog.check_units(network, units, unlisted=unlisted)
    unknown = [unit for unit in predictions.units if unit not in references.index]
    if unknown:
        raise InputError(
            f"Not in the references: {some(unknown)}. Every described unit must be one of theirs."
        )
    expected = [unit for unit, wanted in zip(references.units, scope, strict=True) if wanted]
    missing = [unit for unit in expected if predictions.first(unit) is None]
    if missing and not allow_missing:
        raise InputError(
            f"{_method_name(predictions)} has rows for {len(expected) - len(missing):,} of "
            f"{len(expected):,} units; missing {some(missing)}. "
            "Use --allow-missing to count them as failures."
        )


def _method_name(predictions: Predictions) -> str:
    """Return the name of the file, or the common start of the names of several."""
    stems = [Path(path).stem for path, _ in predictions.sources]
    start = os.path.commonprefix(stems).rstrip("-_. ")  # noqa: RUF071 - letters are meant
    return start or (stems[0] if stems else "predictions")


def _versioned(name: str, accounts: Sequence[Mapping[str, Any]]) -> str:
    """Return name@version if the accounts say which version of the method made the file."""
    methods = [account.get("method") for account in accounts]
    versions = {
        str(spec.get("version") or "")
        for spec in methods
        if isinstance(spec, dict) and spec.get("name") == name
    }
    return f"{name}@{versions.pop()}" if len(versions) == 1 and "" not in versions else name
