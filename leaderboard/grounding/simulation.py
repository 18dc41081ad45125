"""Simulation by ablation: a unit does what its description predicts; does the network notice?

A unit's activation is replaced by what its description predicts, and the network's output moves.
It moves as far when the unit is held at its mean, and a description that says nothing does just
that. The score is the share of this move that a prediction undoes: 1 - move / move of the mean.

A description predicts a level for each picture: a straight line from presence to the unit's mean
activation, fitted on one half of the pictures. Moves are measured on the other half, so that
a line through noise gains nothing.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from leaderboard.grounding.functional import Floats
from leaderboard.metrics.base import MetricSpec, ReferenceSets, RowMetric, distinct
from milannotations.errors import InputError

if TYPE_CHECKING:
    from leaderboard.grounding.activations import HeldOutActivations
    from leaderboard.grounding.scorers import Presences

SIMULATION = "simulation"
"""Name of the metric, as `milan score --metrics` takes it."""

BYTES = 2**27
"""Class scores that are held together, of a few units at a time."""

Pair = tuple[str, int]


class Simulation(RowMetric):
    """`simulation`: share of what mean ablation moves that the description's prediction undoes.

    Given pairs only: each takes a run of the network from the unit's layer on. A unit that nothing
    depends on has no value.

    Args:
        held: networks with class scores, on whole pictures.
        presences: in which pictures descriptions are.
        seed: of the halves.

    Raises:
        InputError: regions instead of whole pictures.
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

    def __init__(self, held: HeldOutActivations, presences: Presences, seed: int = 0) -> None:
        if held.grid is not None:
            raise InputError("Simulation predicts whole pictures: leave --grid out.")
        self.held, self.presences = held, presences
        n = held.samples
        shuffled = np.random.default_rng([seed, n]).permutation(n)
        self._fixed, self._counted = np.sort(shuffled[: n // 2]), np.sort(shuffled[n // 2 :])
        self._means: dict[tuple[tuple[str, str], int], float] = {}
        self._whole: dict[str, NDArray[np.float32]] = {}

    def defined(self, predictions: Sequence[str], references: ReferenceSets) -> NDArray[np.bool_]:
        """Return which texts can be read, of units that something depends on."""
        self.presences.of(list(dict.fromkeys(predictions)))  # at once
        found = np.zeros(len(predictions), dtype=bool)
        units = [self._unit(members[0]) for members in references]
        for layer in self.held.layers:
            places = [
                place
                for place, (own, _) in enumerate(units)
                if own == layer and self.presences.readable(predictions[place])
            ]
            found[places] = self._at_mean(layer, [units[place][1] for place in places]) > 0
        return found

    def _unit(self, key: str) -> tuple[tuple[str, str] | None, int]:
        """Return layer and index of a unit by key; no layer of one that was not seen."""
        head, _, index = key.rpartition("/")
        layer = next((each for each in self.held.layers if "/".join(each) == head), None)
        return layer, int(index)

    def rows(self, predictions: Sequence[str], references: ReferenceSets) -> Floats:
        """Return a value for each prediction and its own unit; nan where there is none."""
        asked = [(text, members[0]) for text, members in zip(predictions, references, strict=True)]
        pairs, at = distinct(asked)
        found = np.full(len(pairs), np.nan)
        by_layer: dict[tuple[str, str], list[int]] = {}
        self.presences.of(list(dict.fromkeys(predictions)))  # at once
        for place, (text, key) in enumerate(pairs):
            layer, _ = self._unit(key)
            if layer is not None and self.presences.readable(text):
                by_layer.setdefault(layer, []).append(place)
        for layer, places in by_layer.items():
            own = [(pairs[i][0], self._unit(pairs[i][1])[1]) for i in places]
            found[places] = self._layer(layer, own)
        return found[at]

    def predicted(self, layer: tuple[str, str], pairs: Sequence[Pair]) -> Floats:
        """Return what descriptions predict of units: float64 (picture that counts, pair).

        Args:
            layer: network and layer.
            pairs: text and index of a unit.
        """
        presence = self.presences.of([text for text, _ in pairs])
        activations = self.held.layers[layer][:, [unit for _, unit in pairs]]
        x, y = presence[:, self._fixed], activations[self._fixed].T
        x_mean, y_mean = x.mean(1, keepdims=True), y.mean(1, keepdims=True)
        spread = ((x - x_mean) ** 2).sum(1, keepdims=True)
        together = ((x - x_mean) * (y - y_mean)).sum(1, keepdims=True)
        slope = np.divide(together, spread, out=np.zeros_like(spread), where=spread > 1e-12)
        made: Floats = (y_mean + slope * (presence[:, self._counted] - x_mean)).T
        return made

    def _layer(self, layer: tuple[str, str], pairs: Sequence[Pair]) -> Floats:
        """Return values of pairs of a layer, a round of runs for pairs of different units."""
        found = np.full(len(pairs), np.nan)
        predicted = self.predicted(layer, pairs)
        rounds: list[list[int]] = []
        met: dict[int, int] = {}
        for place, (_, unit) in enumerate(pairs):
            number = met[unit] = met.get(unit, -1) + 1
            if number == len(rounds):
                rounds.append([])
            rounds[number].append(place)
        for places in rounds:
            units = [pairs[i][1] for i in places]
            levels = self._mean_levels(layer)
            levels[:, units] = predicted[:, places]
            moved = self._moves(layer, levels, units)
            base = self._at_mean(layer, units)
            found[places] = np.where(base > 0, 1 - moved / np.where(base > 0, base, 1), np.nan)
        return found

    def _mean_levels(self, layer: tuple[str, str]) -> Floats:
        means = self.held.layers[layer][self._fixed].mean(0)
        return np.repeat(means[None], len(self._counted), axis=0)

    def _at_mean(self, layer: tuple[str, str], units: Sequence[int]) -> Floats:
        """Return how far the output moves when each of these units is held at its mean: (unit,)."""
        new = [unit for unit in dict.fromkeys(units) if (layer, unit) not in self._means]
        if new:
            moved = self._moves(layer, self._mean_levels(layer), new)
            self._means.update(
                ((layer, unit), float(m)) for unit, m in zip(new, moved, strict=True)
            )
        return np.array([self._means[layer, unit] for unit in units])

    def _moves(self, layer: tuple[str, str], levels: Floats, units: Sequence[int]) -> Floats:
        """Return how far the output moves, unit by unit: a mean over pictures, (unit,).

        The Euclidean distance of class scores.
        """
        import torch
        from torch.utils.data import Subset

        from milannotations.exemplars import Ablator

        network, label = layer
        probing = self.held.probings[network]
        items: Any = probing.items
        chosen = [each for each in probing.layers if str(each) == label]
        ablator = Ablator(
            probing.model,
            Subset(items, self._counted.tolist()),
            chosen or [label],
            run=probing.run,
            arguments=getattr(items, "arguments", None),
            given={label: torch.from_numpy(levels).float()},
        )
        if network not in self._whole:
            self._whole[network] = ablator.logits([{}])[0]
        whole = self._whole[network]
        step = max(1, BYTES // max(1, whole.nbytes))
        found = list[Floats]()
        for start in range(0, len(units), step):
            part = ablator.logits([{label: [unit]} for unit in units[start : start + step]])
            found.append(np.linalg.norm((part - whole).astype(np.float64), axis=2).mean(1))
        return np.concatenate(found)

    def signature(self) -> str:
        """Return everything that the numbers depend on but the texts."""
        return "|".join([SIMULATION, self.presences.digest, self.held.digest])
