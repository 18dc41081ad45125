"""Choice of lambda, the weight of log p(d), by the lift of descriptions of validation units."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from leaderboard.evaluation import predictions, references
from leaderboard.evaluation.score_config import ScoreConfig
from leaderboard.evaluation.scoring import score

if TYPE_CHECKING:
    from milan import Milan
    from milan.features import Features
    from milan.model import Candidate

LAMBDAS = (0.0, 0.05, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.8)
"""Values of lambda that are tried."""

LAMBDA = 0.2
"""Lambda of the paper, taken where no validation unit has a lift."""

CHOSEN_BY = "rouge-l-allref"
"""Metric whose lift decides: raw overlap would favor 0. All references count, so that units with a
single description are included."""


def search_beams(model: Milan, features: Features) -> list[list[Candidate]]:
    """Return the beam of each unit by likelihood, with both scores of each candidate."""
    values, present = features.tensors()
    return model.describe_features(values, present, strategy="beam").n_best


def best_of_beam(beams: Sequence[Sequence[Any]], lam: float) -> list[str]:
    """Return, for each unit, the candidate with the largest log p(d | E) - lambda log p(d).

    Args:
        beams: candidates of each unit, `Candidate` or the same fields.
        lam: lambda.
    """
    return [
        max(beam, key=lambda c: c.log_p_given_exemplars - lam * (c.log_p or 0.0)).text
        for beam in beams
    ]


def choose_lambda(
    validation: Sequence[tuple[Any, Sequence[Sequence[Any]]]], metric: str = CHOSEN_BY
) -> float:
    """Return the lambda with the largest lift on validation units; the smallest of several.

    Args:
        validation: `datasets.Dataset`s of units with human descriptions, each with the beams of
            its units; lifts are averaged over them.
        metric: name of the metric.
    """
    from baselines.framework.units import unit_keys
    from leaderboard.metrics import build

    built = build([metric])
    lifts_by_lambda: list[list[float]] = []
    for units, beams in validation:
        held_out = references.from_dataset({"validation": units}, edition="held out")
        lifts = []
        for lam in LAMBDAS:
            texts = predictions.from_texts(unit_keys(units), best_of_beam(beams, lam))
            result = score(texts, held_out, built, settings=ScoreConfig(draws=10))
            lifts.append(result.record.scores[metric].lift)
        known = [lift for lift in lifts if lift is not None]
        if len(known) == len(lifts):  # layers of fewer than ten units have no lift
            lifts_by_lambda.append(known)
    if not lifts_by_lambda:
        return LAMBDA
    # Rounded, so that lambdas that choose the same descriptions tie, and argmax takes the first.
    return LAMBDAS[int(np.mean(lifts_by_lambda, axis=0).round(6).argmax())]
