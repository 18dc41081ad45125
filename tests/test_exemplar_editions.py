"""Exemplars on disk: as an edition that all commands read, and in the format of 2022."""

import errno
import json
import os
import pickle
import shutil
import signal
import subprocess
import sys
import time
import zipfile
from concurrent.futures import ThreadPoolExecutor

import datasets
import numpy as np
import pyarrow.parquet
import pytest
import torch
from PIL import Image

import baselines
import milannotations
from milannotations import InputError, Unit, schema
from milannotations.editions import hub, loading, resumable, shards, validation
from milannotations.editions.configs import list_configs
from milannotations.editions.contents import read_configs
from milannotations.exemplars.images.decode import UnreadableImageError
from milannotations.exemplars.output import edition, image_buffer, npy
from milannotations.exemplars.output.edition import write
from milannotations.exemplars.output.npy import write_npy
from milannotations.exemplars.results import LayerExemplars, NetworkExemplars, SkippedImage
from milannotations.published import annotations
from milannotations.published.archive import Archive
from milannotations.utils import contact_sheet
from milannotations.utils.contact_sheet import unit_lines

SIZE = (12, 20)
MADE_FROM = {
    "model": {
        "spec": "torchvision:tiny",
        "weights": {"file": "tiny.safetensors", "sha256": "ab12"},
        "missing": 0,
    },
    "images": {"name": "pool", "kind": "folder", "images": 30, "sha256": "cd34"},
    "preprocessing": {"mean": [0.5], "transform": "Resize(12)"},
}


class Pool:
    """Images that record which of them are read."""

    def __init__(self, count=30, size=SIZE, bad=()):
        rng = np.random.default_rng(0)
        self.arrays = rng.integers(0, 256, (count, *size, 3), dtype=np.uint8)
        self.bad, self.read, self.asked = dict(bad), [], []

    def source_id(self, i):
        return f"class/{i}.png"

    def pixels(self, i):
        if i in self.bad:
            raise self.bad[i]
        self.read.append(i)
        return self.arrays[i]

    def iter_pixels(self, ids):
        self.asked.append(list(ids))
        return map(self.pixels, ids)


def layer_of(label, units=10, k=3, grid=(4, 4), images=30, kind="channel", seed=0):
    rng = np.random.default_rng(seed)
    maps = torch.from_numpy(rng.normal(size=(units, k, *grid)).astype(np.float32))
    maps = maps[torch.arange(units)[:, None], maps.amax((2, 3)).argsort(1, descending=True)]
    return LayerExemplars(
        layer=label,
        unit_kind=kind,
        units=torch.arange(units),
        ids=torch.from_numpy(np.stack([rng.permutation(images)[:k] for _ in range(units)])),
        activations=maps.amax((2, 3)),
        maps=maps,
        thresholds=torch.full((units,), 0.25),
        tallies={},
    )


def computed_of(*layers, images=30, skipped=(), k=3):
    return NetworkExemplars(
        layers={layer.layer: layer for layer in layers},
        images=images,
        skipped=tuple(skipped),
        forwards=images,
        input_size=SIZE,
        settings={"k": k, "quantile": 0.99, "batch_size": 8, "dtype": "float32", "seed": 0},
    )


def changed(layer, **values):
    return LayerExemplars(**{**vars(layer), **values})


@pytest.fixture(autouse=True)
def fresh_cache(tmp_path_factory, monkeypatch):
    """Give every test its own cache, without what other tests opened."""
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path_factory.mktemp("cache"))


@pytest.fixture
def two():
    """Return exemplars of two layers, the second an autoencoder's."""
    return computed_of(layer_of("conv1"), layer_of("layer2.sae", 7, kind="sae_latent", seed=1))


@pytest.fixture
def made(two, tmp_path):
    write(two, Pool(), tmp_path / "out", "tiny-pool", made_from=MADE_FROM)
    return tmp_path / "out"


def content(folder):
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file()
    }


# ---- what an edition holds


def test_every_row_is_what_was_computed(two, made):
    pool = Pool()
    loaded = milannotations.load(made, "tiny-pool")
    assert list(loaded) == ["test"]
    assert loaded["test"].features == schema.features()
    rows = {Unit(r["network"], r["layer"], r["unit"]): r for r in loaded["test"]}
    assert list(rows) == [
        Unit("tiny-pool", label, unit) for label, n in (("conv1", 10), ("layer2.sae", 7))
        for unit in range(n)
    ]  # fmt: skip
    for unit, row in rows.items():
        layer = two.layers[unit.layer]
        ids = layer.ids[unit.unit].tolist()
        found = np.stack([np.asarray(image) for image in row["images"]])
        np.testing.assert_array_equal(found, pool.arrays[ids])
        assert {mask.mode for mask in row["masks"]} == {"1"}
        masks = np.stack([np.asarray(mask) for mask in row["masks"]])
        np.testing.assert_array_equal(masks, layer.masks(slice(unit.unit, unit.unit + 1), SIZE)[0])
        assert row["source_ids"] == [f"class/{i}.png" for i in ids]
        assert row["activations"] == layer.activations[unit.unit].tolist()
        assert row["threshold"] == 0.25
        assert (row["descriptions"], row["annotator_ids"], row["polarity"]) == ([], [], "+")
        assert row["unit_kind"] == layer.unit_kind
        assert row["truth"] is None


def test_every_way_to_open_it_works(made):
    assert validation.validate(made) == []
    assert len(datasets.load_dataset(str(made), "tiny-pool", split="test")) == 17
    streamed = datasets.load_dataset(str(made), "tiny-pool", split="test", streaming=True)
    assert len(list(streamed.select_columns(["unit"]))) == 17
    one = loading.select(made, "tiny-pool", "layer2.sae", 5)
    assert (len(one), one[0]["unit"]) == (1, 5)
    counted = json.loads((made / "tiny-pool" / "statistics.json").read_text())
    assert (counted["units"], counted["descriptions"]) == (17, 0)


def test_every_picture_is_read_once_whatever_shows_it(two, tmp_path, monkeypatch):
    encoded, webp = [], shards.encode_webp
    monkeypatch.setattr(edition, "encode_webp", lambda *args: encoded.append(1) or webp(*args))
    pool = Pool()
    write(two, pool, tmp_path / "out", "x", made_from={})
    wanted = sorted({i for layer in two.layers.values() for i in layer.ids.flatten().tolist()})
    assert pool.asked == [wanted]
    assert pool.read == wanted
    assert len(encoded) == len(wanted)


def test_a_subset_of_units_keeps_its_indices(tmp_path):
    layer = changed(layer_of("conv1", 3), units=torch.tensor([2, 5, 70]))
    write(computed_of(layer), Pool(), tmp_path / "out", "x", made_from={})
    assert loading.select(tmp_path / "out")["unit"] == [2, 5, 70]


def test_masks_and_pictures_can_be_of_another_size_and_of_2022(two, tmp_path):
    write(two, Pool(), tmp_path / "out", "x", made_from={}, side=8, masks="2022")
    layer = two.layers["conv1"]
    row = loading.select(tmp_path / "out", layer="conv1", unit=0)[0]
    masks = np.stack([np.asarray(mask) for mask in row["masks"]])
    np.testing.assert_array_equal(masks, layer.masks(slice(0, 1), (8, 8), "2022")[0])
    pixels = Pool().arrays[layer.ids[0, 0]]
    wanted = torch.nn.functional.interpolate(
        torch.from_numpy(pixels).permute(2, 0, 1)[None].float(), size=(8, 8)
    )[0].permute(1, 2, 0)
    np.testing.assert_array_equal(np.asarray(row["images"][0]), wanted.numpy().astype(np.uint8))
    said = json.loads((tmp_path / "out" / "x" / "prepared.json").read_text())
    assert said["layers"]["conv1"]["size"] == [8, 8]
    assert (said["settings"]["masks"], said["settings"]["side"]) == ("2022", 8)
    assert validation.validate(tmp_path / "out") == []


def test_lossy_pictures_are_smaller_and_the_card_says_so(two, tmp_path):
    sizes = []
    for quality in (None, 50):
        out = tmp_path / str(quality)
        write(two, Pool(size=(64, 64)), out, "x", made_from={}, quality=quality)
        sizes.append(sum(path.stat().st_size for path in out.rglob("*.parquet")))
    assert sizes[1] < sizes[0] / 2
    assert "WebP of quality 50 (lossy)" in (out / "README.md").read_text()


def test_exemplars_and_text_stand_side_by_side(two, tiny_annotations, tmp_path):
    text = tiny_annotations([("conv1", i, f"red {i}") for i in range(20)])
    annotations.build_edition(text, "described", tmp_path / "out")
    write(two, Pool(), tmp_path / "out", "computed", made_from=MADE_FROM)
    assert list_configs(tmp_path / "out") == {
        "computed": ["test"], "described": ["train", "test"],
    }  # fmt: skip
    assert validation.validate(tmp_path / "out") == []
    card = (tmp_path / "out" / "README.md").read_text()
    assert "These configs hold text" in card
    assert "Exemplars computed here" in card
    assert "verbatim from the published files" in card


def test_a_published_network_computed_again_is_no_published_one(tmp_path):
    write(computed_of(layer_of("conv1", 30)), Pool(), tmp_path / "out", "alexnet-imagenet",
          made_from=MADE_FROM)  # fmt: skip
    assert validation.validate(tmp_path / "out") == []


# ---- what is said of it


def test_the_card_and_the_record_say_what_it_was_made_of(made):
    card = (made / "README.md").read_text()
    assert "| tiny-pool | torchvision:tiny | tiny.safetensors (sha256 ab12) | " in card
    assert "pool (sha256 cd34): 30 seen | quantile 0.99 | lossless WebP | " in card
    for word in ("published", "people", "None", "unknown", "Known faults"):
        assert word not in card, word
    said = json.loads((made / "tiny-pool" / "prepared.json").read_text())
    assert said["made_from"] == MADE_FROM
    assert said["settings"] == {
        "k": 3, "quantile": 0.99, "batch_size": 8, "dtype": "float32", "seed": 0,
        "masks": "clamped", "quality": None, "side": None,
    }  # fmt: skip
    assert (said["images"], said["skipped"], said["notes"]) == (30, {"count": 0, "first": []}, [])
    assert said["layers"]["layer2.sae"] == {
        "units": 7, "unit_kind": "sae_latent", "k": 3, "size": [12, 20], "dead": [], "silent": [],
    }  # fmt: skip


@pytest.mark.parametrize(
    ("model", "says"),
    [
        (None, "| unknown | unknown |"),
        ("my own", "| unknown | unknown |"),
        ({"spec": "a.py:net", "weights": None, "random_seed": None}, "| a.py:net | its code's own"),
        ({"spec": "a|b", "weights": None, "random_seed": 0}, "| a/b | random, seed 0 |"),
        ({"spec": "a", "weights": {"name": "V1"}, "missing": 2}, "| V1, without 2 entries of"),
    ],
)
def test_the_card_knows_other_networks(two, tmp_path, model, says):
    write(two, Pool(), tmp_path / "out", "x", made_from={"model": model})
    assert says in (tmp_path / "out" / "README.md").read_text()


def test_faults_are_counted_and_told(tmp_path):
    conv, sae = layer_of("conv1", 6), layer_of("sae", 12, kind="sae_latent")
    zeros = torch.zeros_like(conv.maps)
    zeros[2] = conv.maps[2]
    conv = changed(conv, maps=zeros, activations=zeros.amax((2, 3)))
    thresholds = torch.zeros(6)
    thresholds[2] = conv.activations[2, 0]
    conv = changed(conv, thresholds=thresholds)
    below = sae.activations.clone()
    below[:11] = -below[:11].abs()
    sae = changed(sae, activations=below, thresholds=torch.full((12,), -9.0))
    found = computed_of(
        conv,
        sae,
        images=3,
        k=15,
        skipped=[SkippedImage(i, f"bad/{i}.jpg", "cut") for i in range(12)],
    )
    write(found, Pool(), tmp_path / "out", "x", made_from={})
    said = json.loads((tmp_path / "out" / "x" / "prepared.json").read_text())
    assert said["skipped"]["count"] == 12
    assert said["skipped"]["first"][0] == {"source_id": "bad/0.jpg", "why": "cut"}
    assert len(said["skipped"]["first"]) == 10
    assert said["layers"]["conv1"]["dead"] == [0, 1, 2, 3, 4, 5]
    assert said["layers"]["conv1"]["silent"] == [0, 1, 3, 4, 5]
    assert said["layers"]["sae"]["silent"] == list(range(11))
    card = (tmp_path / "out" / "README.md").read_text()
    for line in (
        "12 of 15 images could not be read and were left out: bad/0.jpg, bad/1.jpg,",
        "there were fewer images than the 15 exemplars requested: units have 3.",
        "conv1: 5 of 6 units never fire, no image drives them above 0: 0, 1, 3, 4, 5.",
        "conv1: 6 of 6 units are dead, no activation is above their threshold, so that",
        "sae: 11 of 12 latents never fire, no image drives them above 0: 0, 1, 2, 3, 4, ...",
    ):
        assert line in card, card
    assert validation.validate(tmp_path / "out") == []


def test_a_dead_unit_is_called_so_where_a_person_looks(tmp_path):
    layer = layer_of("conv1", 2)
    layer = changed(layer, thresholds=torch.stack([layer.activations[0, 0], torch.tensor(0.0)]))
    write(computed_of(layer), Pool(), tmp_path / "out", "x", made_from={})
    rows = loading.select(tmp_path / "out")
    assert not any(np.asarray(mask).any() for mask in rows[0]["masks"])
    assert unit_lines(rows[0])[0].startswith("x/conv1/0   (dead: no activation is above")
    assert unit_lines(rows[1]) == ["x/conv1/1", "no descriptions"]
    assert unit_lines({**rows[1], "descriptions": ["a", "b"]})[1] == "humans: a | b"
    assert unit_lines({**rows[1], "activations": None, "threshold": None})[0] == "x/conv1/1"


# ---- what reads it


def test_data_show_draws_it_with_its_proportions(made, milan, tmp_path):
    status, said, err = milan("data", "show", made, "tiny-pool", "conv1", "--out",
                              tmp_path / "units.png", "--count", 4)  # fmt: skip
    assert status == 0, err
    assert "tiny-pool/conv1/" in said
    assert "people" not in said
    with Image.open(tmp_path / "units.png") as sheet:
        assert sheet.width > 3 * 96
    assert milan("data", "check", made)[0] == 0
    image, mask = Image.new("RGB", (200, 100), "red"), Image.new("1", (200, 100))
    mask.paste(1, (0, 0, 100, 100))
    small, region = contact_sheet.shrink(image, mask, 50)
    assert (small.size, region.shape) == ((50, 25), (25, 50))
    assert region[:, :25].all()
    assert not region[:, 25:].any()
    assert contact_sheet.tile_images([np.asarray(image)], 1, 50).size == (52, 27)


def test_methods_describe_it(made, milan, tmp_path):
    say = ("describe", made, "--method", "constant", "--text", "things", "--out")
    status, _, err = milan(*say, tmp_path / "said.csv")
    assert status == 0, err
    assert (tmp_path / "said.csv").read_text().count("things") == 17
    # nobody described its own units, so a method that learns needs others
    status, _, err = milan("describe", made, "--method", "nearest", "--out", tmp_path / "n.csv")
    assert (status, "training" in err) == (1, True), err
    nearest = baselines.describe(made, "nearest", training="mini")
    assert [str(unit) for unit, _ in nearest][:2] == ["tiny-pool/conv1/0", "tiny-pool/conv1/1"]
    assert all(answer.senses for _, answer in nearest)


@pytest.mark.parametrize("include", [False, True])
def test_it_can_be_made_ready_for_the_hub(made, tmp_path, include):
    staged = hub.stage(
        made, tmp_path / "staged", include_pictures=include, rights="ours" if include else None
    )
    assert validation.validate(staged) == []
    rows = milannotations.load(staged, split="test")
    assert len(rows) == 17
    assert (rows[0]["images"] is None) == (not include)
    card = (staged / "README.md").read_text()
    assert "torchvision:tiny" in card
    assert ("Without images" in card) == (not include)


# ---- how it lies on disk


def test_a_picture_that_many_units_show_costs_its_bytes_once(tmp_path):
    few = computed_of(layer_of("conv1", 60, images=5))
    write(few, Pool(5, size=(64, 64)), tmp_path / "few", "x", made_from={})
    file = pyarrow.parquet.ParquetFile(tmp_path / "few" / "x" / "test-conv1-00000.parquet")
    assert file.num_row_groups == 1
    once = 5 * 64 * 64 * 3
    assert file.metadata.row_group(0).total_byte_size < 2 * once
    many = computed_of(layer_of("conv1", 60, images=5000))
    write(many, Pool(5000, size=(8, 8)), tmp_path / "many", "x", made_from={})
    file = pyarrow.parquet.ParquetFile(tmp_path / "many" / "x" / "test-conv1-00000.parquet")
    assert [file.metadata.row_group(i).num_rows for i in range(2)] == [shards.ROWS] * 2


def test_row_groups_and_shards_are_bounded_in_bytes(tmp_path, monkeypatch):
    few, pool = computed_of(layer_of("conv1", 60, images=5)), Pool(5, size=(64, 64))
    size = len(shards.encode_webp(pool.arrays[0], None))
    monkeypatch.setattr(edition, "GROUP_BYTES", 30 * size)
    monkeypatch.setattr(edition, "SHARD_BYTES", 60 * size)
    write(few, pool, tmp_path / "out", "x", made_from={})
    paths = sorted((tmp_path / "out" / "x").glob("*.parquet"))
    groups = [
        [file.metadata.row_group(i).num_rows for i in range(file.num_row_groups)]
        for file in map(pyarrow.parquet.ParquetFile, paths)
    ]
    assert len(groups) >= 2
    assert sum(map(sum, groups)) == 60
    assert all(rows <= 11 for group in groups for rows in group)
    assert validation.validate(tmp_path / "out") == []


def test_encoding_holds_a_few_pictures_at_a_time(tmp_path, monkeypatch):
    most, waiting = 0, 0

    def given():
        nonlocal most, waiting
        for _ in range(200):
            waiting += 1
            most = max(most, waiting)
            yield np.zeros((4, 4, 3), dtype=np.uint8)

    def encode(picture):
        nonlocal waiting
        waiting -= 1
        return b"x"

    monkeypatch.setattr(os, "cpu_count", lambda: 2)
    with image_buffer.ImageBuffer(tmp_path) as kept, ThreadPoolExecutor(1) as pool:
        kept.fill(range(200), given(), encode, pool)
        assert kept[7] == b"x"
        assert kept.count_bytes([3, 3, 4]) == 3
    assert most <= 9
    assert list(tmp_path.iterdir()) == []


# ---- faults


@pytest.mark.parametrize("error", [
    UnreadableImageError("class/7.png", "it is cut"), OSError("it is cut"),
    SyntaxError("it is cut"),
])  # fmt: skip
def test_a_picture_that_cannot_be_read_any_more_is_named(tmp_path, error):
    found = computed_of(changed(layer_of("conv1", 1), ids=torch.tensor([[9, 7, 2]])))
    for make in (
        lambda pool: write(found, pool, tmp_path / "out", "x", made_from={}),
        lambda pool: write_npy(found, pool, tmp_path / "npy"),
    ):
        with pytest.raises(InputError, match=r"class/7.png was read before.*now: it is cut") as e:
            make(Pool(bad={7: error}))
        assert "--skip-bad" not in str(e.value)
    assert not (tmp_path / "out" / "x").exists()
    assert not (tmp_path / "npy").exists()
    write(found, Pool(), tmp_path / "out", "x", made_from={})
    assert {path.name for path in (tmp_path / "out").iterdir()} == {"x", "README.md"}


def test_pictures_of_several_sizes_and_other_things_are_refused(tmp_path, two):
    pool = Pool()
    for wrong, says in (
        (np.zeros((9, 9, 3), np.uint8), "9 x 9, others are 12 x 20"),
        (np.zeros((12, 20), np.uint8), r"uint8 \(12, 20\); expected"),
        (np.zeros((12, 20, 3)), "float64 .*; expected"),
    ):
        pool.arrays = [*Pool().arrays[:29], wrong]
        with pytest.raises(InputError, match=says):
            list(image_buffer.read_images(pool, range(30)))
    pool.iter_pixels = lambda ids: iter(())
    with pytest.raises(InputError, match="no image of class/"):
        write(two, pool, tmp_path / "out", "x", made_from={})


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"masks": "2023"}, r"No masks '2023' \(masks: clamped, 2022\)"),
        ({"quality": 0}, "Expected 1 to 100"),
        ({"side": 0}, "expected at least 1"),
        ({"made_from": {"model": object()}}, "are not JSON"),
        ({"name": "base"}, "is the name of the union of"),
        ({"name": "a b"}, "Expected letters"),
    ],
)
def test_what_cannot_be_asked_is_said_at_once(two, tmp_path, options, says):
    pool = Pool()
    with pytest.raises(InputError, match=says):
        write(two, pool, tmp_path / "out", **{"name": "x", "made_from": {}, **options})
    assert pool.asked == []
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("label", ["a b", "a*", "", "x" * 101])
def test_a_label_that_names_no_file_is_refused(tmp_path, label):
    for make in (
        lambda c: write(c, Pool(), tmp_path / "out", "x", made_from={}),
        lambda c: write_npy(c, Pool(), tmp_path / "npy"),
    ):
        with pytest.raises(InputError, match="another label"):
            make(computed_of(layer_of(label)))


def test_a_config_that_is_there_is_replaced_only_when_asked(two, made):
    before = content(made)
    with pytest.raises(InputError, match="has tiny-pool already"):
        write(two, Pool(), made, "tiny-pool", made_from=MADE_FROM, quality=50)
    assert content(made) == before
    write(two, Pool(), made, "tiny-pool", made_from=MADE_FROM, overwrite=True)
    assert content(made) == before


@pytest.mark.parametrize("at", [1, 2])
def test_a_full_disk_keeps_finished_layers_and_says_so(two, made, tmp_path, monkeypatch, at):
    put, calls = pyarrow.parquet.ParquetWriter.write_table, []

    def full(self, *args, **kwargs):
        calls.append(1)
        if len(calls) == at:
            raise OSError(errno.ENOSPC, "No space left on device")
        return put(self, *args, **kwargs)

    with monkeypatch.context() as patched:
        patched.setattr(pyarrow.parquet.ParquetWriter, "write_table", full)
        with pytest.raises(InputError, match=r"No space is left.*run the same command again"):
            write(two, Pool(), tmp_path / "again", "tiny-pool", made_from=MADE_FROM)
    write(two, Pool(), tmp_path / "again", "tiny-pool", made_from=MADE_FROM)
    assert content(tmp_path / "again" / "tiny-pool") == content(made / "tiny-pool")


def test_a_disk_that_fills_while_pictures_wait_says_so(two, tmp_path, monkeypatch):
    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(image_buffer.ImageBuffer, "fill", full)
    with pytest.raises(InputError, match="No space is left"):
        write(two, Pool(), tmp_path / "out", "x", made_from={})
    monkeypatch.setattr(npy, "_write_images", full)
    with pytest.raises(InputError, match=r"No space is left.*Make room and run"):
        write_npy(two, Pool(), tmp_path / "npy")
    assert not any("npy" in path.name for path in tmp_path.iterdir())


def interrupted(two, out, monkeypatch):
    """Interrupt writing in the second layer."""
    rows = edition._rows

    def stop(layer, *args):
        if layer.layer != "conv1":
            raise KeyboardInterrupt
        return rows(layer, *args)

    with monkeypatch.context() as patched:
        patched.setattr(edition, "_rows", stop)
        with pytest.raises(KeyboardInterrupt):
            write(two, Pool(), out, "tiny-pool", made_from=MADE_FROM)


def written(monkeypatch):
    """Return a list to which each layer that is written from now on is appended."""
    rows, seen = edition._rows, []

    def note(layer, *args):
        seen.append(layer.layer)
        return rows(layer, *args)

    monkeypatch.setattr(edition, "_rows", note)
    return seen


def test_a_run_goes_on_at_the_layer_it_was_at(two, made, tmp_path, monkeypatch):
    out = tmp_path / "again"
    interrupted(two, out, monkeypatch)
    seen, pool = written(monkeypatch), Pool()
    write(two, pool, out, "tiny-pool", made_from=MADE_FROM)
    assert seen == ["layer2.sae"]
    # a generator's pictures depend on their company, so that is always the same
    assert pool.asked[0] == sorted(set(pool.asked[0]))
    assert len(pool.asked[0]) == len(
        {i for layer in two.layers.values() for i in layer.ids.flatten().tolist()}
    )
    assert content(out / "tiny-pool") == content(made / "tiny-pool")
    assert {path.name for path in out.iterdir()} == {"tiny-pool", "README.md"}


@pytest.mark.parametrize("what", ["settings", "exemplars", "source"])
def test_a_run_starts_over_where_anything_changed(two, tmp_path, monkeypatch, what):
    out, options = tmp_path / "out", {"made_from": MADE_FROM}
    interrupted(two, out, monkeypatch)
    if what == "settings":
        options["masks"] = "2022"
    elif what == "source":
        options["made_from"] = {**MADE_FROM, "images": {"name": "others"}}
    else:
        two.layers["conv1"].maps[0, 0, 0, 0] += 1
    seen = written(monkeypatch)
    write(two, Pool(), out, "tiny-pool", **options)
    assert seen == ["conv1", "layer2.sae"]
    assert validation.validate(out) == []


@pytest.mark.parametrize("point", ["describe", "card", "clearing"])
def test_a_run_stopped_at_the_end_writes_no_layer_again(two, made, tmp_path, monkeypatch, point):
    out = tmp_path / "again"

    def stop(*_):
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        if point == "describe":
            patched.setattr(edition, "_describe", stop)
        if point == "card":
            patched.setattr(resumable, "write_card", stop)
        if point == "clearing":
            patched.setattr(resumable.UnfinishedConfig, "clear", stop)
        with pytest.raises(KeyboardInterrupt):
            write(two, Pool(), out, "tiny-pool", made_from=MADE_FROM)
    seen = written(monkeypatch)
    write(two, Pool(), out, "tiny-pool", made_from=MADE_FROM)
    assert seen == []
    assert content(out / "tiny-pool") == content(made / "tiny-pool")


SLOWLY = """
import pickle, sys, time
sys.path.insert(0, sys.argv[1])
from milannotations.editions import shards
from milannotations.exemplars.output.edition import write
from milannotations.exemplars.output.npy import write_npy
import test_exemplar_editions as t
found = pickle.load(open(sys.argv[2], "rb"))
flush = shards.ShardWriter._flush
def slow(self):
    flush(self)
    time.sleep(2)
shards.ShardWriter._flush = slow
class Slow(t.Pool):
    def pixels(self, i):
        if sys.argv[4] == "npy":
            time.sleep(.2)
        return super().pixels(i)
if sys.argv[4] == "npy":
    write_npy(found, Slow(), sys.argv[3])
else:
    write(found, Slow(), sys.argv[3], "tiny-pool", made_from=t.MADE_FROM)
"""


def started(two, out, tmp_path, how):
    (tmp_path / "computed.pkl").write_bytes(pickle.dumps(two))
    return subprocess.Popen(
        [sys.executable, "-c", SLOWLY, os.path.dirname(__file__), tmp_path / "computed.pkl", out,
         how],
        stderr=subprocess.PIPE,
        text=True,
    )  # fmt: skip


def killed(process, found):
    for _ in range(2400):
        if found():
            break
        assert process.poll() is None, process.stderr.read()
        time.sleep(0.05)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    process.stderr.close()


def test_a_kill_changes_nothing_of_the_result(two, made, tmp_path, monkeypatch):
    out = tmp_path / "again"
    whole = out / ".tiny-pool.unfinished" / "whole"
    process = started(two, out, tmp_path, "edition")
    killed(process, lambda: list(whole.glob("test-layer2*")))
    assert not (out / "tiny-pool").exists()
    seen = written(monkeypatch)
    write(two, Pool(), out, "tiny-pool", made_from=MADE_FROM)
    assert seen == ["layer2.sae"]
    assert content(out) == {
        name: got.replace(b'"out"', b'"again"') for name, got in content(made).items()
    }
    assert {path.name for path in out.iterdir()} == {"tiny-pool", "README.md"}


# ---- the folders of 2022


def read(folder, layer, file):
    return np.load(folder / layer / file)


def test_the_folders_hold_what_was_computed(two, tmp_path):
    layer = changed(two.layers["conv1"], units=torch.tensor([*range(9), 70]))
    two.layers["conv1"] = layer
    pool = Pool()
    folder = write_npy(two, pool, tmp_path / "npy")
    assert pool.read == sorted(set(pool.read))
    assert {path.name for path in (folder / "layer2.sae").iterdir()} == {
        "images.npy", "masks.npy", "ids.csv", "activations.csv",
    }  # fmt: skip
    units = read(folder, "conv1", "units.npy")
    assert (units.dtype.str, units.tolist()) == ("<i8", [*range(9), 70])
    images, masks = (read(folder, "conv1", f"{name}.npy") for name in ("images", "masks"))
    assert (images.dtype, images.shape) == (np.uint8, (10, 3, 3, 12, 20))
    assert (masks.dtype, masks.shape) == (np.uint8, (10, 3, 1, 12, 20))
    np.testing.assert_array_equal(images, pool.arrays[layer.ids.numpy()].transpose(0, 1, 4, 2, 3))
    np.testing.assert_array_equal(masks[:, :, 0].astype(bool), layer.masks(slice(None), SIZE))
    for name, array in (("images", images), ("masks", masks)):
        np.save(tmp_path / "same.npy", array)
        assert (folder / "conv1" / f"{name}.npy").read_bytes() == (
            tmp_path / "same.npy"
        ).read_bytes()


@pytest.mark.parametrize(
    ("archive", "layer", "k"),
    [("a3_cnn.zip", "cnn/conv1", 15), ("a3_cnn.zip", "cnn/conv2", 15),
     ("a3_cnn.zip", "cnn_units/conv2", 15), ("a3_cnn.zip", "cnn_k5_q90/conv2", 5),
     ("a3_vit.zip", "vit/fc1", 15)],
)  # fmt: skip
def test_bytes_are_those_of_the_original_code_for_the_same_values(parity, tmp_path, archive,
                                                                  layer, k):  # fmt: skip
    zipfile.ZipFile(parity / archive).extractall(tmp_path)
    golden, name = tmp_path / layer, layer.split("/")[1]
    activations = np.loadtxt(golden / "activations_full_precision.csv", delimiter=",",
                             dtype=np.float32)  # fmt: skip
    n = len(activations)
    units = np.load(golden / "units.npy") if (golden / "units.npy").exists() else np.arange(n)
    found = LayerExemplars(
        layer=name,
        unit_kind="channel",
        units=torch.from_numpy(units),
        ids=torch.from_numpy(np.loadtxt(golden / "ids.csv", delimiter=",", dtype=np.int64)),
        activations=torch.from_numpy(activations),
        maps=torch.zeros(n, k, 4, 4),
        thresholds=torch.zeros(n),
        tallies={},
    )
    pixels = np.load(parity / "a3_images.npz")
    pool = Pool()
    pool.arrays = pixels[pixels.files[0]].transpose(0, 2, 3, 1)
    folder = write_npy(computed_of(found), pool, tmp_path / "npy") / name
    for file in ("ids.csv", "activations.csv"):
        assert (folder / file).read_bytes() == (golden / file).read_bytes()
    assert (folder / "units.npy").exists() == (golden / "units.npy").exists()
    if (golden / "units.npy").exists():
        assert (folder / "units.npy").read_bytes() == (golden / "units.npy").read_bytes()
    for file in ("images.npy", "masks.npy"):
        ours, theirs = (folder / file).read_bytes(), (golden / file).read_bytes()
        assert (ours[:128], len(ours)) == (theirs[:128], len(theirs))
    ours, theirs = (np.load(at / "images.npy").astype(int) for at in (folder, golden))
    assert np.abs(ours - theirs).max() <= 1  # those of 2022 were cut off to bytes


def test_the_projects_own_reader_reads_them(tmp_path):
    layers = [layer_of("conv1"), changed(layer_of("4", 3, seed=2), units=torch.tensor([1, 2, 9]))]
    found, pool = computed_of(*layers), Pool()
    folder = write_npy(found, pool, tmp_path / "npy", masks="2022", side=16)
    with Archive(folder, "my-own") as archive:
        assert set(archive.layers) == {"4", "conv1"}
        for layer in layers:
            read = archive.layers[layer.layer]
            assert (list(read.units), read.side) == (layer.units.tolist(), 16)
            np.testing.assert_array_equal(read.ids, layer.ids)
            np.testing.assert_allclose(read.activations, layer.activations, rtol=1e-5)
            masks = layer.masks(slice(None), (16, 16), "2022").numpy()
            for row, unit in enumerate(archive.units(layer.layer)):
                np.testing.assert_array_equal(unit.masks.astype(bool), masks[row])
                wanted = image_buffer.resize_nearest(pool.arrays[layer.ids[row, 0]], 16)
                np.testing.assert_array_equal(unit.images[0], wanted.transpose(2, 0, 1))


def test_both_forms_hold_the_same(two, tmp_path):
    from milannotations.published.convert import prepare

    write(two, Pool(), tmp_path / "out", "x", made_from={}, side=16)
    write_npy(two, Pool(), tmp_path / "npy", side=16)
    prepare("x", tmp_path / "npy", tmp_path / "converted")
    ours, theirs = (milannotations.load(tmp_path / at, split="test") for at in ("out", "converted"))
    for one, other in zip(ours, theirs, strict=True):
        assert [one[key] for key in ("layer", "unit")] == [other[key] for key in ("layer", "unit")]
        for column in ("images", "masks"):
            np.testing.assert_array_equal(np.stack(one[column]), np.stack(other[column]))


def test_folders_are_replaced_only_where_nothing_else_is_in_them(two, tmp_path):
    folder = tmp_path / "npy"
    write_npy(two, Pool(), folder)
    before = content(folder)
    write_npy(computed_of(layer_of("other")), Pool(), folder)
    assert {path.name for path in folder.iterdir()} == {"other"}
    write_npy(two, Pool(), folder)
    assert content(folder) == before
    (folder / "conv1" / "thesis.tex").write_text("years of work")
    with pytest.raises(InputError, match="holds conv1, which is no layer"):
        write_npy(two, Pool(), folder)
    (tmp_path / "file").write_text("x")
    with pytest.raises(InputError, match="is a file"):
        write_npy(two, Pool(), tmp_path / "file")
    (tmp_path / "file").unlink()
    shutil.rmtree(folder)
    assert [path.name for path in tmp_path.iterdir()] == []


def test_folders_are_whole_or_absent_and_a_kill_leaves_nothing_for_good(two, tmp_path):
    (tmp_path / "here").mkdir()
    folder = tmp_path / "here" / "npy"
    process = started(two, folder, tmp_path, "npy")
    killed(process, lambda: (folder.parent / ".npy.whole" / "conv1" / "images.npy").exists())
    assert not folder.exists()
    write_npy(two, Pool(), folder)
    write_npy(two, Pool(), tmp_path / "whole")
    assert content(folder) == content(tmp_path / "whole")
    assert [path.name for path in folder.parent.iterdir()] == ["npy"]
    folder.rename(folder.with_name(".npy.before"))  # as a stop between two renames leaves it
    with pytest.raises(InputError, match="was read before"):
        write_npy(two, Pool(bad={i: OSError("gone") for i in range(30)}), folder)
    assert content(folder) == content(tmp_path / "whole")


# ---- from a network to an edition


def test_a_network_its_exemplars_and_an_edition(tmp_path):
    from milannotations import exemplars

    rng = np.random.default_rng(0)
    folder = tmp_path / "val"
    folder.mkdir()
    for i in range(12):
        pixels = rng.integers(0, 256, (20, 24, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / f"{i:02}.png")
    torch.manual_seed(0)
    model = torch.nn.Sequential(torch.nn.Conv2d(3, 5, 3), torch.nn.ReLU())
    images = exemplars.open_images(folder, exemplars.Preprocessing.imagenet(16))
    found = exemplars.compute(model, images, ["0"], k=4)
    made_from = {"images": images.source, "preprocessing": images.preprocessing}
    write(found, images, tmp_path / "out", "own-val", made_from=made_from)
    assert validation.validate(tmp_path / "out") == []
    rows = milannotations.load(tmp_path / "out", split="test")
    assert len(rows) == 5
    ids = found.layers["0"].ids[0].tolist()
    assert rows[0]["source_ids"] == [images.source_id(i) for i in ids]
    np.testing.assert_array_equal(np.asarray(rows[0]["images"][0]), images.pixels(ids[0]))
    write_npy(found, images, tmp_path / "npy")
    with Archive(tmp_path / "npy", "own-val") as archive:
        assert archive.n_units == 5
    assert read_configs(tmp_path / "out")[0].counts == {"test": (5, 0)}
