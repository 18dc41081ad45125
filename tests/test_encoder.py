"""The mini world's encoder: the shipped weights, and training."""

import hashlib
import json
import time

import pytest
import torch

from milannotations.errors import InputError
from milannotations.synthetic import encoder as encoders
from milannotations.synthetic.concepts import CHANNEL
from milannotations.synthetic.encoder import MiniEncoder, evaluate, load, train
from milannotations.synthetic.scenes import World
from milannotations.synthetic.training import FitConfig, reproducible, write_weights
from milannotations.utils.pooling import pool

TINY = FitConfig(steps=3, batch=4)


def check_targets(figures):
    assert figures["shape_accuracy"] >= 0.95
    assert figures["texture_accuracy"] >= 0.95
    assert figures["color_accuracy"] >= 0.97
    assert figures["text_iou"] >= 0.5
    assert figures["face_iou"] >= 0.7
    for part in ("eye", "mouth", "hair"):
        assert figures[f"{part}_ap"] >= 10 * figures[f"{part}_share"] > 0


def same(one, other):
    first, second = one.state_dict(), other.state_dict()
    return list(first) == list(second) and all(torch.equal(first[k], second[k]) for k in first)


def test_the_shipped_one_meets_its_targets():
    check_targets(evaluate(load(), count=300))


def test_the_shipped_one_says_how_it_was_made():
    made = encoders.note()
    assert made["command"].startswith("python -m milannotations.synthetic.encoder --seed 0")
    assert made["scenes"] == {"training": 1, "held_out": 2}, "and the pool of the edition has 0"
    check_targets(made["figures"])
    assert encoders.WEIGHTS.stat().st_size <= 3_000_000


def test_the_digest_is_of_the_file_and_the_file_of_the_weights(tmp_path):
    assert encoders.digest() == hashlib.sha256(encoders.WEIGHTS.read_bytes()).hexdigest()
    write_weights(load(), tmp_path / "again.safetensors", encoders.note())
    assert encoders.digest(tmp_path / "again.safetensors") == encoders.digest()


def test_loading_is_quick_and_draws_no_random_number():
    before, began = torch.get_rng_state(), time.perf_counter()
    encoder = load()
    assert time.perf_counter() - began < 1
    assert torch.equal(torch.get_rng_state(), before)
    assert not encoder.training
    assert not any(weights.requires_grad for weights in encoder.parameters())


def test_its_maps_are_to_be_pooled():
    images, _ = encoders.scene_batch(encoders.HELD_OUT_SCENES, 0, 2)
    maps = load()(images)
    assert [each.shape[1] for each in maps] == list(MiniEncoder.widths)
    assert maps[-1].shape[2:] == (16, 16)
    assert 300 <= sum(MiniEncoder.widths) <= 450
    features = pool(maps, torch.ones(2, 1, 64, 64))
    assert features.shape == (2, sum(MiniEncoder.widths))
    assert features.isfinite().all()


def test_a_picture_has_the_same_features_alone():
    images, _ = encoders.scene_batch(encoders.HELD_OUT_SCENES, 0, 3)
    encoder = load()
    for together, alone in zip(encoder(images), encoder(images[1:2]), strict=True):
        torch.testing.assert_close(together[1:2], alone, rtol=1e-4, atol=1e-5)


def test_scenes_are_the_worlds():
    images, shares = encoders.scene_batch(5, 7, 2)
    scene = World().scene(5, 8)
    assert torch.equal((images[1] * 255).round().byte(), torch.tensor(scene.image).permute(2, 0, 1))
    for concept in ("edge", "plain_background"):
        expected = torch.tensor(scene.concepts[CHANNEL[concept]]).float()
        expected = expected.reshape(16, 4, 16, 4).mean((1, 3))
        torch.testing.assert_close(shares[1, CHANNEL[concept]], expected)


def test_training_depends_on_the_seed_alone():
    first = train(0, TINY)
    threads = torch.get_num_threads()
    torch.set_num_threads(2 if threads == 1 else 1)
    torch.rand(1)
    try:
        assert same(train(0, TINY), first)
    finally:
        torch.set_num_threads(threads)
    assert not same(train(1, TINY), first)


def test_training_leaves_no_trace():
    torch.manual_seed(5)
    state = torch.get_rng_state(), torch.get_num_threads()
    train(0, TINY)
    assert torch.equal(torch.get_rng_state(), state[0])
    assert torch.get_num_threads() == state[1]
    assert not torch.are_deterministic_algorithms_enabled()


def test_a_failure_leaves_no_trace_either():
    threads = torch.get_num_threads()
    with pytest.raises(ZeroDivisionError), reproducible(0):
        raise ZeroDivisionError
    assert torch.get_num_threads() == threads
    assert not torch.are_deterministic_algorithms_enabled()


def test_the_command_writes_what_load_reads(tmp_path, capsys):
    path = tmp_path / "new" / "encoder.safetensors"
    encoders.main(["--out", str(path), "--seed", "3", "--steps", "2", "--held-out", "40"])
    said = json.loads(capsys.readouterr().out)
    assert said["digest"] == encoders.digest(path)
    assert said["figures"] == encoders.note(path)["figures"]
    assert same(load(path), train(3, FitConfig(2, encoders.SETTINGS.batch, encoders.SETTINGS.rate)))


def test_what_is_no_encoder_is_said(tmp_path, write_file):
    with pytest.raises(InputError, match="No such file"):
        load(tmp_path / "none.safetensors")
    with pytest.raises(InputError, match="holds no encoder"):
        load(write_file("bad.safetensors", b"nothing of the kind"))


@pytest.mark.slow
def test_a_longer_training_is_deterministic_too():
    settings = FitConfig(steps=60)
    assert same(train(0, settings), train(0, settings))


@pytest.mark.slow
def test_the_shipped_settings_meet_the_targets_with_another_seed():
    began = time.perf_counter()
    figures = evaluate(train(1))
    print(f"{time.perf_counter() - began:.0f} s", figures)
    check_targets(figures)
