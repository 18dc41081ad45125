"""E, a unit's exemplars, as numbers: what a frozen network sees in their masked regions.

Hernandez et al. 2022, section 3: every picture goes unmasked through a network trained on other
data; the maps of several of its layers are averaged under the mask, resized to each of them, and
stood side by side: 3,904 numbers for the five stages of ResNet-50, -101 and -152.

Any network that `milannotations.exemplars` can look into can be the encoder.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn
from torch.nn import functional as nnf

from milannotations import exemplars
from milannotations.errors import InputError
from milannotations.exemplars.hooks.layers import Layer, as_maps
from milannotations.exemplars.hooks.reader import Taps
from milannotations.utils.pooling import pool

MINI = "mini"
"""The encoder of the mini world, which ships: `milannotations.synthetic.encoder`."""

RESNET = ("conv1", "layer1", "layer2", "layer3", "layer4")
LAYERS = {
    MINI: tuple(f"outputs:{i}" for i in range(5)),
    "torchvision:alexnet": tuple(f"features.{i}" for i in (0, 3, 6, 8, 10)),
    **dict.fromkeys(
        [f"torchvision:resnet{depth}" for depth in (18, 34, 50, 101, 152)],
        RESNET,
    ),
}
"""Layers that are pooled unless others are asked for; those of 2022 where it had the network."""

KINDS = ("pyramid", "spatial")
BLANK = 224
"""Side of the blank picture from which sizes are learned, where the network sets no side."""

Pictures = Float[Tensor, "n 3 height width"]
Masks = Bool[Tensor, "n 1 mask_height mask_width"] | Float[Tensor, "n 1 mask_height mask_width"]


@dataclass(frozen=True)
class EncoderConfig:
    """What an encoder is; its weights lie beside it.

    Args:
        backbone: `mini`, or a network as `milan exemplars` names it, without `@WEIGHTS`.
        layers: whose maps are pooled, side by side; of `spatial`, the last.
        kind: `pyramid`, maps averaged under the mask: one vector an exemplar; `spatial`, the
            masked picture's last map: a vector for every place of every exemplar.
        mean, std: of the network's input, a channel each.
        side: of its input, to which pictures are resized; None takes them as they come.
        prefix: class and register tokens before the tokens of patches, as the network declares
            them; None finds it.
        feature_size: length of a vector.
        missing: entries of the network without weights; layers do not depend on them.
        weights: where they are from, for the record.
    """

    backbone: str
    layers: tuple[str, ...]
    kind: str = "pyramid"
    mean: tuple[float, ...] = (0.485, 0.456, 0.406)
    std: tuple[float, ...] = (0.229, 0.224, 0.225)
    side: int | None = None
    prefix: int | None = None
    feature_size: int = 0
    missing: tuple[str, ...] = ()
    weights: dict[str, Any] | None = field(default=None, compare=False)

    def __post_init__(self) -> None:
        for name in ("layers", "mean", "std", "missing"):  # JSON has lists alone
            object.__setattr__(self, name, tuple(getattr(self, name)))
        if self.kind not in KINDS:
            raise InputError(f"No encoder of kind '{self.kind}' (kinds: {', '.join(KINDS)}).")


class Encoder(nn.Module):
    """A frozen network and the layers of it that are pooled.

    Args:
        config: what it is.
        backbone: the network.
    """

    def __init__(self, config: EncoderConfig, backbone: nn.Module) -> None:
        super().__init__()
        self.config = config
        self.backbone = backbone.requires_grad_(False)
        self.register_buffer("mean", torch.tensor(config.mean)[:, None, None], persistent=False)
        self.register_buffer("std", torch.tensor(config.std)[:, None, None], persistent=False)
        self._layers = [Layer.parse(name) for name in config.layers]
        self._taps = Taps(self.backbone, self._layers, missing=config.missing)
        self.eval()

    def train(self, mode: bool = True) -> "Encoder":
        """Stay in evaluation mode: the network is frozen, batch statistics too."""
        return super().train(False)

    @torch.no_grad()
    def maps(self, images: Pictures) -> list[Float[Tensor, "n c h w"]]:
        """Return the maps of the layers, each picture through the network once.

        Args:
            images: RGB from 0 to 1; resized to the network's side where it has one.
        """
        side = self.config.side
        if side is not None and images.shape[-2:] != (side, side):
            images = nnf.interpolate(
                images, (side, side), mode="bilinear", align_corners=False, antialias=True
            )
        with self._taps as taps:
            outputs = taps.run((images - self.mean) / self.std)
        count, size, prefix = len(images), (images.shape[2], images.shape[3]), self.config.prefix
        return [
            as_maps(outputs[each.label], each, count, size, prefix).maps for each in self._layers
        ]

    def forward(self, images: Pictures, masks: Masks | None = None) -> Float[Tensor, "n p f"]:
        """Return the features of masked pictures.

        Args:
            images: RGB from 0 to 1.
            masks: of any size; None is all of the picture. An empty mask gives zeros.

        Returns:
            `p` vectors a picture: one (pyramid), or one for each place of the map (spatial).
        """
        if masks is None:
            masks = images.new_ones(len(images), 1, 1, 1)
        if self.config.kind == "spatial":
            shown = nnf.interpolate(masks.to(images), images.shape[-2:])
            return self.maps(images * shown)[-1].flatten(2).transpose(1, 2)
        return pool(self.maps(images), masks)[:, None]


def build(
    backbone: str = MINI,
    weights: str | Path | None = None,
    layers: Sequence[str] = (),
    *,
    kind: str = "pyramid",
    random: bool = False,
) -> Encoder:
    """Return an encoder made of a network.

    Args:
        backbone: `mini`, or a network as `milan exemplars` names it, `@WEIGHTS` included.
        weights: a file of its weights, in place of `@WEIGHTS`.
        layers: whose maps are pooled; of the networks in `LAYERS` they may be left out.
        kind: see `EncoderConfig`.
        random: random weights, of a fixed seed.

    Raises:
        InputError: see `exemplars.load_model`; a layer that is not there or gives no maps.
    """
    name = backbone.partition("@")[0] if not Path(backbone).exists() else backbone
    network, options = _loaded(backbone, weights, random=random)
    chosen = tuple(layers) or LAYERS.get(name)
    if chosen is None:
        raise InputError(
            f"Which layers of {name} are to be pooled? Say them, the finer ones first: "
            f"--encoder-layer L L ... (see: milan exemplars {backbone} --list-layers)"
        )
    made = Encoder(EncoderConfig(name, chosen, kind, **options), network)
    side = made.config.side or BLANK
    size = made(torch.zeros(1, 3, side, side)).shape[2]
    return Encoder(EncoderConfig(**{**vars(made.config), "feature_size": size}), network)


def restore(config: EncoderConfig) -> Encoder:
    """Return an encoder whose weights are still to be loaded.

    Raises:
        InputError: see `exemplars.load_model`.
    """
    if config.backbone == MINI:
        from milannotations.synthetic.encoder import Encoder as Mini

        return Encoder(config, Mini())
    return Encoder(config, exemplars.load_model(config.backbone, random=True).model)


def _loaded(
    backbone: str, weights: str | Path | None, *, random: bool
) -> tuple[nn.Module, dict[str, Any]]:
    """Return a network, and what its `EncoderConfig` says of weights and input."""
    if backbone == MINI:
        from milannotations.synthetic import encoder

        path = weights or encoder.WEIGHTS
        return encoder.load(path), {
            "mean": (0.0,) * 3,
            "std": (1.0,) * 3,
            "side": 64,
            "weights": {"sha256": encoder.digest(path)},
        }
    loaded = exemplars.load_model(backbone, weights=weights, random=random)
    own = loaded.preprocessing
    options: dict[str, Any] = {"missing": loaded.missing, "weights": loaded.source, "side": None}
    options["prefix"] = loaded.prefix
    if own is not None:
        options |= {"mean": own.mean, "std": own.std}
        if loaded.prefix is not None:  # tokens have places: pictures are to be of one size
            options["side"] = int(own.blank().shape[-1])
    return loaded.model, options
