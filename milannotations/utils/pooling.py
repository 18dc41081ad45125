"""Masked pooling of feature maps, as in MILAN's encoder."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as nnf

from milannotations.errors import InputError

NEARLY_ZERO = 1e-8
"""Largest value of an empty mask (tolerance of the 2022 code)."""

CHUNK = 512
"""Positions of a map that are summed at once."""


def pool(maps: Tensor | Sequence[Tensor], masks: Tensor) -> Tensor:
    """Compute the mean of feature maps under masks and concatenate the means.

    The masks are resized to each map (bilinear, `align_corners=False`, no antialiasing) and
    divided by their sum. A mask that is empty at a map's size, also because the map is so coarse
    that no sample falls inside the mask, gives zeros for that map. The encoders of Hernandez et
    al. 2022 do the same (section 3 and the published code).

    Args:
        maps: one or several tensors (n, c_i, h_i, w_i) of n images.
        masks: bool or float: (n, 1, H, W), one mask per image; or (n, k, 1, H, W), k masks per
            image. Any H and W.

    Returns:
        (n, sum of c_i), or (n, k, sum of c_i), in the maps' dtype, in the order of the maps.

    Raises:
        InputError: the shapes do not fit together.

    Example:
        >>> maps = torch.arange(4.0).reshape(1, 1, 2, 2)
        >>> masks = torch.tensor([[[[0, 1], [0, 1]]]])
        >>> pool(maps, masks), pool([maps, maps * 2], masks[:, None])
        (tensor([[2.]]), tensor([[[2., 4.]]]))
    """
    maps = [maps] if isinstance(maps, Tensor) else list(maps)
    _check(maps, masks)
    is_batched = masks.dim() == 5
    n, k = masks.shape[:2]  # k is 1 if there is one mask per image
    flat = masks.flatten(0, 1) if is_batched else masks  # (n * k, 1, H, W)
    pooled = []
    for values in maps:
        weights = flat.to(values.dtype)
        if weights.shape[-2:] != values.shape[-2:]:
            weights = nnf.interpolate(
                weights, size=values.shape[-2:], mode="bilinear", align_corners=False
            )
        weights = weights.flatten(1)  # (n * k, h * w)
        empty = (weights.abs() <= NEARLY_ZERO).all(1, keepdim=True)
        weights = weights / weights.sum(1, keepdim=True).masked_fill(empty, 1)
        weights = weights.reshape(n, k, values.shape[-2] * values.shape[-1])
        # (n, k, h * w) @ (n, h * w, c), in chunks: one float32 sum over all 12,544 positions of a
        # fine map would lose the last digits
        chunks = zip(weights.split(CHUNK, 2), values.flatten(2).split(CHUNK, 2), strict=True)
        sums = [chunk @ part.transpose(1, 2) for chunk, part in chunks]
        pooled.append(torch.stack(sums).sum(0))
    features = torch.cat(pooled, dim=-1)
    return features if is_batched else features[:, 0]


def _check(maps: Sequence[Tensor], masks: Tensor) -> None:
    if not maps:
        raise InputError("There are no feature maps to pool.")
    shapes = [tuple(values.shape) for values in maps]
    if any(len(shape) != 4 for shape in shapes):
        raise InputError(f"Feature maps have the shapes {shapes}. Expected (n, c, h, w).")
    if any(not values.is_floating_point() for values in maps):
        raise InputError("Feature maps are not of a floating-point type.")
    if masks.dim() not in (4, 5) or masks.shape[-3] != 1:
        raise InputError(
            f"Masks have the shape {tuple(masks.shape)}. Expected (n, 1, h, w) or (n, k, 1, h, w)."
        )
    if {shape[0] for shape in shapes} != {len(masks)}:
        raise InputError(
            f"Maps of {sorted({shape[0] for shape in shapes})} images do not fit masks of "
            f"{len(masks)} images."
        )
