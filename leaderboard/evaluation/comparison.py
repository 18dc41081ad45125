"""Comparison of two methods on the units that both describe."""

from __future__ import annotations

from typing import TYPE_CHECKING

from leaderboard import statistics
from leaderboard.evaluation.scoring import Score
from milannotations.errors import InputError

if TYPE_CHECKING:
    import pandas as pd


def compare(ours: Score, theirs: Score, *, seed: int = 0, draws: int = 1000) -> pd.DataFrame:
    """Return the paired difference of two scores, one metric per row.

    Args:
        ours, theirs: scores of two methods against the same references.
        seed: random seed of the bootstrap over units.
        draws: number of resamples.

    Returns:
        Columns `ours`, `theirs` (means over the units that both describe), `difference`,
        `low`, `high` (95 %), `p`, `p_holm` (over the metrics shown) and `n`. Corpus
        metrics, which have no value per unit, and diversity are left out.

    Raises:
        InputError: other references, other signatures of a metric, or nothing in common.

    Example:
        >>> from leaderboard import run_methods
        >>> run = run_methods.run("mini", ["constant"], metrics=["rouge-l"])["constant"]
        >>> compare(run, run).loc["rouge-l", "difference"]
        np.float64(0.0)
    """
    import pandas as pd

    if ours.record.edition.digest != theirs.record.edition.digest:
        raise InputError(
            "The two methods were scored against other references. Score both on the same ones."
        )
    keys = ["network", "layer", "unit", "metric"]
    both = ours.units.merge(theirs.units, on=keys, suffixes=("_ours", "_theirs"))
    rows = {}
    for name, part in both.groupby("metric", sort=False):
        if ours.record.metrics[name].family == "diversity":
            continue  # the share of distinct strings is a property of a whole file
        signatures = [score.record.metrics[name].signature for score in (ours, theirs)]
        if signatures[0] != signatures[1]:
            raise InputError(
                f"{name} was computed in two ways: {signatures[0]} and {signatures[1]}."
            )
        difference = (part.value_ours - part.value_theirs).to_numpy()
        weights = statistics.bootstrap_weights(len(difference), draws, seed)
        resampled = statistics.resampled_means(difference, weights)
        low, high = statistics.interval(resampled)
        rows[name] = {
            "ours": part.value_ours.mean(),
            "theirs": part.value_theirs.mean(),
            "difference": difference.mean(),
            "low": float(low),
            "high": float(high),
            "p": statistics.two_sided_p(resampled),
            "n": len(part),
        }
    if not rows:
        raise InputError("The two methods have no described unit and metric in common.")
    frame = pd.DataFrame.from_dict(rows, orient="index")
    frame.insert(6, "p_holm", statistics.holm(frame["p"].tolist()))
    frame.index.name = "metric"
    return frame
