"""The training unit that looks most alike lends its description."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Any, NamedTuple

from baselines.framework.context import ENCODE_BATCH, Context, encoded_exemplars
from baselines.framework.method import Description, MethodSpec
from baselines.framework.run import unit_keys
from baselines.shared.text import medoid
from milannotations.errors import InputError
from milannotations.published.annotations import has_words
from milannotations.schema import Unit

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from torch import Tensor, nn

    _Regions = list[tuple[dict[str, Any], Tensor]]
    _Features = NDArray[np.float64] | None

SPEC = MethodSpec(
    name="nearest",
    version="1.0",
    kind="method",
    title="A description of the training unit whose masked features are closest",
    trained_on="the training split; its default encoder: scenes of the mini world",
    requires=("training",),
)

SIDE = 64
"""Pictures are resized to the encoder's side, in pixels."""

BLOCK = 64
"""Units whose pictures are encoded together."""

SMALL = 1e-12
"""Features of a smaller length count as none."""


class Index(NamedTuple):
    """Training units that have a region and a description, with features of length one."""

    places: dict[Unit, int]
    features: NDArray[np.float64]
    texts: list[str]
    encoder: nn.Module


class Nearest:
    """Compares units by cosine of their mean masked features.

    A unit whose masks are all empty has no region to look at: it gets no answer
    (abstained), and as a training unit it lends none. Of the descriptions of the
    closest unit, the one that shares most words with the others is said. A unit is
    never its own neighbour.
    """

    spec = SPEC

    def __init__(self, encoder: nn.Module | None, model: str | None) -> None:
        self._given, self._model = encoder, model

    def describe(self, units: Any, context: Context) -> list[Description]:
        if not len(units):
            return []
        index: Index = context.cached(
            (SPEC.name, self._encoder[1]), lambda: _index(context, *self._encoder)
        )
        features = _features(units, context, *self._encoder)
        return [_answer(*pair, index) for pair in zip(unit_keys(units), features, strict=True)]

    @cached_property
    def _encoder(self) -> tuple[nn.Module, str]:
        """The encoder and its name; a given one is named by its place in memory."""
        if self._given is not None:
            return self._given.eval(), f"encoder {id(self._given)}"
        from milannotations.synthetic import encoder

        path = encoder.WEIGHTS if self._model is None else self._model
        return encoder.load(path), f"encoder {encoder.digest(path)}"


def create(model: str | None = None, encoder: nn.Module | None = None) -> Nearest:
    """Return the method.

    Args:
        model: weights of an encoder that `milannotations.synthetic.encoder` trained
            (default: those that ship).
        encoder: in place of it, a module from images, float (n, 3, 64, 64) in 0..1, to
            a list of feature maps (n, c, h, w).
    """
    return Nearest(encoder, model)


def _index(context: Context, encoder: nn.Module, name: str) -> Index:
    import numpy as np

    training = context.training
    said = [[text for text in texts if has_words(text)] for texts in training["descriptions"]]
    pictured = _have_exemplars(training)
    usable = [i for i in range(len(said)) if said[i] and pictured[i]]
    if not usable:
        raise InputError(
            "'nearest' found no training unit with exemplars and a description; give an "
            "edition with pictures: training=EDITION."
        )
    features = _features(training.select(usable), context, encoder, name)
    found = {i: each for i, each in zip(usable, features, strict=True) if each is not None}
    if not found:
        raise InputError("'nearest': the masks of every training unit are empty.")
    members = unit_keys(training)
    return Index(
        {members[i]: place for place, i in enumerate(found)},
        np.stack([each / np.linalg.norm(each).clip(SMALL) for each in found.values()]),
        [medoid(said[i]) for i in found],
        encoder,
    )


def _answer(unit: Unit, features: _Features, index: Index) -> Description:
    import numpy as np

    if features is None:
        return Description.abstained()
    # rounded, so that units that are equal but for the last bits are tied
    cosines = np.round(index.features @ (features / np.linalg.norm(features).clip(SMALL)), 6)
    if unit in index.places:
        cosines[index.places[unit]] = -np.inf
    best = int(cosines.argmax())  # the first of the training units, if several
    if not np.isfinite(cosines[best]):
        return Description.failed()
    return Description.of(index.texts[best], float(cosines[best]))


def _have_exemplars(units: Any) -> list[bool]:
    table = units.select_columns(["images", "masks"]).with_format("arrow")[:]
    valid = zip(*(table[name].is_valid().to_pylist() for name in ("images", "masks")), strict=True)
    return [all(pair) for pair in valid]


def _features(units: Any, context: Context, encoder: nn.Module, name: str) -> list[_Features]:
    """Return the mean features of each unit's regions, (d,); None where it has none.

    Raises:
        InputError: a unit without exemplars.
    """
    made: list[_Features] = []
    block: list[_Regions] = []
    rows = zip(unit_keys(units), encoded_exemplars(units), strict=True)
    for place, (unit, row) in enumerate(rows, 1):
        if row["images"] is None or row["masks"] is None:
            raise InputError(
                f"'nearest' looks at exemplars, and {unit} has none: this edition holds text alone."
            )
        pairs = zip(row["images"], map(_mask, row["masks"]), strict=True)
        block.append([(image, mask) for image, mask in pairs if mask.any()])
        if len(block) == BLOCK or place == len(units):
            pictures = [image for regions in block for image, _ in regions]
            encoded = context.encode(pictures, name, lambda part: _encode(part, encoder))
            maps = iter(encoded)
            made += [_mean([(next(maps), mask) for _, mask in regions]) for regions in block]
            block = []
    return made


def _mean(regions: list[tuple[tuple[Tensor, ...], Tensor]]) -> _Features:
    """Return the mean over a unit's regions, (d,), of (maps of a picture, mask)."""
    import torch

    from milannotations.utils.pooling import pool

    sizes: dict[torch.Size, list[tuple[tuple[Tensor, ...], Tensor]]] = {}
    for region in regions:
        sizes.setdefault(region[1].shape, []).append(region)
    pooled = [
        pool(
            [torch.stack(level) for level in zip(*(maps for maps, _ in members), strict=True)],
            torch.stack([mask for _, mask in members]),
        )
        for members in sizes.values()
    ]
    if not pooled:
        return None
    mean: NDArray[np.float64] = torch.cat(pooled).double().mean(0).numpy()
    return mean


def _encode(pictures: Sequence[Any], encoder: nn.Module) -> list[Tensor]:
    """Return feature maps of images, always in batches of `ENCODE_BATCH`, for equal last bits."""
    import numpy as np
    import torch

    batch = torch.zeros(ENCODE_BATCH, 3, SIDE, SIDE)
    for place, picture in enumerate(pictures):
        pixels = np.asarray(
            picture if picture.size == (SIDE, SIDE) else picture.resize((SIDE,) * 2)
        )
        batch[place] = torch.from_numpy(pixels.copy()).permute(2, 0, 1) / 255
    with torch.inference_mode():
        maps: list[Tensor] = list(encoder(batch))
    return maps


def _mask(picture: dict[str, Any]) -> Tensor:
    """Return a mask, bool (1, h, w)."""
    import numpy as np
    import torch
    from datasets import Image

    pixels = np.asarray(Image().decode_example(picture))
    return torch.from_numpy(pixels.reshape(*pixels.shape[:2], -1)[..., 0] > 0)[None]
