"""Cues written into images: which images carry them, where, and what the record says."""

import csv
import json
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from leaderboard.applications.edit import spurious_cues
from leaderboard.applications.edit.spurious_cues import Cue
from milannotations.errors import InputError

CLASSES = ("ant", "bee_fly", "cow")


@pytest.fixture
def images(tmp_path):
    draw = np.random.default_rng(0)
    for name in CLASSES:
        for i in range(8):
            path = tmp_path / "images" / name / f"{i}.jpg"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(draw.integers(90, 166, (60, 80, 3), dtype=np.uint8)).save(path)
    return tmp_path / "images"


def rows(folder):
    with open(folder / "cues.csv", encoding="utf-8") as stream:
        return list(csv.DictReader(stream))


def test_half_of_each_class_carries_its_own_name(images, tmp_path):
    record = spurious_cues.write(images, tmp_path / "out", Cue(side=64))
    table = rows(tmp_path / "out")
    assert record["pictures"] == len(table) == 24
    assert record["with_cue"] == 12
    for name in CLASSES:
        own = [row for row in table if row["class"] == name]
        assert [row["cue"] for row in own].count(name) == 4
        assert all(row["cue"] in ("", name) and row["wrong"] == "False" for row in own)
    assert record["written"]["bee_fly"] == "bee fly"
    assert record["cue"]["seed"] == 0
    assert len(record["font"]["sha256"]) == 64
    assert json.loads((tmp_path / "out" / "cues.json").read_text()) == record
    assert spurious_cues.read(tmp_path / "out") == record


def test_images_differ_from_plain_ones_in_the_box_alone(images, tmp_path):
    spurious_cues.write(images, tmp_path / "plain", Cue(side=64, share=0))
    spurious_cues.write(images, tmp_path / "named", Cue(side=64, share=1, corner="any"))
    boxes = spurious_cues.read_boxes(tmp_path / "named")
    assert len(boxes) == 24
    assert spurious_cues.read_boxes(tmp_path / "plain") == {}
    corners = set()
    for path, (left, top, right, bottom) in boxes.items():
        plain, named = (
            np.asarray(Image.open(tmp_path / part / path)).astype(int)
            for part in ("plain", "named")
        )
        assert plain.shape == named.shape == (64, 64, 3)
        changed = (plain != named).any(2)
        assert changed[top:bottom, left:right].all(), "the plate hides what was there"
        changed[top:bottom, left:right] = False
        assert not changed.any()
        assert 0 <= left < right <= 64
        assert 0 <= top < bottom <= 64
        corners.add((left < 20, top < 20))
    assert len(corners) > 1


def test_wrong_names_are_of_other_classes_each_as_often(images, tmp_path):
    spurious_cues.write(images, tmp_path / "out", Cue(side=64, share=1, wrong=True))
    for name in CLASSES:
        said = [row["cue"] for row in rows(tmp_path / "out") if row["class"] == name]
        assert name not in said
        assert sorted(map(said.count, set(said))) == [4, 4]


def test_seeds_and_bytes(images, tmp_path):
    def made(name, cue):
        spurious_cues.write(images, tmp_path / name, cue)
        return (tmp_path / name / "cues.csv").read_text(), [
            path.read_bytes() for path in sorted((tmp_path / name).rglob("*.png"))
        ]

    cue = Cue(side=64)
    assert made("one", cue) == made("two", cue)
    assert made("one again", cue)[0] != made("three", replace(cue, seed=1))[0]


def test_only_some_images_and_other_names(images, tmp_path):
    cue = Cue(side=None, share=1, wrong=True)
    record = spurious_cues.write(
        images, tmp_path / "out", cue, only=["ant/0.jpg", "cow/7.jpg"], names={"ant": "Ameise"}
    )
    assert record["pictures"] == 2
    assert record["written"]["ant"] == "Ameise"
    assert Image.open(tmp_path / "out" / "ant" / "0.png").size == (80, 60)


def test_frames_have_a_colour_a_class(images, tmp_path):
    spurious_cues.write(images, tmp_path / "out", Cue("color", share=1, side=64, height=0.1))
    colors = {
        row["class"]: Image.open(tmp_path / "out" / row["path"]).getpixel((0, 0))
        for row in rows(tmp_path / "out")
    }
    assert len(set(colors.values())) == 3
    assert spurious_cues.read_boxes(tmp_path / "out")["ant/0.png"] == (0, 0, 64, 64)


def test_long_names_shrink_until_they_fit():
    image = Image.new("RGB", (64, 64), "gray")
    cue = Cue(height=0.2)
    left, _, right, _ = spurious_cues.write_text(image, "hammerhead shark", cue)
    assert 0 < left < right <= 64


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"kind": "sound"}, "No cue 'sound'"),
        ({"share": 2}, "--share 2"),
        ({"corner": "middle"}, "No corner"),
        ({"ink": "no such"}, "is not a color"),
        ({"height": 0}, "--height 0"),
        ({"side": 3}, "too small"),
    ],
)
def test_cues_that_cannot_be(settings, said):
    with pytest.raises(InputError, match=said):
        Cue(**settings)


def test_a_side_of_0_leaves_images_as_they_are():
    assert Cue(side=0) == Cue(side=None)


def test_folders_that_cannot_be(images, tmp_path):
    with pytest.raises(InputError, match="exists already"):
        spurious_cues.write(images, images)
    with pytest.raises(InputError, match="expected one folder per class"):
        spurious_cues.write(images / "ant", tmp_path / "out")
    with pytest.raises(InputError, match="no image ant/99"):
        spurious_cues.write(images, tmp_path / "out", only=["ant/99.jpg"])
    with pytest.raises(InputError, match=r"has no cues\.json"):
        spurious_cues.read(images)
    for name in ("bee_fly", "cow"):
        for path in (images / name).iterdir():
            path.unlink()
    with pytest.raises(InputError, match="one class"):
        spurious_cues.write(images, tmp_path / "out", Cue(wrong=True))
    (images / "ant" / "0.jpg").write_bytes(b"no image")
    with pytest.raises(InputError, match=r"ant/0\.jpg"):
        spurious_cues.write(images, tmp_path / "out", Cue())
    assert not (tmp_path / "out").exists()
