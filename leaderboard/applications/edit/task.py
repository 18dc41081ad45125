"""Edit: does deleting the units that a method describes as text mend a network?

Hernandez et al. 2022, section 7. A classifier learned from pictures of which some carry the name
of their class in a corner; shown wrong names, it believes them. Units whose descriptions speak of
text are deleted, those first without which alone validation accuracy is highest.

What 2022 left open, and what is done here:

- *How many to delete* was read off the test curve. Here every arm chooses on its own validation
  curve, none included. `edit-plain`: validation pictures are without text, and the largest number
  is taken that loses at most a point on them; nobody needs to know what is wrong with the network,
  but for the words. `edit-conflict`: validation pictures carry wrong names, and the number is taken
  with which most of them are told: selection sees what the test is about, and the record says so.
- *The control* was random units, in no order. Here placebo flags, as many units of each layer drawn
  at random, go through the identical order, selection and test. Their mean gain is the control, and
  p = (1 + placebos at least as good) / (1 + placebos).
- Beside them: all units in the same order; shuffled descriptions, which know nothing of units; and
  oracle flags: units that are active in text more than elsewhere, as measured on all pictures.

Replicates are trained networks, and intervals are over them. A method's gain on the target beside
what it loses elsewhere is its specificity: gain on pictures with wrong names less mean loss over
the classes of pictures without text.
"""

from __future__ import annotations

import os
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from leaderboard import statistics
from leaderboard.applications.common import keyword_flags
from leaderboard.applications.common.ablated_accuracy import Trial
from leaderboard.applications.edit.config import PROTOCOLS, TESTS, EditConfig, Protocol
from leaderboard.evaluation.predictions import Predictions
from leaderboard.record_format import application_record as outcome
from leaderboard.record_format.application_record import ApplicationRecord, Number
from milannotations.errors import InputError
from milannotations.schema import Unit

if TYPE_CHECKING:
    import pandas as pd

FOOTNOTE = (
    "Gains are on pictures that carry a wrong name, with the number of deleted units chosen on "
    "validation pictures by each arm for itself. The control is placebo flags: as many units of "
    "each layer, drawn at random, through the same order, selection and test."
)
CONFLICT = "edit-conflict: units were ordered, and numbers chosen, on pictures with wrong names."


@dataclass
class Arm:
    """Some units in the order of their deletion, and what came of it.

    Attributes:
        name: what they are.
        units: flagged, those that go first first.
        counts: numbers of them that were tried.
        validation: accuracy on the protocol's validation pictures, of each.
        chosen: how many are deleted.
        accuracy: after that, by role of test pictures.
        by_class: the same, of each class.
    """

    name: str
    units: list[Unit]
    counts: list[int]
    validation: list[float]
    chosen: int = 0
    accuracy: dict[str, float] = field(default_factory=dict)
    by_class: dict[str, list[float]] = field(default_factory=dict)

    @property
    def deleted(self) -> list[Unit]:
        return self.units[: self.chosen]


@dataclass(frozen=True)
class Edit:
    """An edit that was made: its outcome, its curves, and what was said of units."""

    outcome: ApplicationRecord
    curves: pd.DataFrame
    predictions: Predictions | None

    def save(self, folder: str | os.PathLike[str]) -> ApplicationRecord:
        """Write the outcome's folder; see `outcome.save`."""
        from leaderboard.applications.common.figures import encode_figure
        from leaderboard.applications.edit.figure import draw

        return outcome.save(
            folder,
            self.outcome,
            curves=self.curves,
            predictions=self.predictions,
            files=encode_figure(draw(self.outcome, self.curves)),
        )


def edit(
    trials: Sequence[Trial],
    predictions: Predictions,
    *,
    settings: EditConfig | None = None,
    method: str = "descriptions",
    data: str = "",
    asked: Mapping[str, Any] | None = None,
    synthetic: bool = False,
    seconds: Mapping[str, float] | None = None,
) -> Edit:
    """Return what deleting the flagged units of networks does to them.

    Args:
        trials: trained networks with their pictures, the replicates.
        predictions: of all their units; rank 1 is read. Units without a description are not
            flagged.
        settings: protocols, words, draws.
        method: name, or name@version, of what described the units.
        data: what the networks are of, for the record.
        asked: for the record.
        synthetic: the networks are of the mini world.
        seconds: what came before took, for the record.

    Raises:
        InputError: no network; predictions of units that the networks do not have, or of none.
    """
    began = time.perf_counter()
    settings = settings or EditConfig()
    if not trials:
        raise InputError("There is no network to edit; expected at least one.")
    keyword_flags.check_units(predictions, [unit for trial in trials for unit in trial.units])
    bare = [trial.name for trial in trials if not any(map(predictions.first, trial.units))]
    if bare:
        raise InputError(
            f"There are no predictions for {', '.join(bare)}. Give the files of all networks."
        )
    results: dict[str, Any] = {}
    rows: list[tuple[Any, ...]] = []
    said = {
        trial.name: keyword_flags.flagged(
            predictions, trial.units, settings.words, settings.matching
        )
        for trial in trials
    }
    for protocol in settings.protocols:
        found = []
        for trial in trials:
            arms, placebos = arms_of(trial, said[trial.name], protocol, settings)
            found.append(_replicate(trial, arms, placebos, protocol))
            rows += _curves(trial, protocol, arms, placebos)
        results[protocol] = {"replicates": found, "arms": _over_replicates(found)}
    results["flags"] = {
        trial.name: _flags(trial, said[trial.name], settings.at) for trial in trials
    }
    first = settings.protocols[0]
    warnings = []
    if not any(words for own in said.values() for words in own.values()):
        warnings.append(f"No description holds any of: {', '.join(settings.words)}.")
    made = outcome.create(
        "edit",
        method=method,
        data=data,
        number=_number(first, results[first]),
        asked=asked or {},
        settings=asdict(settings),
        networks={trial.name: {**trial.source, "units": trial.widths} for trial in trials},
        images={
            role: dict(shown.source)
            for trial in trials[:1]
            for role, shown in trial.pictures.items()
        },
        results=results,
        seconds={**(seconds or {}), "edit": time.perf_counter() - began},
        predictions=outcome.Described(
            **predictions.counts([unit for trial in trials for unit in trial.units])
        ),
        synthetic=synthetic,
        warnings=warnings,
        footnote=" ".join(
            [FOOTNOTE, *([CONFLICT] if "edit-conflict" in settings.protocols else [])]
        ),
    )
    return Edit(made, _table(rows), predictions)


# ---- one network


def arms_of(
    trial: Trial,
    said: Mapping[Unit, Sequence[str]],
    protocol: Protocol,
    settings: EditConfig,
) -> tuple[list[Arm], list[Arm]]:
    """Return the arms of one network, and its placebos.

    Args:
        trial: the network.
        said: which of the words each unit is described with.
        protocol: of choosing.
        settings: draws.
    """
    role = PROTOCOLS[protocol]
    order = trial.order(role)
    flagged = [unit for unit in trial.units if said[unit]]
    size = len(flagged)
    asked: list[tuple[str, Sequence[Unit]]] = [("method", flagged), ("all units", order[:size])]
    asked += [("shuffled", units) for units in _shuffled(trial, said, settings)]
    if trial.selectivity is not None:
        asked.append(
            ("oracle", [u for u in trial.units if trial.selectivity[u] >= settings.oracle])
        )
    placebos = list(placebos_of(trial, flagged, settings.placebos, settings.seed))
    if trial.selectivity is not None:  # the ceiling has a control of its own size
        of_oracle = placebos_of(trial, asked[-1][1], settings.placebos, settings.seed)
    else:
        of_oracle = iter(())
    made = [
        _arm(trial, name, units, order, role, settings.shares)
        for name, units in _measured_together(
            trial,
            role,
            order,
            settings.shares,
            [
                *asked,
                *(("placebo", p) for p in placebos),
                *(("oracle placebo", p) for p in of_oracle),
            ],
        )
    ]
    made.append(Arm("no edit", [], [0], trial.accuracies(role, [[]])))
    for arm in made:
        arm.chosen = choose(arm.counts, arm.validation, protocol, settings.loss)
    deleted = [arm.deleted for arm in made]
    tuned = trial.tuned(TESTS, deleted, settings.fine_tune) if settings.fine_tune else {}
    for test in TESTS:
        right = tuned[test] if tuned else trial.right(test, deleted)
        labels = np.bincount(trial.pictures[test].labels, minlength=trial.classes)
        for arm, own in zip(made, right, strict=True):
            shares = [float(a / b) if b else float("nan") for a, b in zip(own, labels, strict=True)]
            arm.accuracy[test] = float(own.sum() / labels.sum())
            arm.by_class[test] = shares
    return (
        [arm for arm in made if "placebo" not in arm.name],
        [arm for arm in made if "placebo" in arm.name],
    )


def choose(
    counts: Sequence[int], accuracy: Sequence[float], protocol: Protocol, loss: float
) -> int:
    """Return how many units to delete, by validation accuracy; the first count is 0.

    `edit-plain`: the largest number that loses at most `loss`; `edit-conflict`: the number with
    the highest accuracy, the smallest of several.

    Example:
        >>> choose([0, 2, 4, 8], [0.8, 0.81, 0.795, 0.6], "edit-plain", 0.01)
        4
        >>> choose([0, 2, 4, 8], [0.2, 0.4, 0.4, 0.3], "edit-conflict", 0.01)
        2
    """
    if protocol == "edit-plain":
        kept = [n for n, a in zip(counts, accuracy, strict=True) if a >= accuracy[0] - loss - 1e-9]
        return max(kept)
    return counts[int(np.argmax(accuracy))]


def placebos_of(
    trial: Trial, flagged: Sequence[Unit], draws: int, seed: int
) -> Iterator[list[Unit]]:
    """Yield placebo flags: as many units of each layer, drawn at random.

    The draws go by the network and the numbers per layer, so that arms with the same numbers
    share them.
    """
    per_layer = Counter(unit.layer for unit in flagged)
    counts = [per_layer[layer] for layer in trial.widths]
    if not sum(counts):
        return
    for draw in range(draws):
        rng = np.random.default_rng([seed, trial.seed, draw, *counts])
        yield [
            Unit(trial.name, layer, int(unit))
            for (layer, width), count in zip(trial.widths.items(), counts, strict=True)
            for unit in sorted(rng.choice(width, count, replace=False))
        ]


def _shuffled(
    trial: Trial, said: Mapping[Unit, Sequence[str]], settings: EditConfig
) -> Iterator[list[Unit]]:
    """Yield what is flagged when descriptions are dealt anew to the units of each layer."""
    for draw in range(settings.shuffles):
        rng = np.random.default_rng([settings.seed, trial.seed, 1_000_000 + draw])
        flagged = []
        for layer, width in trial.widths.items():
            dealt = rng.permutation(width)
            flagged += [
                Unit(trial.name, layer, i)
                for i in range(width)
                if said[Unit(trial.name, layer, int(dealt[i]))]
            ]
        yield flagged


def counts_of(size: int, shares: Sequence[float]) -> list[int]:
    """Return the numbers of units to try, of so many flagged ones.

    Example:
        >>> counts_of(10, (0, 0.05, 0.25, 0.5, 1))
        [0, 1, 2, 5, 10]
    """
    found = {0, *(max(1, round(size * share)) for share in shares if share and size)}
    return sorted(found)


def _measured_together(
    trial: Trial,
    role: str,
    order: Sequence[Unit],
    shares: Sequence[float],
    asked: Sequence[tuple[str, Sequence[Unit]]],
) -> list[tuple[str, list[Unit]]]:
    """Put units in order, and measure the curves of all arms in one pass."""
    place = {unit: i for i, unit in enumerate(order)}
    sorted_ = [(name, sorted(units, key=place.__getitem__)) for name, units in asked]
    sets = [units[:n] for _, units in sorted_ for n in counts_of(len(units), shares)]
    trial.accuracies(role, sets)
    return sorted_


def _arm(
    trial: Trial,
    name: str,
    units: list[Unit],
    order: Sequence[Unit],
    role: str,
    shares: Sequence[float],
) -> Arm:
    counts = counts_of(len(units), shares)
    return Arm(name, units, counts, trial.accuracies(role, [units[:n] for n in counts]))


def _replicate(
    trial: Trial, arms: Sequence[Arm], placebos: Sequence[Arm], protocol: Protocol
) -> dict[str, Any]:
    """Return what came of one network's arms, as the record has it."""
    before = next(arm for arm in arms if arm.name == "no edit")
    controls = {
        name: [_gain(arm, before) for arm in placebos if arm.name == name]
        for name in ("placebo", "oracle placebo")
    }
    found: dict[str, Any] = {}
    for arm in arms:
        own = controls["oracle placebo" if arm.name == "oracle" else "placebo"]
        entry = _entry(arm, before, own)
        if arm.name == "shuffled":
            found.setdefault("shuffled", []).append(entry)
        else:
            found[arm.name] = entry
    return {
        "network": trial.name,
        "seed": trial.seed,
        "before": {"accuracy": before.accuracy, "by_class": before.by_class},
        "arms": found,
        "placebos": {
            "gains": controls["placebo"],
            "losses": [_loss(arm, before) for arm in placebos if arm.name == "placebo"],
            "deleted": [arm.chosen for arm in placebos if arm.name == "placebo"],
        },
        "oracle_placebos": {"gains": controls["oracle placebo"]},
    }


def _entry(arm: Arm, before: Arm, controls: Sequence[float]) -> dict[str, Any]:
    gain, loss = _gain(arm, before), _loss(arm, before)
    return {
        "flagged": len(arm.units),
        "deleted": arm.chosen,
        "deleted_by_layer": dict(sorted(Counter(unit.layer for unit in arm.deleted).items())),
        "counts": arm.counts,
        "validation": arm.validation,
        "accuracy": arm.accuracy,
        "by_class": arm.by_class,
        "gain": gain,
        "loss": loss,
        "specificity": gain - loss,
        "control": float(np.mean(controls)) if controls else 0.0,
        "above_control": gain - (float(np.mean(controls)) if controls else 0.0),
        "p": rank_p(gain, controls),
    }


def rank_p(value: float, controls: Sequence[float]) -> float:
    """Return (1 + controls at least as good) / (1 + controls); 1 without any.

    Example:
        >>> rank_p(0.3, [0.1, 0.2, 0.3, 0.0])
        0.4
    """
    return (1 + sum(each >= value - 1e-12 for each in controls)) / (1 + len(controls))


def _gain(arm: Arm, before: Arm) -> float:
    return arm.accuracy["test-conflict"] - before.accuracy["test-conflict"]


def _loss(arm: Arm, before: Arm) -> float:
    """Return the mean over classes of what is lost on pictures without text."""
    lost = np.subtract(before.by_class["test-clean"], arm.by_class["test-clean"])
    return float(np.nanmean(lost))


def _flags(trial: Trial, said: Mapping[Unit, Sequence[str]], at: float) -> dict[str, Any]:
    """Return how many units of each layer are flagged, and how well, where it is known."""
    flagged = [unit for unit in trial.units if said[unit]]
    by_layer = {layer: sum(u.layer == layer for u in flagged) for layer in trial.widths}
    found: dict[str, Any] = {"flagged": len(flagged), "by_layer": by_layer}
    if trial.shown is not None:
        true = {unit for unit in trial.units if trial.shown[unit] >= at}
        both = len(true & set(flagged))
        found |= {
            "measured": len(true),
            "precision": both / len(flagged) if flagged else None,
            "recall": both / len(true) if true else None,
        }
    return found


# ---- over networks


def _over_replicates(found: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Return means over networks with their intervals, and p over all of them."""
    made: dict[str, Any] = {}
    for name in found[0]["arms"]:
        entries = [each["arms"][name] for each in found]
        own: dict[str, Any] = {}
        for key in ("gain", "loss", "specificity", "control", "above_control"):
            values = [
                float(np.mean([e[key] for e in entry])) if isinstance(entry, list) else entry[key]
                for entry in entries
            ]
            own[key] = _estimate(values)
        if not isinstance(entries[0], list):
            control = "oracle_placebos" if name == "oracle" else "placebos"
            own["p"] = _joint_p(
                [entry["gain"] for entry in entries], [each[control]["gains"] for each in found]
            )
            own["p_each"] = [entry["p"] for entry in entries]
        else:
            own["p_each"] = [e["p"] for entry in entries for e in entry]
        made[name] = own
    return made


def _joint_p(gains: Sequence[float], controls: Sequence[Sequence[float]]) -> float:
    """Return the rank p of a mean gain over networks, among means of placebos.

    Placebo i of each network is drawn for itself, so the mean over networks of the i-th ones is a
    draw of what the mean gain is under the null. A network without flags adds nothing to either.
    """
    draws = max((len(each) for each in controls), default=0)
    filled = [each if len(each) else [0.0] * draws for each in controls]
    return (
        rank_p(float(np.mean(gains)), [float(m) for m in np.mean(filled, axis=0)]) if draws else 1.0
    )


def _estimate(values: Sequence[float]) -> dict[str, Any]:
    low, high = statistics.mean_interval(values)
    return {"mean": float(np.mean(values)), "low": low, "high": high, "each": list(values)}


def _number(protocol: Protocol, found: Mapping[str, Any]) -> Number:
    own, n = found["arms"]["method"], len(found["replicates"])
    gain, above = own["gain"]["mean"], own["above_control"]
    flagged = sum(each["arms"]["method"]["flagged"] for each in found["replicates"])
    says = (
        f"Deleting flagged units gains {100 * gain:.1f} points of accuracy on pictures with wrong "
        f"names; placebo flags gain {100 * own['control']['mean']:.1f}."
        if flagged
        else "No unit was flagged, so nothing was deleted."
    )
    return Number(
        name=f"accuracy gained beyond placebo flags ({protocol})",
        value=above["mean"],
        low=outcome.to_json_value(above["low"]),
        high=outcome.to_json_value(above["high"]),
        control=0.0,
        p=own["p"],
        n=n,
        over="training seeds",
        says=says,
    )


def _curves(
    trial: Trial, protocol: Protocol, arms: Sequence[Arm], placebos: Sequence[Arm]
) -> Iterator[tuple[Any, ...]]:
    draws: Counter[str] = Counter()
    for arm in (*arms, *placebos):
        for count, accuracy in zip(arm.counts, arm.validation, strict=True):
            share = count / len(arm.units) if arm.units else 0.0
            chosen = count == arm.chosen
            test = [
                arm.accuracy[role] if chosen else None for role in ("test-conflict", "test-clean")
            ]
            yield (
                protocol, trial.name, trial.seed, arm.name, draws[arm.name], count, share,
                accuracy, chosen, *test,
            )  # fmt: skip
        draws[arm.name] += 1


def _table(rows: Sequence[tuple[Any, ...]]) -> pd.DataFrame:
    import pandas as pd

    names = [
        "protocol", "network", "seed", "arm", "draw", "deleted", "share", "validation", "chosen",
        "test_conflict", "test_clean",
    ]  # fmt: skip
    return pd.DataFrame(rows, columns=names)
