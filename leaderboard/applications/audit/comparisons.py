"""Comparisons of an audit: flagged units by network, between two networks, and over pairs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from leaderboard import statistics
from leaderboard.applications.audit.config import AuditConfig, NetworkPair
from leaderboard.evaluation.predictions import Predictions
from milannotations.schema import Unit

if TYPE_CHECKING:
    import pandas as pd

Flags = Mapping[Unit, list[str]]
"""Words that the description of each unit contains; a unit with any is flagged."""

ONLY_THESE = "about these two networks only"
"""Scope of a test over the units of two networks."""


def count_flagged(flags_by_group: Mapping[str, Flags]) -> pd.DataFrame:
    """Count the flagged units of each layer and of each network, with 95 % intervals of the share.

    Args:
        flags_by_group: flags of each list of words, by its name.

    Returns:
        Columns group, network, layer, flagged, units, share_low, share_high; layer "" is the whole
        network.
    """
    import pandas as pd

    rows = []
    for group, flags in flags_by_group.items():
        hits_by_layer: dict[tuple[str, str], list[bool]] = {}
        for unit, words in flags.items():
            for layer in (unit.layer, ""):
                hits_by_layer.setdefault((unit.network, layer), []).append(bool(words))
        for (network, layer), hits in hits_by_layer.items():
            low, high = statistics.share_interval(sum(hits), len(hits))
            rows.append((group, network, layer, sum(hits), len(hits), low, high))
    names = ["group", "network", "layer", "flagged", "units", "share_low", "share_high"]
    return pd.DataFrame(rows, columns=names)


def list_flagged(
    flags_by_group: Mapping[str, Flags],
    predictions: Predictions,
    selectivity: Mapping[Unit, float],
) -> pd.DataFrame:
    """List the flagged units with their descriptions, words and measured selectivity."""
    import pandas as pd

    rows = []
    for group, flags in flags_by_group.items():
        for unit, words in flags.items():
            if words and (row := predictions.first(unit)) is not None:
                rows.append((group, *unit, row.description, " ".join(words), selectivity.get(unit)))
    names = ["group", "network", "layer", "unit", "description", "words", "selectivity"]
    return pd.DataFrame(rows, columns=names)


def summarize_group(
    group: str,
    flags: Flags,
    counts: pd.DataFrame,
    pairs: Sequence[NetworkPair],
    config: AuditConfig,
    selectivity: Mapping[Unit, float],
) -> dict[str, Any]:
    """Return the results of one list of words, as the record holds them.

    Args:
        group: name of the list.
        flags: flags by its words.
        counts: see `count_flagged`.
        pairs: networks to compare.
        config: words, seed, draws.
        selectivity: measured selectivity, of networks for which it is known.
    """
    # Intervals of the table are of shares; the record holds them as numbers of units.
    networks: dict[str, Any] = {}
    for row in counts[counts.group == group].itertuples():
        entry = {
            "flagged": row.flagged,
            "units": row.units,
            "low": row.share_low * row.units,
            "high": row.share_high * row.units,
        }
        network = networks.setdefault(row.network, {"layers": {}})
        if row.layer:
            network["layers"][row.layer] = entry
        else:
            network.update(entry)
    for name, network in networks.items():
        network["by_word"] = {
            word: sum(word in words for unit, words in flags.items() if unit.network == name)
            for word in config.words[group]
        }
    summary: dict[str, Any] = {
        "networks": networks,
        "pairs": [_compare_pair(pair, flags, config, i) for i, pair in enumerate(pairs)],
        "training_data": None,
    }
    if len(pairs) > 1:
        summary["training_data"] = _test_pairs([entry["difference"] for entry in summary["pairs"]])
    if selectivity:
        summary["measured"] = _compare_with_measured(flags, pairs, config.at, selectivity)
    return summary


def adjust_p_values(groups: Mapping[str, dict[str, Any]]) -> None:
    """Add Holm-adjusted p-values, within the tests on training data and those on two networks."""
    over_pairs = [entry["training_data"] for entry in groups.values() if entry["training_data"]]
    over_units = [pair for entry in groups.values() for pair in entry["pairs"]]
    # Two families, because the two kinds of tests answer different questions.
    for family in (over_pairs, over_units):
        adjusted = statistics.holm([entry["p"] for entry in family])
        for entry, p in zip(family, adjusted, strict=True):
            entry["p_holm"] = p


def _compare_pair(
    pair: NetworkPair, flags: Flags, config: AuditConfig, index: int
) -> dict[str, Any]:
    """Compare two networks: exact permutation test, and bootstrap interval over units."""
    hits: list[dict[str, list[bool]]] = []
    for name in pair:
        by_layer: dict[str, list[bool]] = {}
        for unit, words in flags.items():
            if unit.network == name:
                by_layer.setdefault(unit.layer, []).append(bool(words))
        hits.append(by_layer)
    # Units are exchanged within layers if both networks have the same ones, else within networks.
    if list(hits[0]) != list(hits[1]):
        hits = [{"": [hit for layer in by_layer.values() for hit in layer]} for by_layer in hits]
    strata = [
        (sum(hits[0][layer]), len(hits[0][layer]), sum(hits[1][layer]), len(hits[1][layer]))
        for layer in hits[0]
    ]
    # To resample n units of which f are flagged is to draw their number from Binomial(n, f / n).
    rng = np.random.default_rng([config.seed, index])
    differences = np.zeros(config.draws)
    for flagged, size, other_flagged, other_size in strata:
        differences += rng.binomial(size, flagged / size, config.draws)
        differences -= rng.binomial(other_size, other_flagged / other_size, config.draws)
    low, high = statistics.interval(differences)
    first, second = (sum(stratum[i] for stratum in strata) for i in (0, 2))
    return {
        "networks": list(pair),
        "flagged": [first, second],
        "difference": first - second,
        "low": float(low),
        "high": float(high),
        "p": statistics.label_permutation_p(strata),
        "strata": "layers" if "" not in hits[0] else "all units",
        "about": ONLY_THESE,
    }


def _test_pairs(differences: Sequence[float]) -> dict[str, Any]:
    """Test differences of pairs: exact sign-flip test, and t interval of the mean."""
    low, high = statistics.mean_interval(differences)
    return {
        "n_pairs": len(differences),
        "differences": list(differences),
        "mean": float(np.mean(differences)),
        "low": low,
        "high": high,
        "p": statistics.sign_flip_p(differences),
        "p_two_sided": statistics.sign_flip_p(differences, one_sided=False),
        "smallest_p": 2.0 ** -len(differences),
        "about": "the training data, over pairs of networks",
    }


def _compare_with_measured(
    flags: Flags, pairs: Sequence[NetworkPair], at: float, selectivity: Mapping[Unit, float]
) -> dict[str, Any]:
    """Return precision and recall of flags for units with measured selectivity from `at` on."""
    networks: dict[str, dict[str, Any]] = {}
    for name in dict.fromkeys(unit.network for unit in flags if unit in selectivity):
        # units without a measurement count neither as correct nor as wrong
        units = [unit for unit in flags if unit.network == name and unit in selectivity]
        flagged = np.array([bool(flags[unit]) for unit in units])
        selective = np.array([selectivity[unit] >= at for unit in units])
        counts = {
            "units": len(units),
            "selective": int(selective.sum()),
            "flagged": int(flagged.sum()),
            "both": int((flagged & selective).sum()),
        }
        networks[name] = {**counts, **_precision_recall(counts)}
    total = {
        key: sum(entry[key] for entry in networks.values())
        for key in ("units", "selective", "flagged", "both")
    }
    differences = [
        networks[first]["selective"] - networks[second]["selective"]
        for first, second in pairs
        if {first, second} <= set(networks)
    ]
    return {
        "at": at,
        "networks": networks,
        "all": {**total, **_precision_recall(total)},
        "training_data": _test_pairs(differences) if len(differences) > 1 else None,
    }


def _precision_recall(counts: Mapping[str, int]) -> dict[str, float | None]:
    both, flagged, selective = counts["both"], counts["flagged"], counts["selective"]
    return {
        "precision": both / flagged if flagged else None,
        "recall": both / selective if selective else None,
    }
