"""Audit: which units are described with words that should not matter, such as faces.

Hernandez et al. 2022, section 6: classifiers trained on pictures with blurred faces have fewer
units that are described as faces. What may be claimed depends on what was looked at:

- one network: counts, with intervals;
- two networks: an exact permutation test over units, which speaks of these two networks only;
- several pairs of networks, such as seeds or architectures, alike but for their training data: an
  exact sign-flip test over the pairs, which speaks of the training data. Of n pairs its smallest
  p is 2 to the power of -n: five are the least that can come below .05.

Exemplars are to be of the same pictures for all networks, and unblurred ones, as in the paper: on
blurred pictures no unit has faces to be described.

Holm's correction is within a call, and among claims of a kind: those on training data, a list of
words each, and those on two networks, a list of words and pair each.
"""

from __future__ import annotations

import os
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from leaderboard import statistics
from leaderboard.applications.audit.config import PRESETS, AuditConfig, NetworkPair
from leaderboard.applications.common import keyword_flags
from leaderboard.evaluation.predictions import Predictions
from leaderboard.record_format import application_record as outcome
from leaderboard.record_format.application_record import ApplicationRecord, Number
from milannotations.errors import InputError, some
from milannotations.schema import Unit

if TYPE_CHECKING:
    import pandas as pd

Sizes = Mapping[str, Mapping[str, int]]

PAPER = {"unblurred": 213, "blurred": 142}
"""Face units of all 12 architectures, by eye (Hernandez et al. 2022, section 6)."""

ONLY_THESE = "about these two networks only"
FOOTNOTE = (
    "Counts are of descriptions, not of what units do; look at the sheet. A permutation test over "
    "units speaks of the two networks at hand only; a claim about training data is over pairs."
)


@dataclass(frozen=True)
class Audit:
    """An audit that was made: its outcome, its counts as a table, its figure, what is flagged."""

    outcome: ApplicationRecord
    counts: pd.DataFrame
    flagged: pd.DataFrame
    predictions: Predictions

    def save(
        self, folder: str | os.PathLike[str], exemplars: Mapping[str, Any] | None = None
    ) -> ApplicationRecord:
        """Write the outcome's folder; see `outcome.save`.

        Args:
            folder: where.
            exemplars: units with pictures (`datasets.Dataset`) by network, for the sheet of
                flagged units.
        """
        from leaderboard.applications.audit import flagged_sheets
        from leaderboard.applications.audit.figure import draw
        from leaderboard.applications.common.figures import encode_figure

        files = {
            **encode_figure(draw(self.outcome, self.counts)),
            "flagged.csv": self.flagged.to_csv(index=False).encode(),
        }
        seed = self.outcome.settings["seed"]
        for name, units in (exemplars or {}).items():
            own = self.flagged[self.flagged.network == name]
            if (sheet := flagged_sheets.flagged(units, own, seed)) is not None:
                files[f"sheet-{name}.png"] = sheet
        return outcome.save(
            folder,
            self.outcome,
            curves=self.counts,
            predictions=self.predictions,
            files=files,
        )


def audit(
    predictions: Predictions,
    units: Sequence[Unit] | None = None,
    *,
    pairs: Sequence[NetworkPair] = (),
    settings: AuditConfig | None = None,
    selectivity: Mapping[Unit, float] | None = None,
    method: str = "descriptions",
    data: str = "",
    asked: Mapping[str, Any] | None = None,
    networks: Mapping[str, Mapping[str, Any]] | None = None,
    images: Mapping[str, Mapping[str, Any]] | None = None,
    synthetic: bool = False,
    seconds: Mapping[str, float] | None = None,
) -> Audit:
    """Return which units are described with given words, and how networks differ in that.

    Args:
        predictions: of one network or several; rank 1 is read.
        units: all that are in question; what is predicted beyond them is an error, and what is
            not predicted is not flagged. None takes the units that are predicted.
        pairs: networks to compare; the claim is that the first of each has more flagged units.
        settings: words, matching, seeds.
        selectivity: measured, such as the share of where a unit is active that lies in faces, of
            units of networks for which it is known: the flag's precision and recall.
        method: name, or name@version, of what described the units.
        data: what the networks are of, for the record.
        asked, networks, images: for the record.
        synthetic: the networks are of the mini world.
        seconds: what came before took, for the record.

    Raises:
        InputError: predictions of units that the networks do not have; a pair of a network that
            has no predictions.

    Example:
        >>> from leaderboard.evaluation.predictions import from_texts
        >>> units = [Unit("n", "conv1", i) for i in range(4)]
        >>> made = audit(from_texts(units, ["the face of a dog", "faces", "surfaces", "grass"]))
        >>> made.outcome.number.value, made.flagged.unit.tolist()
        (2.0, [0, 1])
    """
    began = time.perf_counter()
    settings = settings or AuditConfig()
    if units is None:
        units = predictions.units
    sizes = _sizes_of(units)
    keyword_flags.check_units(predictions, units)
    _check_pairs(pairs, sizes)
    by_group = {
        group: keyword_flags.flagged(predictions, units, words, settings.matching)
        for group, words in settings.words.items()
    }
    counts = _counts(by_group)
    groups = {
        group: _group(group, found, counts, pairs, settings, selectivity or {})
        for group, found in by_group.items()
    }
    _adjust(groups)
    first = next(iter(groups))
    warnings = [
        f"No description holds any of: {', '.join(settings.words[group])}."
        for group, found in by_group.items()
        if not any(found.values())
    ]
    if 2 <= len(pairs) < 5:
        warnings.append(
            f"Of {len(pairs)} pairs the smallest p is {2.0 ** -len(pairs):.3g}: no number of "
            "units makes up for pairs."
        )
    made = outcome.create(
        "audit",
        method=method,
        data=data,
        number=_number(first, groups[first], pairs, settings),
        asked=asked or {"pairs": [list(pair) for pair in pairs]},
        settings={**vars(settings), "words": {k: list(v) for k, v in settings.words.items()}},
        networks=networks or {name: {"units": dict(layers)} for name, layers in sizes.items()},
        images=images or {},
        results={
            "groups": groups,
            "paper": PAPER if tuple(pairs) == PRESETS["milan2022"] else None,
        },
        seconds={**(seconds or {}), "audit": time.perf_counter() - began},
        predictions=outcome.Described(**predictions.counts(units)),
        synthetic=synthetic,
        warnings=warnings,
        footnote=FOOTNOTE,
    )
    return Audit(made, counts, _table(by_group, predictions, selectivity or {}), predictions)


def _sizes_of(units: Sequence[Unit]) -> dict[str, dict[str, int]]:
    sizes: dict[str, dict[str, int]] = {}
    for unit in units:
        own = sizes.setdefault(unit.network, {})
        own[unit.layer] = own.get(unit.layer, 0) + 1
    return sizes


def _check_pairs(pairs: Sequence[NetworkPair], sizes: Sizes) -> None:
    absent = [name for pair in pairs for name in pair if name not in sizes]
    if absent:
        raise InputError(
            f"There are no predictions for {some(absent)} (networks: {some(sizes)}). Give the "
            "files of all networks of the pairs."
        )
    again = [name for pair in pairs for name in pair]
    if len(set(again)) < len(again):
        raise InputError("A network stands in two pairs; each is a replicate of its own.")


# ---- counting


def _counts(by_group: Mapping[str, Mapping[Unit, list[str]]]) -> pd.DataFrame:
    """Return flagged units of each layer and of each network (layer ""), with intervals."""
    import pandas as pd

    rows = []
    for group, found in by_group.items():
        per: dict[tuple[str, str], list[bool]] = {}
        for unit, words in found.items():
            for layer in (unit.layer, ""):
                per.setdefault((unit.network, layer), []).append(bool(words))
        for (network, layer), hits in per.items():
            low, high = statistics.share_interval(sum(hits), len(hits))
            rows.append((group, network, layer, sum(hits), len(hits), low, high))
    names = ["group", "network", "layer", "flagged", "units", "share_low", "share_high"]
    return pd.DataFrame(rows, columns=names)


def _table(
    by_group: Mapping[str, Mapping[Unit, list[str]]],
    predictions: Predictions,
    selectivity: Mapping[Unit, float],
) -> pd.DataFrame:
    """Return the flagged units, for a person to go through."""
    import pandas as pd

    rows = []
    for group, found in by_group.items():
        for unit, words in found.items():
            if words and (row := predictions.first(unit)) is not None:
                said = (row.description, " ".join(words), selectivity.get(unit))
                rows.append((group, *unit, *said))
    names = ["group", "network", "layer", "unit", "description", "words", "selectivity"]
    return pd.DataFrame(rows, columns=names)


def _group(
    group: str,
    found: Mapping[Unit, list[str]],
    counts: pd.DataFrame,
    pairs: Sequence[NetworkPair],
    settings: AuditConfig,
    selectivity: Mapping[Unit, float],
) -> dict[str, Any]:
    own = counts[counts.group == group]
    by_network: dict[str, Any] = {}
    for row in own.itertuples():
        entry = {
            "flagged": row.flagged,
            "units": row.units,
            "low": row.share_low * row.units,
            "high": row.share_high * row.units,
        }
        at = by_network.setdefault(row.network, {"layers": {}})
        if row.layer:
            at["layers"][row.layer] = entry
        else:
            at.update(entry)
    for name, entry in by_network.items():
        entry["by_word"] = {
            word: sum(word in words for unit, words in found.items() if unit.network == name)
            for word in settings.words[group]
        }
    made: dict[str, Any] = {"networks": by_network, "pairs": [], "training_data": None}
    for number, pair in enumerate(pairs):
        made["pairs"].append(_pair(pair, found, settings, number))
    if len(pairs) > 1:
        made["training_data"] = _claim([entry["difference"] for entry in made["pairs"]])
    if selectivity:
        made["measured"] = _measured(found, pairs, settings.at, selectivity)
    return made


def _pair(
    pair: NetworkPair, found: Mapping[Unit, list[str]], settings: AuditConfig, number: int
) -> dict[str, Any]:
    """Return how two networks differ: exact permutation test, bootstrap interval over units."""
    hits: list[dict[str, list[bool]]] = []
    for name in pair:
        of: dict[str, list[bool]] = {}
        for unit, words in found.items():
            if unit.network == name:
                of.setdefault(unit.layer, []).append(bool(words))
        hits.append(of)
    # units are exchanged within a layer where both networks have the same layers
    if list(hits[0]) != list(hits[1]):
        hits = [{"": [hit for own in of.values() for hit in own]} for of in hits]
    strata = [
        (sum(hits[0][layer]), len(hits[0][layer]), sum(hits[1][layer]), len(hits[1][layer]))
        for layer in hits[0]
    ]
    rng = np.random.default_rng([settings.seed, number])
    drawn = np.zeros(settings.draws)
    for marked, size, other, other_size in strata:
        drawn += rng.binomial(size, marked / size, settings.draws)
        drawn -= rng.binomial(other_size, other / other_size, settings.draws)
    low, high = statistics.interval(drawn)
    first, second = sum(s[0] for s in strata), sum(s[2] for s in strata)
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


def _claim(differences: Sequence[float]) -> dict[str, Any]:
    """Return what pairs say of training data: exact sign-flip test, t interval of the mean."""
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


def _measured(
    found: Mapping[Unit, list[str]],
    pairs: Sequence[NetworkPair],
    at: float,
    selectivity: Mapping[Unit, float],
) -> dict[str, Any]:
    """Return precision and recall of the flag against measured selectivity, by network."""
    by_network: dict[str, dict[str, Any]] = {}
    for name in dict.fromkeys(unit.network for unit in found if unit in selectivity):
        own = [unit for unit in found if unit.network == name and unit in selectivity]
        said = np.array([bool(found[unit]) for unit in own])
        true = np.array([selectivity[unit] >= at for unit in own])
        both = int((said & true).sum())
        by_network[name] = {
            "units": len(own),
            "selective": int(true.sum()),
            "flagged": int(said.sum()),
            "both": both,
            "precision": both / int(said.sum()) if said.any() else None,
            "recall": both / int(true.sum()) if true.any() else None,
        }
    total = {
        key: sum(entry[key] for entry in by_network.values())
        for key in ("units", "selective", "flagged", "both")
    }
    known = [pair for pair in pairs if set(pair) <= set(by_network)]
    differences = [
        by_network[first]["selective"] - by_network[second]["selective"] for first, second in known
    ]
    return {
        "at": at,
        "networks": by_network,
        "all": {
            **total,
            "precision": total["both"] / total["flagged"] if total["flagged"] else None,
            "recall": total["both"] / total["selective"] if total["selective"] else None,
        },
        "training_data": _claim(differences) if len(differences) > 1 else None,
    }


def _adjust(groups: Mapping[str, dict[str, Any]]) -> None:
    """Add Holm's p beside each raw one: among claims on training data, and on two networks."""
    claims = [entry["training_data"] for entry in groups.values() if entry["training_data"]]
    twos = [pair for entry in groups.values() for pair in entry["pairs"]]
    for family in (claims, twos):
        adjusted = statistics.holm([entry["p"] for entry in family])
        for entry, p in zip(family, adjusted, strict=True):
            entry["p_holm"] = p


def _number(
    group: str, made: Mapping[str, Any], pairs: Sequence[NetworkPair], settings: AuditConfig
) -> Number:
    listed = ", ".join(settings.words[group])
    if claim := made["training_data"]:
        says = (
            f"On average {claim['mean']:.1f} more units of the first network of a pair are "
            f"described with {listed} (exact sign-flip test over {claim['n_pairs']} pairs, one "
            f"side, p = {claim['p']:.3g}, Holm {claim['p_holm']:.3g})."
        )
        return Number(
            name=f"flagged units, first less second of a pair ({group})",
            value=claim["mean"],
            low=_known(claim["low"]),
            high=_known(claim["high"]),
            control=0.0,
            p=claim["p_holm"],
            n=claim["n_pairs"],
            over="pairs of networks",
            says=says,
        )
    if pairs:
        two = made["pairs"][0]
        return Number(
            name=f"flagged units, first less second ({group})",
            value=float(two["difference"]),
            low=two["low"],
            high=two["high"],
            control=0.0,
            p=two["p_holm"],
            n=sum(made["networks"][name]["units"] for name in pairs[0]),
            over="units",
            says=f"{pairs[0][0]} has {two['flagged'][0]} units described with {listed}, "
            f"{pairs[0][1]} {two['flagged'][1]} (exact permutation test, p = {two['p']:.3g}): "
            f"{ONLY_THESE}.",
        )
    total = sum(entry["flagged"] for entry in made["networks"].values())
    units = sum(entry["units"] for entry in made["networks"].values())
    low, high = (_known(end * units) for end in statistics.share_interval(total, units))
    return Number(
        name=f"flagged units ({group})",
        value=float(total),
        low=low,
        high=high,
        control=None,
        p=None,
        n=units,
        over="units",
        says=f"{total} of {units} units are described with {listed}.",
    )


def _known(value: float) -> float | None:
    return float(value) if np.isfinite(value) else None
