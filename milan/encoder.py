"""E: a unit's exemplars as feature vectors, from a frozen network and the regions' masks.

Hernandez et al. 2022, section 3: every image goes unmasked through a network trained on other
data. The activation maps F_l of several of its layers are averaged under the mask m, which is
resized to each of them and divided by its sum, and the averages are concatenated:

    f_i = [ sum_xy m_1(x, y) F_1(x, y) ; ... ; sum_xy m_L(x, y) F_L(x, y) ]

The five stages of ResNet-50, -101 and -152 give 3,904 features. Any network that
`milannotations.exemplars` can hook can be the encoder.
"""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn
from torch.nn import functional as nnf

from milan.config import EncoderConfig
from milannotations import exemplars
from milannotations.errors import InputError
from milannotations.exemplars.hooks.layers import Layer, as_maps
from milannotations.exemplars.hooks.reader import LayerReader
from milannotations.utils.pooling import pool

MINI = "mini"
"""Name of the encoder of the mini world, which is part of `milannotations.synthetic`."""

RESNET = ("conv1", "layer1", "layer2", "layer3", "layer4")
LAYERS = {
    MINI: tuple(f"outputs:{i}" for i in range(5)),
    "torchvision:alexnet": tuple(f"features.{i}" for i in (0, 3, 6, 8, 10)),
    **dict.fromkeys(
        [f"torchvision:resnet{depth}" for depth in (18, 34, 50, 101, 152)],
        RESNET,
    ),
}
"""Default layers by network; the same as in 2022 for the networks that were used then."""

BLANK = 224
"""Side of the blank image that measures the feature size, if the network sets no input size."""

IMAGE_BATCH = 32
"""Images that go through the encoder together."""

Images = Float[Tensor, "n 3 height width"]
Masks = Bool[Tensor, "n 1 mask_height mask_width"] | Float[Tensor, "n 1 mask_height mask_width"]


class Encoder(nn.Module):
    """Frozen network that turns masked images into feature vectors.

    Args:
        config: which layers are pooled, and how.
        backbone: the network.
    """

    def __init__(self, config: EncoderConfig, backbone: nn.Module) -> None:
        super().__init__()
        self.config = config
        self.backbone = backbone.requires_grad_(False)
        self.register_buffer("mean", torch.tensor(config.mean)[:, None, None], persistent=False)
        self.register_buffer("std", torch.tensor(config.std)[:, None, None], persistent=False)
        self._layers = [Layer.parse(name) for name in config.layers]
        self._reader = LayerReader(self.backbone, self._layers, missing=config.missing)
        self.eval()

    def train(self, mode: bool = True) -> "Encoder":
        """Stay in evaluation mode: the network is frozen, its batch statistics too."""
        return super().train(False)

    @torch.no_grad()
    def maps(self, images: Images) -> list[Float[Tensor, "n c h w"]]:
        """Return the activation maps of the layers, from one pass of the images.

        Args:
            images: RGB from 0 to 1; resized to the network's input size, if it has one.
        """
        side = self.config.side
        if side is not None and images.shape[-2:] != (side, side):
            images = nnf.interpolate(
                images, (side, side), mode="bilinear", align_corners=False, antialias=True
            )
        with self._reader as reader:
            outputs = reader.run((images - self.mean) / self.std)
        count, size, prefix = len(images), (images.shape[2], images.shape[3]), self.config.prefix
        return [
            as_maps(outputs[layer.label], layer, count, size, prefix).maps for layer in self._layers
        ]

    def forward(self, images: Images, masks: Masks | None = None) -> Float[Tensor, "n p f"]:
        """Return the features of masked images.

        Args:
            images: RGB from 0 to 1.
            masks: of any size; None takes the whole image. An empty mask gives zeros.

        Returns:
            `p` vectors per image: one (pyramid), or one per position of the map (spatial).
        """
        if masks is None:
            masks = images.new_ones(len(images), 1, 1, 1)
        if self.config.kind == "spatial":
            resized = nnf.interpolate(masks.to(images), images.shape[-2:])
            # (n, c, h, w) -> (n, h * w, c): every position is a vector
            return self.maps(images * resized)[-1].flatten(2).transpose(1, 2)
        return pool(self.maps(images), masks)[:, None]


def build(
    backbone: str = MINI,
    weights: str | Path | None = None,
    layers: Sequence[str] = (),
    *,
    kind: str = "pyramid",
    random: bool = False,
) -> Encoder:
    """Return the encoder of a network.

    Args:
        backbone: `mini`, or a network as `milan exemplars` names it, `@WEIGHTS` included.
        weights: file of its weights, in place of `@WEIGHTS`.
        layers: layers whose maps are pooled; empty takes those of `LAYERS`.
        kind: see `EncoderConfig`.
        random: take random weights of a fixed seed.

    Raises:
        InputError: see `exemplars.load_model`; a layer does not exist or gives no maps.
    """
    name = backbone.partition("@")[0] if not Path(backbone).exists() else backbone
    network, options = _loaded(backbone, weights, random=random)
    chosen = tuple(layers) or LAYERS.get(name)
    if chosen is None:
        raise InputError(
            f"No default layers of {name} are known. Name those to pool, the finer ones first: "
            f"--encoder-layer L L ... (see: milan exemplars {backbone} --list-layers)"
        )
    config = EncoderConfig(name, chosen, kind, **options)
    return Encoder(replace(config, feature_size=feature_size(config, network)), network)


def feature_size(config: EncoderConfig, network: nn.Module) -> int:
    """Return the length of an encoder's feature vectors, measured on a blank image."""
    side = config.side or BLANK
    return int(Encoder(config, network)(torch.zeros(1, 3, side, side)).shape[2])


def restore(config: EncoderConfig) -> Encoder:
    """Return the encoder of a configuration, whose weights are still to be loaded.

    Raises:
        InputError: see `exemplars.load_model`.
    """
    if config.backbone == MINI:
        from milannotations.synthetic.encoder import MiniEncoder

        return Encoder(config, MiniEncoder())
    return Encoder(config, exemplars.load_model(config.backbone, random=True).model)


def _loaded(
    backbone: str, weights: str | Path | None, *, random: bool
) -> tuple[nn.Module, dict[str, Any]]:
    """Return a network, and the fields of its `EncoderConfig` about weights and input."""
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
    preprocessing = loaded.preprocessing
    options: dict[str, Any] = {
        "missing": loaded.missing,
        "weights": loaded.source,
        "side": None,
        "prefix": loaded.prefix,
    }
    if preprocessing is not None:
        if preprocessing.order != (0, 1, 2):
            raise InputError(
                f"{backbone} takes its channels in another order than red, green, blue, which the "
                "encoder does not. Give a network that takes RGB."
            )
        options |= {"mean": preprocessing.mean, "std": preprocessing.std}
        if loaded.prefix is not None:
            # a transformer has position embeddings for one input size alone
            options["side"] = int(preprocessing.blank().shape[-1])
    return loaded.model, options
