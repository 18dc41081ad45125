"""One pass of a set of images through a network: the exemplars of all units of many layers.

Hernandez et al. 2022, section 3: a unit's exemplars are the k images on which its largest
activation is highest, each with a mask of where the activation is above the unit's own
.99 quantile over all positions of all images.

Every image goes through the network once, whatever is asked; the network stops after the last
layer asked for. The maps of the images that are among the first k of a unit are kept as they
are, so that masks need no second pass.
"""

from __future__ import annotations

import hashlib
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from milannotations.errors import InputError, some
from milannotations.exemplars import distributed
from milannotations.exemplars.checkpoint import Checkpoint
from milannotations.exemplars.hooks.layers import Layer, as_maps
from milannotations.exemplars.hooks.reader import Taps
from milannotations.exemplars.images.batches import Batch, batches
from milannotations.exemplars.tallies.base import Nonfinite, Quantile, Tally, TopK
from milannotations.exemplars.tallies.masks import masks

if TYPE_CHECKING:
    import torch
    from torch import Tensor, nn

K = 15
"""Exemplars of a unit (Hernandez et al. 2022, section 3)."""

QUANTILE = 0.99
"""Of a unit's activations over all positions of all images: its threshold (same source)."""

DTYPES = ("float32", "bfloat16", "float16")
Tallies = Mapping[str, Callable[[str], Tally]]


def _tell(line: str) -> None:
    print(line, file=sys.stderr)


@dataclass(frozen=True)
class Run:
    """How a pass is run; what it finds depends on `read`, `dtype` and `seed` alone.

    Args:
        batch_size: images that go through the network together. Networks are not invariant to
            it in the last bits of float32.
        workers: processes that load images; 0 loads them between batches.
        device: `cpu`, `cuda`, `cuda:1`, `mps`; None takes the best there is.
        dtype: of the network's arithmetic (autocast); tallies are kept in float32.
        read: `auto`, `pre` or `post`; see `Taps`.
        missing: entries of the network's state without weights; see `Taps`.
        prefix: class and register tokens before the tokens of patches, as the network
            declares them; None finds it.
        skip_bad: leave out images that cannot be read, and name them, instead of stopping.
        seed: of the positions that quantiles look at.
        checkpoint: a folder in which the pass is kept over interruptions.
        checkpoint_every: seconds.
        progress: show a bar with images a second and the time left.
        tell: is given lines for people.
    """

    batch_size: int = 32
    workers: int = 0
    device: str | None = None
    dtype: str = "float32"
    read: str = "auto"
    missing: tuple[str, ...] = ()
    prefix: int | None = None
    skip_bad: bool = False
    seed: int = 0
    checkpoint: Path | None = None
    checkpoint_every: float = 120.0
    progress: bool = False
    tell: Callable[[str], None] = field(default=_tell, compare=False)

    def __post_init__(self) -> None:
        if self.batch_size < 1 or self.workers < 0:
            raise InputError(
                f"A batch of {self.batch_size} and {self.workers} workers were asked for; "
                "expected at least 1 and 0."
            )
        if self.dtype not in DTYPES:
            raise InputError(f"No dtype '{self.dtype}' (dtypes: {', '.join(DTYPES)}).")


@dataclass(frozen=True)
class Skipped:
    """An image that could not be read: its place, where it came from, and why."""

    id: int
    source_id: str
    why: str


@dataclass(frozen=True)
class LayerExemplars:
    """What was found of a layer.

    Attributes:
        layer: its label.
        unit_kind: channel, token or sae_latent.
        units: int64 (unit,), indices of the units; those of all tensors below.
        ids: int64 (unit, k), places of the exemplars in the data set, strongest first, the
            smaller first where two are equal. Fewer images than k give as many as there are.
        activations: float32 (unit, k), the largest activation on each.
        maps: float32 (unit, k, h, w), the activations on each.
        thresholds: float32 (unit,), the quantile over all positions of all images.
        tallies: results of further tallies, by name.
    """

    layer: str
    unit_kind: str
    units: Tensor
    ids: Tensor
    activations: Tensor
    maps: Tensor
    thresholds: Tensor
    tallies: dict[str, Any]

    @property
    def dead(self) -> Tensor:
        """Units without any activation above their threshold: bool (unit,). Masks are empty."""
        return self.thresholds >= self.activations[:, 0]

    @property
    def silent(self) -> Tensor:
        """Units that no image excites: no activation above 0. Bool (unit,)."""
        return self.activations[:, 0] <= 0

    def masks(self, rows: slice, size: tuple[int, int], how: str = "clamped") -> Tensor:
        """Return the masks of some units' exemplars: bool (unit, k, height, width).

        Args:
            rows: which units, by their place in `units`.
            size: (height, width) of the masks.
            how: `clamped` or `2022`; see `milannotations.exemplars.tallies.masks`.
        """
        maps = self.maps[rows]
        thresholds = self.thresholds[rows].repeat_interleave(maps.shape[1])
        return masks(maps.flatten(0, 1), thresholds, size, how).unflatten(0, maps.shape[:2])

    def inside(self, maps: Tensor) -> tuple[Tensor, Tensor]:
        """Return how much of each exemplar's mask lies in a region, and how large it is.

        Args:
            maps: bool (image, height, width), the region on every image of the data set.

        Returns:
            Pixels of masks in the region, and of masks: int64 (unit, k) both.
        """
        import torch

        found = []
        size = (int(maps.shape[1]), int(maps.shape[2]))
        for start in range(0, len(self.units), 16):  # masks of pictures are large
            masks = self.masks(slice(start, start + 16), size)
            both = masks & maps[self.ids[start : start + 16]]
            found.append((both.sum((2, 3)), masks.sum((2, 3))))
        return torch.cat([each[0] for each in found]), torch.cat([each[1] for each in found])


@dataclass(frozen=True)
class Computed:
    """What `compute` found.

    Attributes:
        layers: by label, in the order asked.
        images: how many were seen.
        skipped: those that could not be read.
        forwards: images that went through the network; `images`, unless one was run again.
        input_size: (height, width) of the network's input; None where it is no picture.
        settings: what was asked, for the record.
    """

    layers: dict[str, LayerExemplars]
    images: int
    skipped: tuple[Skipped, ...]
    forwards: int
    input_size: tuple[int, int] | None
    settings: dict[str, Any]


def compute(
    model: nn.Module,
    dataset: Any,
    layers: Sequence[str | Layer],
    k: int = K,
    quantile: float = QUANTILE,
    *,
    tallies: Tallies | None = None,
    run: Run | None = None,
    arguments: Callable[[Any], tuple[Any, ...]] | None = None,
) -> Computed:
    """Return the exemplars of all units of some layers, in one pass over a data set.

    Run under `torchrun`, or in any initialised process group, every process sees its share of
    the batches and all of them return the same, bit for bit the same as one process.

    Args:
        model: any network. It is put in evaluation mode and moved to the device.
        dataset: has `len()` and gives items by place: a tensor (3, height, width), a tuple
            whose first is it, or a dict with `image` or `pixel_values` (and `concepts`, bool
            (concept, h, w) or label planes, int32 (plane, h, w), for tallies that want them).
            `exemplars.open_images` makes one of a folder.
        layers: dotted names, or `Layer`s.
        k: exemplars of a unit.
        quantile: of a unit's activations: its threshold.
        tallies: further statistics of every layer, by name: functions that make an empty
            tally for the layer of a label. `{"mean": lambda layer: Pooled("mean")}`
        run: batches, device and so on.
        arguments: makes the network's arguments of an item; None goes by the rules above, or by
            the data set's own method of that name.

    Raises:
        InputError: no such layer; activations that are no maps, tokens or vectors, or not
            finite; an image that cannot be read (see `Run.skip_bad`); no image at all; a
            checkpoint of something else; no memory even for a batch of one.
    """
    import torch

    run = run or Run()
    if len(dataset) == 0:
        raise InputError("There is no image; expected at least one.")
    wanted = [Layer.parse(layer) if isinstance(layer, str) else layer for layer in layers]
    group = distributed.current()
    device = _device(run.device or best_device(group))
    was_training = model.training
    model.eval().to(device)
    work = Pass(model, dataset, wanted, k, quantile, tallies or {}, run, device, arguments)
    try:
        with work.taps, torch.no_grad():
            work.go(group)
    finally:
        model.train(was_training)
    return work.found()


def best_device(group: distributed.Group | None = None) -> str:
    """Return the device that a pass runs on unless told: `cuda`, `mps` or `cpu`."""
    import torch

    if torch.cuda.is_available():
        return f"cuda:{(group.local_rank if group else 0) % torch.cuda.device_count()}"
    return "mps" if torch.backends.mps.is_available() else "cpu"


def _device(name: str) -> torch.device:
    import torch

    try:
        device = torch.device(name)
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:
        raise InputError(f"No device '{name}' here: {str(error).splitlines()[0]}") from None
    return device


class Pass:
    """A pass under way: its tallies and how far it is."""

    def __init__(
        self,
        model: nn.Module,
        dataset: Any,
        layers: Sequence[Layer],
        k: int,
        quantile: float,
        tallies: Tallies,
        run: Run,
        device: torch.device,
        arguments: Callable[[Any], tuple[Any, ...]] | None,
    ) -> None:
        self.model, self.dataset, self.layers, self.run = model, dataset, layers, run
        self.device, self.arguments = device, arguments
        self.taps = Taps(model, layers, run.read, run.missing)
        self.settings = {
            "k": k,
            "quantile": quantile,
            "batch_size": run.batch_size,
            "dtype": run.dtype,
            "read": self.taps.read,
            "seed": run.seed,
            "layers": {layer.label: layer.name for layer in layers},
        }
        self.makers: Tallies = {
            "top": lambda _: TopK(k),
            "quantile": lambda _: Quantile(quantile, images=len(dataset), seed=run.seed),
            **tallies,
        }
        self.chunk = run.batch_size
        self.restart()

    def restart(self) -> None:
        """Forget all that has been seen."""
        self.tallies = {
            layer.label: {name: make(layer.label) for name, make in self.makers.items()}
            for layer in self.layers
        }
        self.kinds: dict[str, str] = {}
        self.skipped: list[Skipped] = []
        self.images = self.forwards = 0
        self.input_size: tuple[int, int] | None = None

    # ---- the pass

    def go(self, group: distributed.Group) -> None:
        """Feed the tallies with this process's share of what is not done yet."""
        from tqdm import tqdm

        size, count = self.run.batch_size, len(self.dataset)
        checkpoint = Checkpoint(self.run.checkpoint, self, group, self.run.checkpoint_every)
        done = checkpoint.load()
        left = [number for number in range(-(-count // size)) if number not in done]
        share = left[group.rank :: group.world]
        with tqdm(
            total=count,
            initial=min(len(done) * size, count),
            desc="images",
            unit="img",
            disable=not self.run.progress or group.rank != 0,
        ) as bar:
            for number, batch in zip(
                share,
                batches(self.dataset, share, size, self.run.workers, self.arguments),
                strict=True,
            ):
                self._take(batch)
                bar.update(group.world * (len(batch.ids) + len(batch.bad)))
                checkpoint.done(number)
                if distributed.is_stopping():
                    checkpoint.close()
                    raise checkpoint.stopped(-(-count // size))
            checkpoint.close()
            bar.update(count - bar.n)
        try:
            distributed.merge(self, group)
        except RuntimeError as error:
            raise checkpoint.stopped(-(-count // size)) from error
        if not self.images:
            raise InputError(f"None of {count:,} images could be read; the first: "
                             f"{self.skipped[0].source_id}: {self.skipped[0].why}")  # fmt: skip

    def _take(self, batch: Batch) -> None:
        name = getattr(self.dataset, "source_id", str)
        bad = [Skipped(place, str(name(place)), why) for place, why in batch.bad]
        if bad and not self.run.skip_bad:
            raise InputError(
                f"{bad[0].source_id} cannot be read: {bad[0].why}. Mend or remove it, or leave "
                "such images out with --skip-bad."
            )
        self.skipped += bad
        self.images += len(batch.ids)
        if len(batch.ids):
            self._note_size(batch.arguments)
        start = 0
        while start < len(batch.ids):
            part = slice(start, start + self.chunk)
            try:
                seen = self._forward(tuple(each[part] for each in batch.arguments))
            except RuntimeError as error:
                if not is_out_of_memory(error):
                    raise
                self._halve(error)
                continue
            ids = batch.ids[part]
            concepts = None if batch.concepts is None else batch.concepts[part]
            self.forwards += len(ids)
            for layer in self.layers:
                self._tally(layer, ids, seen.pop(layer.label), concepts)
            start += len(ids)

    def _forward(self, arguments: tuple[Any, ...]) -> dict[str, Tensor]:
        import torch

        moved = [each.to(self.device, non_blocking=True) for each in arguments]
        with torch.autocast(
            self.device.type,
            dtype=getattr(torch, self.run.dtype),
            enabled=self.run.dtype != "float32",
        ):
            return self.taps.run(*moved)

    def _tally(self, layer: Layer, ids: Tensor, output: Tensor, concepts: Tensor | None) -> None:
        seen = as_maps(output, layer, len(ids), self.input_size, self.run.prefix)
        self.kinds[layer.label] = seen.unit_kind
        try:
            for tally in self.tallies[layer.label].values():
                tally.update(ids, seen.maps, concepts)
        except Nonfinite as error:
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

    def _note_size(self, arguments: tuple[Any, ...]) -> None:
        shape = arguments[0].shape
        if len(shape) == 4:
            self.input_size = (int(shape[2]), int(shape[3]))

    def _halve(self, error: RuntimeError) -> None:
        import torch

        if self.chunk == 1:
            raise InputError(
                f"{self.device} has no memory for one image: {str(error).splitlines()[0]}"
            ) from error
        self.chunk //= 2
        if self.device.type == "cuda":
            torch.cuda.empty_cache()
        self.run.tell(f"{self.device} is out of memory; going on with {self.chunk} at a time.")

    # ---- what is kept over interruptions, and given to other processes

    def state_dict(self) -> dict[str, Any]:
        """Return all that has been seen so far, as tensors and plain values."""
        return {
            "tallies": {
                label: {name: tally.state_dict() for name, tally in own.items()}
                for label, own in self.tallies.items()
            },
            "kinds": dict(self.kinds),
            "skipped": [asdict(each) for each in self.skipped],
            "images": self.images,
            "forwards": self.forwards,
            "input_size": self.input_size,
        }

    def add(self, state: Mapping[str, Any]) -> None:
        """Merge the state of a pass over other images of the same data set."""
        for label, own in self.tallies.items():
            for name, tally in own.items():
                other = self.makers[name](label)
                other.load_state_dict(state["tallies"][label][name])
                tally.merge(other)
        self.kinds |= state["kinds"]
        self.skipped += [Skipped(**each) for each in state["skipped"]]
        self.images += state["images"]
        self.forwards += state["forwards"]
        if state["input_size"] is not None:
            self.input_size = tuple(state["input_size"])

    def asked(self) -> dict[str, Any]:
        """Return what the pass is of what; a checkpoint of anything else is of no use."""
        source = getattr(self.dataset, "source", None)
        return {
            **self.settings,
            "units": {layer.label: layer.units for layer in self.layers},
            "tallies": sorted(self.makers),
            "model": digest(self.model),
            "over": {
                layer.label: digest(layer.then) for layer in self.layers if layer.then is not None
            },
            "images": len(self.dataset),
            "source": source if isinstance(source, dict) else None,
        }

    def found(self) -> Computed:
        """Return the results of all tallies."""
        import torch

        made = {}
        for layer in self.layers:
            results = {name: t.result() for name, t in self.tallies[layer.label].items()}
            top, thresholds = results.pop("top"), results.pop("quantile")
            units = (
                torch.arange(len(thresholds))
                if layer.units is None
                else torch.tensor(layer.units, dtype=torch.int64)
            )
            made[layer.label] = LayerExemplars(
                layer.label,
                self.kinds[layer.label],
                units,
                top.ids,
                top.activations,
                top.maps,
                thresholds,
                results,
            )
        skipped = tuple(sorted(self.skipped, key=lambda each: each.id))
        return Computed(
            made, self.images, skipped, self.forwards, self.input_size, dict(self.settings)
        )


def is_out_of_memory(error: RuntimeError) -> bool:
    """Say whether torch ran out of a device's memory, or of the machine's."""
    import torch

    said = str(error)
    return (
        isinstance(error, torch.cuda.OutOfMemoryError)
        or "out of memory" in said
        or "can't allocate memory" in said
    )


def digest(model: Any) -> str | None:
    """Return the sha256 of a network's parameters and buffers; None for a mere function."""
    import torch

    if not isinstance(model, torch.nn.Module):
        return None
    found = hashlib.sha256()
    for name, value in sorted(model.state_dict().items()):
        found.update(f"{name} {value.dtype} {tuple(value.shape)} ".encode())
        found.update(value.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy())
    return found.hexdigest()
