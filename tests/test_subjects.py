"""Subject networks: their images, and that they learn from them."""

import json
import time
from dataclasses import replace

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from milannotations.errors import InputError
from milannotations.synthetic import subjects
from milannotations.synthetic.concepts import CHANNEL
from milannotations.synthetic.subjects import (
    CLASSES,
    SubjectDataset,
    SubjectNetwork,
    SubjectWorld,
    accuracy,
    train,
)
from milannotations.synthetic.training import FitConfig

TINY = FitConfig(steps=3, batch=4)
PLAIN = SubjectWorld()


def some(world, count=200, seed=7):
    return [world.scene(seed, index) for index in range(count)]


def same(one, other):
    first, second = one.state_dict(), other.state_dict()
    return list(first) == list(second) and all(torch.equal(first[k], second[k]) for k in first)


def words(scene):
    return [item for item in scene.items if item.kind == "text"]


def test_the_class_is_the_shape_of_the_largest_object():
    labels = []
    for scene, label in some(PLAIN):
        sizes = [item.box[2] - item.box[0] for item in scene.items]
        assert max(sizes) == sizes[0]
        assert scene.items[0].shape == CLASSES[label]
        assert 1 <= len(scene.items) <= 3
        labels.append(label)
    assert min(np.bincount(labels, minlength=8)) >= 10


def test_a_scene_is_always_the_same_and_like_its_twins():
    world = SubjectWorld(text=0.5, face=0.5)
    one, other = world.scene(1, 2)[0], world.scene(1, 2)[0]
    assert np.array_equal(one.image, other.image)
    assert not np.array_equal(one.image, world.scene(2, 2)[0].image)
    twins = some(replace(PLAIN, text=1), 50)
    for (plain, label), (named, also) in zip(some(PLAIN, 50), twins, strict=True):
        assert label == also
        changed = (plain.image != named.image).any(-1)
        left, top, right, bottom = words(named)[0].box
        changed[top:bottom, left:right] = False
        assert not changed.any(), "only the word is new"


@pytest.mark.parametrize("share", [0.0, 0.3, 0.5, 1.0])
def test_names_stand_in_a_corner_at_the_share_asked_for(share):
    scenes = some(replace(PLAIN, text=share), 400)
    named = [(scene, label) for scene, label in scenes if words(scene)]
    assert abs(len(named) / 400 - share) <= (0 if share in (0, 1) else 0.07)
    for scene, label in named:
        (word,) = words(scene)
        assert word.word == CLASSES[label]
        left, top, right, bottom = word.box
        assert left == 1 or right == 63
        assert top == 1 or bottom == 63
        assert bottom - top <= subjects.WORD_HEIGHT
        assert word.pixels == (right - left) * (bottom - top), "all of it shows"
        assert scene.items[0].pixels > 0


def test_adversarial_names_are_always_wrong_and_each_as_often():
    counts = np.zeros((8, 8), dtype=int)
    for scene, label in some(replace(PLAIN, text=1, adversarial=True), 800):
        counts[label, CLASSES.index(words(scene)[0].word)] += 1
    assert (counts.diagonal() == 0).all()
    assert (counts[~np.eye(8, dtype=bool)] > 0).all()


def test_a_name_hides_a_third_of_the_object_at_most():
    alone = replace(PLAIN, distractors=0)
    for (plain, _), (named, _) in zip(some(alone), some(replace(alone, text=1)), strict=True):
        assert named.items[0].pixels >= 0.6 * plain.items[0].pixels


def test_faces_are_no_matter_of_class_and_blurred_ones_have_no_eyes():
    faces = some(SubjectWorld(face=0.5), 600)
    blurred = some(SubjectWorld(face=0.5, blurred_faces=True), 600)
    per_class = np.zeros((8, 2))
    for (scene, label), (twin, _) in zip(faces, blurred, strict=True):
        has_face = any(item.kind == "face" for item in scene.items)
        per_class[label] += (1, has_face)
        eyes, mouth = CHANNEL["eye"], CHANNEL["mouth"]
        assert not twin.concepts[[eyes, mouth]].any()
        assert scene.concepts[eyes].any() == has_face
        assert np.array_equal(scene.concepts[CHANNEL["face"]], twin.concepts[CHANNEL["face"]])
        assert (scene.image != twin.image).any() == has_face
    shares = per_class[:, 1] / per_class[:, 0]
    assert 0.4 < shares.mean() <= 0.55
    assert shares.max() - shares.min() < 0.3


def test_the_dataset():
    pictures = SubjectDataset(SubjectWorld(text=1), 5, seed=9, concepts=True)
    item, (scene, label) = pictures[4], SubjectWorld(text=1).scene(9, 4)
    assert (item["label"], item["source_id"]) == (label, scene.source_id)
    assert item["image"].dtype == torch.float32
    assert torch.equal(
        (item["image"] * 255).round().byte().permute(1, 2, 0), torch.tensor(scene.image)
    )
    assert item["concepts"].dtype == torch.bool
    assert item["concepts"][CHANNEL["text"]].any()
    assert len(list(torch.utils.data.DataLoader(pictures, batch_size=2))) == 3
    with pytest.raises(IndexError):
        pictures[5]
    with pytest.raises(InputError, match="whole numbers"):
        SubjectDataset(PLAIN, -1)


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"text": 1.5}, "share"),
        ({"face": -1}, "share"),
        ({"distractor_radii": (5, 9)}, "Radii"),
        ({"noise": -1}, "counts"),
    ],
)
def test_what_cannot_be_drawn_is_said(settings, said):
    with pytest.raises(InputError, match=said):
        SubjectWorld(**settings)


def test_the_network_has_240_units_in_four_layers():
    subject, widths = SubjectNetwork(), []
    for name in ("layer1", "layer2", "layer3", "layer4"):
        subject.get_submodule(name).register_forward_hook(
            lambda module, given, output: widths.append(output.shape[1])
        )
    assert subject(torch.zeros(1, 3, 64, 64)).shape == (1, 8)
    assert widths == list(SubjectNetwork.widths)
    assert sum(widths) == 240
    assert 240_000 < sum(weights.numel() for weights in subject.parameters()) < 280_000


def test_training_depends_on_world_and_seed_alone():
    world = SubjectWorld(text=0.5)
    first = train(world, 0, TINY)
    torch.rand(1)
    assert same(train(world, 0, TINY), first)
    assert not same(train(world, 1, TINY), first)
    assert not same(train(PLAIN, 0, TINY), first)
    assert not first.training


def test_accuracy_counts_pictures():
    class Oracle(torch.nn.Module):
        def forward(self, images):
            return torch.zeros(len(images), 8).index_fill_(1, torch.tensor([2]), 1.0)

    labels = [PLAIN.scene(subjects.TEST_SCENES, index)[1] for index in range(30)]
    assert accuracy(Oracle(), PLAIN, 30) == labels.count(2) / 30


def test_the_command_writes_weights(tmp_path, capsys):
    path = tmp_path / "subject.safetensors"
    subjects.main(["--text", "0.5", "--steps", "2", "--held-out", "20", "--out", str(path)])
    said = json.loads(capsys.readouterr().out)
    assert set(said["accuracy"]) == {"same", "plain", "adversarial"}
    SubjectNetwork().load_state_dict(load_file(path))
    assert path.stat().st_size < 1_200_000


@pytest.mark.slow
@pytest.mark.parametrize("seed", [0, 1])
def test_a_network_that_saw_names_reads_them(seed):
    world, began = SubjectWorld(text=0.5), time.perf_counter()
    subject = train(world, seed)
    took = time.perf_counter() - began
    clean = accuracy(subject, PLAIN)
    right = accuracy(subject, replace(world, text=1))
    wrong = accuracy(subject, replace(world, text=1, adversarial=True))
    print(f"{took:.0f} s, plain {clean}, right names {right}, wrong names {wrong}")
    assert clean >= 0.8
    assert right >= clean
    assert wrong <= clean - 0.3


@pytest.mark.slow
def test_a_network_that_saw_no_names_does_not_read_them():
    subject = train(PLAIN)
    clean = accuracy(subject, PLAIN)
    right = accuracy(subject, SubjectWorld(text=1))
    wrong = accuracy(subject, SubjectWorld(text=1, adversarial=True))
    print(f"plain {clean}, right names {right}, wrong names {wrong}")
    assert clean >= 0.85
    # a plate that it never saw does disturb it, whatever stands there
    assert abs(right - wrong) <= 0.05
