"""Pooling under masks, against a slow loop."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from milannotations.errors import InputError
from milannotations.utils.pooling import pool


def slow_resize(mask, high, wide):
    """Resize a mask (H, W): bilinear between pixel centres, sides clamped."""
    rows, columns = mask.shape
    resized = torch.zeros(high, wide, dtype=torch.float64)
    for y in range(high):
        for x in range(wide):
            v = min(max((y + 0.5) * rows / high - 0.5, 0), rows - 1)
            u = min(max((x + 0.5) * columns / wide - 0.5, 0), columns - 1)
            top, left = int(v), int(u)
            bottom, right = min(top + 1, rows - 1), min(left + 1, columns - 1)
            a, b = v - top, u - left
            resized[y, x] = (
                mask[top, left] * (1 - a) * (1 - b)
                + mask[top, right] * (1 - a) * b
                + mask[bottom, left] * a * (1 - b)
                + mask[bottom, right] * a * b
            )
    return resized


def slow_pool(maps, mask):
    """Return the features of one image under one mask (H, W)."""
    features = []
    for each in maps:
        channels, high, wide = each.shape
        weights = slow_resize(mask.double(), high, wide)
        total = float(weights.sum())
        for channel in range(channels):
            value = 0.0
            for y in range(high):
                for x in range(wide):
                    value += float(each[channel, y, x] * weights[y, x])
            features.append(value / total if total > 0 else 0.0)
    return torch.tensor(features)


SIDES = [(1, 1), (2, 3), (4, 4), (7, 5), (16, 16)]


@settings(deadline=None, max_examples=25)
@given(
    sides=st.lists(st.sampled_from(SIDES), min_size=1, max_size=3),
    size=st.sampled_from([(4, 4), (7, 7), (12, 8), (3, 3)]),
    seed=st.integers(0, 999),
    soft=st.booleans(),
)
def test_as_the_slow_loop(sides, size, seed, soft):
    generator = torch.Generator().manual_seed(seed)
    maps = [torch.randn(2, 2, *side, generator=generator) for side in sides]
    masks = torch.rand(2, 1, *size, generator=generator)
    if not soft:
        masks = masks > 0.7
    features = pool(maps, masks)
    assert features.shape == (2, 2 * len(sides))
    for i in range(2):
        expected = slow_pool([each[i] for each in maps], masks[i, 0])
        torch.testing.assert_close(features[i], expected, rtol=1e-4, atol=1e-5)


def test_all_of_the_picture_is_the_mean():
    maps = torch.randn(3, 5, 8, 8)
    torch.testing.assert_close(pool(maps, torch.ones(3, 1, 64, 64)), maps.mean((2, 3)))


def test_an_empty_mask_gives_zeros_and_leaves_its_neighbours_alone():
    maps = [torch.randn(2, 3, 4, 4), torch.randn(2, 2, 8, 8)]
    masks = torch.ones(2, 1, 16, 16, dtype=torch.bool)
    both = pool(maps, masks)
    masks[0] = False
    features = pool(maps, masks)
    assert (features[0] == 0).all()
    assert torch.equal(features[1], both[1])
    assert pool(maps, masks * 1e-9).abs().max() < 1e-6, "nearly zero counts as empty"


def test_a_mask_that_a_coarse_map_does_not_meet_gives_zeros_for_that_map_alone():
    masks = torch.zeros(1, 1, 64, 64)
    masks[..., 0, 0] = 1
    features = pool([torch.ones(1, 1, 64, 64), torch.ones(1, 1, 8, 8)], masks)
    assert features.tolist() == [[1, 0]]


def test_the_scale_of_a_mask_does_not_matter():
    maps, masks = torch.randn(2, 3, 8, 8), torch.rand(2, 1, 32, 32)
    torch.testing.assert_close(pool(maps, masks), pool(maps, masks * 255))


def test_many_masks_of_a_picture_are_as_one_after_the_other():
    maps = [torch.randn(3, 4, 16, 16), torch.randn(3, 2, 4, 4)]
    masks = torch.rand(3, 5, 1, 64, 64) > 0.9
    features = pool(maps, masks)
    assert features.shape == (3, 5, 6)
    for i in range(5):
        torch.testing.assert_close(features[:, i], pool(maps, masks[:, i]))
    assert pool(maps, masks[:, :1]).shape == (3, 1, 6)
    assert pool([each[:0] for each in maps], masks[:0]).shape == (0, 5, 6)


def test_a_tensor_is_a_list_of_one_and_order_is_kept():
    one, two = torch.randn(1, 2, 4, 4), torch.randn(1, 3, 2, 2)
    masks = torch.ones(1, 1, 8, 8)
    assert torch.equal(pool(one, masks), pool([one], masks))
    assert torch.equal(pool([one, two], masks), torch.cat([pool(one, masks), pool(two, masks)], 1))


@pytest.mark.parametrize(
    ("maps", "masks", "said"),
    [
        ([], torch.ones(1, 1, 4, 4), "no feature maps"),
        (torch.ones(3, 4, 4), torch.ones(3, 1, 4, 4), "Feature maps"),
        (torch.ones(1, 3, 4, 4), torch.ones(1, 4, 4), "Masks"),
        (torch.ones(1, 3, 4, 4), torch.ones(1, 2, 4, 4), "Masks"),
        (torch.ones(2, 3, 4, 4), torch.ones(1, 1, 4, 4), "do not fit"),
        (torch.ones(1, 3, 4, 4).int(), torch.ones(1, 1, 4, 4), "floating-point"),
    ],
)
def test_what_does_not_fit_is_said(maps, masks, said):
    with pytest.raises(InputError, match=said):
        pool(maps, masks)
