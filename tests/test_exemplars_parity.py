"""The engine against the 2022 code: exemplars of tiny networks, computed by running it.

Activations agree to the digits that a convolution keeps over libraries and machines (1e-5);
ids, and masks given the same thresholds, are the same.
"""

import dataclasses

import golden
import numpy as np
import pytest
import torch

from milannotations.exemplars import GeneratedImages, Layer, RunConfig, compute, write_npy

BATCH = 64
"""Batch size of the golden networks; 32 of the ViT."""


def found_of(parity, name, k, quantile, units):
    network, layer = name.split("/")
    model = golden.formula_weights(golden.Vit() if network == "vit" else golden.Cnn())
    # 2022 recorded what in-place operations left, in any network
    batch_size = 37 if "k5" in name else 32 if network == "vit" else BATCH
    run = RunConfig(batch_size=batch_size, read="post")
    layers = [Layer(layer, units=units)]
    found = compute(model, golden.images(parity), layers, k=k, quantile=quantile, run=run)
    return found.layers[layer]


@pytest.mark.parametrize(("archive", "name", "k", "quantile", "units"), golden.EXEMPLARS)
def test_exemplars_are_those_of_2022(parity, archive, name, k, quantile, units):
    theirs = golden.folder(parity / archive, name)
    found = found_of(parity, name, k, quantile, units)
    assert found.ids.tolist() == theirs["ids.csv"].tolist()
    np.testing.assert_allclose(
        found.activations, theirs["activations_full_precision.csv"], rtol=1e-6
    )
    # stored with six digits
    np.testing.assert_allclose(found.activations, theirs["activations.csv"], rtol=1e-5)
    table = theirs["thresholds.csv"]
    thresholds = table["original_sketch"]
    # 2022 counted places in float32, which moves them by a few millionths between two values
    np.testing.assert_allclose(found.thresholds, table["exact_interp"], rtol=3e-6)
    if name == "cnn/conv1":  # sketched and random: within its own spread over seeds
        spread = spread_over_seeds(parity, thresholds)
        assert np.abs(found.thresholds.numpy() - thresholds).max() <= spread
    else:
        np.testing.assert_allclose(found.thresholds, thresholds, rtol=3e-6)
    given = dataclasses.replace(found, thresholds=torch.from_numpy(thresholds.astype(np.float32)))
    masks = given.masks(slice(None), (64, 64), "2022")
    assert np.array_equal(masks.numpy()[:, :, None], theirs["masks.npy"].astype(bool))
    if units is not None:
        assert found.units.tolist() == list(units)


def spread_over_seeds(parity, thresholds):
    """Return the spread of the 2022 code's thresholds of conv1 over four seeds."""
    others = [
        golden.folder(parity / "a3_cnn_seeds.zip", f"seed{seed}")["thresholds.csv"]
        for seed in (1, 2, 3)
    ]
    stacked = np.stack([thresholds, *(table["original_sketch"] for table in others)])
    return float(np.ptp(stacked, axis=0).max())


def test_the_folder_of_2022_is_written_to_the_byte(parity, tmp_path):
    model = golden.formula_weights(golden.Cnn())
    images = golden.images(parity)
    found = compute(model, images, ["conv2"], run=RunConfig(batch_size=BATCH, read="post"))
    theirs = golden.folder(parity / "a3_cnn.zip", "cnn/conv2")
    # the last of six digits depends on the machine that convolved: the digits are theirs here
    full = theirs["activations_full_precision.csv"]
    np.testing.assert_allclose(found.layers["conv2"].activations, full, rtol=1e-6)
    layer = dataclasses.replace(found.layers["conv2"], activations=torch.from_numpy(full))
    found = dataclasses.replace(found, layers={"conv2": layer})

    class Shown:
        """Images, as bytes."""

        def source_id(self, place):
            return str(place)

        def iter_pixels(self, ids):
            with np.load(parity / "a3_images.npz") as stored:
                pixels = stored[stored.files[0]]
            yield from (pixels[i].transpose(1, 2, 0) for i in ids)

    write_npy(found, Shown(), tmp_path / "out", masks="2022")
    layer = tmp_path / "out" / "conv2"
    for name in ("ids", "activations"):
        ours = (layer / f"{name}.csv").read_text().splitlines()
        assert [line.count(",") for line in ours] == [14] * 6
        assert np.array_equal(
            np.loadtxt(layer / f"{name}.csv", delimiter=","), theirs[f"{name}.csv"]
        )
    assert np.array_equal(np.load(layer / "masks.npy"), theirs["masks.npy"])
    # 2022 cut the bytes of normalised pictures off instead of rounding them
    difference = np.load(layer / "images.npy").astype(int) - theirs["images.npy"]
    assert difference.min() >= 0
    assert difference.max() <= 1


def test_a_generator_shows_what_it_made(parity, tmp_path):
    model = golden.formula_weights(golden.Generator())
    latents = golden.latents(parity)
    images = GeneratedImages(model, torch.utils.data.TensorDataset(*latents))
    found = compute(model, images, ["up1", "up2"], run=RunConfig(batch_size=32, read="post"))
    assert found.input_size is None
    for layer, side in (("up1", 8), ("up2", 32)):
        seen = found.layers[layer]
        assert seen.maps.shape[2:] == (side, side)
        with torch.no_grad():
            maps = golden.activations(model, layer, *latents, batch=32)
        highest = maps.amax((2, 3)).T
        assert torch.equal(seen.ids, highest.sort(dim=1, descending=True, stable=True)[1][:, :15])
    picture = images.pixels(int(found.layers["up1"].ids[0, 0]))
    assert picture.shape == (32, 32, 3)
