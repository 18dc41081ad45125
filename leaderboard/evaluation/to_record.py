"""Record of a score: what was asked, what was resolved, and the estimates."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from leaderboard.evaluation.metric_values import Evaluation
from leaderboard.evaluation.predictions import Predictions
from leaderboard.evaluation.references import References
from leaderboard.evaluation.score_config import ScoreConfig
from leaderboard.record_format.base import stamp
from leaderboard.record_format.score_record import (
    FOOTNOTE,
    GROUNDED_FOOTNOTE,
    HUMAN,
    SCHEMA_VERSION,
    SYNTHETIC_FOOTNOTE,
    Abstention,
    Answered,
    Edition,
    Grounding,
    MetricEntry,
    Record,
    ScoreEstimates,
)
from milannotations.schema import SPLITS


def to_record(
    evaluation: Evaluation,
    estimates: ScoreEstimates,
    predictions: Predictions,
    *,
    config: ScoreConfig,
    method: str,
    asked: dict[str, Any],
    accounts: Sequence[Mapping[str, Any]] = (),
    abstention: Abstention | None = None,
    left_out: Sequence[str] = (),
    seconds: dict[str, float],
    grounding: Grounding | None = None,
) -> Record:
    """Return the record of a score.

    Args:
        evaluation: the values that were estimated.
        estimates: the estimates.
        predictions: what was scored.
        config: configuration of the score, with the constants filled in.
        method: name, or name@version, of the method.
        asked: arguments of the call.
        accounts: how the descriptions were made.
        abstention: how well units that mean nothing were told from others.
        left_out: metrics that were asked for and need a text model that is not available.
        seconds: time of each metric, and in total.
        grounding: activations and scorer, for a grounded score.
    """
    references, scope = evaluation.references, evaluation.scope
    name, _, version = method.partition("@")
    answered = _answered(predictions, evaluation)
    record = Record(
        schema_version=SCHEMA_VERSION,
        **stamp(),
        kind="agreement" if grounding is None else "grounding",
        method=name,
        version=version or None,
        asked=asked,
        settings={**vars(config), "constants": list(config.constants or ())},
        edition=Edition(
            edition=references.edition,
            config=references.config,
            split=asked["split"] or "+".join(sorted(set(references.splits), key=_split_order)),
            layers=[
                f"{network}/{layer}"
                for (network, layer), members in references.layers.items()
                if scope[members].any()
            ],
            n_units=int(scope.sum()),
            n_descriptions=sum(
                len(texts) for texts, wanted in zip(references.texts, scope, strict=True) if wanted
            ),
            digest=references.digest,
            synthetic=references.synthetic,
        ),
        predictions=answered,
        accounts=[dict(account) for account in accounts],
        metrics={
            name: MetricEntry(
                signature=metric.signature(),
                **{k: v for k, v in metric.spec.to_dict().items() if k != "name"},
            )
            for name, metric in evaluation.metrics.items()
        },
        **vars(estimates),
        abstention=abstention,
        warnings=_warnings(estimates, answered, left_out, grounding),
        footnote=_footnote(references, grounding),
        grounding=grounding,
        seconds={name: round(value, 3) for name, value in seconds.items()},
        files={},
    )
    for metric_name, estimate in record.scores.items():
        reported = references.reported(evaluation.metrics[metric_name].spec.against)
        expected = int((scope & reported).sum())
        if not 0 <= estimate.n_scored <= estimate.n_units == expected <= record.edition.n_units:
            raise AssertionError("scored and unscored units do not add up")
    return record


def _answered(predictions: Predictions, evaluation: Evaluation) -> Answered:
    units = [
        unit
        for unit, wanted in zip(evaluation.references.units, evaluation.scope, strict=True)
        if wanted
    ]
    counts = predictions.counts(units)
    del counts["n_units"]
    return Answered(**counts, layouts=list(predictions.layouts), n_not_text=predictions.n_not_text)


def _warnings(
    estimates: ScoreEstimates,
    answered: Answered,
    left_out: Sequence[str],
    grounding: Grounding | None,
) -> list[str]:
    warnings = []
    if estimates.left_out_of_lift:
        layers = ", ".join(estimates.left_out_of_lift)
        warnings.append(f"Fewer than 10 scored units, so no lift: {layers}.")
    if HUMAN not in estimates.floors and grounding is None:
        warnings.append(
            "No unit has two references, so there are no matched scores and there is no "
            "leave-one-out human."
        )
    if left_out:
        warnings.append(
            f"No text model is available, so {', '.join(left_out)} are left out. Install the "
            "small one: pip install 'milannotations[offline]'."
        )
    if answered.n_not_text:
        warnings.append(
            f"{answered.n_not_text} descriptions are 'nan', 'none' or 'null' and are counted as "
            "failures."
        )
    unscored = {
        "failed": answered.n_failed,
        "abstained": answered.n_abstained,
        "missing": answered.n_missing,
    }
    n_unscored = sum(unscored.values())
    if n_unscored:
        listed = ", ".join(f"{count:,} {status}" for status, count in unscored.items() if count)
        warnings.append(
            f"{n_unscored:,} of {n_unscored + answered.n_ok:,} units have no description "
            f"({listed}): see mean_all."
        )
    return warnings


def _footnote(references: References, grounding: Grounding | None) -> str:
    if grounding is not None:
        return GROUNDED_FOOTNOTE
    return SYNTHETIC_FOOTNOTE if references.synthetic else FOOTNOTE


def _split_order(split: str) -> tuple[int, str]:
    return (SPLITS.index(split) if split in SPLITS else len(SPLITS), split)
