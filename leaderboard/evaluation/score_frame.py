"""DataFrames of a score: one row per metric, and one row per unit and metric."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pandas as pd

from leaderboard.evaluation.estimates import METHOD
from leaderboard.evaluation.metric_values import Evaluation, UnitValues
from leaderboard.record_format.score_record import HUMAN

if TYPE_CHECKING:
    from leaderboard.record_format.score_record import Estimate, Record

SLICES = ("seen", "unseen")
"""Slices of synthetic editions: is the unit's formula among the training units'?"""


def score_frame(record: Record) -> pd.DataFrame:
    """Return a record's scores as a DataFrame, one row per metric.

    Returns:
        Columns: the mean with its interval, `mean_all` (failures at the metric's worst value),
        lift with its interval, the mean of each floor, mean and lift of the leave-one-out human
        (`one_person`, `one_person_lift`), the difference from it with Holm's p, and the number
        of units scored. For synthetic editions also mean and lift within `seen` and `unseen`.
    """
    rows = {}
    for name, estimate in record.scores.items():
        human = record.floors.get(HUMAN, {}).get(name)
        versus = record.versus_person.get(name)
        rows[name] = {
            "mean": estimate.mean,
            "low": estimate.low,
            "high": estimate.high,
            "mean_all": estimate.mean_all,
            "lift": estimate.lift,
            "lift_low": estimate.lift_low,
            "lift_high": estimate.lift_high,
            **{
                floor: _field(estimates.get(name), "mean")
                for floor, estimates in record.floors.items()
                if floor != HUMAN
            },
            "one_person": _field(human, "mean"),
            "one_person_lift": _field(human, "lift"),
            "versus_person": versus.difference if versus else None,
            "versus_person_p": versus.p_holm if versus else None,
            "n_scored": estimate.n_scored,
            "n_units": estimate.n_units,
            **{
                f"{part}_{field}": _field(record.slices[part].get(name), field)
                for part in SLICES
                for field in ("mean", "lift")
                if record.edition.synthetic and part in record.slices
            },
        }
    frame = pd.DataFrame.from_dict(rows, orient="index")
    frame.index.name = "metric"
    return frame


def unit_frame(evaluation: Evaluation) -> pd.DataFrame:
    """Return the method's values as a DataFrame, one row per unit and metric.

    Returns:
        Columns `network`, `layer`, `unit`, `metric`, `value` and `lift` (NaN where there is none).
    """
    parts = []
    keys = pd.DataFrame(evaluation.references.units, columns=["network", "layer", "unit"])
    for name, systems in evaluation.values.items():
        values = systems[METHOD]
        if isinstance(values, UnitValues):
            chosen = evaluation.answered & values.scored
            part = keys[chosen].copy()
            part["metric"] = name
            part["value"], part["lift"] = values.values[chosen], values.lifts[chosen]
            parts.append(part)
    if not parts:
        parts = [keys[:0].assign(metric="", value=0.0, lift=0.0)]
    return pd.concat(parts, ignore_index=True)


def _field(estimate: Estimate | None, name: str) -> float | None:
    return None if estimate is None else getattr(estimate, name)
