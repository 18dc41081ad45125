"""Probe data sets: what their folders say is what label maps show, and errors name the place."""

import json
import shutil
from pathlib import Path

import brodens
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from milannotations import exemplars
from milannotations.errors import InputError
from milannotations.exemplars.networks.preprocessing import Preprocessing
from milannotations.exemplars.tallies.masks import masks as masks_of
from milannotations.probes import Concept, ProbeItems, base, coco, mini, open_probe, stack_planes
from milannotations.synthetic.concepts import CONCEPTS
from milannotations.synthetic.networks import network

COCO = Path(__file__).parents[2] / "shared/data/real/images/coco-mini"
MAKERS = {"broden": brodens.broden, "coco": brodens.coco, "segments": brodens.segments}


@pytest.fixture
def made(tmp_path):
    """Return a maker: kind -> (folder, what is true)."""

    def make(kind, **options):
        folder = tmp_path / kind
        folder.mkdir()
        return folder, MAKERS[kind](folder, **options)

    return make


def shown(probe, i, size):
    """Return the concepts of label maps: by concept, bool (height, width)."""
    labels = probe.labels(i, size)
    assert labels.dtype == np.int32
    assert labels.shape[1:] == size
    assert len(labels) >= 1
    return {
        probe.concepts[number - 1]: (labels == number).any(0)
        for number in np.unique(labels[labels > 0])
    }


def resized(mask, size):
    """Return a mask at another size with a loop: of a new pixel's centre, where it lies."""
    h, w = mask.shape
    return np.array(
        [
            [
                mask[int((y + 0.5) * h / size[0]), int((x + 0.5) * w / size[1])]
                for x in range(size[1])
            ]
            for y in range(size[0])
        ]
    )


@pytest.mark.parametrize("kind", MAKERS)
@pytest.mark.parametrize("size", [(12, 15), (20, 20), (31, 17), (5, 4)])
def test_label_maps_are_what_the_folder_says(made, kind, size):
    folder, truth = made(kind)
    probe = open_probe(f"{kind}:{folder}")
    assert len(probe) == len(truth)
    for i, concepts in enumerate(truth):
        expected = {Concept(*key): resized(mask, size) for key, mask in concepts.items()}
        expected = {key: mask for key, mask in expected.items() if mask.any()}
        found = shown(probe, i, size)
        assert found.keys() == expected.keys()
        for concept, mask in expected.items():
            np.testing.assert_array_equal(found[concept], mask)
        assert probe.image(i).mode == "RGB"


@pytest.mark.parametrize("kind", MAKERS)
def test_the_digest_is_that_of_the_content(made, kind, tmp_path):
    folder, _ = made(kind)
    first = open_probe(f"{kind}:{folder}").source
    assert len(first["sha256"]) == 64
    json.dumps(first)
    moved = shutil.copytree(folder, tmp_path / "elsewhere")
    assert open_probe(f"{kind}:{moved}").source["sha256"] == first["sha256"]
    path = next(moved.rglob("*.jpg"))
    path.write_bytes(path.read_bytes() + b"\0")
    assert open_probe(f"{kind}:{moved}").source["sha256"] != first["sha256"]


@pytest.mark.parametrize("kind", [*MAKERS, "mini"])
def test_through_the_engine(made, kind):
    """Ragged planes stack, and overlaps are those of a plain count."""
    probe = mini.MiniProbe(5) if kind == "mini" else open_probe(f"{kind}:{made(kind)[0]}")
    items = ProbeItems(probe, Preprocessing.imagenet(16), size=(12, 15))
    json.dumps(items.source)
    thresholds = torch.tensor([0.2, -0.1])
    torch.manual_seed(0)
    model = torch.nn.Sequential(torch.nn.Conv2d(3, 2, 3, stride=2))
    results = [
        exemplars.compute(
            model,
            items,
            ["0"],
            k=1,
            tallies={"overlap": lambda _: exemplars.Overlap(thresholds, len(probe.concepts))},
            run=exemplars.RunConfig(batch_size=batch, device="cpu"),
        )
        .layers["0"]
        .tallies["overlap"]
        for batch in (1, 3)
    ]
    assert torch.equal(results[0].intersection, results[1].intersection)
    counts = np.zeros((2, len(probe.concepts)), np.int64)
    for i in range(len(probe)):
        with torch.no_grad():
            maps = model(items[i]["image"][None])[0]
        above = masks_of(maps, thresholds, (12, 15)).numpy()
        for concept, mask in shown(probe, i, (12, 15)).items():
            counts[:, probe.concepts.index(concept)] += (above & mask).sum((1, 2))
    np.testing.assert_array_equal(results[0].intersection, counts)
    assert counts.any()


# ---- Broden


def test_a_label_is_a_concept_of_each_of_its_categories(made):
    probe = open_probe(f"broden:{made('broden')[0]}")
    assert probe.concepts == tuple(
        Concept(name, category)
        for name, categories in brodens.LABELS.values()
        for category in categories
    )
    assert probe.source_id(0) == "dtd/000.jpg"
    assert probe.source["pictures"] == 6


def edit(path, old, new):
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new, 1))


@pytest.mark.parametrize(
    ("file", "old", "new", "message"),
    [
        ("index.csv", "image,split", "picture,split", "has no column 'image'"),
        ("index.csv", ",material,", ",materials,", "does not name: materials. Did you mean 'mat"),
        ("index.csv", "dtd/002.jpg", "dtd/009.jpg", r"index.csv, line 4: no file 'dtd/009.jpg'"),
        ("index.csv", "dtd/002.jpg", "../label.csv", r"index.csv, line 4: no file '../label.csv'"),
        ("index.csv", "000_color0", "000_colour0", "line 2: no file 'dtd/000_colour0.png' under"),
        ("index.csv", ",24,30,", ",24,wide,", "line 3: iw 'wide' is not a whole number"),
        ("index.csv", ",24,30,", ",24,0,", "line 3: a size is 0 .24 x 0"),
        ("index.csv", ",301,", ",302,", "line 3: label 302 is under 'scene', but label.csv has no"),
        ("index.csv", ",301,", ",999999,", "line 3: label 999999 is under 'scene'"),
        ("index.csv", ",24,30,", ",24,30,1,", "line 3: 13 cells under 12 columns"),
        ("label.csv", "5,wheel", "3,wheel", "label.csv, line 5: number 3 appears twice"),
        ("label.csv", "1,black", "0,black", "label.csv, line 2: 0 means no label"),
        ("label.csv", "1,black", "70000,black", "label.csv, line 2: number 70,000"),
        ("label.csv", "color(10)", "colour(10)", "label.csv, line 2: .*Did you mean 'color'"),
        ("label.csv", "number,", "code,", "label.csv has no column 'number'"),
        ("category.csv", "part,", "parts,", "category.csv does not name: part"),
    ],
)  # fmt: skip
def test_broden_errors_name_file_and_line(made, file, old, new, message):
    folder, _ = made("broden")
    edit(folder / file, old, new)
    with pytest.raises(InputError, match=message):
        open_probe(f"broden:{folder}")


def test_broden_label_maps_that_do_not_fit(made):
    folder, _ = made("broden")
    path = folder / "images/dtd/000_part0.png"
    brodens.save_labels(path, np.full((20, 20), 3))
    with pytest.raises(InputError, match=r"000_part0.png \(.*line 2\): label 3 is under 'part'"):
        open_probe(f"broden:{folder}").labels(0, (4, 4))
    brodens.save_labels(path, np.full((20, 21), 5))
    with pytest.raises(InputError, match=r"20 x 21; .*index.csv, line 2 says 20 x 20 \(sh, sw\)"):
        open_probe(f"broden:{folder}").labels(0, (4, 4))
    path.write_bytes(b"no picture")
    with pytest.raises(InputError, match=r"000_part0.png cannot be read as a label map"):
        open_probe(f"broden:{folder}").labels(0, (4, 4))


@pytest.mark.parametrize("file", ["index.csv", "label.csv", "category.csv"])
def test_broden_files_that_are_missing(made, file):
    folder, _ = made("broden")
    (folder / file).unlink()
    with pytest.raises(InputError, match=f"No such file: .*{file}"):
        open_probe(f"broden:{folder}")


# ---- COCO


def test_categories_are_in_order_of_their_ids(made):
    folder, truth = made("coco")
    probe = open_probe(f"coco:{folder / 'annotations/instances_val2017.json'}")
    assert [each.name for each in probe.concepts] == ["car", "dog", "bottle"]
    assert {each.category for each in probe.concepts} == {"object"}
    assert probe.source_id(0) == "000000000001.jpg"
    assert truth[-1] == {}
    assert probe.labels(3, (8, 8)).shape == (1, 8, 8)
    assert not probe.labels(3, (8, 8)).any()


def test_masks_are_those_of_pycocotools(made):
    """And those of COCO's own class, for all kinds of segmentation."""
    from pycocotools import coco as theirs_of
    from pycocotools.mask import encode

    folder, _ = made("coco")
    path = folder / "annotations/instances_val2017.json"
    data = json.loads(path.read_text())
    wide = np.zeros((20, 30), bool, order="F")
    wide[3:9, 4:22] = True
    compressed = encode(np.asfortranarray(wide.astype(np.uint8)))
    data["annotations"] += [
        {"id": 100, "image_id": 1, "category_id": 18, "iscrowd": 1, "segmentation":
            {"size": [20, 30], "counts": compressed["counts"].decode()}},
        {"id": 101, "image_id": 1, "category_id": 18, "iscrowd": 0, "segmentation":
            [[1.5, 2, 9.25, 3, 5, 15.5], [20, 10, 29, 19, 14, 18.5, 12, 11]]},
    ]  # fmt: skip
    path.write_text(json.dumps(data))
    theirs = theirs_of.COCO(str(path))
    for each in data["annotations"]:
        size = next(
            (i["height"], i["width"]) for i in data["images"] if i["id"] == each["image_id"]
        )
        expected = theirs.annToMask(theirs.anns[each["id"]])
        np.testing.assert_array_equal(coco.mask_of(each["segmentation"], size), expected)
    assert not coco.mask_of([[1, 1, 5, 5]], (9, 9)).any()
    assert not coco.mask_of([], (9, 9)).any()


@pytest.mark.parametrize("place", ["val2017", "images/val2017", "images", "."])
def test_where_pictures_lie(made, place):
    folder, _ = made("coco")
    if place != "val2017":
        (folder / place).mkdir(parents=True, exist_ok=True)
        for path in (folder / "val2017").iterdir():
            path.rename(folder / place / path.name)
    assert open_probe(f"coco:{folder}").image(0).size == (30, 20)


def test_coco_pictures_that_do_not_fit(made):
    folder, _ = made("coco")
    path = folder / "val2017/000000000002.jpg"
    Image.new("RGB", (30, 20)).save(path)
    with pytest.raises(InputError, match=r"30 pixels wide and 20 high; .* says 30 and 21"):
        open_probe(f"coco:{folder}").image(1)
    path.unlink()
    with pytest.raises(InputError, match=r"lists 4 images; 1 are not in .*: 000000000002.jpg"):
        open_probe(f"coco:{folder}")


def nothing(data):
    data["images"] = []


def no_categories(data):
    del data["categories"]


def twice(data):
    data["images"][1]["id"] = data["images"][0]["id"]


def put(name, place, field, value):
    def change(data):
        data[name][place][field] = value

    return change


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (nothing, "lists no images"),
        (no_categories, "holds images, annotations; expected COCO's lists"),
        (twice, "images has id 4 twice"),
        (put("images", 0, "height", "20"), "images.0. has height '20'; expected a whole number"),
        (put("images", 0, "height", 0), "images.0. is 30 x 0"),
        (put("images", 2, "file_name", None), "images.2. has file_name 'None'; expected text"),
        (put("annotations", 1, "category_id", 9), "annotations.1. has category_id 9, which is not"),
        (
            put("annotations", 1, "image_id", 9),
            "annotations.1. has image_id 9, which is not listed",
        ),
        (put("annotations", 0, "segmentation", 4), "segmentation '4'; expected polygons or run"),
    ],
)
def test_coco_json_of_something_else(made, change, message):
    folder, _ = made("coco")
    path = folder / "annotations/instances_val2017.json"
    data = json.loads(path.read_text())
    change(data)
    path.write_text(json.dumps(data))
    with pytest.raises(InputError, match=message):
        open_probe(f"coco:{folder}")


@pytest.mark.parametrize(
    ("segmentation", "message"),
    [
        ({"size": [20, 31], "counts": [620]}, "run lengths of .20, 31. in an image of .20, 30"),
        ({"size": [20, 30], "counts": [5, 5]}, "run lengths of 10 pixels; expected 600"),
        ({"size": [20, 30]}, "counts"),
        ([["a", 1, 2, 3, 4, 5]], "could not convert"),
        ([[0, 1, 2, 3, 4, 5, 6]], "in pairs"),
        ([3], "len"),
    ],
)
def test_segmentations_that_cannot_be_read(made, segmentation, message):
    folder, _ = made("coco")
    path = folder / "annotations/instances_val2017.json"
    data = json.loads(path.read_text())
    data["annotations"][0]["segmentation"] = segmentation
    path.write_text(json.dumps(data))
    with pytest.raises(InputError, match=f"a segmentation of 000000000001.jpg .*{message}"):
        open_probe(f"coco:{folder}").labels(0, (5, 5))


def test_coco_folders_of_something_else(made, tmp_path):
    folder, _ = made("coco")
    path = folder / "annotations/instances_val2017.json"
    shutil.copy(path, folder / "annotations/instances_train2017.json")
    with pytest.raises(InputError, match=r"has several: .*Choose one: coco:"):
        open_probe(f"coco:{folder}")
    for text, message in [("{", "is not JSON"), ("[]", "holds a list"), ("\xff", "is not JSON")]:
        path.write_bytes(text.encode("latin-1"))
        with pytest.raises(InputError, match=message):
            open_probe(f"coco:{path}")
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match="has no annotations/instances"):
        open_probe(f"coco:{tmp_path / 'empty'}")


@pytest.mark.skipif(not COCO.is_dir(), reason="needs ../shared/data/real/images/coco-mini")
def test_real_coco():
    from pycocotools import coco as theirs_of

    probe = open_probe(f"coco:{COCO}")
    assert (len(probe), len(probe.concepts)) == (79, 80)
    assert probe.concepts[:2] == (Concept("person", "object"), Concept("bicycle", "object"))
    theirs = theirs_of.COCO(str(probe.json))
    names = {each["id"]: each["name"] for each in theirs.dataset["categories"]}
    for i, image in enumerate(probe.images):
        picture, size = probe.image(i), (image["height"], image["width"])
        assert picture.size == size[::-1]
        expected = {}
        for each in theirs.imgToAnns[image["id"]]:
            key = Concept(names[each["category_id"]], "object")
            expected[key] = expected.get(key, False) | theirs.annToMask(each).astype(bool)
        found = shown(probe, i, size)
        assert found.keys() == {key for key, mask in expected.items() if mask.any()}
        assert all((found[key] == expected[key]).all() for key in found)


# ---- any folder of label maps


def test_names_one_a_line(made):
    folder, _ = made("segments")
    (folder / "labels.csv").unlink()
    (folder / "labels.txt").write_text("cat\ntail\n\n")
    probe = open_probe(f"segments:{folder}")
    assert probe.concepts == (Concept("cat", "object"), Concept("tail", "object"))
    assert probe.labels(0, (4, 4)).max() <= 2
    with pytest.raises(InputError, match=r"2.png has label 300, which .*labels.txt does not name"):
        probe.labels(2, (4, 4))


def test_a_number_without_a_name(made):
    folder, _ = made("segments")
    edit(folder / "labels.csv", "300,grass,object\n", "")
    with pytest.raises(InputError, match=r"2.png has label 300, .*with a row '300,'"):
        open_probe(f"segments:{folder}").labels(2, (9, 9))
    with (folder / "labels.csv").open("a") as stream:
        stream.write("300,,\n")
    probe = open_probe(f"segments:{folder}")
    assert {each.name for each in shown(probe, 2, (16, 22))} == {"cat", "tail"}


def test_segments_errors(made):
    folder, _ = made("segments")
    names = folder / "labels.csv"
    good = names.read_text()
    for text, message in [
        ("", "is empty"),
        ("name\ncat\n", "has columns name; expected number, name"),
        ("number,name\n", "names no concepts"),
        ("number,name\n1,cat\n1,dog\n", "line 3: number 1 appears twice"),
        (
            "number,name\n0,background\n",
            "line 2: 0 means no concept; leave out its name 'background'",
        ),
        ("number,name\none,cat\n", "line 2: number 'one' is not a whole number"),
        ("number,name\n99999,cat\n", "line 2: number 99,999"),
    ]:
        names.write_text(text)
        with pytest.raises(InputError, match=message):
            open_probe(f"segments:{folder}")
    names.write_text(good)
    (folder / "labels/1.png").rename(folder / "labels/9.png")
    with pytest.raises(InputError, match=r"lacks label maps: 1.png"):
        open_probe(f"segments:{folder}")
    (folder / "labels/9.png").rename(folder / "labels/1.png")
    shutil.copy(folder / "images/1.jpg", folder / "images/1.png")
    with pytest.raises(InputError, match="would share a label map"):
        open_probe(f"segments:{folder}")
    names.unlink()
    with pytest.raises(InputError, match=r"neither labels.csv .* nor labels.txt"):
        open_probe(f"segments:{folder}")
    for text, message in [("", "is empty"), ("cat\n\ndog\n", "line 2 is empty")]:
        (folder / "labels.txt").write_text(text)
        with pytest.raises(InputError, match=message):
            open_probe(f"segments:{folder}")
    shutil.rmtree(folder / "images")
    (folder / "labels.txt").write_text("cat\n")
    with pytest.raises(InputError, match=r"No folder .*images"):
        open_probe(f"segments:{folder}")


def test_label_maps_of_every_kind(tmp_path):
    labels = np.array([[0, 1], [2, 3]], np.uint8)
    path = tmp_path / "labels.png"
    for bits in (2, 4, 8):
        indexed = Image.fromarray(labels)
        indexed.putpalette([9, 9, 9] * 4)
        indexed.save(path, bits=bits)
        assert base.read_labels(path).tolist() == labels.tolist()
    Image.fromarray(labels.astype(np.uint16) * 300).save(path)
    assert base.read_labels(path).tolist() == (labels.astype(int) * 300).tolist()
    Image.fromarray(labels > 1).save(path)
    assert base.read_labels(path).tolist() == [[0, 0], [1, 1]]
    for mode, message in [("RGBA", "has the mode RGBA"), ("RGB", "with a blue channel")]:
        Image.new(mode, (2, 2), (1, 2, 3)).save(path)
        with pytest.raises(InputError, match=message):
            base.read_labels(path)
    with pytest.raises(InputError, match="No label map"):
        base.read_labels(tmp_path / "none.png")


@pytest.mark.parametrize(("bits", "expected"), [(1, [0, 1]), (2, [2, 1]), (4, [9, 1])])
def test_grey_of_few_bits(tmp_path, bits, expected):
    """A PNG of grey with fewer bits than 8, which no library here writes."""
    import struct
    import zlib

    def chunk(name, data):
        return (
            struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))
        )

    packed = (expected[0] << (8 - bits)) | (expected[1] << (8 - 2 * bits))
    (tmp_path / "a.png").write_bytes(
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", struct.pack(">IIBBBBB", 2, 1, bits, 0, 0, 0, 0))
        + chunk(b"IDAT", zlib.compress(bytes([0, packed])))
        + chunk(b"IEND", b"")
    )
    assert base.read_labels(tmp_path / "a.png").tolist() == [expected]


# ---- the mini world


def test_scenes_of_the_mini_world():
    probe = mini.MiniProbe(6)
    assert [each.name for each in probe.concepts] == list(CONCEPTS)
    for i, scene in enumerate(probe.scenes):
        found = shown(probe, i, (64, 64))
        maps = dict(zip(probe.concepts, scene.concepts, strict=True))
        assert found.keys() == {key for key, mask in maps.items() if mask.any()}
        assert all((found[key] == maps[key]).all() for key in found)
    assert np.array_equal(probe.image(3), probe.scenes[3].image)
    assert probe.source_id(2) == "mini-7-000002"
    assert mini.MiniProbe(6).source == probe.source
    assert mini.MiniProbe(6, seed=8).source["sha256"] != probe.source["sha256"]
    with pytest.raises(InputError, match="at least 1"):
        mini.MiniProbe(0)


def test_no_other_stream_has_these_scenes():
    from milannotations.synthetic import edition, encoder, subjects

    taken = {edition.SEED, encoder.TRAINING_SCENES, encoder.HELD_OUT_SCENES}
    taken |= {subjects.VALIDATION_SCENES, subjects.TEST_SCENES, subjects.TRAINING_SCENES, 1000}
    assert mini.SEED not in taken


def test_synthetic_networks_see_concept_maps():
    items = mini.items(4, seed=8)
    json.dumps(items.source)
    item = items[1]
    assert item["concepts"].shape == (7, 64, 64)
    model = network("mini-sharp")
    (tally,) = (
        exemplars.compute(
            model,
            items,
            ["layer1"],
            k=1,
            tallies={"overlap": lambda _: exemplars.Overlap(torch.full((136,), 0.5), 31)},
            run=exemplars.RunConfig(batch_size=3, device="cpu"),
        )
        .layers["layer1"]
        .tallies["overlap"],
    )
    assert torch.equal(
        tally.concept, torch.stack([items[i]["image"] for i in range(4)]).sum((0, 2, 3))
    )


# ---- what they share


@settings(deadline=None, max_examples=50)
@given(seed=st.integers(0, 999), count=st.integers(0, 6))
def test_planes_hold_what_overlaps(seed, count):
    generator = np.random.default_rng(seed)
    masks = {n + 1: generator.random((5, 6)) < generator.random() for n in range(count)}
    found = stack_planes(masks, (5, 6))
    assert found.dtype == np.int32
    for number, mask in masks.items():
        np.testing.assert_array_equal((found == number).any(0), mask)
    assert len(found) <= max(1, count)


def test_specs():
    for spec, message in [
        ("brodn:x", "No probe dataset 'brodn:x'. Did you mean 'broden'"),
        ("broden", "no such folder. Expected broden:DIR"),
        ("coco:/nowhere/at/all", "no such folder. Expected coco:DIR"),
    ]:
        with pytest.raises(InputError, match=message):
            open_probe(spec)
