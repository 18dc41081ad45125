"""Abstention: who says that a unit means nothing, of units that do and of units that do not."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from pydantic import BaseModel, ConfigDict, FiniteFloat

from leaderboard.evaluation.reference_views import Answers, Mask
from leaderboard.evaluation.references import References
from leaderboard.metrics.truth import means_nothing


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid")


class Abstained(_Strict):
    """Shares of units of which it is said that they mean nothing: rightly, and wrongly.

    `balanced_accuracy` is the mean of the share that is right and of one less the share that
    is wrong; .5 is what never abstaining, always abstaining and a coin have.
    """

    right: FiniteFloat
    wrong: FiniteFloat
    balanced_accuracy: FiniteFloat


class Abstention(_Strict):
    """Abstention on units that mean nothing, beside that on units that mean something.

    An answer that says in words that there is nothing to describe counts as abstaining.
    `never` is the floor; `person` is one simulated annotator, averaged over which.
    """

    n_meaningless: int
    n_meaningful: int
    method: Abstained
    never: Abstained
    person: Abstained | None


def measure(known: References, scope: Mask, answers: Answers, abstained: Mask) -> Abstention | None:
    """Return how well units that mean nothing were told from the others.

    Args:
        known: references with truths.
        scope: units in question.
        answers: what the method said of each unit.
        abstained: units on which it abstained by status.

    Returns:
        None where the units in question are not known to be of both kinds.
    """
    means = scope & known.meaningful
    nothing = scope & known.known & ~known.meaningful
    if not means.any() or not nothing.any():
        return None

    def shares(says: Mask, among: Mask) -> Abstained | None:
        right, wrong = (says[part & among] for part in (nothing, means))
        if not len(right) or not len(wrong):
            return None
        return _abstained(float(right.mean()), float(wrong.mean()))

    everyone = np.ones(len(known.units), dtype=bool)
    method = shares(abstained | _said(answers), everyone)
    never = shares(~everyone, everyone)
    assert method is not None
    assert never is not None
    people = []
    for k in range(max(map(len, known.texts))):
        texts = [t[k] if len(t) > k else None for t in known.texts]
        found = shares(_said(texts), np.array([text is not None for text in texts]))
        people += [found] if found else []
    return Abstention(
        n_meaningless=int(nothing.sum()),
        n_meaningful=int(means.sum()),
        method=method,
        never=never,
        person=_mean(people) if people else None,
    )


def _said(texts: Answers) -> Mask:
    return np.array([text is not None and means_nothing(text) for text in texts])


def _abstained(right: float, wrong: float) -> Abstained:
    return Abstained(right=right, wrong=wrong, balanced_accuracy=(right + 1 - wrong) / 2)


def _mean(people: Sequence[Abstained]) -> Abstained:
    share: Callable[[str], float] = lambda what: float(np.mean([getattr(p, what) for p in people]))  # noqa: E731
    return _abstained(share("right"), share("wrong"))
