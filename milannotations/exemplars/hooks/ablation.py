"""What a network answers with some of its units ablated.

Hernandez et al. 2022, sections 5 and 7, set the activations of units to zero and measure accuracy.
Besides zero, a unit may be held at its mean over pictures and positions, or be given what it does
on another picture: zero is far from what some units ever do. Or it is given values of one's own, a
prediction of what it does.

Of many sets of units, the activations up to the first ablated layer of each are computed once
and kept, and only what comes after is run again (`replay`): of 256 single units of ResNet-18,
spread over conv1 and layer1 to layer4, that is a fifth of 256 passes.

    ablator = Ablator(model, images, ["layer3", "layer4"])
    answers = ablator.predictions([{}, {"layer3": [7]}, {"layer3": [7, 8], "layer4": [1]}])
    accuracy(answers, labels)  # of the whole network, without one unit, without three
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
from milannotations.exemplars.hooks.replay import Replay
from milannotations.exemplars.images.batches import load_batches
from milannotations.exemplars.run_config import RunConfig

if TYPE_CHECKING:
    import torch
    from torch import Tensor, nn

ClassPredictions = NDArray[np.int32]

ABLATION_VALUES = ("zero", "mean", "resample")

TILE_BYTES = 48_000_000
"""Copies of a batch, each with other units ablated, go through together up to this size."""


class Ablator:
    """A network on some pictures, whose answers without some of its units are wanted.

    A unit is ablated at all positions: of tokens, the class token's too. Where a module is called
    several times in a run, it is ablated at its last call.

    Args:
        model: gives class scores (image, class), alone or as `logits`. It is put in evaluation
            mode and moved to the device.
        dataset: pictures, as of `exemplars.compute`.
        layers: whose units may be ablated: dotted names, or `Layer`s.
        how: `zero`; `mean`, of the unit over all positions of all pictures, as
            `LayerReader` reads it;
            `resample`, what the unit does on another picture, drawn at random.
        run: batches, device, dtype and seed; of a batch of one nothing can be resampled.
        arguments: see `exemplars.compute`.
        given: instead of `how`, what units are set to, by layer: (image, unit) at all positions, or
            of maps (image, unit, h, w), read where each position lies.

    Raises:
        InputError: no such layer or way to ablate; no picture, or one for `resample`; values of
            other pictures or layers.
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
            raise InputError(f"{len(dataset)} pictures are too few to ablate units on by '{how}'.")
        wanted = [Layer.parse(each) if isinstance(each, str) else each for each in layers]
        named = find_modules(model, wanted)
        self.model, self.dataset, self.how = model, dataset, how
        self.run = run or RunConfig()
        self.layers = {layer.label: layer for layer in wanted}
        self.widths: dict[str, int] = {}
        self._given, self._places = given, np.arange(0)
        if given is not None:
            self.how = "given"
            lacking = [label for label in self.layers if label not in given]
            if lacking or any(len(values) != len(dataset) for values in given.values()):
                raise InputError(
                    f"Values were given of layers {', '.join(given)}, for "
                    f"{', '.join(f'{len(values):,}' for values in given.values())} pictures; "
                    f"expected {', '.join(self.layers)} and {len(dataset):,} pictures."
                )
        self._arguments = arguments or getattr(dataset, "arguments", None)
        self._replay = Replay(model, {layer.label: named[layer.name] for layer in wanted})
        self._order = _shuffled(len(dataset), self.run.seed) if how == "resample" else None
        # of a batch of one nothing can be resampled
        self._size = self.run.batch_size
        while how == "resample" and self._size > 2 and len(dataset) % self._size == 1:
            self._size -= 1

    def predictions(self, sets: Sequence[UnitSet]) -> ClassPredictions:
        """Return the class with the highest score, int32 (set, image), without each set of units.

        Args:
            sets: units to ablate; of an empty set, the whole network's answers. A set that comes
                several times is run once.

        Returns:
            A picture that could not be read, and was left out by `RunConfig.skip_bad`, has -1.

        Raises:
            InputError: a layer or unit that the network does not have; no class scores.
        """
        return self._each(sets, (), np.int32, lambda logits: logits.argmax(1))

    def logits(self, sets: Sequence[UnitSet]) -> NDArray[np.float32]:
        """Return class scores, float32 (set, image, class); else as `predictions`."""
        classes = (self._classes(),)
        return self._each(sets, classes, np.float32, lambda logits: logits.float())

    # ---- the passes

    def _each(
        self,
        sets: Sequence[UnitSet],
        shape: tuple[int, ...],
        dtype: Any,
        of: Callable[[Tensor], Tensor],
    ) -> Any:
        """Return something of the class scores, (set, image, *shape)."""
        from tqdm import tqdm

        asked = [_key(each) for each in sets]
        distinct = list(dict.fromkeys(asked))
        found = np.full((len(distinct), len(self.dataset), *shape), NO_PREDICTION, dtype)
        size = self._size
        with (
            self._running(),
            tqdm(
                total=len(self.dataset) * max(1, len(distinct)),
                desc="ablations",
                unit="img",
                disable=not self.run.progress,
            ) as bar,
        ):
            for batch in self._batches(range(-(-len(self.dataset) // size))):
                arguments = self._moved(batch.arguments)
                if not self._replay.plans:
                    self._learn(arguments)
                self._check(distinct)
                places = (
                    batch.ids.numpy() if self._order is None else self._order[batch.ids.numpy()]
                )
                self._places = places
                for rows, logits in self._of_batch(arguments, distinct):
                    values = of(logits).cpu().numpy()
                    found[rows, places[None]] = values.reshape(len(rows), len(places), *shape)
                    bar.update(len(rows) * len(places))
        return found[[distinct.index(each) for each in asked]]

    def _of_batch(
        self, arguments: tuple[Tensor, ...], sets: Sequence[_Key]
    ) -> Iterator[tuple[NDArray[np.intp], Tensor]]:
        """Yield rows of `sets`, as a column, and class scores (row * image, class)."""
        whole = self._replay.run(arguments)
        by_plan: dict[str, list[int]] = {}
        for place, units in enumerate(sets):
            if not units:
                yield np.array([[place]]), self._scores(whole.output)
            else:
                first = min((label for label, _ in units), key=self._replay.ends.__getitem__)
                by_plan.setdefault(first, []).append(place)
        # what comes last in the network first: what it needs is let go before more is made
        for label, places in by_plan.items():
            plan = self._replay.plans[label]
            if plan.needed is None:
                for place in places:
                    with self._ablated([sets[place]], None):
                        yield np.array([[place]]), self._scores(self.model(*arguments))
                continue
            times = self._copies(label, whole) if plan.tiles else 1
            for start in range(0, len(places), times):
                part = places[start : start + times]
                with self._ablated([sets[place] for place in part], label):
                    output = self._replay.run_from(label, whole, len(part))
                yield np.array(part)[:, None], self._scores(output)

    def _copies(self, label: str, whole: Any) -> int:
        kept = whole.kept[self._replay.plans[label].skipped[-1]]
        tensor = select_tensor(kept, self.layers[label])
        return max(1, TILE_BYTES // (tensor.numel() * tensor.element_size()))

    @contextmanager
    def _ablated(self, sets: Sequence[_Key], plan: str | None) -> Iterator[None]:
        """Ablate set i in the i-th copy of a batch, in a run from `plan` on (None: whole)."""
        of_layer: dict[str, list[tuple[int, Sequence[int]]]] = {}
        for place, units in enumerate(sets):
            for label, indices in units:
                of_layer.setdefault(label, []).append((place, indices))
        handles = []
        for label, parts in of_layer.items():
            left = self._replay.remaining_calls(plan, label)
            hook = self._hook(self.layers[label], parts, len(sets), left, label == plan)
            handles.append(self._replay.modules[label].register_forward_hook(hook))
        try:
            yield
        finally:
            for handle in handles:
                handle.remove()

    def _hook(
        self,
        layer: Layer,
        parts: Sequence[tuple[int, Sequence[int]]],
        copies: int,
        calls: int,
        is_ours: bool,
    ) -> Callable[..., Any]:
        """Return a hook that ablates units at a module's last call."""
        left = calls

        def hook(_: nn.Module, __: Any, output: Any) -> Any:
            nonlocal left
            left -= 1
            if left:
                return None
            tensor = select_tensor(output, layer)
            # at the first ablated layer it is a copy already
            changed = tensor if is_ours and tensor is output else tensor.clone()
            count = tensor.shape[0] // copies
            for place, units in parts:
                own = changed[place * count : (place + 1) * count]
                before = tensor[place * count : (place + 1) * count]
                overwrite_units(
                    own, before, unit_axis(tensor, layer), units, *self._values(layer.label)
                )
            return replace_tensor(output, layer, changed)

        return hook

    def _values(self, label: str) -> tuple[str, Tensor | None]:
        if self._given is not None:
            return self.how, self._given[label][self._places]
        return self.how, self._means[label] if self.how == "mean" else None

    @cached_property
    def _means(self) -> dict[str, Tensor]:
        """Each unit's mean over all positions of all pictures, by layer."""
        sums: dict[str, Any] = {}
        counts: Counter[str] = Counter()
        layers = list(self.layers.values())
        with LayerReader(self.model, layers, self.run.read, self.run.missing) as reader:
            for batch in self._batches(range(-(-len(self.dataset) // self._size))):
                for label, output in reader.run(*self._moved(batch.arguments)).items():
                    axis = unit_axis(output, self.layers[label])
                    values = output.float().movedim(axis, 0).flatten(1)
                    sums[label] = sums.get(label, 0) + values.sum(1).cpu().double()
                    counts[label] += values.shape[1]
        return {label: total / counts[label] for label, total in sums.items()}

    # ---- what is run, and on what

    @contextmanager
    def _running(self) -> Iterator[None]:
        import torch

        device, was_training = self._device, self.model.training
        self.model.eval().to(device)
        kind = self.run.dtype
        try:
            with (
                torch.no_grad(),
                torch.autocast(device.type, dtype=getattr(torch, kind), enabled=kind != "float32"),
            ):
                if self.how == "mean":
                    _ = self._means  # its pass is not to be inside another
                yield
        finally:
            self.model.train(was_training)

    @cached_property
    def _device(self) -> torch.device:
        import torch

        return torch.device(self.run.device or best_device())

    def _batches(self, numbers: Sequence[int]) -> Iterator[Any]:
        from torch.utils.data import Subset

        dataset = self.dataset
        if self._order is not None:
            dataset = Subset(dataset, self._order.tolist())
        for batch in load_batches(dataset, numbers, self._size, self.run.workers, self._arguments):
            if batch.unreadable and not self.run.skip_bad:
                place, why = batch.unreadable[0]
                place = place if self._order is None else int(self._order[place])
                name = getattr(self.dataset, "source_id", str)
                raise InputError(
                    f"{name(place)} cannot be read: {why}. Mend or remove it, or leave such "
                    "pictures out with --skip-bad."
                )
            if len(batch.ids):
                yield batch

    def _moved(self, arguments: tuple[Any, ...]) -> tuple[Any, ...]:
        return tuple(each.to(self._device, non_blocking=True) for each in arguments)

    def _learn(self, arguments: tuple[Any, ...]) -> None:
        layers = self.layers

        def widths(label: str) -> Callable[..., None]:
            def hook(_: nn.Module, __: Any, output: Any) -> None:
                tensor = select_tensor(output, layers[label])
                self.widths[label] = tensor.shape[unit_axis(tensor, layers[label])]

            return hook

        handles = [
            module.register_forward_hook(widths(label))
            for label, module in self._replay.modules.items()
        ]
        try:
            with LayerReader(self.model, list(layers.values()), "pre", self.run.missing) as reader:
                reader.run(*arguments)  # says what is wrong with layers that are not reached
        finally:
            for handle in handles:
                handle.remove()
        self._replay.learn(arguments, self._scores)

    def _classes(self) -> int:
        with self._running():
            batch = next(self._batches([0]))
            return int(self._scores(self.model(*self._moved(batch.arguments))).shape[1])

    def _scores(self, output: Any) -> Tensor:
        found = getattr(output, "logits", None)
        tensor: Tensor = select_tensor(output, Layer(OUTPUTS)) if found is None else found
        if tensor.ndim != 2:
            raise InputError(
                f"The network gives a tensor of {tuple(tensor.shape)}; class scores "
                "(image, class) were expected. Give a network with its classifier."
            )
        return tensor

    def _check(self, sets: Sequence[_Key]) -> None:
        for label, units in {part for each in sets for part in each}:
            if label not in self.layers:
                raise InputError(
                    f"Layer '{label}' is not among those whose units may be ablated "
                    f"({', '.join(self.layers)}).{did_you_mean(label, self.layers)}"
                )
            outside = [unit for unit in units if not 0 <= unit < self.widths[label]]
            if outside:
                raise InputError(
                    f"Layer '{label}' has {self.widths[label]:,} units; unit {some(outside)} was "
                    "to be ablated."
                )


_Key = tuple[tuple[str, tuple[int, ...]], ...]


def _key(units: UnitSet) -> _Key:
    """Return a set of units as a value: layers that have any, and their units, ascending."""
    return tuple(
        (label, tuple(sorted({int(unit) for unit in own})))
        for label, own in sorted(units.items())
        if len(own)
    )


def _shuffled(count: int, seed: int) -> NDArray[np.intp]:
    return np.random.default_rng([seed, count]).permutation(count)
