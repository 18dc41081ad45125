"""Features of masked regions: feature maps pooled under masks, as MILAN's encoder does."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as nnf

from milannotations.errors import InputError

NEARLY_ZERO = 1e-8
"""A mask with no value above this counts as empty: the 2022 code's tolerance."""

PLACES = 512
"""Places of a map that are summed in one go."""


def pool(maps: Tensor | Sequence[Tensor], masks: Tensor) -> Tensor:
    """Return the features of masked regions: each map's mean under the mask, side by side.

    The masks are resized to each map (bilinear, `align_corners=False`, no antialiasing) and
    divided by their sum. A mask that is empty at a map's size, by nature or because the map
    is so coarse that no sample meets it, gives zeros for that map; it is not an error. So
    do the encoders of Hernandez et al. 2022 (section 3 and the code published with it).

    Args:
        maps: one or several tensors (n, c_i, h_i, w_i), of n pictures.
        masks: (n, 1, H, W), bool or float, a mask a picture; or (n, k, 1, H, W), k masks
            a picture, for which the maps are computed once. Any H and W.

    Returns:
        (n, sum of c_i), or (n, k, sum of c_i), in the maps' dtype, in the order of the maps.

    Raises:
        InputError: the shapes do not fit one another.

    Example:
        >>> maps = torch.arange(4.0).reshape(1, 1, 2, 2)
        >>> masks = torch.tensor([[[[0, 1], [0, 1]]]])
        >>> pool(maps, masks), pool([maps, maps * 2], masks[:, None])
        (tensor([[2.]]), tensor([[[2., 4.]]]))
    """
    maps = [maps] if isinstance(maps, Tensor) else list(maps)
    _check(maps, masks)
    several = masks.dim() == 5
    n, k = masks.shape[:2]  # k is 1 where there is one mask a picture
    flat = masks.flatten(0, 1) if several else masks
    pooled = []
    for each in maps:
        weights = flat.to(each.dtype)
        if weights.shape[-2:] != each.shape[-2:]:
            weights = nnf.interpolate(
                weights, size=each.shape[-2:], mode="bilinear", align_corners=False
            )
        weights = weights.flatten(1)
        empty = (weights.abs() <= NEARLY_ZERO).all(1, keepdim=True)
        weights = weights / weights.sum(1, keepdim=True).masked_fill(empty, 1)
        weights = weights.reshape(n, k, each.shape[-2] * each.shape[-1])
        # in parts: a float32 sum over all 12,544 places of a fine map loses the last digits
        parts = zip(weights.split(PLACES, 2), each.flatten(2).split(PLACES, 2), strict=True)
        sums = [part @ values.transpose(1, 2) for part, values in parts]
        pooled.append(torch.stack(sums).sum(0))
    features = torch.cat(pooled, dim=-1)
    return features if several else features[:, 0]


def _check(maps: Sequence[Tensor], masks: Tensor) -> None:
    if not maps:
        raise InputError("There are no feature maps to pool.")
    shapes = [tuple(each.shape) for each in maps]
    if any(len(shape) != 4 for shape in shapes):
        raise InputError(f"Feature maps (n, c, h, w) were expected, not {shapes}.")
    if any(not each.is_floating_point() for each in maps):
        raise InputError("Feature maps of floats were expected.")
    if masks.dim() not in (4, 5) or masks.shape[-3] != 1:
        raise InputError(
            f"Masks (n, 1, h, w) or (n, k, 1, h, w) were expected, not {tuple(masks.shape)}."
        )
    if {shape[0] for shape in shapes} != {len(masks)}:
        raise InputError(
            f"Maps of {sorted({shape[0] for shape in shapes})} pictures do not fit masks of "
            f"{len(masks)}."
        )
