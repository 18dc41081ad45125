"""Abstention: how well units that mean nothing are told from units that mean something."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from leaderboard.evaluation.references import Descriptions, Mask, References
from leaderboard.metrics.truth import means_nothing
from leaderboard.record_format.score_record import Abstained, Abstention


def measure_abstention(
    references: References, scope: Mask, descriptions: Descriptions, abstained: Mask
) -> Abstention | None:
    """Measure abstention on units that mean nothing and on units that mean something.

    Args:
        references: references with truths.
        scope: units in question (n,).
        descriptions: the method's description of each unit.
        abstained: units (n,) on which the method abstained by status.

    Returns:
        None unless units of both kinds are in scope.
    """
    meaningful = scope & references.meaningful
    meaningless = scope & references.has_truth & ~references.meaningful
    if not meaningful.any() or not meaningless.any():
        return None

    def shares(abstains: Mask, among: Mask) -> Abstained | None:
        right, wrong = (abstains[kind & among] for kind in (meaningless, meaningful))
        if not len(right) or not len(wrong):
            return None
        return _abstained(float(right.mean()), float(wrong.mean()))

    everywhere = np.ones(len(references.units), dtype=bool)
    method = shares(abstained | _says_nothing(descriptions), everywhere)
    never = shares(~everywhere, everywhere)
    assert method is not None
    assert never is not None
    annotators = []
    for k in range(max(map(len, references.texts))):
        texts = [members[k] if len(members) > k else None for members in references.texts]
        answered = np.array([text is not None for text in texts])
        annotator = shares(_says_nothing(texts), answered)
        if annotator is not None:
            annotators.append(annotator)
    return Abstention(
        n_meaningless=int(meaningless.sum()),
        n_meaningful=int(meaningful.sum()),
        method=method,
        never=never,
        person=_mean(annotators) if annotators else None,
    )


def _says_nothing(texts: Descriptions) -> Mask:
    """Return the units (n,) whose description says that there is nothing to describe."""
    return np.array([text is not None and means_nothing(text) for text in texts])


def _abstained(right: float, wrong: float) -> Abstained:
    return Abstained(right=right, wrong=wrong, balanced_accuracy=(right + 1 - wrong) / 2)


def _mean(annotators: Sequence[Abstained]) -> Abstained:
    return _abstained(
        float(np.mean([annotator.right for annotator in annotators])),
        float(np.mean([annotator.wrong for annotator in annotators])),
    )
