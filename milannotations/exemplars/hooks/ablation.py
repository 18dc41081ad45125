"""Predictions of a network with some of its units ablated.

Hernandez et al. 2022, sections 5 and 7, set the activations of units to zero and measure accuracy.
Zero is far from what some units ever do; a unit can also be held at its mean over images and
positions, be given its activations on another image, or be given values that a user computed.

For many sets of units, the activations up to the first ablated layer of each set are computed once
per batch and kept, and only what comes after is run again (see `replay`): 256 single units of
ResNet-18, spread over conv1 and layer1 to layer4, take a fifth of the time of 256 complete passes.

    ablator = Ablator(model, images, ["layer3", "layer4"])
    predictions = ablator.predictions([{}, {"layer3": [7]}, {"layer3": [7, 8], "layer4": [1]}])
    accuracy(predictions, labels)  # of the complete network, without one unit, without three
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from milannotations.errors import InputError, did_you_mean, some
from milannotations.exemplars.device import best_device
from milannotations.exemplars.hooks.accuracy import NO_PREDICTION
from milannotations.exemplars.hooks.interventions import UnitSet, overwrite_units
from milannotations.exemplars.hooks.layers import (
    OUTPUTS,
    Layer,
    find_modules,
    replace_tensor,
    select_tensor,
    unit_axis,
)
from milannotations.exemplars.hooks.reader import LayerReader
from milannotations.exemplars.hooks.replay import RecordedRun, Replay
from milannotations.exemplars.images.batches import load_batches
from milannotations.exemplars.run_config import RunConfig

if TYPE_CHECKING:
    import torch
    from torch import Tensor, nn

ClassPredictions = NDArray[np.int32]

ABLATION_VALUES = ("zero", "mean", "resample")
"""Values that ablated units are set to."""

TILE_BYTES = 48_000_000
"""Most bytes of the first ablated layer's output in one forward pass: copies of a batch, each with
another set of units ablated, go through the network together up to this size."""

_Key = tuple[tuple[str, tuple[int, ...]], ...]
"""A set of units as a value: pairs of a layer's label and its units, both ascending."""


class Ablator:
    """A network and images, to predict classes with sets of units ablated.

    A unit is ablated at all positions; among tokens, at class and register tokens too. Where a
    module is called several times in a forward pass, its last call is ablated.

    Args:
        model: network that returns class scores (image, class), alone or as `logits`. It is put in
            evaluation mode and moved to the device.
        dataset: images, as for `exemplars.compute`.
        layers: layers whose units may be ablated: dotted names, or `Layer`s.
        how: `zero`; `mean`, each unit's mean over all positions of all images, as `LayerReader`
            reads the layer; `resample`, the unit's activations on another image, drawn at random.
        run: batches, device, dtype and seed. With `resample`, the batch size is reduced until no
            batch has a single image.
        arguments: function from an item of the dataset to the network's arguments; see
            `exemplars.compute`.
        given: values instead of `how`, by layer: (image, unit) for all positions, or maps
            (image, unit, h, w), read at the nearest position.

    Raises:
        InputError: no such layer or way to ablate; no image, or a single one for `resample`;
            values for other images or layers.
    """

    def __init__(
        self,
        model: nn.Module,
        dataset: Any,
        layers: Sequence[str | Layer],
        *,
        how: str = "zero",
        run: RunConfig | None = None,
        arguments: Callable[[Any], tuple[Any, ...]] | None = None,
        given: Mapping[str, Tensor] | None = None,
    ) -> None:
        if how not in ABLATION_VALUES:
            raise InputError(
                f"Units cannot be ablated by '{how}' (ways: {', '.join(ABLATION_VALUES)})."
            )
        if len(dataset) < (2 if how == "resample" else 1):
            raise InputError(f"{len(dataset)} images are too few to ablate units by '{how}'.")
        chosen = [Layer.parse(layer) if isinstance(layer, str) else layer for layer in layers]
        modules = find_modules(model, chosen)
        self.model, self.dataset, self.how = model, dataset, how
        self.run = run or RunConfig()
        self.layers = {layer.label: layer for layer in chosen}
        self.widths: dict[str, int] = {}
        self._given, self._batch_indices = given, np.arange(0)
        if given is not None:
            self.how = "given"
            missing = [label for label in self.layers if label not in given]
            if missing or any(len(values) != len(dataset) for values in given.values()):
                raise InputError(
                    f"Values were given for layers {', '.join(given)}, for "
                    f"{', '.join(f'{len(values):,}' for values in given.values())} images; "
                    f"expected {', '.join(self.layers)} and {len(dataset):,} images."
                )
        self._arguments = arguments or getattr(dataset, "arguments", None)
        self._replay = Replay(model, {layer.label: modules[layer.name] for layer in chosen})
        # `resample` gives each image the activations of its neighbour in the batch, so the images
        # are shuffled into batches, and none may be alone in the last one.
        self._order = _shuffled(len(dataset), self.run.seed) if how == "resample" else None
        self._batch_size = self.run.batch_size
        while how == "resample" and self._batch_size > 2 and len(dataset) % self._batch_size == 1:
            self._batch_size -= 1

    def predictions(self, sets: Sequence[UnitSet]) -> ClassPredictions:
        """Return the class with the highest score for each image, with each set of units ablated.

        Args:
            sets: units to ablate, by layer; an empty set gives the complete network. Equal sets
                are run once.

        Returns:
            int32 (set, image); -1 for an image that could not be read and was left out because
            of `RunConfig.skip_bad`.

        Raises:
            InputError: a layer or unit that the network does not have; no class scores.
        """
        return self._collect(sets, (), np.int32, lambda logits: logits.argmax(1))

    def logits(self, sets: Sequence[UnitSet]) -> NDArray[np.float32]:
        """Return class scores, float32 (set, image, class); otherwise as `predictions`."""
        shape = (self._count_classes(),)
        return self._collect(sets, shape, np.float32, lambda logits: logits.float())

    # ---- passes over the images

    def _collect(
        self,
        sets: Sequence[UnitSet],
        shape: tuple[int, ...],
        dtype: Any,
        reduce: Callable[[Tensor], Tensor],
    ) -> Any:
        """Return a function of the class scores for all sets and images: (set, image, *shape)."""
        from tqdm import tqdm

        keys = [_key(units) for units in sets]
        distinct = list(dict.fromkeys(keys))
        results = np.full((len(distinct), len(self.dataset), *shape), NO_PREDICTION, dtype)
        with (
            self._running(),
            tqdm(
                total=len(self.dataset) * max(1, len(distinct)),
                desc="ablations",
                unit="img",
                disable=not self.run.progress,
            ) as bar,
        ):
            for batch in self._batches():
                arguments = self._to_device(batch.arguments)
                if not self._replay.plans:
                    self._learn(arguments)
                self._check_units(distinct)
                indices = batch.ids.numpy()
                if self._order is not None:
                    indices = self._order[indices]
                self._batch_indices = indices
                for rows, logits in self._ablate_batch(arguments, distinct):
                    values = reduce(logits).cpu().numpy()
                    values = values.reshape(len(rows), len(indices), *shape)
                    results[rows, indices[None]] = values
                    bar.update(len(rows) * len(indices))
        return results[[distinct.index(key) for key in keys]]

    def _ablate_batch(
        self, arguments: tuple[Tensor, ...], sets: Sequence[_Key]
    ) -> Iterator[tuple[NDArray[np.intp], Tensor]]:
        """Yield rows of `sets`, as a column (row, 1), and their class scores (row * image, class).

        The class scores of all images for the first row come first, then those for the second.
        """
        recorded = self._replay.run(arguments)
        # Sets with the same first ablated layer are replayed from there together.
        rows_by_layer: dict[str, list[int]] = {}
        for row, units in enumerate(sets):
            if not units:
                yield np.array([[row]]), self._scores(recorded.output)
            else:
                first = min((label for label, _ in units), key=self._replay.ends.__getitem__)
                rows_by_layer.setdefault(first, []).append(row)
        for label, rows in rows_by_layer.items():
            plan = self._replay.plans[label]
            if plan.needed is None:  # the network cannot be replayed from here: run all of it
                for row in rows:
                    with self._ablated([sets[row]], None):
                        yield np.array([[row]]), self._scores(self.model(*arguments))
                continue
            # Late layers have few values for each image, and one batch does not fill the device.
            # So copies of the batch go through together, one for each set of units.
            copies = self._copies(label, recorded) if plan.tiles else 1
            for start in range(0, len(rows), copies):
                tile = rows[start : start + copies]
                with self._ablated([sets[row] for row in tile], label):
                    output = self._replay.run_from(label, recorded, len(tile))
                yield np.array(tile)[:, None], self._scores(output)

    def _copies(self, label: str, recorded: RecordedRun) -> int:
        """Return the number of copies of a batch that go through together from a layer on."""
        # the layer's own call is the last of those whose recorded output is returned
        output = recorded.outputs[self._replay.plans[label].skipped[-1]]
        tensor = select_tensor(output, self.layers[label])
        return max(1, TILE_BYTES // (tensor.numel() * tensor.element_size()))

    @contextmanager
    def _ablated(self, sets: Sequence[_Key], start: str | None) -> Iterator[None]:
        """Ablate set i in the i-th copy of a batch.

        Args:
            sets: one for each copy.
            start: label of the layer that the run starts from; None for a complete run.
        """
        # One hook on each layer handles the copies in which it has ablated units.
        of_layer: dict[str, list[tuple[int, Sequence[int]]]] = {}
        for copy, units in enumerate(sets):
            for label, indices in units:
                of_layer.setdefault(label, []).append((copy, indices))
        handles = []
        for label, parts in of_layer.items():
            calls = self._replay.remaining_calls(start, label)
            hook = self._make_hook(self.layers[label], parts, len(sets), calls, label == start)
            handles.append(self._replay.modules[label].register_forward_hook(hook))
        try:
            yield
        finally:
            for handle in handles:
                handle.remove()

    def _make_hook(
        self,
        layer: Layer,
        parts: Sequence[tuple[int, Sequence[int]]],
        copies: int,
        calls: int,
        is_start: bool,
    ) -> Callable[..., Any]:
        """Return a hook that ablates units at the last call of a layer's module.

        Args:
            layer: the layer.
            parts: pairs of a copy of the batch and the units to ablate in it.
            copies: number of copies.
            calls: number of calls of the module in this run.
            is_start: the run starts from this layer.
        """
        remaining = calls

        def hook(_: nn.Module, __: Any, output: Any) -> Any:
            nonlocal remaining
            remaining -= 1
            if remaining:
                return None
            tensor = select_tensor(output, layer)
            # The replay returns a copy of its own at the layer that it starts from. Elsewhere the
            # tensor may be needed by the network, e.g. as the input of a shortcut.
            changed = tensor if is_start and tensor is output else tensor.clone()
            count = tensor.shape[0] // copies
            axis = unit_axis(tensor, layer)
            for copy, units in parts:
                images = slice(copy * count, (copy + 1) * count)
                values = self._values(layer.label)
                overwrite_units(changed[images], tensor[images], axis, units, *values)
            return replace_tensor(output, layer, changed)

        return hook

    def _values(self, label: str) -> tuple[str, Tensor | None]:
        """Return how units of a layer are ablated, and the values for the images of the batch."""
        if self._given is not None:
            return self.how, self._given[label][self._batch_indices]
        return self.how, self._means[label] if self.how == "mean" else None

    @cached_property
    def _means(self) -> dict[str, Tensor]:
        """Each unit's mean over all positions of all images, by layer."""
        sums: dict[str, Any] = {}
        counts: Counter[str] = Counter()
        layers = list(self.layers.values())
        with LayerReader(self.model, layers, self.run.read, self.run.missing) as reader:
            for batch in self._batches():
                for label, output in reader.run(*self._to_device(batch.arguments)).items():
                    axis = unit_axis(output, self.layers[label])
                    values = output.float().movedim(axis, 0).flatten(1)
                    sums[label] = sums.get(label, 0) + values.sum(1).cpu().double()
                    counts[label] += values.shape[1]
        return {label: total / counts[label] for label, total in sums.items()}

    # ---- network and images

    @contextmanager
    def _running(self) -> Iterator[None]:
        """Put the network on the device, in evaluation mode, without gradients."""
        import torch

        device, was_training = self._device, self.model.training
        self.model.eval().to(device)
        dtype = self.run.dtype
        try:
            with (
                torch.no_grad(),
                torch.autocast(
                    device.type, dtype=getattr(torch, dtype), enabled=dtype != "float32"
                ),
            ):
                if self.how == "mean":
                    _ = self._means  # computed now: its pass must not run inside another pass
                yield
        finally:
            self.model.train(was_training)

    @cached_property
    def _device(self) -> torch.device:
        import torch

        return torch.device(self.run.device or best_device())

    def _batches(self, numbers: Sequence[int] | None = None) -> Iterator[Any]:
        """Yield the readable images of all batches, or of some.

        Raises:
            InputError: an image cannot be read, unless `RunConfig.skip_bad` is set.
        """
        from torch.utils.data import Subset

        dataset, size = self.dataset, self._batch_size
        if numbers is None:
            numbers = range(-(-len(dataset) // size))
        if self._order is not None:
            dataset = Subset(dataset, self._order.tolist())
        for batch in load_batches(dataset, numbers, size, self.run.workers, self._arguments):
            if batch.unreadable and not self.run.skip_bad:
                index, reason = batch.unreadable[0]
                index = index if self._order is None else int(self._order[index])
                source_id = getattr(self.dataset, "source_id", str)(index)
                raise InputError(
                    f"{source_id} cannot be read: {reason}. Repair or remove it, or leave such "
                    "images out with --skip-bad."
                )
            if len(batch.ids):
                yield batch

    def _to_device(self, arguments: tuple[Any, ...]) -> tuple[Any, ...]:
        return tuple(argument.to(self._device, non_blocking=True) for argument in arguments)

    def _learn(self, arguments: tuple[Any, ...]) -> None:
        """Learn each layer's number of units, and how to replay the network, from one batch."""
        layers = self.layers

        def record_width(label: str) -> Callable[..., None]:
            def hook(_: nn.Module, __: Any, output: Any) -> None:
                tensor = select_tensor(output, layers[label])
                self.widths[label] = tensor.shape[unit_axis(tensor, layers[label])]

            return hook

        handles = [
            module.register_forward_hook(record_width(label))
            for label, module in self._replay.modules.items()
        ]
        try:
            # the reader raises an error for layers that a forward pass does not reach
            with LayerReader(self.model, list(layers.values()), "pre", self.run.missing) as reader:
                reader.run(*arguments)
        finally:
            for handle in handles:
                handle.remove()
        self._replay.learn(arguments, self._scores)

    def _count_classes(self) -> int:
        with self._running():
            batch = next(self._batches([0]))
            return int(self._scores(self.model(*self._to_device(batch.arguments))).shape[1])

    def _scores(self, output: Any) -> Tensor:
        """Return the class scores (image, class) in a network's output."""
        logits = getattr(output, "logits", None)
        tensor: Tensor = select_tensor(output, Layer(OUTPUTS)) if logits is None else logits
        if tensor.ndim != 2:
            raise InputError(
                f"The network returns a tensor of {tuple(tensor.shape)}; expected class scores "
                "(image, class). Give a network with its classifier."
            )
        return tensor

    def _check_units(self, sets: Sequence[_Key]) -> None:
        for label, units in {part for key in sets for part in key}:
            if label not in self.layers:
                raise InputError(
                    f"Layer '{label}' is not among the layers whose units may be ablated "
                    f"({', '.join(self.layers)}).{did_you_mean(label, self.layers)}"
                )
            outside = [unit for unit in units if not 0 <= unit < self.widths[label]]
            if outside:
                raise InputError(
                    f"Layer '{label}' has {self.widths[label]:,} units; unit {some(outside)} "
                    "cannot be ablated."
                )


def _key(units: UnitSet) -> _Key:
    """Return a set of units as a value, without layers that have no units."""
    return tuple(
        (label, tuple(sorted({int(unit) for unit in indices})))
        for label, indices in sorted(units.items())
        if len(indices)
    )


def _shuffled(count: int, seed: int) -> NDArray[np.intp]:
    return np.random.default_rng([seed, count]).permutation(count)
