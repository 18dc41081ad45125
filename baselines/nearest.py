"""Nearest: a description of the training unit with the most similar exemplars."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Any, NamedTuple

from baselines.framework.context import ENCODE_BATCH, Context
from baselines.framework.method import Description, MethodSpec
from baselines.framework.units import encoded_exemplars, unit_keys
from baselines.shared.text import medoid_text
from milannotations.errors import InputError
from milannotations.published.annotations import has_words
from milannotations.schema import Unit

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from torch import Tensor, nn

    _Features = NDArray[np.float64] | None
    _Maps = tuple[Tensor, ...]

SPEC = MethodSpec(
    name="nearest",
    version="1.0",
    kind="method",
    title="A description of the training unit whose masked features are closest",
    trained_on="the training split; its default encoder: scenes of the mini world",
    requires=("training",),
)

SIDE = 64
"""Side in pixels to which images are resized for the encoder."""

BLOCK = 64
"""Units whose images are encoded together."""

MIN_NORM = 1e-12
"""Least norm of features; features below count as zero."""


class Index(NamedTuple):
    """Index of the training units that have a region and a description.

    Attributes:
        rows: row of each unit in `features`.
        features: (unit, d), of norm one.
        texts: description of each unit.
        encoder: encoder of the features; kept so that its id is not given to another.
    """

    rows: dict[Unit, int]
    features: NDArray[np.float64]
    texts: list[str]
    encoder: nn.Module


class Nearest:
    """Describe each unit by the training unit with the highest cosine of mean masked features.

    A unit with empty masks only is abstained, and as a training unit it is left out. Of the
    neighbor's annotations, the one with most words in common with the others is returned. A unit
    is never its own neighbor.
    """

    spec = SPEC

    def __init__(self, encoder: nn.Module | None, model: str | None) -> None:
        self._given, self._model = encoder, model

    def describe(self, units: Any, context: Context) -> list[Description]:
        if not len(units):
            return []
        index: Index = context.cached(
            (SPEC.name, self._encoder[1]), lambda: _build_index(context, *self._encoder)
        )
        features = _features(units, context, *self._encoder)
        return [_describe(unit, row, index) for unit, row in features]

    @cached_property
    def _encoder(self) -> tuple[nn.Module, str]:
        """Encoder and its name; an encoder given as an object is named by its id."""
        if self._given is not None:
            return self._given.eval(), f"encoder {id(self._given)}"
        from milannotations.synthetic import encoder

        path = encoder.WEIGHTS if self._model is None else self._model
        return encoder.load(path), f"encoder {encoder.digest(path)}"


def create(model: str | None = None, encoder: nn.Module | None = None) -> Nearest:
    """Return the method.

    Args:
        model: weights of an encoder that `milannotations.synthetic.encoder` trained (default: the
            built-in weights).
        encoder: instead of it, a module from images, float (n, 3, 64, 64) in 0..1, to a list of
            feature maps (n, c, h, w).
    """
    return Nearest(encoder, model)


def _build_index(context: Context, encoder: nn.Module, name: str) -> Index:
    import numpy as np

    training = context.training
    annotations = [
        [text for text in texts if has_words(text)] for texts in training["descriptions"]
    ]
    with_exemplars = _have_exemplars(training)
    usable = [i for i in range(len(annotations)) if annotations[i] and with_exemplars[i]]
    if not usable:
        raise InputError(
            "'nearest' found no training unit with exemplars and a description; give an "
            "edition with images: --training EDITION."
        )
    features = _features(training.select(usable), context, encoder, name)
    pairs = zip(usable, features, strict=True)
    found = {i: row for i, (_, row) in pairs if row is not None}
    if not found:
        raise InputError("'nearest': the masks of every training unit are empty.")
    keys = unit_keys(training)
    return Index(
        {keys[i]: row for row, i in enumerate(found)},
        np.stack([_normalize(row) for row in found.values()]),
        [medoid_text(annotations[i]) for i in found],
        encoder,
    )


def _describe(unit: Unit, features: _Features, index: Index) -> Description:
    import numpy as np

    if features is None:
        return Description.abstained()
    # rounded, so that units that are equal except for the last bits are ties
    cosines = np.round(index.features @ _normalize(features), 6)
    if unit in index.rows:
        cosines[index.rows[unit]] = -np.inf
    best = int(cosines.argmax())  # the first training unit of several
    if not np.isfinite(cosines[best]):
        return Description.failed()
    return Description.of(index.texts[best], float(cosines[best]))


def _normalize(features: NDArray[np.float64]) -> NDArray[np.float64]:
    import numpy as np

    normalized: NDArray[np.float64] = features / np.linalg.norm(features).clip(MIN_NORM)
    return normalized


def _have_exemplars(units: Any) -> list[bool]:
    """Return whether each unit has exemplars, without decoding any."""
    table = units.select_columns(["images", "masks"]).with_format("arrow")[:]
    valid = zip(*(table[name].is_valid().to_pylist() for name in ("images", "masks")), strict=True)
    return [all(pair) for pair in valid]


def _features(
    units: Any, context: Context, encoder: nn.Module, name: str
) -> list[tuple[Unit, _Features]]:
    """Return each unit with the mean features of its regions, (d,); None if it has no region.

    Raises:
        InputError: a unit without exemplars.
    """
    features: list[tuple[Unit, _Features]] = []
    block: list[tuple[Unit, list[tuple[dict[str, Any], Tensor]]]] = []
    # Units of a block are encoded together: they share full batches, and images that several of
    # them have; a block also bounds the memory for feature maps.
    for i, (unit, row) in enumerate(encoded_exemplars(units, SPEC.name), 1):
        pairs = zip(row["images"], map(_read_mask, row["masks"]), strict=True)
        block.append((unit, [(image, mask) for image, mask in pairs if mask.any()]))
        if len(block) == BLOCK or i == len(units):
            images = [image for _, regions in block for image, _ in regions]
            maps = iter(context.encode(images, name, lambda batch: _encode(batch, encoder)))
            # the maps come back in the order of the images: one for each region in turn
            features += [
                (unit, _mean([(next(maps), mask) for _, mask in regions]))
                for unit, regions in block
            ]
            block = []
    return features


def _mean(regions: list[tuple[_Maps, Tensor]]) -> _Features:
    """Return the mean of the features of a unit's regions, (d,); None if there are none.

    Args:
        regions: (feature maps of an image, mask) pairs.
    """
    import torch

    from milannotations.utils.pooling import pool

    # pooled together by size of the mask, as masks of one tensor must be of one size
    by_size: dict[torch.Size, list[tuple[_Maps, Tensor]]] = {}
    for region in regions:
        by_size.setdefault(region[1].shape, []).append(region)
    pooled = [
        pool(
            [torch.stack(level) for level in zip(*(maps for maps, _ in members), strict=True)],
            torch.stack([mask for _, mask in members]),
        )
        for members in by_size.values()
    ]
    if not pooled:
        return None
    mean: NDArray[np.float64] = torch.cat(pooled).double().mean(0).numpy()
    return mean


def _encode(images: Sequence[Any], encoder: nn.Module) -> list[Tensor]:
    """Return feature maps of images.

    Every batch has `ENCODE_BATCH` images, padded with black ones, because the last bits of the
    results depend on the size of the batch.
    """
    import numpy as np
    import torch

    batch = torch.zeros(ENCODE_BATCH, 3, SIDE, SIDE)
    for i, image in enumerate(images):
        resized = image if image.size == (SIDE, SIDE) else image.resize((SIDE, SIDE))
        # (h, w, channel) in 0..255 -> (channel, h, w) in 0..1
        batch[i] = torch.from_numpy(np.array(resized)).permute(2, 0, 1) / 255
    with torch.inference_mode():
        maps: list[Tensor] = list(encoder(batch))
    return maps


def _read_mask(encoded: dict[str, Any]) -> Tensor:
    """Return a mask, bool (1, h, w)."""
    import numpy as np
    import torch
    from datasets import Image

    pixels = np.asarray(Image().decode_example(encoded))
    # masks of several channels have equal ones
    return torch.from_numpy(pixels.reshape(*pixels.shape[:2], -1)[..., 0] > 0)[None]
