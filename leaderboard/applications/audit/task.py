"""Audit of the units that are described with words that should not matter, such as faces.

Hernandez et al. 2022, section 6: classifiers trained on images with blurred faces have fewer units
that are described as faces. What may be claimed depends on what was compared:

- one network: counts, with intervals;
- two networks: an exact permutation test over units, about these two networks only;
- several pairs of networks that differ in their training data alone, such as seeds or
  architectures: an exact sign-flip test over the pairs, about the training data. The smallest p of
  n pairs is 2 to the power of -n, so at least five pairs are needed for p below .05.

Exemplars should come from the same images for all networks, and from unblurred ones, as in the
paper: on blurred images no unit has faces that could be described.

p-values are Holm-adjusted within one audit, separately for the tests on training data (one per list
of words) and those on two networks (one per list of words and pair).
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from leaderboard import statistics
from leaderboard.applications.audit.comparisons import (
    ONLY_THESE,
    adjust_p_values,
    count_flagged,
    list_flagged,
    summarize_group,
)
from leaderboard.applications.audit.config import PRESETS, AuditConfig, NetworkPair
from leaderboard.applications.common import keyword_flags
from leaderboard.applications.common.task_result import TaskInfo, TaskResult, create_record
from leaderboard.evaluation.predictions import Predictions
from leaderboard.record_format.application_record import Number
from milannotations.errors import InputError, some
from milannotations.schema import Unit

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.figure import Figure

PAPER = {"unblurred": 213, "blurred": 142}
"""Face units of all 12 architectures, counted by eye (Hernandez et al. 2022, section 6)."""

FOOTNOTE = (
    "Counts are of descriptions, not of what units respond to; check the contact sheet. A "
    "permutation test over units is about these two networks only; a claim about training data "
    "needs a test over pairs."
)


@dataclass(frozen=True)
class Audit(TaskResult):
    """Result of `audit`.

    Attributes:
        flagged: the flagged units, `flagged.csv`.
        exemplars: units with images (`datasets.Dataset`) by network, for contact sheets of the
            flagged ones.
    """

    flagged: pd.DataFrame
    exemplars: Mapping[str, Any]

    def draw(self) -> Figure:
        from leaderboard.applications.audit.figure import draw_counts

        return draw_counts(self.record, self.curves)

    def files(self) -> dict[str, bytes]:
        from leaderboard.applications.audit.flagged_sheets import encode_sheet

        files = {"flagged.csv": self.flagged.to_csv(index=False).encode()}
        seed = self.record.settings["seed"]
        for name, units in self.exemplars.items():
            flagged = self.flagged[self.flagged.network == name]
            if (sheet := encode_sheet(units, flagged, seed)) is not None:
                files[f"sheet-{name}.png"] = sheet
        return files


def audit(
    predictions: Predictions,
    units: Sequence[Unit] | None = None,
    *,
    pairs: Sequence[NetworkPair] = (),
    config: AuditConfig | None = None,
    selectivity: Mapping[Unit, float] | None = None,
    networks: Mapping[str, Mapping[str, Any]] | None = None,
    images: Mapping[str, Mapping[str, Any]] | None = None,
    exemplars: Mapping[str, Any] | None = None,
    info: TaskInfo | None = None,
) -> Audit:
    """Flag the units described with given words, and compare networks.

    Args:
        predictions: descriptions of units of any networks; only those of rank 1 are used.
        units: all units of the networks; one without a description is not flagged, and a
            description of another unit is an error. None takes the units of the predictions.
        pairs: networks to compare; the claim is that the first of each has more flagged units.
        config: see `AuditConfig`.
        selectivity: measured selectivity, such as the share of a unit's active area inside faces,
            of the networks for which it is known; flags get precision and recall.
        networks, images: what the networks and the images of their exemplars are, for the record.
        exemplars: units with images (`datasets.Dataset`) by network, for contact sheets.
        info: what the record says about the run.

    Raises:
        InputError: predictions of units that the networks lack; a pair with a network that has no
            predictions.

    Example:
        >>> from leaderboard.evaluation.predictions import from_texts
        >>> units = [Unit("n", "conv1", i) for i in range(4)]
        >>> result = audit(from_texts(units, ["the face of a dog", "faces", "surfaces", "grass"]))
        >>> result.record.number.value, result.flagged.unit.tolist()
        (2.0, [0, 1])
    """
    start = time.perf_counter()
    config, info = config or AuditConfig(), info or TaskInfo()
    if units is None:
        units = predictions.units
    widths = _count_units(units)
    keyword_flags.check_units(predictions, units)
    _check_pairs(pairs, widths)
    flags_by_group = {
        group: keyword_flags.flag_units(predictions, units, words, config.matching)
        for group, words in config.words.items()
    }
    counts = count_flagged(flags_by_group)
    selectivity = selectivity or {}
    groups = {
        group: summarize_group(group, flags, counts, pairs, config, selectivity)
        for group, flags in flags_by_group.items()
    }
    adjust_p_values(groups)
    first = next(iter(groups))
    warnings = [
        f"No description contains any of: {', '.join(config.words[group])}."
        for group, flags in flags_by_group.items()
        if not any(flags.values())
    ]
    if 2 <= len(pairs) < 5:
        warnings.append(
            f"The smallest possible p of {len(pairs)} pairs is {2.0 ** -len(pairs):.3g}; more "
            "units do not lower it, more pairs do."
        )
    # a caller from Python has no command line to record
    asked = info.asked or {"pairs": [list(pair) for pair in pairs]}
    record = create_record(
        "audit",
        predictions,
        units,
        replace(info, asked=asked),
        start=start,
        number=_headline_number(first, groups[first], pairs, config),
        settings={**vars(config), "words": {k: list(v) for k, v in config.words.items()}},
        networks=networks or {name: {"units": dict(layers)} for name, layers in widths.items()},
        images=images or {},
        results={
            "groups": groups,
            "paper": PAPER if tuple(pairs) == PRESETS["milan2022"] else None,
        },
        warnings=warnings,
        footnote=FOOTNOTE,
    )
    flagged = list_flagged(flags_by_group, predictions, selectivity)
    return Audit(record, counts, predictions, flagged, exemplars or {})


def _count_units(units: Sequence[Unit]) -> dict[str, dict[str, int]]:
    """Return the number of units of each layer, by network."""
    counts: dict[str, dict[str, int]] = {}
    for unit in units:
        layers = counts.setdefault(unit.network, {})
        layers[unit.layer] = layers.get(unit.layer, 0) + 1
    return counts


def _check_pairs(pairs: Sequence[NetworkPair], networks: Mapping[str, Any]) -> None:
    names = [name for pair in pairs for name in pair]
    missing = [name for name in names if name not in networks]
    if missing:
        raise InputError(
            f"There are no predictions for {some(missing)} (networks: {some(networks)}). Give the "
            "files of all networks of the pairs."
        )
    if len(set(names)) < len(names):
        raise InputError("A network is in two pairs; expected each network in one pair.")


def _headline_number(
    group: str, results: Mapping[str, Any], pairs: Sequence[NetworkPair], config: AuditConfig
) -> Number:
    """Return the mean difference of pairs, the difference of one pair, or the flagged units."""
    words = ", ".join(config.words[group])
    # The strongest claim that the comparisons allow comes first.
    if test := results["training_data"]:
        return Number(
            # a key of the leaderboard, which puts records of one name in one table
            name=f"flagged units, first less second of a pair ({group})",
            value=test["mean"],
            low=_finite_or_none(test["low"]),
            high=_finite_or_none(test["high"]),
            control=0.0,
            p=test["p_holm"],
            n=test["n_pairs"],
            over="pairs of networks",
            says=f"On average {test['mean']:.1f} more units of the first network of a pair are "
            f"described with {words} (exact sign-flip test over {test['n_pairs']} pairs, "
            f"one-sided p = {test['p']:.3g}, Holm-adjusted {test['p_holm']:.3g}).",
        )
    if pairs:
        pair = results["pairs"][0]
        return Number(
            name=f"flagged units, first less second ({group})",
            value=float(pair["difference"]),
            low=pair["low"],
            high=pair["high"],
            control=0.0,
            p=pair["p_holm"],
            n=sum(results["networks"][name]["units"] for name in pairs[0]),
            over="units",
            says=f"{pairs[0][0]} has {pair['flagged'][0]} units described with {words}, "
            f"{pairs[0][1]} has {pair['flagged'][1]} (exact permutation test, p = "
            f"{pair['p']:.3g}): {ONLY_THESE}.",
        )
    flagged = sum(entry["flagged"] for entry in results["networks"].values())
    units = sum(entry["units"] for entry in results["networks"].values())
    low, high = (_finite_or_none(end * units) for end in statistics.share_interval(flagged, units))
    return Number(
        name=f"flagged units ({group})",
        value=float(flagged),
        low=low,
        high=high,
        control=None,
        p=None,
        n=units,
        over="units",
        says=f"{flagged} of {units} units are described with {words}.",
    )


def _finite_or_none(value: float) -> float | None:
    return float(value) if np.isfinite(value) else None
