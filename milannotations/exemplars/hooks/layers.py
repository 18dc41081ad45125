"""Layers of a network, and conversion of their outputs to activation maps (image, unit, h, w).

A layer is named as torch names it (`named_modules`), with `:KEY` where a module returns several
tensors. Tokens and pooled vectors become maps too: tokens are laid out on their grid, without the
prefix tokens (class and register tokens), and a pooled vector is a map of 1 x 1.
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
"""Orders of the axes of a layer's tensor; see `Layer`."""

_AXES = {"maps": (4, 1), "maps-last": (4, 3), "tokens": (3, 2), "pooled": (2, 1)}
"""Number of axes, and axis of the units, by layout."""

_AUTO = {4: "maps", 3: "tokens", 2: "pooled"}
"""Layout that `auto` takes, by number of axes."""

OUTPUTS = "outputs"
"""Name of the whole network's output, as the 2022 code called it."""

MAX_PREFIX_TOKENS = 16
"""Largest number of class and register tokens that is tried before the patch tokens."""


@dataclass(frozen=True)
class Layer:
    """A layer, and how to read the activations of its units from what its module returns.

    Args:
        name: dotted name of a module; `outputs` is the network itself.
        key: index or name of the tensor, for a module that returns a tuple, a dict or an object.
        units: indices of the units to read, ascending; None for all.
        encoder: function applied to the layer, such as a sparse autoencoder's encoder: takes
            vectors (position, unit), returns latents (position, latent).
        label: name of the layer in editions; by default `name`, with `.key` appended, and with
            `.sae` where there is an encoder.
        layout: `maps` (image, unit, h, w), `maps-last` (image, h, w, unit), `tokens` (image,
            token, unit), `pooled` (image, unit). `auto` decides by the number of axes, and takes
            `maps` for four.
        prefix: number of tokens before the patch tokens; None to infer it.
        grid: (h, w) of the patches; None to infer it.

    Raises:
        InputError: no such layout; units that are not ascending; a label that cannot name a file.
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
            raise InputError(
                f"Units of layer '{self.name}' are repeated or out of order; expected ascending "
                "indices."
            )
        if self.units is not None and (not self.units or self.units[0] < 0):
            raise InputError(
                f"No units, or negative ones, of layer '{self.name}'; expected indices from 0."
            )
        if not self.label:
            key = "" if self.key is None else f".{self.key}"
            suffix = "" if self.encoder is None else ".sae"
            object.__setattr__(self, "label", f"{self.name}{key}{suffix}")
        if "/" in self.label or self.label.startswith("."):
            raise InputError(
                f"A layer cannot be called '{self.label}': its label names a file, and must not "
                "hold '/' or begin with '.'."
            )

    @classmethod
    def parse(cls, text: str, **options: Any) -> Layer:
        """Return the layer that `NAME` or `NAME:KEY` stands for.

        Args:
            text: name of a module, with or without a key.
            options: further fields of the layer.

        Raises:
            InputError: no name, or an empty key.

        Example:
            >>> Layer.parse("encoder.layer.3:0").label
            'encoder.layer.3.0'
        """
        name, colon, key = text.partition(":")
        if not name or (colon and not key):
            raise InputError(f"'{text}' is not a layer; expected NAME or NAME:KEY.")
        return cls(name, (int(key) if key.isdigit() else key) if colon else None, **options)


def find_modules(model: nn.Module, layers: Sequence[Layer]) -> dict[str, nn.Module]:
    """Return the modules of layers, by name.

    Raises:
        InputError: no layers; a label given twice; a layer that the network does not have.
    """
    if not layers:
        raise InputError("No layer was given. See: milan exemplars MODEL --list-layers")
    labels = [layer.label for layer in layers]
    repeated = sorted({label for label in labels if labels.count(label) > 1})
    if repeated:
        raise InputError(f"Layer '{repeated[0]}' was given twice; give one another label.")
    known = dict(model.named_modules())
    modules = {}
    for layer in layers:
        if layer.name == OUTPUTS and OUTPUTS not in known:
            modules[layer.name] = model
        elif layer.name in known and layer.name:
            modules[layer.name] = known[layer.name]
        else:
            names = [name for name in known if name]
            # `conv1` alone is more often a nested layer's last name than a misspelling
            nested = [name for name in names if name.rsplit(".", 1)[-1] == layer.name]
            raise InputError(
                f"No layer '{layer.name}' in {type(model).__name__} "
                f"(layers: {some([name for name, _ in model.named_children()])})."
                + (f" Did you mean '{nested[0]}'?" if nested else did_you_mean(layer.name, names))
                + " See: milan exemplars MODEL --list-layers"
            )
    return modules


def select_tensor(output: Any, layer: Layer) -> Tensor:
    """Return the tensor of a layer from what its module returned.

    Without a key, this is the output itself, or the only tensor in it.

    Raises:
        InputError: no such key; several tensors and no key; no tensor.
    """
    import torch

    if layer.key is not None:
        tensor = _entry(output, layer.key)
    elif isinstance(output, torch.Tensor):
        tensor = output
    else:
        keys = _tensor_keys(output)
        tensor = _entry(output, keys[0]) if len(keys) == 1 else None
    if not isinstance(tensor, torch.Tensor):
        choices = [f"{layer.name}:{key}" for key in _tensor_keys(output)]
        raise InputError(
            f"Layer '{layer.name}' returns a {type(output).__name__}"
            + (f" without '{layer.key}'" if layer.key is not None else "")
            + f"; choose a tensor: {some(choices) if choices else 'there is none in it'}."
        )
    return tensor


def replace_tensor(output: Any, layer: Layer, tensor: Tensor) -> Any:
    """Return a module's output with the layer's tensor replaced; the output is not modified.

    Args:
        output: what the module returned.
        layer: layer whose tensor `select_tensor` finds in it.
        tensor: its replacement.

    Raises:
        InputError: see `select_tensor`.
    """
    old = select_tensor(output, layer)
    if output is old:
        return tensor
    # Tuples cannot be changed, so they are built anew (a named tuple takes its parts one by one).
    # Everything else is a shallow copy, in which an object may hold the tensor several times.
    if isinstance(output, tuple):
        parts = [tensor if part is old else part for part in output]
        return type(output)(*parts) if hasattr(output, "_fields") else type(output)(parts)
    changed = copy(output)
    for key in _keys(output):
        if _entry(output, key) is old:
            if isinstance(changed, (list, MutableMapping)):
                changed[key] = tensor  # type: ignore[index]
            else:
                setattr(changed, str(key), tensor)
    return changed


def _keys(output: Any) -> list[str | int]:
    """Return the keys of an output: of a mapping, a (named) tuple or list, or an object."""
    if isinstance(output, Mapping):
        return list(output)
    if isinstance(output, (tuple, list)):
        names = list(getattr(output, "_fields", ()))
        return names or list(range(len(output)))
    if is_dataclass(output):
        return [part.name for part in fields(output)]
    return list(vars(output)) if hasattr(output, "__dict__") else []


def _tensor_keys(output: Any) -> list[str | int]:
    import torch

    return [key for key in _keys(output) if isinstance(_entry(output, key), torch.Tensor)]


def _entry(output: Any, key: str | int) -> Any:
    """Return an entry of an output, or None if there is none."""
    if isinstance(output, Mapping):
        return output.get(key)
    if isinstance(key, str):
        return getattr(output, key, None)
    if isinstance(output, (tuple, list)) and -len(output) <= key < len(output):
        return output[key]
    return None


@dataclass(frozen=True)
class ActivationMaps:
    """Activation maps of a layer, float32 (image, unit, h, w), and the kind of its units."""

    maps: Tensor
    unit_kind: str


def unit_axis(output: Tensor, layer: Layer) -> int:
    """Return the axis of the units in a layer's tensor; see `Layer.layout`.

    Raises:
        InputError: the layer has an encoder; the tensor does not have the axes of a layout.
    """
    if layer.encoder is not None:
        raise InputError(
            f"Layer '{layer.name}' has an encoder laid over it; only the units of the layer itself "
            "can be ablated."
        )
    layout = _AUTO.get(output.ndim, "") if layer.layout == "auto" else layer.layout
    ndim, axis = _AXES.get(layout, (0, 0))
    if output.ndim != ndim:
        raise InputError(
            f"Layer '{layer.name}' returns a tensor of {tuple(output.shape)}; expected "
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
    """Convert a layer's tensor to activation maps.

    Args:
        output: tensor that the layer's module returned.
        layer: how to read it.
        count: images in the batch.
        size: (height, width) of the images, which the grid of patches has the proportions of;
            None for a square grid.
        prefix: number of class and register tokens, as the network declares it.

    Raises:
        InputError: the tensor does not have the axes of a layout; tokens that fit no grid; no such
            unit.
    """
    import torch

    # Convolutions return 4 axes, transformers 3, pooled features and classifiers 2. Only
    # `maps-last` cannot be told from `maps`, so the user has to say so.
    layout = _AUTO.get(output.ndim, "") if layer.layout == "auto" else layer.layout
    ndim, _ = _AXES.get(layout, (None, 0))
    if ndim != output.ndim or output.shape[0] != count:
        raise InputError(
            f"Layer '{layer.name}' returns a tensor of {tuple(output.shape)} for {count} images; "
            "expected (image, unit, h, w), (image, token, unit) or (image, unit)."
        )
    if not output.is_floating_point():
        raise InputError(f"Layer '{layer.name}' returns {output.dtype}; expected real numbers.")
    if layout == "maps-last":
        output = output.permute(0, 3, 1, 2)
    elif layout == "tokens":
        first, grid = _grid(output.shape[1], layer, size, prefix)
        # (image, token, unit) -> (image, unit, patch) -> (image, unit, h, w)
        output = output[:, first:].transpose(1, 2).unflatten(2, grid)
    elif layout == "pooled":
        output = output[:, :, None, None]
    kind = "token" if layout == "tokens" else "channel"
    if layer.encoder is not None:
        output, kind = _encode(output, layer), "sae_latent"
    if layer.units is not None:
        if layer.units[-1] >= output.shape[1]:
            raise InputError(
                f"Layer '{layer.label}' has {output.shape[1]:,} units; unit {layer.units[-1]:,} "
                "was asked for."
            )
        output = output[:, torch.tensor(layer.units, device=output.device)]
    return ActivationMaps(output.float(), kind)


def _encode(maps: Tensor, layer: Layer) -> Tensor:
    """Apply a layer's encoder at every position of its maps: (image, latent, h, w)."""
    import torch

    assert layer.encoder is not None
    count, units, h, w = maps.shape
    # (image, unit, h, w) -> (image, h, w, unit) -> (position, unit)
    latents = layer.encoder(maps.permute(0, 2, 3, 1).reshape(-1, units))
    if not isinstance(latents, torch.Tensor) or latents.ndim != 2:
        if isinstance(latents, torch.Tensor):
            returned = f"a tensor of {tuple(latents.shape)}"
        else:
            returned = f"a {type(latents).__name__}"
        raise InputError(
            f"The encoder laid over '{layer.name}' returns {returned} for vectors of "
            f"{(count * h * w, units)}; expected latents (position, latent). Give the encoder of "
            "the autoencoder alone, such as sae.encode."
        )
    if latents.shape[0] != count * h * w:
        raise InputError(
            f"The encoder laid over '{layer.name}' returns {latents.shape[0]:,} rows for "
            f"{count * h * w:,} positions; expected a row for each."
        )
    return latents.view(count, h, w, -1).permute(0, 3, 1, 2)


def _grid(
    tokens: int, layer: Layer, size: tuple[int, int] | None, prefix: int | None
) -> tuple[int, tuple[int, int]]:
    """Return the number of tokens before the patch tokens, and the grid (h, w) of the patches.

    What the user states decides, then what the network declares. Otherwise the smallest prefix is
    taken that leaves a number of patches that fits the proportions of the images.
    """
    known = layer.prefix if layer.prefix is not None else prefix
    if layer.grid is not None:
        h, w = layer.grid
        inferred = tokens - h * w
        if inferred < 0 or (layer.prefix is not None and inferred != layer.prefix):
            raise InputError(
                f"Layer '{layer.name}' returns {tokens} tokens; a grid of {h} x {w} after "
                f"{layer.prefix or 0} prefix tokens was asked for."
            )
        return inferred, (h, w)
    height, width = size or (1, 1)
    for first in range(MAX_PREFIX_TOKENS + 1) if known is None else (known,):
        patches = tokens - first
        if patches <= 0:
            break
        # h / w must be height / width, up to the rounding of sizes that are not a multiple of the
        # patch: with square patches of side s, |w * height - h * width| < s * max(h, w), and
        # s * max(h, w) is at most the longer side.
        h = round((patches * height / width) ** 0.5)
        if h and patches % h == 0 and abs(patches // h * height - h * width) < max(height, width):
            return first, (h, patches // h)
        # h above is rounded, so test squares exactly where the size of the images is not known
        if size is None and isqrt(patches) ** 2 == patches:
            return first, (isqrt(patches), isqrt(patches))
    if known is None:
        attempt = f"after 0 to {MAX_PREFIX_TOKENS} prefix tokens they fit no grid"
    else:
        attempt = f"after {known} prefix tokens they fit no grid"
    raise InputError(
        f"Layer '{layer.name}' returns {tokens} tokens for images of {height} x {width}; {attempt}."
        " Give the number of class and register tokens: --prefix-tokens N."
    )
