"""Exemplars of all units of many layers, in one pass of a set of images through a network.

Hernandez et al. 2022, section 3: a unit's exemplars are the k images on which its largest
activation is highest, each with a mask of the positions at which the activation is above the
unit's own .99 quantile over all positions of all images.

Every image goes through the network once, however many layers and statistics are requested; the
network stops after the last requested layer. The activation maps of a unit's current exemplars
are kept, so that masks need no second pass.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from milannotations.errors import InputError, some
from milannotations.exemplars import distributed
from milannotations.exemplars.checkpoint import Checkpoint
from milannotations.exemplars.device import best_device, is_out_of_memory, open_device
from milannotations.exemplars.hooks.layers import Layer, as_maps
from milannotations.exemplars.hooks.reader import LayerReader
from milannotations.exemplars.images.batches import Batch, load_batches
from milannotations.exemplars.networks.digest import network_digest
from milannotations.exemplars.results import LayerExemplars, NetworkExemplars, SkippedImage
from milannotations.exemplars.run_config import RunConfig
from milannotations.exemplars.tallies.base import Tally
from milannotations.exemplars.tallies.quantile import Quantile
from milannotations.exemplars.tallies.topk import TopK
from milannotations.exemplars.tallies.validation import NonFiniteError

if TYPE_CHECKING:
    import torch
    from torch import Tensor, nn

K = 15
"""Exemplars per unit (Hernandez et al. 2022, section 3)."""

QUANTILE = 0.99
"""Quantile of a unit's activations, over all positions of all images, that is its threshold
(Hernandez et al. 2022, section 3)."""

Tallies = Mapping[str, Callable[[str], Tally]]
"""Functions that make an empty tally for the layer of a label, by the name of the result."""


def compute(
    model: nn.Module,
    dataset: Any,
    layers: Sequence[str | Layer],
    k: int = K,
    quantile: float = QUANTILE,
    *,
    tallies: Tallies | None = None,
    run: RunConfig | None = None,
    arguments: Callable[[Any], tuple[Any, ...]] | None = None,
) -> NetworkExemplars:
    """Compute the exemplars of all units of some layers, in one pass over a dataset.

    Under `torchrun`, or in any initialised process group, every process reads its share of the
    batches and all of them return the same result, bit for bit the same as one process.

    Args:
        model: any network. It is put in evaluation mode and moved to the device.
        dataset: has `len()` and gives items by index: a tensor (3, height, width), a tuple that
            begins with one, or a dict with `image` or `pixel_values` (and `concepts`, bool
            (concept, h, w) or label planes, int32 (plane, h, w), for tallies that need them).
            `exemplars.open_images` opens a folder as one.
        layers: dotted names, or `Layer`s.
        k: exemplars per unit.
        quantile: quantile of a unit's activations that is its threshold.
        tallies: further statistics of every layer, by name: functions that make an empty tally
            for the layer of a label. `{"mean": lambda layer: Pooled("mean")}`
        run: batch size, device and so on.
        arguments: makes the network's arguments of an item (default: the dataset's own method of
            that name, otherwise the rules above).

    Raises:
        InputError: no such layer; activations that are not maps, tokens or vectors, or not
            finite; an image that cannot be read (see `RunConfig.skip_bad`); no image at all; a
            checkpoint of something else; not enough memory for a batch of one.
    """
    import torch

    run = run or RunConfig()
    if len(dataset) == 0:
        raise InputError("There is no image; expected at least one.")
    parsed = [Layer.parse(layer) if isinstance(layer, str) else layer for layer in layers]
    group = distributed.current()
    device = open_device(run.device or best_device(group))
    was_training = model.training
    model.eval().to(device)
    work = Pass(model, dataset, parsed, k, quantile, tallies or {}, run, device, arguments)
    try:
        with work.reader, torch.no_grad():
            work.run_all(group)
    finally:
        model.train(was_training)
    return work.results()


class Pass:
    """State of a pass over the dataset: the tallies of every layer, and the images read so far.

    Args:
        model, dataset, layers, k, quantile, tallies, run, arguments: see `compute`.
        device: where `model` is.
    """

    def __init__(
        self,
        model: nn.Module,
        dataset: Any,
        layers: Sequence[Layer],
        k: int,
        quantile: float,
        tallies: Tallies,
        run: RunConfig,
        device: torch.device,
        arguments: Callable[[Any], tuple[Any, ...]] | None,
    ) -> None:
        self.model, self.dataset, self.layers, self.run = model, dataset, layers, run
        self.device, self.arguments = device, arguments
        self.reader = LayerReader(model, layers, run.read, run.missing)
        self.settings = {
            "k": k,
            "quantile": quantile,
            "batch_size": run.batch_size,
            "dtype": run.dtype,
            "read": self.reader.read,
            "seed": run.seed,
            "layers": {layer.label: layer.name for layer in layers},
        }
        self.makers: Tallies = {
            "top": lambda _: TopK(k),
            "quantile": lambda _: Quantile(quantile, images=len(dataset), seed=run.seed),
            **tallies,
        }
        self.chunk = run.batch_size  # images that go through together; halved when memory is short
        self.reset()

    def reset(self) -> None:
        """Discard everything that has been read."""
        self.tallies = {
            layer.label: {name: make(layer.label) for name, make in self.makers.items()}
            for layer in self.layers
        }
        self.kinds: dict[str, str] = {}
        self.skipped: list[SkippedImage] = []
        self.images = self.forwards = 0
        self.input_size: tuple[int, int] | None = None

    # ---- the pass

    def run_all(self, group: distributed.Group) -> None:
        """Run this process's share of the batches that no checkpoint holds, then merge.

        Raises:
            InputError: see `compute`.
            StoppedError: another process died.
        """
        from tqdm import tqdm

        size, count = self.run.batch_size, len(self.dataset)
        n_batches = -(-count // size)  # rounded up
        checkpoint = Checkpoint(self.run.checkpoint, self, group, self.run.checkpoint_every)
        done = checkpoint.load()
        # Whole batches are dealt to processes in turn. What is in a batch depends on the batch
        # size alone, so that the network's last bits do not depend on the number of processes.
        remaining = [number for number in range(n_batches) if number not in done]
        share = remaining[group.rank :: group.world]
        with tqdm(
            total=count,
            initial=min(len(done) * size, count),
            desc="images",
            unit="img",
            disable=not self.run.progress or group.rank != 0,
        ) as bar:
            for number, batch in zip(
                share,
                load_batches(self.dataset, share, size, self.run.workers, self.arguments),
                strict=True,
            ):
                self._update(batch)
                # the other processes are about as far as this one
                bar.update(group.world * (len(batch.ids) + len(batch.unreadable)))
                checkpoint.record(number)
                if distributed.is_stopping():
                    checkpoint.close()
                    raise checkpoint.stopped_error(n_batches)
            checkpoint.close()
            bar.update(count - bar.n)
        try:
            distributed.merge(self, group)
        except RuntimeError as error:
            raise checkpoint.stopped_error(n_batches) from error
        if not self.images:
            first = self.skipped[0]
            raise InputError(
                f"None of {count:,} images could be read; the first: {first.source_id}: {first.why}"
            )

    def _update(self, batch: Batch) -> None:
        """Run a batch through the network and give its activations to the tallies."""
        name = getattr(self.dataset, "source_id", str)
        bad = [SkippedImage(index, str(name(index)), why) for index, why in batch.unreadable]
        if bad and not self.run.skip_bad:
            raise InputError(
                f"{bad[0].source_id} cannot be read: {bad[0].why}. Repair or remove it, or leave "
                "such images out with --skip-bad."
            )
        self.skipped += bad
        self.images += len(batch.ids)
        if len(batch.ids):
            self._record_input_size(batch.arguments)
        start = 0
        while start < len(batch.ids):
            part = slice(start, start + self.chunk)
            try:
                outputs = self._forward(tuple(values[part] for values in batch.arguments))
            except RuntimeError as error:
                if not is_out_of_memory(error):
                    raise
                self._halve_chunk(error)
                continue  # the same images again, fewer at a time
            ids = batch.ids[part]
            concepts = None if batch.concepts is None else batch.concepts[part]
            self.forwards += len(ids)
            for layer in self.layers:
                # popped, so that a layer's activations are freed once they are counted
                self._tally(layer, ids, outputs.pop(layer.label), concepts)
            start += len(ids)

    def _forward(self, arguments: tuple[Any, ...]) -> dict[str, Tensor]:
        """Return the outputs of the layers, by label."""
        import torch

        inputs = [values.to(self.device, non_blocking=True) for values in arguments]
        with torch.autocast(
            self.device.type,
            dtype=getattr(torch, self.run.dtype),
            enabled=self.run.dtype != "float32",
        ):
            return self.reader.run(*inputs)

    def _tally(self, layer: Layer, ids: Tensor, output: Tensor, concepts: Tensor | None) -> None:
        """Update a layer's tallies, and name the layer in their errors."""
        activations = as_maps(output, layer, len(ids), self.input_size, self.run.prefix)
        self.kinds[layer.label] = activations.unit_kind
        try:
            for tally in self.tallies[layer.label].values():
                tally.update(ids, activations.maps, concepts)
        except NonFiniteError as error:
            unit = layer.units[error.unit] if layer.units else error.unit
            hint = (
                "" if self.run.dtype == "float32" else f" Try another dtype than {self.run.dtype}."
            )
            raise InputError(
                f"Layer '{layer.label}', unit {unit}: an activation is not a finite number "
                f"(images {some(ids.tolist())}).{hint}"
            ) from None
        except InputError as error:
            raise InputError(f"Layer '{layer.label}': {error}") from None

    def _record_input_size(self, arguments: tuple[Any, ...]) -> None:
        shape = arguments[0].shape
        if len(shape) == 4:
            self.input_size = (int(shape[2]), int(shape[3]))

    def _halve_chunk(self, error: RuntimeError) -> None:
        """Halve the number of images that go through the network together.

        Raises:
            InputError: it is one already.
        """
        import torch

        if self.chunk == 1:
            raise InputError(
                f"{self.device} has no memory for one image: {str(error).splitlines()[0]}"
            ) from error
        self.chunk //= 2
        if self.device.type == "cuda":
            torch.cuda.empty_cache()
        self.run.tell(f"{self.device} is out of memory; continuing with {self.chunk} at a time.")

    # ---- state that checkpoints hold and processes exchange

    def state_dict(self) -> dict[str, Any]:
        """Return everything that has been read so far, as tensors and plain values."""
        return {
            "tallies": {
                label: {name: tally.state_dict() for name, tally in tallies.items()}
                for label, tallies in self.tallies.items()
            },
            "kinds": dict(self.kinds),
            "skipped": [asdict(image) for image in self.skipped],
            "images": self.images,
            "forwards": self.forwards,
            "input_size": self.input_size,
        }

    def merge_state(self, state: Mapping[str, Any]) -> None:
        """Merge the state of a pass over other images of the same dataset."""
        for label, tallies in self.tallies.items():
            for name, tally in tallies.items():
                other = self.makers[name](label)
                other.load_state_dict(state["tallies"][label][name])
                tally.merge(other)
        self.kinds |= state["kinds"]
        self.skipped += [SkippedImage(**fields) for fields in state["skipped"]]
        self.images += state["images"]
        self.forwards += state["forwards"]
        if state["input_size"] is not None:
            self.input_size = tuple(state["input_size"])

    def fingerprint(self) -> dict[str, Any]:
        """Return the inputs and settings of the pass; a checkpoint of any other is discarded."""
        source = getattr(self.dataset, "source", None)
        return {
            **self.settings,
            "units": {layer.label: layer.units for layer in self.layers},
            "tallies": sorted(self.makers),
            "model": network_digest(self.model),
            "over": {
                layer.label: network_digest(layer.encoder)
                for layer in self.layers
                if layer.encoder is not None
            },
            "images": len(self.dataset),
            "source": source if isinstance(source, dict) else None,
        }

    def results(self) -> NetworkExemplars:
        """Return the results of all tallies."""
        import torch

        layers = {}
        for layer in self.layers:
            results = {name: tally.result() for name, tally in self.tallies[layer.label].items()}
            top, thresholds = results.pop("top"), results.pop("quantile")
            units = (
                torch.arange(len(thresholds))
                if layer.units is None
                else torch.tensor(layer.units, dtype=torch.int64)
            )
            layers[layer.label] = LayerExemplars(
                layer.label,
                self.kinds[layer.label],
                units,
                top.ids,
                top.activations,
                top.maps,
                thresholds,
                results,
            )
        skipped = tuple(sorted(self.skipped, key=lambda image: image.id))
        return NetworkExemplars(
            layers, self.images, skipped, self.forwards, self.input_size, dict(self.settings)
        )
