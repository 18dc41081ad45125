"""Accuracy of a network under ablation of sets of units, measured once for each set.

Analysis and editing ask for the same sets again and again: methods share the whole network and
controls of equal size, the arms of an edit share the ablation of each single unit. Every count is
kept in memory and, if there is a folder, in a cache entry named by the network and its images, so
that the next method or the next run finds it there.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from leaderboard.applications.common.labelled_images import LabelledImages
from milannotations.errors import InputError
from milannotations.schema import Unit
from milannotations.utils.cache import Cache, CacheEntry

if TYPE_CHECKING:
    from torch import nn

    from milannotations.exemplars import Ablator, Layer, RunConfig

TEST = "test"
"""Role of the images of an analysis."""

ROLES = ("validation-clean", "validation-conflict", "test-clean", "test-conflict")
"""Roles of the images of an edit. Clean images carry no cue, conflict images the cue of a wrong
class. Counts are chosen on validation images and reported on test images. A role `training` may
stand beside them: images to fine-tune the last layer on."""

UnitSet = Sequence[Unit]
"""Units of one network that are ablated together; empty for the whole network."""


class AblatedNetwork:
    """Trained network with labelled images, whose accuracy is measured under ablation.

    An image that could not be read, and was skipped by `RunConfig.skip_bad`, counts as a wrong
    prediction.

    Args:
        name: name of the network in predictions.
        model: network that gives class scores.
        layers: layers whose units may be ablated, with the number of units of each.
        images: labelled images by role (`TEST`, or `ROLES`).
        classes: names of the network's outputs.
        seed: random seed of the network's training, and of the draws made for it.
        source: what the network is, with a digest, for the record.
        mask_shares: share of each unit's exemplar masks inside the cue, which is what descriptions
            can tell; None where it is unknown.
        selectivity: share of each unit's active area inside the cue, over all images; None where
            it is unknown.
        run: batches and device of the passes.
        folder: cache of what was measured; None keeps it in memory.
        deterministic: run on one thread with deterministic kernels, so that the same network
            trained twice gives the same predictions to the last bit.

    Raises:
        InputError: an image of a class that is not among the network's outputs.
    """

    def __init__(
        self,
        name: str,
        model: nn.Module,
        layers: Mapping[str, int] | Mapping[str | Layer, int],
        images: Mapping[str, LabelledImages],
        classes: Sequence[str],
        *,
        seed: int = 0,
        source: Mapping[str, Any] | None = None,
        mask_shares: Mapping[Unit, float] | None = None,
        selectivity: Mapping[Unit, float] | None = None,
        run: RunConfig | None = None,
        folder: Path | None = None,
        deterministic: bool = True,
    ) -> None:
        from milannotations.exemplars import Layer

        self.name, self.model, self.images, self.classes = name, model, images, classes
        self.seed, self.source = seed, dict(source or {})
        self.mask_shares, self.selectivity = mask_shares, selectivity
        self.layers = [Layer.parse(layer) if isinstance(layer, str) else layer for layer in layers]
        self.widths = {
            layer.label: width for layer, width in zip(self.layers, layers.values(), strict=True)
        }
        self.run, self.folder, self.deterministic = run, folder, deterministic
        # Correct predictions by class, of each set of units: by (role, how), then by set key.
        # Counts rather than accuracies, since both the total and the classes follow from them.
        self._counts: dict[tuple[str, str], dict[str, list[int]]] = {}
        self._ablators: dict[tuple[str, str], Ablator] = {}
        for labelled in images.values():
            self._check_labels(labelled)

    @cached_property
    def units(self) -> list[Unit]:
        """Units that may be ablated, in order."""
        return [
            Unit(self.name, layer, i) for layer, width in self.widths.items() for i in range(width)
        ]

    def accuracies(self, role: str, sets: Sequence[UnitSet], how: str = "zero") -> list[float]:
        """Return the accuracy under ablation of each set of units.

        Args:
            role: role of the images.
            sets: units to ablate.
            how: value of an ablated unit: `zero`, `mean` or `resample`; see `exemplars.Ablator`.
        """
        counts = self.correct_counts(role, sets, how)
        accuracies: list[float] = (counts.sum(1) / max(1, len(self.images[role]))).tolist()
        return accuracies

    def class_accuracies(
        self, role: str, sets: Sequence[UnitSet], how: str = "zero"
    ) -> NDArray[np.float64]:
        """Return the accuracy of each class under ablation of each set; see `accuracies`.

        Returns:
            float64 (set, class); nan for a class without images.
        """
        totals = self.images[role].class_counts(len(self.classes))
        with np.errstate(invalid="ignore"):
            accuracies: NDArray[np.float64] = self.correct_counts(role, sets, how) / totals
        return accuracies

    def correct_counts(
        self, role: str, sets: Sequence[UnitSet], how: str = "zero"
    ) -> NDArray[np.int64]:
        """Return the number of correct predictions of each class under ablation of each set.

        Args:
            role, sets, how: see `accuracies`.

        Returns:
            int64 (set, class).
        """
        labels, known = self.images[role].labels, self._known_counts(role, how)
        # Only sets that nobody has asked for yet go through the network. The dict removes sets
        # that come twice in one call, and keeps their order.
        keys = [_set_key(units) for units in sets]
        missing = {key: units for key, units in zip(keys, sets, strict=True) if key not in known}
        if missing:
            with self._reproducible():
                predictions = self._ablator(role, how).predictions(
                    [_by_layer(units) for units in missing.values()]
                )
            # predictions (set, image) == labels (image,)
            for key, correct in zip(missing, predictions == labels, strict=True):
                known[key] = np.bincount(labels[correct], minlength=len(self.classes)).tolist()
            # Written after every pass, so that an interrupted run resumes from here.
            self._entry(role, how).write_json(known)
        return np.array([known[key] for key in keys], np.int64).reshape(-1, len(self.classes))

    def ablation_order(self, role: str) -> list[Unit]:
        """Return all units, sorted by the accuracy under ablation of each alone, highest first.

        Hernandez et al. 2022, section 7. A seeded draw breaks ties.
        """
        # one set per unit: the most expensive pass of an edit, and the same for every method
        alone = self.accuracies(role, [[unit] for unit in self.units])
        ties = np.random.default_rng([self.seed, 7]).permutation(len(self.units))
        indices = sorted(range(len(alone)), key=lambda i: (-alone[i], ties[i]))
        return [self.units[i] for i in indices]

    def fine_tuned_correct_counts(
        self, roles: Sequence[str], sets: Sequence[UnitSet], epochs: int
    ) -> dict[str, NDArray[np.int64]]:
        """Return `correct_counts` by role after training the last layer under each ablation.

        The last linear layer is trained on its inputs for the images of role `training`, by AdamW
        at 1e-4 in batches of 128, as in the 2022 code.

        Args:
            roles: roles of the images to count on.
            sets: units to ablate.
            epochs: passes over the training images.

        Raises:
            InputError: no training images, or no linear layer.
        """
        from leaderboard.applications.common import head_tuning

        if "training" not in self.images:
            raise InputError(
                f"{self.name} has no training images, so its last layer cannot be trained."
            )
        head_name, head = head_tuning.last_linear(self.model)
        layer_sets = [_by_layer(units) for units in sets]
        # The layers before the head do not change, so its inputs are computed once for each set
        # and a head is trained on them for each set, instead of running the network every epoch.
        with self._reproducible():
            features = {
                role: head_tuning.compute_features(
                    self.model, head_name, self.images[role], self.layers, self.run, layer_sets
                )
                for role in ("training", *roles)
            }
            labels = self.images["training"].labels
            classifiers = [
                head_tuning.tune(head, inputs, labels, epochs, self.seed)
                for inputs in features["training"]
            ]
        counts = {}
        for role in roles:
            labels = self.images[role].labels
            rows = []
            for classify, inputs in zip(classifiers, features[role], strict=True):
                correct = classify(inputs) == labels
                rows.append(np.bincount(labels[correct], minlength=len(self.classes)))
            counts[role] = np.array(rows, np.int64).reshape(-1, len(self.classes))
        return counts

    def _reproducible(self) -> Any:
        from milannotations.synthetic.training import reproducible

        return reproducible(self.seed) if self.deterministic else nullcontext()

    def _ablator(self, role: str, how: str) -> Ablator:
        from milannotations.exemplars import Ablator

        if (role, how) not in self._ablators:
            images = self.images[role].images
            self._ablators[role, how] = Ablator(
                self.model, images, self.layers, how=how, run=self.run
            )
        return self._ablators[role, how]

    def _entry(self, role: str, how: str) -> CacheEntry:
        if self.folder is None:  # the digest of a large network takes time
            return CacheEntry(None)
        key = (self._digest, dict(self.images[role].source), sorted(self.widths), how)
        return Cache(self.folder).entry("ablated", *key, suffix=".json")

    @cached_property
    def _digest(self) -> str | None:
        from milannotations.exemplars.networks.digest import network_digest

        return network_digest(self.model)

    def _known_counts(self, role: str, how: str) -> dict[str, list[int]]:
        if (role, how) not in self._counts:
            self._counts[role, how] = self._entry(role, how).read_json() or {}
        return self._counts[role, how]

    def _check_labels(self, labelled: LabelledImages) -> None:
        labels, count = labelled.labels, len(self.classes)
        if len(labels) and not 0 <= labels.min() <= labels.max() < count:
            raise InputError(
                f"An image is of class {int(labels.max())}, and {self.name} has {count} output "
                f"classes, 0 to {count - 1}. Give images of classes that it was trained on."
            )


def _by_layer(units: UnitSet) -> dict[str, list[int]]:
    """Return the indices of units by layer, as `Ablator` takes them."""
    indices: dict[str, list[int]] = {}
    for unit in units:
        indices.setdefault(unit.layer, []).append(unit.unit)
    return indices


def _set_key(units: UnitSet) -> str:
    """Return the key of a set of units: the same in any order, and short for thousands of units."""
    pairs = sorted((unit.layer, unit.unit) for unit in units)
    return hashlib.sha256(json.dumps(pairs).encode()).hexdigest()[:24]
