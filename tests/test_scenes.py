"""The renderer of scenes: the same arrays every time, and label maps that match the graph."""

import hashlib
import json

import numpy as np
import pytest
import torch

from milannotations import InputError
from milannotations.synthetic import CATEGORIES, CONCEPTS, SceneDataset, World
from milannotations.synthetic.concepts import CATEGORY, CHANNEL, label, one_hot
from milannotations.synthetic.scenes import SIZE, WORDS, Canvas

# of scenes 0 to 199 of the stream 0: image, labels, instances
CHECKSUMS = {
    "image": "1b1dd96362868bac3c7f43b2b6f7b755a729d42a5ac3777bfbdb68fd241a2e93",
    "labels": "4ddbf3f7a82ab7fae9a51c08e1ed83deec3640514925adb5d03f9a9f5abf2fbf",
    "instances": "06279bc8a63f4f7d8174e1eddf0f735c31a92cc869cb97f56f38b3fa7d69492a",
}


@pytest.fixture(scope="module")
def scenes():
    return list(World().scenes(0, 200))


@pytest.mark.parametrize("what", CHECKSUMS)
def test_scenes_are_the_same_arrays_every_time(scenes, what):
    digest = hashlib.sha256()
    for scene in scenes:
        digest.update(np.ascontiguousarray(getattr(scene, what)).tobytes())
    assert digest.hexdigest() == CHECKSUMS[what]


def test_a_scene_does_not_depend_on_those_before_it(scenes):
    alone = World().scene(0, 137)
    assert np.array_equal(alone.image, scenes[137].image)
    assert alone.items == scenes[137].items
    assert not np.array_equal(World().scene(1, 137).image, alone.image)


def test_maps_are_exact(scenes):
    for scene in scenes:
        maps = scene.concepts
        assert maps.shape == (len(CONCEPTS), SIZE, SIZE)
        background = scene.instances == 0
        for concept in CONCEPTS:
            if CATEGORY[concept] in ("background", "light"):
                assert not maps[CHANNEL[concept]][~background].any()
        # every pixel of the background has one kind and one light
        kind, light = scene.background
        assert (maps[CHANNEL[f"{kind}_background"]] == background).all()
        assert (maps[CHANNEL[f"{light}_background"]] == background).all()
        for number, item in enumerate(scene.items, start=1):
            own = scene.instances == number
            assert own.sum() == item.pixels
            for concept in filter(None, (item.shape, item.color, item.texture)):
                assert maps[CHANNEL[concept]][own].all()
            if item.kind in ("text", "face"):
                assert maps[CHANNEL[item.kind]][own].all()
            left, top, right, bottom = item.box
            outside = own.copy()
            outside[top:bottom, left:right] = False
            assert not outside.any()
        for part in ("hair", "eye", "mouth"):
            assert not (maps[CHANNEL[part]] & ~maps[CHANNEL["face"]]).any()
        shapes = np.isin(scene.labels[0], range(1, 9))
        assert not (maps[CHANNEL["edge"]] & ~shapes).any()


def test_colours_look_like_their_names(scenes):
    """Plain objects have the colour of their label, within jitter and noise."""
    from milannotations.synthetic.scenes import COLORS, NOISE

    seen = set()
    for scene in scenes:
        plain = scene.concepts[CHANNEL["plain"]]
        for color, rgb in COLORS.items():
            region = plain & scene.concepts[CHANNEL[color]]
            if region.any():
                seen.add(color)
                off = np.abs(scene.image[region].astype(int) - np.array(rgb)).max()
                assert off <= 12 + NOISE
    assert seen == set(COLORS)


def test_every_concept_and_word_occurs(scenes):
    seen = np.any([scene.concepts.any((1, 2)) for scene in scenes], axis=0)
    assert seen.all()
    more = World().scenes(0, 600)
    assert {item.word for scene in more for item in scene.items} - {None} == set(WORDS)


def test_relations_of_the_graph(scenes):
    for scene in scenes[:50]:
        for i, relation, j in scene.relations:
            one, other = scene.items[i].center, scene.items[j].center
            axis = 1 if relation == "above" else 0
            assert one[axis] < other[axis]
        assert json.loads(json.dumps(scene.graph))["items"][0]["kind"]


def test_worlds_differ_in_what_they_draw():
    none = World(text=0.0, face=0.0)
    assert not any(item.word for scene in none.scenes(0, 50) for item in scene.items)
    plain, blurred = (World(text=0, face=1.0, blurred_faces=b) for b in (False, True))
    for index in range(20):
        sharp, soft = plain.scene(0, index), blurred.scene(0, index)
        face = sharp.labels[label("face")[0]] == label("face")[1]
        assert np.array_equal(sharp.image[~face], soft.image[~face])
        if (sharp.concepts[CHANNEL["eye"]]).any():
            assert not np.array_equal(sharp.image, soft.image)
        assert not soft.concepts[CHANNEL["eye"]].any()


def test_a_word_in_a_corner_lies_in_that_corner():
    for corner in range(4):
        canvas = Canvas(0, corner)
        canvas.paint_background()
        canvas.add_text("triangle", color="red", corner=corner)
        scene = canvas.scene("x")
        _, y = scene.items[0].center
        assert (y > SIZE / 2) == bool(corner // 2)
        left, _, right, _ = scene.items[0].box
        assert (right == SIZE - 1) if corner % 2 else (left == 1)


def test_one_hot_maps_are_the_labels():
    labels = np.random.default_rng(0).integers(0, 3, (5, len(CATEGORIES), 8, 8)).astype(np.uint8)
    maps = one_hot(labels)
    for concept in CONCEPTS:
        place, number = label(concept)
        assert np.array_equal(maps[:, CHANNEL[concept]], labels[:, place] == number)


def test_torch_and_datasets_show_the_same_scenes():
    scenes = SceneDataset(6, seed=4, start=3)
    batch = next(iter(torch.utils.data.DataLoader(scenes, batch_size=6)))
    assert batch["image"].shape == (6, 3, SIZE, SIZE)
    assert batch["concepts"].shape == (6, len(CONCEPTS), SIZE, SIZE)
    table = scenes.to_datasets()
    assert table["source_id"] == batch["source_id"] == [f"mini-4-{i:06d}" for i in range(3, 9)]
    for row, image, labels in zip(table, batch["image"], batch["labels"], strict=True):
        assert np.array_equal(np.asarray(row["image"]), image.permute(1, 2, 0).numpy())
        for place, category in enumerate(CATEGORIES):
            assert np.array_equal(np.asarray(row[category]), labels[place].numpy())
        assert len(json.loads(row["graph"])["items"]) == np.asarray(row["instances"]).max()
    with pytest.raises(IndexError):
        scenes[6]
    with pytest.raises(InputError, match="whole numbers"):
        SceneDataset(-1)


def test_workers_yield_the_same_scenes():
    alone = [item["image"] for item in SceneDataset(8)]
    loader = torch.utils.data.DataLoader(SceneDataset(8), batch_size=2, num_workers=2)
    assert torch.equal(torch.cat([batch["image"] for batch in loader]), torch.stack(alone))
