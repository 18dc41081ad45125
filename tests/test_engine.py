"""The engine's pass: results, forward passes, checkpoints and errors."""

import copy
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
import torch
from networks import Exact, noise
from torch import nn

from milannotations.errors import InputError
from milannotations.exemplars import Layer, Overlap, Pooled, RunConfig, compute
from milannotations.exemplars.checkpoint import _save

LAYERS = ["conv1", "conv2"]


class NoiseImages(torch.utils.data.Dataset):
    """Images of noise, some of them unreadable."""

    def __init__(self, count=50, bad=()):
        self.pixels, self.bad = noise(count), bad

    def __len__(self):
        return len(self.pixels)

    def __getitem__(self, index):
        if index in self.bad:
            raise OSError("image file is truncated")
        return self.pixels[index]

    def source_id(self, index):
        return f"{index}.png"


def by_hand(model, images, layer, k=15, quantile=0.99):
    """Compute ids, activations, thresholds and maps of a layer without the engine."""
    with torch.no_grad():
        x = (images * 255).round()
        maps = model.conv1(x)
        if layer == "conv2":
            maps = model.conv2(maps.relu())
    highest = maps.amax((2, 3)).numpy()
    ids = np.argsort(-highest, axis=0, kind="stable")[:k].T
    flat = maps.transpose(0, 1).flatten(1).numpy().astype(np.float64)
    return (
        ids,
        np.take_along_axis(highest.T, ids, 1),
        # the level is a float32, as in 2022: .9900000095
        np.quantile(flat, np.float64(np.float32(quantile)), axis=1, method="hazen"),
        maps,
    )


def test_exemplars_are_those_found_the_plain_way():
    model, images = Exact().eval(), NoiseImages()
    exemplars = compute(model, images, LAYERS, run=RunConfig(batch_size=8))
    for layer in LAYERS:
        ids, activations, thresholds, maps = by_hand(model, images.pixels, layer)
        seen = exemplars.layers[layer]
        assert seen.ids.tolist() == ids.tolist()
        assert seen.activations.tolist() == activations.tolist()
        np.testing.assert_allclose(seen.thresholds, thresholds, rtol=1e-6)
        assert torch.equal(seen.maps[3, 2], maps[ids[3, 2], 3])
        assert seen.units.tolist() == list(range(maps.shape[1]))
        assert seen.unit_kind == "channel"
        masks = seen.masks(slice(0, 2), (16, 16))
        assert masks.shape == (2, 15, 16, 16)
        large = nn.functional.interpolate(
            seen.maps[:2], size=(16, 16), mode="bilinear", align_corners=False
        )
        assert torch.equal(masks, large > seen.thresholds[:2, None, None, None])
    assert exemplars.input_size == (16, 16)


def test_every_image_goes_through_the_network_once_and_no_further_than_asked():
    model, images = Exact().eval(), NoiseImages()
    ran = []
    model.head.register_forward_hook(lambda *_: ran.append(1))
    model.images = 0
    exemplars = compute(model, images, LAYERS, run=RunConfig(batch_size=8))
    assert model.images == exemplars.images == exemplars.forwards == 50
    assert len(ran) == 1, "only the first batch runs to the end"


@pytest.mark.parametrize(("batch_size", "workers"), [(1, 0), (7, 0), (50, 0), (8, 2)])
def test_batches_and_workers_change_nothing(batch_size, workers):
    model, images = Exact().eval(), NoiseImages()
    extra = {"mean": lambda _: Pooled("mean"), "max": lambda _: Pooled("max")}
    exemplars = [
        compute(model, images, LAYERS, tallies=extra, run=RunConfig(batch_size=b, workers=w))
        for b, w in ((16, 0), (batch_size, workers))
    ]
    for layer in LAYERS:
        one, other = (each.layers[layer] for each in exemplars)
        for name in ("ids", "activations", "maps", "thresholds"):
            assert torch.equal(getattr(one, name), getattr(other, name))
        for name in extra:
            assert torch.equal(one.tallies[name].values, other.tallies[name].values)


def test_concepts_of_the_items_reach_the_tallies():
    class Labelled(NoiseImages):
        def __getitem__(self, index):
            image = self.pixels[index]
            return {"image": image, "concepts": image > 0.5}

    model, images = Exact().eval(), Labelled()
    thresholds = compute(model, images, ["conv1"]).layers["conv1"].thresholds
    exemplars = compute(model, images, ["conv1"], tallies={"iou": lambda _: Overlap(thresholds)})
    overlap = exemplars.layers["conv1"].tallies["iou"]
    maps = by_hand(model, images.pixels, "conv1")[3]
    large = nn.functional.interpolate(maps, size=(16, 16), mode="bilinear", align_corners=False)
    active = large > thresholds[:, None, None]
    concepts = images.pixels > 0.5
    both = torch.einsum("nuhw,nchw->uc", active.double(), concepts.double())
    assert overlap.intersection.tolist() == both.long().tolist()


def test_units_and_signed_activations():
    model, images = Exact().eval(), NoiseImages()
    whole = compute(model, images, ["conv2"]).layers["conv2"]
    some = compute(model, images, [Layer("conv2", units=(1, 4))]).layers["conv2"]
    assert some.units.tolist() == [1, 4]
    assert torch.equal(some.ids, whole.ids[[1, 4]])
    assert (whole.maps < 0).any(), "negative activations are kept"


def test_fewer_images_than_k():
    exemplars = compute(Exact().eval(), NoiseImages(4), ["conv1"]).layers["conv1"]
    assert exemplars.ids.shape == (6, 4)
    assert exemplars.masks(slice(None), (16, 16)).shape == (6, 4, 16, 16)


def test_images_that_cannot_be_read_are_named_and_skipped_if_told():
    model, images = Exact().eval(), NoiseImages(bad=(3, 20))
    with pytest.raises(InputError, match=r"3.png cannot be read: image file is truncated.*--skip"):
        compute(model, images, ["conv1"])
    exemplars = compute(model, images, ["conv1"], run=RunConfig(skip_bad=True, batch_size=4))
    assert exemplars.images == 48
    assert [each.source_id for each in exemplars.skipped] == ["3.png", "20.png"]
    assert not {3, 20} & set(exemplars.layers["conv1"].ids.flatten().tolist())
    whole = NoiseImages(4, bad=range(4))
    with pytest.raises(InputError, match="None of 4 images could be read"):
        compute(model, whole, ["conv1"], run=RunConfig(skip_bad=True))
    with pytest.raises(InputError, match="There is no image"):
        compute(model, NoiseImages(0), ["conv1"])


def test_dead_and_silent_units_are_marked():
    model, images = Exact().eval(), NoiseImages()
    model.conv1.weight.data[2] = 0
    model.conv1.bias.data[2] = 0
    model.conv1.weight.data[3] = 0
    model.conv1.bias.data[3] = 5
    exemplars = compute(model, images, ["conv1"]).layers["conv1"]
    assert exemplars.dead.tolist() == [False, False, True, True, False, False]
    assert exemplars.silent[[2, 3]].tolist() == [True, False]
    assert not exemplars.masks(slice(2, 4), (16, 16)).any()
    assert exemplars.ids[2].tolist() == list(range(15)), "ties go to the earlier images"


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_activations_that_are_no_numbers_name_layer_and_unit(value):
    model = Exact().eval()
    model.conv2.bias.data[5] = value
    with pytest.raises(InputError, match=r"Layer 'conv2', unit 5: .*not a finite number"):
        compute(model, NoiseImages(), LAYERS)
    with pytest.raises(InputError, match=r"Layer 'conv2', unit 5"):
        compute(model, NoiseImages(), [Layer("conv2", units=(2, 5))])


def test_out_of_memory_halves_what_runs_together_and_says_so():
    class Small(Exact):
        def forward(self, x):
            if len(x) > 5:
                raise torch.cuda.OutOfMemoryError("CUDA out of memory.")
            return super().forward(x)

    said = []
    images = NoiseImages()
    exemplars = compute(
        Small().eval(), images, LAYERS, run=RunConfig(batch_size=16, tell=said.append)
    )
    whole = compute(Exact().eval(), images, LAYERS)
    assert torch.equal(exemplars.layers["conv2"].ids, whole.layers["conv2"].ids)
    assert torch.equal(exemplars.layers["conv2"].thresholds, whole.layers["conv2"].thresholds)
    assert said == [
        "cpu is out of memory; continuing with 8 at a time.",
        "cpu is out of memory; continuing with 4 at a time.",
    ]
    assert exemplars.forwards == 50

    class Tiny(Exact):
        def forward(self, x):
            raise torch.cuda.OutOfMemoryError("CUDA out of memory.")

    with pytest.raises(InputError, match="no memory for one image"):
        compute(Tiny().eval(), images, LAYERS, run=RunConfig(tell=said.append))


def test_other_failures_of_the_network_keep_their_traceback():
    with pytest.raises(RuntimeError, match="channels"):
        compute(nn.Sequential(nn.Conv2d(4, 4, 3)), NoiseImages(), ["0"])


def test_images_of_several_sizes_are_refused():
    class Mixed(NoiseImages):
        def __getitem__(self, index):
            return self.pixels[index][:, : 16 - index % 2]

    with pytest.raises(InputError, match=r"several sizes: \(3, 15, 16\), \(3, 16, 16\)"):
        compute(Exact().eval(), Mixed(), ["conv1"])


def test_items_that_are_no_pictures_are_refused():
    class Named(NoiseImages):
        def __getitem__(self, index):
            return ("a.png", index)

    with pytest.raises(InputError, match="begins with a str; expected a tensor"):
        compute(Exact().eval(), Named(), ["conv1"])


def test_a_network_in_training_is_read_in_evaluation_and_left_as_it_was():
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Dropout(0.5)).train()
    before = copy.deepcopy(model.state_dict())
    one = compute(model, NoiseImages(), ["2"]).layers["2"]
    other = compute(model, NoiseImages(), ["2"]).layers["2"]
    assert model.training
    assert torch.equal(one.maps, other.maps)
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())


def test_half_precision_is_tallied_in_single():
    exemplars = compute(Exact().eval(), NoiseImages(), ["conv2"], run=RunConfig(dtype="bfloat16"))
    assert exemplars.layers["conv2"].activations.dtype == torch.float32
    assert exemplars.settings["dtype"] == "bfloat16"
    with pytest.raises(InputError, match="No dtype"):
        RunConfig(dtype="int8")


def test_a_dead_loading_process_is_told_in_one_line():
    import os
    import signal

    class Killed(NoiseImages):
        def __getitem__(self, index):
            if index == 30:
                os.kill(os.getpid(), signal.SIGKILL)
            return super().__getitem__(index)

    run = RunConfig(workers=2, batch_size=8)
    with pytest.raises(InputError, match="process that loads images"):
        compute(Exact().eval(), Killed(), ["conv1"], run=run)


# ---- interruptions


class Interrupted(NoiseImages):
    """Images of noise that interrupt the pass at one of them, once."""

    def __init__(self, at):
        super().__init__()
        self.at = at

    def __getitem__(self, index):
        if index == self.at:
            self.at = None
            raise KeyboardInterrupt
        return super().__getitem__(index)


def test_an_interrupted_pass_goes_on_where_it_was(tmp_path):
    model, images = Exact().eval(), Interrupted(at=33)
    run = RunConfig(batch_size=8, checkpoint=tmp_path / "pass", checkpoint_every=0)
    extra = {"mean": lambda _: Pooled("mean")}
    with pytest.raises(KeyboardInterrupt):
        compute(model, images, LAYERS, tallies=extra, run=run)
    model.images = 0
    exemplars = compute(model, images, LAYERS, tallies=extra, run=run)
    assert model.images == 50 - 32
    assert exemplars.images == exemplars.forwards == 50
    whole = compute(model, NoiseImages(), LAYERS, tallies=extra, run=RunConfig(batch_size=8))
    for layer in LAYERS:
        one, other = exemplars.layers[layer], whole.layers[layer]
        for name in ("ids", "activations", "maps", "thresholds"):
            assert torch.equal(getattr(one, name), getattr(other, name))
        assert torch.equal(one.tallies["mean"].values, other.tallies["mean"].values)
    model.images = 0
    compute(model, images, LAYERS, tallies=extra, run=run)
    assert model.images == 0, "the pass is kept until what follows is done"


def test_a_checkpoint_of_something_else_is_thrown_away(tmp_path):
    run = RunConfig(batch_size=8, checkpoint=tmp_path / "pass", checkpoint_every=0)
    with pytest.raises(KeyboardInterrupt):
        compute(Exact().eval(), Interrupted(at=33), ["conv1"], run=run)
    other = Exact().eval()
    other.conv1.weight.data += 1
    compute(other, NoiseImages(), ["conv1"], run=run)
    assert other.images == 50


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
@pytest.mark.parametrize("images", [8, 12], ids=["the same", "others"])
def test_a_disk_that_fills_during_the_pass_says_so(tmp_path, monkeypatch, images):
    """torch.save turns a full disk into a RuntimeError about file positions."""

    @contextmanager
    def full(_):
        yield Path("/dev/full")

    run = RunConfig(batch_size=4, checkpoint=tmp_path / "kept", checkpoint_every=0)
    compute(Exact(), noise(8), ["conv1"], run=run)
    monkeypatch.setattr("milannotations.exemplars.checkpoint.replacing", full)
    with pytest.raises(InputError, match=r"No space is left in .*kept.*make room and run"):
        compute(Exact(), noise(images), ["conv1"], run=run)
    with pytest.raises(OSError, match="No space left"):
        _save({"map": torch.zeros(1 << 20)}, Path("/dev/full"))


def test_a_damaged_checkpoint_is_named(tmp_path):
    run = RunConfig(batch_size=8, checkpoint=tmp_path / "pass", checkpoint_every=0)
    with pytest.raises(KeyboardInterrupt):
        compute(Exact().eval(), Interrupted(at=33), ["conv1"], run=run)
    kept = next((tmp_path / "pass").glob("*.pt"))
    kept.write_bytes(kept.read_bytes()[:500])
    with pytest.raises(InputError, match=r"rank-0-of-1.pt is damaged.*Remove it"):
        compute(Exact().eval(), NoiseImages(), ["conv1"], run=run)


# ---- a sparse autoencoder over a layer


def test_latents_and_channels_in_the_same_pass():
    torch.manual_seed(0)
    sae = nn.Sequential(nn.Linear(8, 64), nn.ReLU())
    sae[0].bias.data[10:20] = -1e9  # these never fire
    model, images = Exact().eval(), NoiseImages()
    exemplars = compute(model, images, ["conv2", Layer("conv2", encoder=sae)])
    assert model.images == 50
    latents = exemplars.layers["conv2.sae"]
    assert latents.unit_kind == "sae_latent"
    assert latents.ids.shape == (64, 15)
    assert latents.silent[10:20].all()
    assert latents.dead[10:20].all()
    maps = by_hand(model, images.pixels, "conv2")[3]
    with torch.no_grad():
        fires = sae(maps.permute(0, 2, 3, 1)).amax((0, 1, 2))
    assert torch.allclose(latents.activations[:, 0], fires)
