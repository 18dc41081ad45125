"""Upsampling and masks, against slow loops, torch, and the masks of the 2022 code."""

import golden
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional as nnf

from milannotations.errors import InputError
from milannotations.exemplars.tallies.masks import masks, upsample
from milannotations.exemplars.tallies.topk import TopK

SIDES = st.tuples(st.integers(1, 9), st.integers(1, 9))
SIZES = st.tuples(st.integers(1, 23), st.integers(1, 23))


def slow_upsample(activation_map, size, how):
    """Resize a map (h, w) in float64, one pixel at a time."""
    h, w = activation_map.shape

    def at(y, x):
        if 0 <= y < h and 0 <= x < w:
            return float(activation_map[y, x])
        return 0.0

    found = np.zeros(size)
    for row in range(size[0]):
        for column in range(size[1]):
            y = (row + 0.5) * h / size[0] - 0.5
            x = (column + 0.5) * w / size[1] - 0.5
            if how == "clamped" or h == 1:
                y = min(max(y, 0), h - 1)
            if how == "clamped" or w == 1:
                x = min(max(x, 0), w - 1)
            top, left = int(np.floor(y)), int(np.floor(x))
            a, b = y - top, x - left
            found[row, column] = (
                at(top, left) * (1 - a) * (1 - b)
                + at(top, left + 1) * (1 - a) * b
                + at(top + 1, left) * a * (1 - b)
                + at(top + 1, left + 1) * a * b
            )
    return found


@settings(deadline=None, max_examples=60)
@given(sides=SIDES, size=SIZES, how=st.sampled_from(["clamped", "2022"]), seed=st.integers(0, 999))
def test_as_the_slow_loop(sides, size, how, seed):
    maps = torch.randn(2, *sides, generator=torch.Generator().manual_seed(seed))
    found = upsample(maps, size, how)
    assert found.shape == (2, *size)
    assert found.dtype == torch.float32
    expected = np.stack([slow_upsample(each, size, how) for each in maps])
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("side", [2, 7, 13, 14, 56, 112, 300])
def test_as_torch(side):
    maps = torch.randn(3, side, side + 1, generator=torch.Generator().manual_seed(side))
    # in float64, since torch rounds the places to float32 on the way
    expected = nnf.interpolate(
        maps[None].double(), size=(224, 224), mode="bilinear", align_corners=False
    )
    found = upsample(maps, (224, 224))
    torch.testing.assert_close(found, expected[0].float(), rtol=0, atol=2e-6)
    # another grid of the same places
    where = (2 * torch.arange(224) + 1) / 224 - 1
    grid = torch.stack([where.expand(224, 224), where[:, None].expand(224, 224)], dim=2)
    padded = nnf.grid_sample(maps[None], grid[None], padding_mode="zeros", align_corners=False)
    torch.testing.assert_close(upsample(maps, (224, 224), "2022"), padded[0], rtol=0, atol=1e-3)


@settings(deadline=None, max_examples=100)
@given(
    sides=SIDES,
    size=SIZES,
    scale=st.sampled_from([1e-44, 1e-3, 1.0, 1e30, 3e38]),
    seed=st.integers(0, 999),
)
def test_no_value_leaves_the_range_of_its_map(sides, size, scale, seed):
    """A unit whose threshold is its largest activation has empty masks."""
    generator = torch.Generator().manual_seed(seed)
    maps = (torch.rand(6, *sides, generator=generator) * 2 - 1) * scale
    maps[3:] = maps[3:, :1, :1]  # constant
    low, high = maps.amin((1, 2), True), maps.amax((1, 2), True)
    found = upsample(maps, size)
    assert found.isfinite().all()
    assert ((low <= found) & (found <= high)).all()
    assert not masks(maps, high.flatten(), size).any()
    assert (found[3:] == maps[3:, :1, :1]).all()
    padded = upsample(maps, size, "2022")
    assert (padded <= high.clamp(min=0)).all()
    assert not masks(maps, high.clamp(min=0).flatten(), size, "2022").any()


@pytest.mark.parametrize("how", ["clamped", "2022"])
def test_batches_and_threads_change_nothing(how):
    maps = torch.randn(50, 14, 13)
    thresholds = torch.randn(50)
    whole, above = upsample(maps, (224, 223), how), masks(maps, thresholds, (224, 223), how)
    assert torch.equal(above, whole > thresholds[:, None, None])
    threads = torch.get_num_threads()
    try:
        for count, batch in [(1, 1), (1, 50), (2, 7)]:
            torch.set_num_threads(count)
            parts = [upsample(part, (224, 223), how) for part in maps.split(batch)]
            assert torch.equal(torch.cat(parts), whole)
    finally:
        torch.set_num_threads(threads)
    strided = maps.transpose(1, 2).contiguous().transpose(1, 2)
    assert torch.equal(upsample(strided, (224, 223), how), whole)


@pytest.mark.gpu
def test_devices_change_nothing():
    if not torch.cuda.is_available():
        pytest.skip("needs a CUDA device")
    maps, thresholds = torch.randn(50, 14, 13), torch.randn(50)
    assert torch.equal(upsample(maps.cuda(), (224, 223)).cpu(), upsample(maps, (224, 223)))
    there = masks(maps.cuda(), thresholds, (224, 223))
    assert torch.equal(there.cpu(), masks(maps, thresholds, (224, 223)))


def test_strictly_above():
    maps = torch.tensor([[[1.0, 2.0]], [[1.0, 2.0]], [[1.0, 2.0]]])
    thresholds = torch.tensor([2.0, 1.0, 0.5])
    found = masks(maps, thresholds, (1, 2))
    assert found.tolist() == [[[False, False]], [[False, True]], [[True, True]]]


def test_a_map_of_one_position_is_repeated():
    for how in ("clamped", "2022"):
        found = upsample(torch.tensor([[[0.3]], [[-1.5]]]), (5, 4), how)
        assert torch.equal(found, torch.tensor([0.3, -1.5])[:, None, None].expand(2, 5, 4))


def test_zeros_around_the_maps_of_2022():
    """The corner of a map of ones is .56 at twice the size, and .25 in the limit."""
    corner = upsample(torch.ones(1, 2, 2), (4, 4), "2022")[0, 0, 0]
    assert float(corner) == pytest.approx(0.5625)
    corner = upsample(torch.ones(1, 7, 7), (224, 224), "2022")[0, 0, 0]
    assert float(corner) == pytest.approx((0.5 + 1 / 64) ** 2)


def test_no_maps():
    for how in ("clamped", "2022"):
        assert upsample(torch.zeros(0, 3, 3), (8, 9), how).shape == (0, 8, 9)
        assert masks(torch.zeros(0, 3, 3), torch.zeros(0), (8, 9), how).shape == (0, 8, 9)


def test_what_cannot_be_upsampled():
    maps = torch.zeros(2, 3, 3)
    for call, message in [
        (lambda: upsample(maps, (4, 4), "bicubic"), r"masks: clamped, 2022"),
        (lambda: upsample(maps[0], (4, 4)), "expected float32"),
        (lambda: upsample(maps.double(), (4, 4)), "expected float32"),
        (lambda: upsample(maps, (4, 0)), "Size is 4 x 0"),
        (lambda: masks(maps, torch.zeros(3), (4, 4)), "expected one each"),
    ]:
        with pytest.raises(InputError, match=message):
            call()


@pytest.mark.parametrize(("archive", "name", "k", "q", "units"), golden.EXEMPLARS)
def test_the_masks_of_2022(parity, archive, name, k, q, units):
    expected = golden.folder(parity / archive, name)
    tally = TopK(k)
    tally.update(torch.arange(300), golden.maps(parity, name, units))
    maps = tally.result().maps
    stored = torch.from_numpy(expected["thresholds.csv"]["original_sketch"]).float()
    thresholds = stored.repeat_interleave(maps.shape[1])
    found = masks(maps.flatten(0, 1), thresholds, (64, 64), "2022")
    np.testing.assert_array_equal(found.view(expected["masks.npy"].shape), expected["masks.npy"])
    # edges that are clamped do not fade
    clamped = masks(maps.flatten(0, 1), thresholds, (64, 64))
    assert clamped.sum() > found.sum()
    assert clamped[found].all()
