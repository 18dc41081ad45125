"""Selectivity: the share of active pixels inside a region, against counting by hand."""

import torch
from torch import nn

from leaderboard.applications.common.selectivity import ImagesWithRegions, compute_selectivity
from milannotations import exemplars


class RandomImages:
    """Random images whose channels are the network's units."""

    def __init__(self, count=12):
        self.images = torch.randn(count, 3, 8, 8, generator=torch.Generator().manual_seed(0))

    def __len__(self):
        return len(self.images)

    def __getitem__(self, i):
        return {"image": self.images[i]}

    def source_id(self, i):
        return f"image-{i}"


def test_it_is_counted_over_all_images():
    dataset, model = RandomImages(), nn.Sequential(nn.Identity())
    maps = torch.zeros(12, 8, 8, dtype=torch.bool)
    maps[::2, :, :5] = True
    maps[:, 0, 0] = True
    run = exemplars.RunConfig(batch_size=5, device="cpu")
    computed = exemplars.compute(model, dataset, ["0"], k=2, quantile=0.9, run=run)
    images = ImagesWithRegions(dataset, maps)
    (found,) = compute_selectivity(model, images, ["0"], computed, run).values()
    thresholds = computed.layers["0"].thresholds
    active = dataset.images > thresholds[:, None, None]
    inside = (active & maps[:, None]).sum((0, 2, 3)).double()
    assert found == (inside / active.sum((0, 2, 3)).double()).tolist()
    assert 0 < min(found) < 1
    of_exemplars, whole = computed.layers["0"].inside(maps)
    assert not torch.allclose(torch.tensor(found), (of_exemplars / whole).mean(1))


def test_a_unit_that_is_active_nowhere_has_none():
    dataset = RandomImages()
    dataset.images[:, 1] = 0
    run = exemplars.RunConfig(batch_size=5, device="cpu")
    model = nn.Sequential(nn.ReLU())
    computed = exemplars.compute(model, dataset, ["0"], k=2, quantile=0.9, run=run)
    everywhere = torch.ones(12, 8, 8, dtype=torch.bool)
    images = ImagesWithRegions(dataset, everywhere)
    (found,) = compute_selectivity(model, images, ["0"], computed, run).values()
    assert found == [1.0, 0.0, 1.0]
