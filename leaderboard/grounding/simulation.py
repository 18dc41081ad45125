"""Simulation by ablation: replace a unit's activation by its description's prediction.

A unit's activation is replaced by what its description predicts, and the network's output moves.
The baseline is mean ablation: the unit is held at its mean, which is what an uninformative
description predicts. The score is the share of the baseline's output change that the prediction
undoes: 1 - change / change under mean ablation.

A description predicts one level per image: a straight line from presence to the unit's mean
activation, fitted on one half of the images. Changes are measured on the other half, so that a
line fitted to noise gains nothing.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from leaderboard.metrics.base import Floats, MetricSpec, ReferenceSets, RowMetric, distinct
from milannotations.errors import InputError

if TYPE_CHECKING:
    from leaderboard.grounding.activations import HeldOutActivations
    from leaderboard.grounding.scorers import Presences

SIMULATION = "simulation"
"""Name of the metric, as `milan score --metrics` takes it."""

MAX_LOGIT_BYTES = 2**27
"""Memory for the class scores of the units that are ablated in one call."""

Layer = tuple[str, str]
TextAndUnit = tuple[str, int]


class Simulation(RowMetric):
    """Share of mean ablation's output change that the description's prediction undoes.

    Scored for given pairs only, because every pair takes a run of the network from the unit's
    layer on. A unit that no output depends on has no value.

    Args:
        held_out: networks with class scores, on whole images.
        presences: presence of the descriptions in the same images.
        seed: random seed of the two halves of the images.

    Raises:
        InputError: activations by region instead of whole images.
    """

    spec = MetricSpec(
        name=SIMULATION,
        family="grounding",
        title="share of mean ablation's move of the output that the prediction undoes",
        low=None,
        high=1.0,
        direction="higher",
        source="this suite",
        chance=0.0,
        against="activations",
    )

    def __init__(self, held_out: HeldOutActivations, presences: Presences, seed: int = 0) -> None:
        if held_out.grid is not None:
            raise InputError("The metric 'simulation' needs whole images: leave --grid out.")
        self.held_out, self.presences = held_out, presences
        # The seed alone decides the halves, so every description of a unit sees the same images.
        n = held_out.samples
        shuffled = np.random.default_rng([seed, n]).permutation(n)
        self._fitted, self._measured = np.sort(shuffled[: n // 2]), np.sort(shuffled[n // 2 :])
        self._mean_changes: dict[tuple[Layer, int], float] = {}
        self._unchanged_logits: dict[str, NDArray[np.float32]] = {}

    def defined(self, predictions: Sequence[str], references: ReferenceSets) -> NDArray[np.bool_]:
        """Return which descriptions are readable and of units that the output depends on."""
        self.presences.of(list(dict.fromkeys(predictions)))  # one call for all texts
        defined = np.zeros(len(predictions), dtype=bool)
        units = [self._unit(members[0]) for members in references]
        for layer in self.held_out.layers:
            indices = [
                i
                for i, (unit_layer, _) in enumerate(units)
                if unit_layer == layer and self.presences.readable(predictions[i])
            ]
            changes = self._mean_ablation_changes(layer, [units[i][1] for i in indices])
            defined[indices] = changes > 0
        return defined

    def _unit(self, key: str) -> tuple[Layer | None, int]:
        """Return layer and index of a unit by key; the layer is None if it was not probed."""
        head, _, index = key.rpartition("/")
        layer = next((layer for layer in self.held_out.layers if "/".join(layer) == head), None)
        return layer, int(index)

    def rows(self, predictions: Sequence[str], references: ReferenceSets) -> Floats:
        """Return one value per prediction and its own unit; nan if there is none."""
        keys = [members[0] for members in references]
        pairs, rows = distinct(list(zip(predictions, keys, strict=True)))
        values = np.full(len(pairs), np.nan)
        by_layer: dict[Layer, list[int]] = {}
        self.presences.of(list(dict.fromkeys(predictions)))  # one call for all texts
        for i, (text, key) in enumerate(pairs):
            layer, _ = self._unit(key)
            if layer is not None and self.presences.readable(text):
                by_layer.setdefault(layer, []).append(i)
        for layer, indices in by_layer.items():
            members = [(pairs[i][0], self._unit(pairs[i][1])[1]) for i in indices]
            values[indices] = self._layer_values(layer, members)
        return values[rows]

    def predicted(self, layer: Layer, pairs: Sequence[TextAndUnit]) -> Floats:
        """Predict units' activations from descriptions by least squares.

        Args:
            layer: network and layer.
            pairs: description and index of a unit.

        Returns:
            Predicted levels on the measured half, float64 (image, pair).
        """
        presence = self.presences.of([text for text, _ in pairs])
        activations = self.held_out.layers[layer][:, [unit for _, unit in pairs]]
        # One simple regression per pair, in closed form: rows are pairs, columns are images.
        x, y = presence[:, self._fitted], activations[self._fitted].T
        x_mean, y_mean = x.mean(1, keepdims=True), y.mean(1, keepdims=True)
        variation = ((x - x_mean) ** 2).sum(1, keepdims=True)
        covariation = ((x - x_mean) * (y - y_mean)).sum(1, keepdims=True)
        # Constant presence has slope 0: it predicts the mean, which is mean ablation exactly.
        slope = np.divide(
            covariation, variation, out=np.zeros_like(variation), where=variation > 1e-12
        )
        levels: Floats = (y_mean + slope * (presence[:, self._measured] - x_mean)).T
        return levels

    def _layer_values(self, layer: Layer, pairs: Sequence[TextAndUnit]) -> Floats:
        """Return the values of pairs of one layer, in rounds of pairs with different units.

        The ablator takes one level per unit, so the k-th description of every unit goes into the
        k-th round.
        """
        values = np.full(len(pairs), np.nan)
        predicted = self.predicted(layer, pairs)
        rounds: list[list[int]] = []
        last_round: dict[int, int] = {}
        for i, (_, unit) in enumerate(pairs):
            number = last_round[unit] = last_round.get(unit, -1) + 1
            if number == len(rounds):
                rounds.append([])
            rounds[number].append(i)
        for indices in rounds:
            units = [pairs[i][1] for i in indices]
            # All other units stay at their mean levels, which `_changes` never reads.
            levels = self._mean_levels(layer)
            levels[:, units] = predicted[:, indices]
            changes = self._changes(layer, levels, units)
            baseline = self._mean_ablation_changes(layer, units)
            # Without a baseline change nothing can be undone: such units have no value.
            shares = 1 - changes / np.where(baseline > 0, baseline, 1)
            values[indices] = np.where(baseline > 0, shares, np.nan)
        return values

    def _mean_levels(self, layer: Layer) -> Floats:
        """Return each unit's mean on the fitted half, for every measured image: (image, unit)."""
        means = self.held_out.layers[layer][self._fitted].mean(0)
        return np.repeat(means[None], len(self._measured), axis=0)

    def _mean_ablation_changes(self, layer: Layer, units: Sequence[int]) -> Floats:
        """Return the output change under mean ablation of each unit: (unit,)."""
        new = [u for u in dict.fromkeys(units) if (layer, u) not in self._mean_changes]
        if new:
            changes = self._changes(layer, self._mean_levels(layer), new)
            self._mean_changes.update(
                ((layer, unit), float(change)) for unit, change in zip(new, changes, strict=True)
            )
        return np.array([self._mean_changes[layer, unit] for unit in units])

    def _changes(self, layer: Layer, levels: Floats, units: Sequence[int]) -> Floats:
        """Return the output change when each unit alone is set to its levels: (unit,).

        The change is the Euclidean distance of class scores, averaged over images.

        Args:
            layer: network and layer.
            levels: activations to set, (image, unit of the layer).
            units: indices of the units, one run each.
        """
        import torch
        from torch.utils.data import Subset

        from milannotations.exemplars import Ablator

        network, label = layer
        probing = self.held_out.probings[network]
        items: Any = probing.items
        # Prefer the layer object, which holds the choice of output and axis order, to its name.
        hooked = [candidate for candidate in probing.layers if str(candidate) == label]
        ablator = Ablator(
            probing.model,
            Subset(items, self._measured.tolist()),
            hooked or [label],
            run=probing.run,
            arguments=getattr(items, "arguments", None),
            given={label: torch.from_numpy(levels).float()},
        )
        if network not in self._unchanged_logits:
            self._unchanged_logits[network] = ablator.logits([{}])[0]
        unchanged = self._unchanged_logits[network]
        # The ablator returns the class scores of all its units at once: pass a few at a time.
        step = max(1, MAX_LOGIT_BYTES // max(1, unchanged.nbytes))
        changes = list[Floats]()
        for start in range(0, len(units), step):
            logits = ablator.logits([{label: [unit]} for unit in units[start : start + step]])
            distances = np.linalg.norm((logits - unchanged).astype(np.float64), axis=2)
            changes.append(distances.mean(1))
        return np.concatenate(changes)

    def signature(self) -> str:
        """Return everything but the texts that the values depend on."""
        return "|".join([SIMULATION, self.presences.digest, self.held_out.digest])
