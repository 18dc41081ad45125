"""Dry runs: the layers of a network, and the memory and disk that a pass would need."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from milannotations.editions.shards import encode_webp
from milannotations.errors import InputError
from milannotations.exemplars.hooks.layers import Layer, as_maps
from milannotations.exemplars.hooks.reader import LayerReader
from milannotations.exemplars.images.batches import load_batches
from milannotations.exemplars.tallies.quantile import Quantile
from milannotations.exemplars.tallies.topk import TopK

if TYPE_CHECKING:
    from torch import Tensor, nn

    from milannotations.exemplars.networks.loaded_network import LoadedNetwork
    from milannotations.exemplars.run_config import RunConfig


@dataclass(frozen=True)
class ModuleOutput:
    """Output of a module of a network.

    Attributes:
        name: dotted name of the module.
        module: its class.
        gives: its output for one image, in words.
    """

    name: str
    module: str
    gives: str


def list_layers(model: nn.Module, arguments: Sequence[Tensor]) -> list[ModuleOutput]:
    """Return the outputs of a network's modules for one image, in the order they finish.

    Args:
        model: the network.
        arguments: its inputs, a batch of one image.
    """
    import torch

    outputs: dict[str, ModuleOutput] = {}
    names = {id(module): name for name, module in model.named_modules() if name}

    def record(module: nn.Module, _: Any, output: Any) -> None:
        name = names[id(module)]
        outputs.pop(name, None)  # of several calls the last counts
        outputs[name] = ModuleOutput(name, type(module).__name__, describe_output(output))

    handles = [m.register_forward_hook(record) for m in model.modules() if id(m) in names]
    was_training = model.training
    model.eval()
    try:
        with torch.no_grad():
            model(*arguments)
    finally:
        model.train(was_training)
        for handle in handles:
            handle.remove()
    return list(outputs.values())


def describe_output(output: Any) -> str:
    """Describe the shape of a module's output in words, without the axis of images.

    Example:
        >>> import torch
        >>> describe_output(torch.zeros(1, 64, 56, 56))
        'maps: 64 units, 56 x 56'
        >>> describe_output((torch.zeros(1, 197, 768), None))
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
    words = "; ".join(f"{key}: {describe_output(part)}" for key, part in tensors.items())
    return f"{type(output).__name__} of ({words})" if words else type(output).__name__


@dataclass(frozen=True)
class PlannedLayer:
    """A requested layer.

    Attributes:
        label: its label.
        unit_kind: channel, token or sae_latent.
        units: number of units.
        grid: (height, width) of its activation maps.
    """

    label: str
    unit_kind: str
    units: int
    grid: tuple[int, int]


@dataclass(frozen=True)
class Plan:
    """Size of a pass.

    Attributes:
        images: number of images.
        input_size: (height, width) of the network's input; None where it is not an image.
        layers: the requested layers.
        memory: most bytes that the tallies hold, beside the network's own.
        disk: approximate bytes of the edition, with the temporary copies of checkpoints and
            encoded images.
    """

    images: int
    input_size: tuple[int, int] | None
    layers: tuple[PlannedLayer, ...]
    memory: int
    disk: int


def plan(
    loaded: LoadedNetwork,
    images: Any,
    layers: Sequence[Layer],
    k: int,
    quantile: float,
    run: RunConfig,
    quality: int | None = None,
) -> Plan:
    """Return the size of a pass, measured with one image.

    Args:
        loaded: the network.
        images, layers, k, quantile, run: see `compute`.
        quality: quality of the images that will be written; see `write`.

    Raises:
        InputError: see `compute`.
    """
    import torch

    if len(images) == 0:
        raise InputError("There is no image; expected at least one.")
    batch = next(load_batches(images, [0], 1, 0, None))
    if batch.unreadable:
        raise InputError(f"{images.source_id(0)} cannot be read: {batch.unreadable[0][1]}")
    size = None
    if batch.arguments[0].ndim == 4:
        size = (int(batch.arguments[0].shape[2]), int(batch.arguments[0].shape[3]))
    model = loaded.model.eval()
    with LayerReader(model, layers, run.read, run.missing) as reader, torch.no_grad():
        outputs = reader.run(*batch.arguments)
    planned, memory, exemplars = [], 0, 0
    for layer in layers:
        activations = as_maps(outputs[layer.label], layer, 1, size, run.prefix)
        _, units, h, w = activations.maps.shape
        planned.append(PlannedLayer(layer.label, activations.unit_kind, units, (h, w)))
        memory += TopK(k).estimate(units, h, w)
        memory += Quantile(quantile, images=len(images)).estimate(units, h, w)
        exemplars += units * min(k, len(images))
    image_bytes = len(encode_webp(images.pixels(0), quality))
    # two checkpoints, one of which replaces the other; every exemplar in the edition, and every
    # image once in the buffer
    disk = 2 * memory + (exemplars + min(exemplars, len(images))) * image_bytes
    return Plan(len(images), size, tuple(planned), memory, disk)
