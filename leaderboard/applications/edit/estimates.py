"""Estimates of an edit: gains of each arm on one network, and their means over networks."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from leaderboard import statistics
from leaderboard.applications.common.ablated_accuracy import AblatedNetwork
from leaderboard.applications.edit.arms import Arm
from milannotations.schema import Unit


def summarize_network(
    network: AblatedNetwork, arms: Sequence[Arm], placebos: Sequence[Arm]
) -> dict[str, Any]:
    """Return the results of one network's arms, as the record holds them."""
    before = next(arm for arm in arms if arm.name == "no edit")
    gains = {
        name: [_gain(arm, before) for arm in placebos if arm.name == name]
        for name in ("placebo", "oracle placebo")
    }
    entries: dict[str, Any] = {}
    for arm in arms:
        controls = gains["oracle placebo" if arm.name == "oracle" else "placebo"]
        entry = _summarize_arm(arm, before, controls)
        if arm.name == "shuffled":  # one entry per draw
            entries.setdefault("shuffled", []).append(entry)
        else:
            entries[arm.name] = entry
    return {
        "network": network.name,
        "seed": network.seed,
        "before": {"accuracy": before.accuracy, "by_class": before.by_class},
        "arms": entries,
        "placebos": {
            "gains": gains["placebo"],
            "losses": [_loss(arm, before) for arm in placebos if arm.name == "placebo"],
            "deleted": [arm.chosen for arm in placebos if arm.name == "placebo"],
        },
        "oracle_placebos": {"gains": gains["oracle placebo"]},
    }


def combine_networks(replicates: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Return the means of each arm over networks, with intervals, and p over all of them.

    Args:
        replicates: results of each network; see `summarize_network`.
    """
    combined: dict[str, Any] = {}
    for name in replicates[0]["arms"]:
        # an arm has one entry per network, or a list of them, one per draw
        entries = [replicate["arms"][name] for replicate in replicates]
        estimates: dict[str, Any] = {}
        for key in ("gain", "loss", "specificity", "control", "above_control"):
            estimates[key] = _estimate_mean(
                [
                    float(np.mean([draw[key] for draw in entry]))
                    if isinstance(entry, list)
                    else entry[key]
                    for entry in entries
                ]
            )
        if isinstance(entries[0], list):
            estimates["p_each"] = [draw["p"] for entry in entries for draw in entry]
        else:
            control = "oracle_placebos" if name == "oracle" else "placebos"
            estimates["p"] = _combined_p(
                [entry["gain"] for entry in entries],
                [replicate[control]["gains"] for replicate in replicates],
            )
            estimates["p_each"] = [entry["p"] for entry in entries]
        combined[name] = estimates
    return combined


def rank_p(value: float, controls: Sequence[float]) -> float:
    """Return the rank p: (1 + controls at least as large) / (1 + controls); 1 without controls.

    Example:
        >>> rank_p(0.3, [0.1, 0.2, 0.3, 0.0])
        0.4
    """
    # 1e-12: a control that is equal but for rounding counts as a tie, against the arm
    return (1 + sum(control >= value - 1e-12 for control in controls)) / (1 + len(controls))


def summarize_flags(
    network: AblatedNetwork, flags: Mapping[Unit, Sequence[str]], at: float
) -> dict[str, Any]:
    """Return the number of flagged units by layer, with precision and recall where known.

    Args:
        network: the network.
        flags: words that the description of each unit contains.
        at: least share of exemplar masks in the cue of the units that should be flagged.
    """
    flagged = [unit for unit in network.units if flags[unit]]
    by_layer = {layer: sum(u.layer == layer for u in flagged) for layer in network.widths}
    summary: dict[str, Any] = {"flagged": len(flagged), "by_layer": by_layer}
    if network.mask_shares is not None:
        shares = network.mask_shares
        positive = {unit for unit in network.units if shares[unit] >= at}
        correct = len(positive & set(flagged))
        summary |= {
            "measured": len(positive),
            "precision": correct / len(flagged) if flagged else None,
            "recall": correct / len(positive) if positive else None,
        }
    return summary


def _summarize_arm(arm: Arm, before: Arm, controls: Sequence[float]) -> dict[str, Any]:
    gain, loss = _gain(arm, before), _loss(arm, before)
    control = float(np.mean(controls)) if controls else 0.0
    return {
        "flagged": len(arm.units),
        "deleted": arm.chosen,
        "deleted_by_layer": dict(sorted(Counter(unit.layer for unit in arm.ablated).items())),
        "counts": arm.counts,
        "validation": arm.validation,
        "accuracy": arm.accuracy,
        "by_class": arm.by_class,
        "gain": gain,
        "loss": loss,
        "specificity": gain - loss,
        "control": control,
        "above_control": gain - control,
        "p": rank_p(gain, controls),
    }


def _gain(arm: Arm, before: Arm) -> float:
    """Return the accuracy gained on test images with wrong names."""
    return arm.accuracy["test-conflict"] - before.accuracy["test-conflict"]


def _loss(arm: Arm, before: Arm) -> float:
    """Return the accuracy lost on test images without text, averaged over classes."""
    # averaged over classes, so that a class that is lost whole shows however few images it has
    losses = np.subtract(before.by_class["test-clean"], arm.by_class["test-clean"])
    return float(np.nanmean(losses))


def _combined_p(gains: Sequence[float], controls: Sequence[Sequence[float]]) -> float:
    """Return the rank p of the mean gain over networks among means of placebos.

    Placebos of different networks are drawn independently, so the mean over networks of each
    one's i-th placebo is a draw of the mean gain under the null hypothesis. A network without
    flags adds 0 to both.
    """
    draws = max((len(control) for control in controls), default=0)
    if not draws:
        return 1.0
    filled = [control if len(control) else [0.0] * draws for control in controls]
    return rank_p(float(np.mean(gains)), np.mean(filled, axis=0).tolist())


def _estimate_mean(values: Sequence[float]) -> dict[str, Any]:
    low, high = statistics.mean_interval(values)
    return {"mean": float(np.mean(values)), "low": low, "high": high, "each": list(values)}
