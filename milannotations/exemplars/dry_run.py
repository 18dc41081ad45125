"""What a pass would do: the layers of a network, and the memory and disk that exemplars need."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from milannotations.editions.shards import encode_webp
from milannotations.errors import InputError
from milannotations.exemplars.hooks.layers import Layer, as_maps
from milannotations.exemplars.hooks.reader import Taps
from milannotations.exemplars.images.batches import batches
from milannotations.exemplars.tallies.quantile import Quantile
from milannotations.exemplars.tallies.topk import TopK

if TYPE_CHECKING:
    from torch import Tensor, nn

    from milannotations.exemplars.networks.loading import Loaded
    from milannotations.exemplars.run_config import RunConfig


@dataclass(frozen=True)
class Listed:
    """A module of a network: its dotted name, its class, what it gives for one image."""

    name: str
    module: str
    gives: str


def list_layers(model: nn.Module, arguments: Sequence[Tensor]) -> list[Listed]:
    """Return the modules of a network in the order in which they finish, for one image.

    Args:
        model: the network.
        arguments: a batch of one image.
    """
    import torch

    found: dict[str, Listed] = {}
    names = {id(module): name for name, module in model.named_modules() if name}

    def note(module: nn.Module, _: Any, output: Any) -> None:
        name = names[id(module)]
        found.pop(name, None)  # of several calls the last counts
        found[name] = Listed(name, type(module).__name__, shape_of(output))

    handles = [m.register_forward_hook(note) for m in model.modules() if id(m) in names]
    was_training = model.training
    model.eval()
    try:
        with torch.no_grad():
            model(*arguments)
    finally:
        model.train(was_training)
        for handle in handles:
            handle.remove()
    return list(found.values())


def shape_of(output: Any) -> str:
    """Return what a module gives, in words, without the axis of images.

    Example:
        >>> import torch
        >>> shape_of(torch.zeros(1, 64, 56, 56))
        'maps: 64 units, 56 x 56'
        >>> shape_of((torch.zeros(1, 197, 768), None))
        'tuple of (0: tokens: 197, 768 units)'
    """
    import torch

    if isinstance(output, torch.Tensor):
        shape = tuple(output.shape[1:])
        if len(shape) == 3:
            return f"maps: {shape[0]} units, {shape[1]} x {shape[2]}"
        if len(shape) == 2:
            return f"tokens: {shape[0]}, {shape[1]} units"
        if len(shape) == 1:
            return f"pooled: {shape[0]} units"
        return f"tensor {tuple(output.shape)}"
    parts: Mapping[Any, Any] = {}
    if isinstance(output, Mapping):
        parts = output
    elif isinstance(output, (tuple, list)):
        parts = dict(enumerate(output))
    tensors = {key: part for key, part in parts.items() if isinstance(part, torch.Tensor)}
    said = "; ".join(f"{key}: {shape_of(part)}" for key, part in tensors.items())
    return f"{type(output).__name__} of ({said})" if said else type(output).__name__


@dataclass(frozen=True)
class PlannedLayer:
    """A layer asked for: its label, its units and their kind, the size of its maps."""

    label: str
    unit_kind: str
    units: int
    grid: tuple[int, int]


@dataclass(frozen=True)
class Plan:
    """What a pass would compute and need.

    `memory` are bytes that tallies hold at most, beside the network's own; `disk` about what
    the edition takes, with the copies that checkpoints and spooled pictures need meanwhile.
    """

    images: int
    input_size: tuple[int, int] | None
    layers: tuple[PlannedLayer, ...]
    memory: int
    disk: int


def plan(
    loaded: Loaded,
    images: Any,
    layers: Sequence[Layer],
    k: int,
    quantile: float,
    run: RunConfig,
    quality: int | None = None,
) -> Plan:
    """Return what `compute` would do, from one image's run through the network.

    Args:
        loaded: the network.
        images, layers, k, quantile, run: as `compute`.
        quality: of the pictures that will be written, as `write`.

    Raises:
        InputError: see `compute`.
    """
    import torch

    if len(images) == 0:
        raise InputError("There is no image; expected at least one.")
    batch = next(batches(images, [0], 1, 0, None))
    if batch.bad:
        raise InputError(f"{images.source_id(0)} cannot be read: {batch.bad[0][1]}")
    size = None
    if batch.arguments[0].ndim == 4:
        size = (int(batch.arguments[0].shape[2]), int(batch.arguments[0].shape[3]))
    model = loaded.model.eval()
    with Taps(model, layers, run.read, run.missing) as taps, torch.no_grad():
        outputs = taps.run(*batch.arguments)
    planned, memory, shown = [], 0, 0
    for layer in layers:
        seen = as_maps(outputs[layer.label], layer, 1, size, run.prefix)
        _, units, h, w = seen.maps.shape
        planned.append(PlannedLayer(layer.label, seen.unit_kind, units, (h, w)))
        memory += TopK(k).estimate(units, h, w)
        memory += Quantile(quantile, images=len(images)).estimate(units, h, w)
        shown += units * min(k, len(images))
    picture = len(encode_webp(images.picture(0), quality))
    disk = 2 * memory + (shown + min(shown, len(images))) * picture
    return Plan(len(images), size, tuple(planned), memory, disk)
