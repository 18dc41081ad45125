"""Arms of an edit: sets of units, in order of ablation, with a count chosen on validation images.

Every arm of one network goes through the same steps: its units are sorted by the accuracy under
ablation of each alone, several counts are tried on validation images, one is chosen, and the test
images are evaluated with that many units ablated.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from leaderboard.applications.common.ablated_accuracy import AblatedNetwork
from leaderboard.applications.edit.config import PROTOCOLS, TESTS, EditConfig, Protocol
from milannotations.schema import Unit


@dataclass
class Arm:
    """Units in order of ablation, and the accuracy with some of them ablated.

    Attributes:
        name: `method`, `all units`, `shuffled`, `oracle`, `no edit`, `placebo` or
            `oracle placebo`.
        units: flagged units, the first to be ablated first.
        counts: numbers of units that were tried.
        validation: accuracy on the protocol's validation images for each count.
        chosen: number of units that are ablated.
        accuracy: test accuracy by role, with the chosen units ablated.
        by_class: test accuracy of each class by role.
    """

    name: str
    units: list[Unit]
    counts: list[int]
    validation: list[float]
    chosen: int = 0
    accuracy: dict[str, float] = field(default_factory=dict)
    by_class: dict[str, list[float]] = field(default_factory=dict)

    @property
    def ablated(self) -> list[Unit]:
        """Units that are ablated on the test images."""
        return self.units[: self.chosen]


def measure_arms(
    network: AblatedNetwork,
    flags: Mapping[Unit, Sequence[str]],
    protocol: Protocol,
    config: EditConfig,
) -> tuple[list[Arm], list[Arm]]:
    """Measure the arms of one network, and its placebos.

    Args:
        network: the network, with images of all roles.
        flags: words that the description of each unit contains; a unit with any is flagged.
        protocol: protocol of choosing counts.
        config: words, draws and shares.

    Returns:
        Arms of the method, its references and no edit; and placebo arms.
    """
    role = PROTOCOLS[protocol]
    order = network.ablation_order(role)
    flagged = [unit for unit in network.units if flags[unit]]
    # The first units of the same order, as many as are flagged: what ablation gains without words.
    # Shuffled descriptions flag as many units of each layer, but other ones.
    named_sets: list[tuple[str, Sequence[Unit]]] = [
        ("method", flagged),
        ("all units", order[: len(flagged)]),
        *(("shuffled", units) for units in _draw_shuffled(network, flags, config)),
    ]
    placebo_sets = [
        ("placebo", units)
        for units in draw_placebos(network, flagged, config.placebos, config.seed)
    ]
    if network.selectivity is not None:
        selectivity = network.selectivity
        oracle = [unit for unit in network.units if selectivity[unit] >= config.oracle]
        named_sets.append(("oracle", oracle))
        # The oracle flags another number of units, so it has a control of its own size.
        placebo_sets += [
            ("oracle placebo", units)
            for units in draw_placebos(network, oracle, config.placebos, config.seed)
        ]
    arms = _measure_validation(network, role, order, config.shares, [*named_sets, *placebo_sets])
    arms.append(Arm("no edit", [], [0], network.accuracies(role, [[]])))
    for arm in arms:
        arm.chosen = choose_count(arm.counts, arm.validation, protocol, config.loss)
    _measure_test(network, arms, config.fine_tune)
    return (
        [arm for arm in arms if "placebo" not in arm.name],
        [arm for arm in arms if "placebo" in arm.name],
    )


def choose_count(
    counts: Sequence[int], accuracy: Sequence[float], protocol: Protocol, loss: float
) -> int:
    """Return how many units to ablate, by validation accuracy.

    `edit-plain` takes the largest count that loses at most `loss`, `edit-conflict` the count with
    the highest accuracy, the smallest of several.

    Args:
        counts: counts that were tried; the first is 0.
        accuracy: validation accuracy of each.
        protocol: the rule.
        loss: loss of accuracy that `edit-plain` accepts.

    Example:
        >>> choose_count([0, 2, 4, 8], [0.8, 0.81, 0.795, 0.6], "edit-plain", 0.01)
        4
        >>> choose_count([0, 2, 4, 8], [0.2, 0.4, 0.4, 0.3], "edit-conflict", 0.01)
        2
    """
    if protocol == "edit-plain":
        # 1e-9: a loss that is equal to the limit but for rounding is accepted
        least = accuracy[0] - loss - 1e-9
        return max(count for count, a in zip(counts, accuracy, strict=True) if a >= least)
    return counts[int(np.argmax(accuracy))]


def draw_placebos(
    network: AblatedNetwork, flagged: Sequence[Unit], draws: int, seed: int
) -> Iterator[list[Unit]]:
    """Yield placebo flags: as many random units of each layer as are flagged.

    The draws are seeded by the network and the numbers per layer, so that arms with the same
    numbers share them.
    """
    per_layer = Counter(unit.layer for unit in flagged)
    counts = [per_layer[layer] for layer in network.widths]
    if not sum(counts):
        return
    for draw in range(draws):
        # counts in the seed: arms with equal counts share placebos, others draw new ones
        rng = np.random.default_rng([seed, network.seed, draw, *counts])
        yield [
            Unit(network.name, layer, int(index))
            for (layer, width), count in zip(network.widths.items(), counts, strict=True)
            for index in sorted(rng.choice(width, count, replace=False))
        ]


def counts_to_try(size: int, shares: Sequence[float]) -> list[int]:
    """Return the numbers of units to try: shares of the flagged ones, each at least 1, and 0.

    Example:
        >>> counts_to_try(10, (0, 0.05, 0.25, 0.5, 1))
        [0, 1, 2, 5, 10]
    """
    return sorted({0, *(max(1, round(size * share)) for share in shares if share and size)})


def _draw_shuffled(
    network: AblatedNetwork, flags: Mapping[Unit, Sequence[str]], config: EditConfig
) -> Iterator[list[Unit]]:
    """Yield the flagged units after shuffling descriptions within layers."""
    for draw in range(config.shuffles):
        # far from the seeds of placebos, which count draws from 0
        rng = np.random.default_rng([config.seed, network.seed, 1_000_000 + draw])
        flagged = []
        for layer, width in network.widths.items():
            shuffled = rng.permutation(width)
            flagged += [
                Unit(network.name, layer, i)
                for i in range(width)
                if flags[Unit(network.name, layer, int(shuffled[i]))]
            ]
        yield flagged


def _measure_validation(
    network: AblatedNetwork,
    role: str,
    order: Sequence[Unit],
    shares: Sequence[float],
    named_sets: Sequence[tuple[str, Sequence[Unit]]],
) -> list[Arm]:
    """Sort the units of each arm, and measure its validation accuracy for each count."""
    rank = {unit: i for i, unit in enumerate(order)}
    named_sets = [(name, sorted(units, key=rank.__getitem__)) for name, units in named_sets]
    counts = [counts_to_try(len(units), shares) for _, units in named_sets]
    # One pass measures the sets of all arms; each arm then looks its accuracies up.
    network.accuracies(
        role,
        [
            units[:count]
            for (_, units), arm_counts in zip(named_sets, counts, strict=True)
            for count in arm_counts
        ],
    )
    return [
        Arm(
            name,
            list(units),
            arm_counts,
            network.accuracies(role, [units[:count] for count in arm_counts]),
        )
        for (name, units), arm_counts in zip(named_sets, counts, strict=True)
    ]


def _measure_test(network: AblatedNetwork, arms: Sequence[Arm], epochs: int) -> None:
    """Measure the test accuracy of each arm, after fine-tuning the last layer if asked to."""
    # Test images are used here for the first time, when all counts are chosen.
    sets = [arm.ablated for arm in arms]
    tuned = network.fine_tuned_correct_counts(TESTS, sets, epochs) if epochs else {}
    for role in TESTS:
        counts = tuned[role] if tuned else network.correct_counts(role, sets)
        totals = network.images[role].class_counts(len(network.classes))
        for arm, correct in zip(arms, counts, strict=True):
            arm.accuracy[role] = float(correct.sum() / totals.sum())
            arm.by_class[role] = [
                float(right / total) if total else float("nan")
                for right, total in zip(correct, totals, strict=True)
            ]
