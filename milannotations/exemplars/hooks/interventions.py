"""Changes of some units of a layer's output."""

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
"""A set of units: indices, by the label of their layer."""


def overwrite_units(
    changed: Tensor,
    before: Tensor,
    axis: int,
    units: Sequence[int],
    how: str = "zero",
    means: Tensor | None = None,
) -> None:
    """Ablate units of a layer's tensor in place.

    Args:
        changed: (image, ...), written to.
        before: what it was.
        axis: which axis counts units.
        units: which.
        how: `zero`; `mean`; `resample`, each picture's units from the picture before it; `given`.
        means: for `mean`, (unit,); for `given`, (image, unit) or maps (image, unit, h, w).
    """
    import torch

    index = torch.as_tensor(list(units), device=changed.device)
    if how == "zero":
        changed.index_fill_(axis, index, 0)
        return
    if how == "resample":
        changed.index_copy_(axis, index, before.index_select(axis, index).roll(1, 0))
        return
    assert means is not None
    shape = [1] * changed.ndim
    shape[axis] = len(index)
    values = means.to(changed.device, changed.dtype)
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
    """Set units to zero in whatever the network does inside, training too.

    Where a module is called several times in a run, at every call.

    Args:
        model: any network.
        units: by layer, as `NAME` or `NAME:KEY`.

    Raises:
        InputError: a layer or, once it is run, a unit that the network does not have.
    """
    layers = [Layer.parse(label) for label in units]
    modules = find_modules(model, layers) if layers else {}

    def hook_of(layer: Layer, own: Sequence[int]) -> Callable[..., Any]:
        def hook(_: nn.Module, __: Any, output: Any) -> Any:
            import torch

            tensor = select_tensor(output, layer)
            axis = unit_axis(tensor, layer)
            if own and not 0 <= min(own) <= max(own) < tensor.shape[axis]:
                raise InputError(
                    f"Layer '{layer.name}' has {tensor.shape[axis]:,} units; unit {max(own):,} "
                    "was to be ablated."
                )
            index = torch.as_tensor(list(own), device=tensor.device, dtype=torch.int64)
            return replace_tensor(output, layer, tensor.index_fill(axis, index, 0))

        return hook

    handles = [
        modules[layer.name].register_forward_hook(hook_of(layer, units[label]))
        for layer, label in zip(layers, units, strict=True)
    ]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()
