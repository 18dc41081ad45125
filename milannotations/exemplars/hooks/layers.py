"""Layers of a network, and what they give out as maps (image, unit, h, w).

A layer is named as torch names it (`named_modules`), with `:KEY` where a module gives out
several tensors. Maps, tokens and pooled vectors all become maps: tokens without their prefix
(class and register tokens) are laid on their grid, a pooled vector is a map of 1 x 1.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, MutableMapping, Sequence
from copy import copy
from dataclasses import dataclass, field, fields, is_dataclass
from math import isqrt
from typing import TYPE_CHECKING, Any

from milannotations.errors import InputError, did_you_mean, some

if TYPE_CHECKING:
    from torch import Tensor, nn

LAYOUTS = ("auto", "maps", "maps-last", "tokens", "pooled")
OUTPUTS = "outputs"
"""The name of what the whole network gives out, as the 2022 code called it."""

MAX_PREFIX_TOKENS = 16
"""Class and register tokens that are looked for before the tokens of patches."""


@dataclass(frozen=True)
class Layer:
    """A layer whose units are looked at.

    Args:
        name: dotted name of a module; `outputs` is the network itself.
        key: which tensor, of a module that gives a tuple, a dict or an object: place or name.
        units: only these units, ascending; None takes all.
        encoder: laid over the layer, a sparse autoencoder's encoder for instance: takes
            vectors (position, unit), gives latents (position, latent).
        label: how editions call it; by default `name`, with `.key` and with `.sae` where
            something is laid over it.
        layout: `maps` (image, unit, h, w), `maps-last` (image, h, w, unit), `tokens` (image,
            token, unit), `pooled` (image, unit); `auto` goes by the number of axes, and takes
            four for `maps`.
        prefix: tokens that stand before those of the patches; None finds it.
        grid: (h, w) of the patches; None finds it.
    """

    name: str
    key: str | int | None = None
    units: tuple[int, ...] | None = None
    encoder: Callable[[Tensor], Tensor] | None = field(default=None, compare=False)
    label: str = ""
    layout: str = "auto"
    prefix: int | None = None
    grid: tuple[int, int] | None = None

    def __post_init__(self) -> None:
        if self.layout not in LAYOUTS:
            raise InputError(f"No layout '{self.layout}' (layouts: {', '.join(LAYOUTS)}).")
        if self.units is not None and list(self.units) != sorted(set(self.units)):
            raise InputError(f"Units of {self.name} are to be ascending, each once.")
        if self.units is not None and (not self.units or self.units[0] < 0):
            raise InputError(f"No unit of {self.name} is asked for; expected indices from 0.")
        if not self.label:
            key = "" if self.key is None else f".{self.key}"
            over = "" if self.encoder is None else ".sae"
            object.__setattr__(self, "label", f"{self.name}{key}{over}")
        if "/" in self.label or self.label.startswith("."):
            raise InputError(f"A layer cannot be called '{self.label}': it names a file.")

    @classmethod
    def parse(cls, text: str, **options: Any) -> Layer:
        """Return the layer that `NAME` or `NAME:KEY` stands for.

        Example:
            >>> Layer.parse("encoder.layer.3:0").label
            'encoder.layer.3.0'
        """
        name, colon, key = text.partition(":")
        if not name or (colon and not key):
            raise InputError(f"'{text}' is no layer; expected NAME or NAME:KEY.")
        return cls(name, (int(key) if key.isdigit() else key) if colon else None, **options)


def find_modules(model: nn.Module, layers: Sequence[Layer]) -> dict[str, nn.Module]:
    """Return the modules of `layers`, by name.

    Raises:
        InputError: no layer, one asked for twice, or one that the network lacks.
    """
    if not layers:
        raise InputError("No layer is asked for. See: milan exemplars MODEL --list-layers")
    labels = [layer.label for layer in layers]
    twice = sorted({label for label in labels if labels.count(label) > 1})
    if twice:
        raise InputError(f"Layer '{twice[0]}' is asked for twice; give one another label.")
    known = dict(model.named_modules())
    found = {}
    for layer in layers:
        if layer.name == OUTPUTS and OUTPUTS not in known:
            found[layer.name] = model
        elif layer.name in known and layer.name:
            found[layer.name] = known[layer.name]
        else:
            names = [name for name in known if name]
            near = [name for name in names if name.rsplit(".", 1)[-1] == layer.name]
            raise InputError(
                f"No layer '{layer.name}' in {type(model).__name__} "
                f"(layers: {some([name for name, _ in model.named_children()])})."
                + (f" Did you mean '{near[0]}'?" if near else did_you_mean(layer.name, names))
                + " See: milan exemplars MODEL --list-layers"
            )
    return found


def select_tensor(output: Any, layer: Layer) -> Tensor:
    """Return the tensor of a layer out of what its module gave.

    Without a key: the tensor itself, or the only tensor among several values.

    Raises:
        InputError: no such key; several tensors and no key; no tensor.
    """
    import torch

    if layer.key is not None:
        found = _at(output, layer.key)
    elif isinstance(output, torch.Tensor):
        found = output
    else:
        tensors = [key for key in _keys(output) if isinstance(_at(output, key), torch.Tensor)]
        found = _at(output, tensors[0]) if len(tensors) == 1 else None
    if not isinstance(found, torch.Tensor):
        keys = [
            f"{layer.name}:{key}"
            for key in _keys(output)
            if isinstance(_at(output, key), torch.Tensor)
        ]
        raise InputError(
            f"Layer '{layer.name}' gives a {type(output).__name__}"
            + (f" without '{layer.key}'" if layer.key is not None else "")
            + f"; say which tensor: {some(keys) if keys else 'there is none in it'}."
        )
    return found


def replace_tensor(output: Any, layer: Layer, tensor: Tensor) -> Any:
    """Replace the tensor of a layer in what its module returned.

    Raises:
        InputError: see `select_tensor`.
    """
    old = select_tensor(output, layer)
    if output is old:
        return tensor
    if isinstance(output, tuple):
        parts = [tensor if part is old else part for part in output]
        return type(output)(*parts) if hasattr(output, "_fields") else type(output)(parts)
    changed = copy(output)
    for key in _keys(output):
        if _at(output, key) is old:
            if isinstance(changed, (list, MutableMapping)):
                changed[key] = tensor  # type: ignore[index]
            else:
                setattr(changed, str(key), tensor)
    return changed


def _keys(output: Any) -> list[str | int]:
    if isinstance(output, Mapping):
        return list(output)
    if isinstance(output, (tuple, list)):
        named = list(getattr(output, "_fields", ()))
        return named or list(range(len(output)))
    if is_dataclass(output):
        return [part.name for part in fields(output)]
    return list(vars(output)) if hasattr(output, "__dict__") else []


def _at(output: Any, key: str | int) -> Any:
    if isinstance(output, Mapping):
        return output.get(key)
    if isinstance(key, str):
        return getattr(output, key, None)
    if isinstance(output, (tuple, list)) and -len(output) <= key < len(output):
        return output[key]
    return None


@dataclass(frozen=True)
class ActivationMaps:
    """What a layer gave for some images: `maps` float32 (image, unit, h, w), and their kind."""

    maps: Tensor
    unit_kind: str


def unit_axis(output: Tensor, layer: Layer) -> int:
    """Return which axis of a layer's tensor counts its units; see `Layer.layout`.

    Raises:
        InputError: something is laid over the layer; axes that are not a layout's.
    """
    if layer.encoder is not None:
        raise InputError(
            f"Something is laid over '{layer.name}'; the units of the layer itself can be ablated."
        )
    axes = {"maps": (4, 1), "maps-last": (4, 3), "tokens": (3, 2), "pooled": (2, 1)}
    layout = layer.layout
    if layout == "auto":
        layout = {4: "maps", 3: "tokens", 2: "pooled"}.get(output.ndim, "")
    expected, axis = axes.get(layout, (0, 0))
    if output.ndim != expected:
        raise InputError(
            f"Layer '{layer.name}' gives a tensor of {tuple(output.shape)}; expected "
            "(image, unit, h, w), (image, token, unit) or (image, unit)."
        )
    return axis


def as_maps(
    output: Tensor,
    layer: Layer,
    count: int,
    size: tuple[int, int] | None = None,
    prefix: int | None = None,
) -> ActivationMaps:
    """Return a layer's tensor as maps.

    Args:
        output: what the layer gave.
        layer: how to read it.
        count: images in the batch.
        size: (height, width) of the images; patches are laid on a grid of these proportions,
            a square one where it is not known.
        prefix: class and register tokens, as the network declares them.

    Raises:
        InputError: axes that are not a layout's; tokens that fit no grid; no such unit.
    """
    import torch

    layout = layer.layout
    if layout == "auto":
        layout = {4: "maps", 3: "tokens", 2: "pooled"}.get(output.ndim, "")
    axes = {"maps": 4, "maps-last": 4, "tokens": 3, "pooled": 2}.get(layout)
    if axes != output.ndim or output.shape[0] != count:
        raise InputError(
            f"Layer '{layer.name}' gives a tensor of {tuple(output.shape)} for {count} images; "
            "expected (image, unit, h, w), (image, token, unit) or (image, unit)."
        )
    if not output.is_floating_point():
        raise InputError(f"Layer '{layer.name}' gives {output.dtype}; expected real numbers.")
    if layout == "maps-last":
        output = output.permute(0, 3, 1, 2)
    elif layout == "tokens":
        first, grid = _grid(output.shape[1], layer, size, prefix)
        output = output[:, first:].transpose(1, 2).unflatten(2, grid)
    elif layout == "pooled":
        output = output[:, :, None, None]
    kind = "token" if layout == "tokens" else "channel"
    if layer.encoder is not None:
        output, kind = _laid_over(output, layer), "sae_latent"
    if layer.units is not None:
        if layer.units[-1] >= output.shape[1]:
            raise InputError(
                f"Layer '{layer.label}' has {output.shape[1]:,} units; unit {layer.units[-1]:,} "
                "was asked for."
            )
        output = output[:, torch.tensor(layer.units, device=output.device)]
    return ActivationMaps(output.float(), kind)


def _laid_over(maps: Tensor, layer: Layer) -> Tensor:
    import torch

    assert layer.encoder is not None
    count, units, h, w = maps.shape
    latents = layer.encoder(maps.permute(0, 2, 3, 1).reshape(-1, units))
    if not isinstance(latents, torch.Tensor) or latents.ndim != 2:
        gave = (
            f"a tensor of {tuple(latents.shape)}"
            if isinstance(latents, torch.Tensor)
            else f"a {type(latents).__name__}"
        )
        raise InputError(
            f"What is laid over '{layer.name}' gives {gave} for vectors of "
            f"{(count * h * w, units)}; expected latents (position, latent). Give its encoder "
            "alone: encoder=sae.encode."
        )
    if latents.shape[0] != count * h * w:
        raise InputError(
            f"What is laid over '{layer.name}' gives {latents.shape[0]:,} rows for "
            f"{count * h * w:,} positions; expected a row for each."
        )
    return latents.view(count, h, w, -1).permute(0, 3, 1, 2)


def _grid(
    tokens: int, layer: Layer, size: tuple[int, int] | None, prefix: int | None
) -> tuple[int, tuple[int, int]]:
    """Return how many tokens stand before the patches, and the grid (h, w) of the patches."""
    first = layer.prefix if layer.prefix is not None else prefix
    if layer.grid is not None:
        h, w = layer.grid
        found = tokens - h * w
        if found < 0 or (layer.prefix is not None and found != layer.prefix):
            raise InputError(
                f"Layer '{layer.name}' gives {tokens} tokens; a grid of {h} x {w} after "
                f"{layer.prefix or 0} prefix tokens was asked for."
            )
        return found, (h, w)
    height, width = size or (1, 1)
    for before in range(MAX_PREFIX_TOKENS + 1) if first is None else (first,):
        patches = tokens - before
        if patches <= 0:
            break
        # h / w = height / width, within the rounding of sizes that are no multiple of a patch
        h = round((patches * height / width) ** 0.5)
        if h and patches % h == 0 and abs(patches // h * height - h * width) < max(height, width):
            return before, (h, patches // h)
        if size is None and isqrt(patches) ** 2 == patches:
            return before, (isqrt(patches), isqrt(patches))
    raise InputError(
        f"Layer '{layer.name}' gives {tokens} tokens for pictures of {height} x {width}; "
        + (
            f"without {first} prefix tokens they fit no grid"
            if first is not None
            else f"without 0 to {MAX_PREFIX_TOKENS} prefix tokens they fit no grid"
        )
        + ". Say the number of class and register tokens: --prefix-tokens N (or Layer(grid=...))."
    )
