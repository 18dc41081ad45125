"""Changes to the activations of units while a network runs."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from milannotations.errors import InputError
from milannotations.exemplars.hooks.layers import (
    Layer,
    find_modules,
    replace_tensor,
    select_tensor,
    unit_axis,
)

if TYPE_CHECKING:
    from torch import Tensor, nn

UnitSet = Mapping[str, Sequence[int]]
"""A set of units: indices by the label of their layer."""


def overwrite_units(
    changed: Tensor,
    before: Tensor,
    axis: int,
    units: Sequence[int],
    how: str = "zero",
    values: Tensor | None = None,
) -> None:
    """Overwrite the activations of units in a layer's tensor, in place.

    Args:
        changed: tensor to write to (image, ...).
        before: the tensor before any change, of the same shape.
        axis: axis of the units.
        units: indices of the units.
        how: `zero`; `mean`; `resample`, each image's units from the image before it in the batch;
            or `given`.
        values: (unit,) for `mean`; (image, unit) or maps (image, unit, h, w) for `given`; of all
            units of the layer.
    """
    import torch

    index = torch.as_tensor(list(units), device=changed.device)
    if how == "zero":
        changed.index_fill_(axis, index, 0)
        return
    if how == "resample":
        # rolling by one gives no image its own activations; the images come in random order
        changed.index_copy_(axis, index, before.index_select(axis, index).roll(1, 0))
        return
    assert values is not None
    # Shape the values so that they broadcast over all axes but the units, and for `given` images.
    shape = [1] * changed.ndim
    shape[axis] = len(index)
    values = values.to(changed.device, changed.dtype)
    if how == "mean":
        values = values[index].reshape(shape)
    elif values.ndim == 2:
        values = values[:, index].reshape(len(values), *shape[1:])
    else:
        values = torch.nn.functional.interpolate(values[:, index], changed.shape[2:])
    sizes = list(changed.shape)
    sizes[axis] = len(index)
    changed.index_copy_(axis, index, values.expand(sizes))


@contextmanager
def ablate_units(model: nn.Module, units: UnitSet) -> Iterator[None]:
    """Set the activations of units to zero in every forward pass inside the context.

    Gradients flow, so that a network can be trained with units ablated. Where a module is called
    several times in a forward pass, every call is ablated.

    Args:
        model: any network.
        units: units by layer, as `NAME` or `NAME:KEY`.

    Raises:
        InputError: a layer or, in a forward pass, a unit that the network does not have.
    """
    layers = [Layer.parse(label) for label in units]
    modules = find_modules(model, layers) if layers else {}

    def make_hook(layer: Layer, indices: Sequence[int]) -> Callable[..., Any]:
        def hook(_: nn.Module, __: Any, output: Any) -> Any:
            import torch

            tensor = select_tensor(output, layer)
            axis = unit_axis(tensor, layer)
            if indices and not 0 <= min(indices) <= max(indices) < tensor.shape[axis]:
                raise InputError(
                    f"Layer '{layer.name}' has {tensor.shape[axis]:,} units; unit "
                    f"{max(indices):,} cannot be ablated."
                )
            index = torch.as_tensor(list(indices), device=tensor.device, dtype=torch.int64)
            return replace_tensor(output, layer, tensor.index_fill(axis, index, 0))

        return hook

    handles = [
        modules[layer.name].register_forward_hook(make_hook(layer, units[label]))
        for layer, label in zip(layers, units, strict=True)
    ]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()
