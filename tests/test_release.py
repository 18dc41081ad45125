"""Conversion of published archives: what an edition holds, and what it survives."""

import csv
import errno
import io
import json
import os
import shutil
import signal
import subprocess
import sys
import time
import zipfile

import datasets
import numpy as np
import pyarrow.parquet
import pytest
from archived import SIDE, K, members, npy, write_folder, write_zip

from milannotations import InputError, Unit, catalog, schema, splits
from milannotations.editions import loading, resumable, validation
from milannotations.editions.configs import list_configs
from milannotations.published import annotations, convert, imagenet
from milannotations.published.convert import prepare
from milannotations.utils.files import sha256

ALEXNET, PLACES = "alexnet-imagenet", "alexnet-places365"

CONVERT = """
import sys, time
from milannotations.editions.shards import ShardWriter
from milannotations.published import convert
flush = ShardWriter._flush
def slow(self):
    flush(self)
    time.sleep(float(sys.argv[3]))
ShardWriter._flush = slow
convert.prepare("made-up", sys.argv[1], sys.argv[2], overwrite=True)
"""


@pytest.fixture(autouse=True)
def fresh_cache(tmp_path_factory, monkeypatch):
    """Give every test a cache of its own: what another test opened must not be found in it."""
    cache = tmp_path_factory.mktemp("cache")
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", cache)


@pytest.fixture
def zipped(tmp_path):
    """An archive of two layers of somebody's own network."""
    return write_zip(tmp_path / "made-up.zip", members(per_unit=2))


@pytest.fixture(scope="module")
def both(parity, tmp_path_factory):
    """An edition of the two archives that the code of 2022 made."""
    out = tmp_path_factory.mktemp("edition") / "release"
    for name in (ALEXNET, PLACES):
        prepare(name, parity / f"a4_{name}.zip", out, unlisted=True)
    return out


def content(folder):
    """Return everything in a folder, hidden files too, with its bytes."""
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file()
    }


def rows_of(out, config):
    loaded = datasets.load_dataset(str(out), config)
    rows = [row for split in loaded.values() for row in split]
    return {Unit(row["network"], row["layer"], row["unit"]): row for row in rows}


# ---- what the code of 2022 made


@pytest.mark.parametrize("name", [ALEXNET, PLACES])
def test_every_pixel_mask_id_and_description_is_that_of_the_original(parity, both, name):
    zipped = zipfile.ZipFile(parity / f"a4_{name}.zip")
    rows = rows_of(both, name)
    text = io.StringIO(zipped.read("annotations.csv").decode(), newline="")
    written = {}
    for cells in csv.DictReader(text):
        unit = Unit(name, cells["layer"], int(cells["unit"]))
        written.setdefault(unit, []).append(cells["summary"])
    assert {unit: row["descriptions"] for unit, row in rows.items()} == written
    for layer in {unit.layer for unit in rows}:
        masks = np.load(io.BytesIO(zipped.read(f"{layer}/masks.npy")))
        ids = zipped.read(f"{layer}/ids.csv").decode().split()
        images = None
        if "places" in name:
            images = np.load(io.BytesIO(zipped.read(f"{layer}/images.npy")))
        for unit in range(len(masks)):
            row = rows[Unit(name, layer, unit)]
            assert {mask.mode for mask in row["masks"]} == {"1"}
            np.testing.assert_array_equal(np.stack(row["masks"]), masks[unit, :, 0].astype(bool))
            assert row["source_ids"] == ids[unit].split(",")
            assert (row["activations"], row["threshold"]) == (None, None)
            assert (row["unit_kind"], row["polarity"]) == ("channel", "+")
            if images is None:
                assert row["images"] is None
            else:
                found = np.stack([np.asarray(image) for image in row["images"]])
                np.testing.assert_array_equal(found, images[unit].transpose(0, 2, 3, 1))


def test_layers_of_digits_keep_two_three_and_four_descriptions(both):
    rows = rows_of(both, PLACES)
    assert {unit.layer for unit in rows} == {"conv1", "0", "4"}
    assert {len(row["descriptions"]) for row in rows.values()} == {2, 3, 4}


def test_pixels_of_imagenet_are_those_that_the_masks_were_made_on(parity, tmp_path):
    zipfile.ZipFile(parity / "a4_imagenet_val_source.zip").extractall(tmp_path / "val")
    path = parity / f"a4_{ALEXNET}.zip"
    golden = np.load(parity / "a4_golden_merge.npz")
    for squash, expected in ((True, "merged_by_original"), (False, "aligned_resize37_crop32")):
        pixels = imagenet.ImageNetImages(tmp_path / "val", legacy_squash=squash)
        out = tmp_path / expected
        made = prepare(ALEXNET, path, out, images=pixels, unlisted=True)
        assert made.images == "lossless WebP"
        rows = rows_of(out, ALEXNET)
        for unit in range(4):
            row = rows[Unit(ALEXNET, "conv1", unit)]
            found = np.stack([np.asarray(image) for image in row["images"]])
            wanted = golden[f"{expected}/conv1"][unit].transpose(0, 2, 3, 1).astype(int)
            assert np.abs(found.astype(int) - wanted).max() <= 1


def test_every_config_and_union_opens_streams_and_filters(both):
    known = list_configs(both)
    assert list(known) == [ALEXNET, PLACES, "alexnet"]
    for config, parts in known.items():
        opened = datasets.load_dataset(str(both), config)
        assert list(opened) == parts
        for split, rows in opened.items():
            assert rows.features == schema.features()
            streamed = datasets.load_dataset(str(both), config, split=split, streaming=True)
            assert streamed.features == schema.features()
            keys = ("network", "layer", "unit", "descriptions")
            assert [[row[k] for k in keys] for row in streamed] == [
                [row[k] for k in keys] for row in rows
            ]
    layer = datasets.load_dataset(
        str(both), "alexnet", split="train", filters=[("layer", "==", "4")]
    )
    assert layer["unit"] == [0, 1, 2, 3]
    by_hand = datasets.load_dataset(str(both), "alexnet", split="train").filter(
        lambda name: name == "4", input_columns="layer"
    )
    assert len(by_hand) == 4


def test_a_union_is_its_members_one_after_the_other(both):
    union = loading.load(both, "alexnet", columns=["network", "layer", "unit"])
    parts = [
        loading.load(both, c, "train", columns=["network", "layer", "unit"])
        for c in (ALEXNET, PLACES)
    ]
    assert list(union["train"]) == [row for part in parts for row in part]
    assert not (both / "alexnet").exists()


def test_the_splits_are_the_official_ones(both):
    test = set(splits.within(ALEXNET).test)
    for split in ("train", "test"):
        for row in loading.load(both, ALEXNET, split, columns=["network", "layer", "unit"]):
            assert (Unit(**row) in test) == (split == "test")


def test_a_checked_edition_has_nothing_to_say(both):
    assert validation.validate(both) == []


def test_the_card_says_what_is_in_it(both):
    card = (both / "README.md").read_text(encoding="utf-8")
    assert f"| {ALEXNET} | none | 1-bit PNG | a4_alexnet-imagenet.zip, 5,840 bytes |" in card
    assert f"| {PLACES} | lossless WebP |" in card
    assert "Unions of these configs, without copies: alexnet." in card
    assert "partial: 12 of 1,152 published units" in card


def test_checksums_statistics_and_how_it_was_made_lie_beside(both):
    folder = both / PLACES
    sums = json.loads((folder / "checksums.json").read_text())
    assert sorted(sums) == sorted(path.name for path in folder.glob("*.parquet"))
    assert all(sha256(folder / name) == digest for name, digest in sums.items())
    assert json.loads((folder / "statistics.json").read_text())["units"] == 12
    made = json.loads((folder / "prepared.json").read_text())
    assert made["source"]["sha256"].startswith("5c93fb6e")
    assert made["layers"]["0"] == {"units": 4, "k": 15, "side": 32}


# ---- own archives and settings


def test_what_came_of_it_is_returned(zipped, tmp_path):
    made = prepare("made-up", zipped, tmp_path / "out")
    assert made.units == {"train": 21, "test": 2}
    assert (made.descriptions, made.images, made.notes) == (46, "lossless WebP", ())
    assert set(splits.partition([Unit("made-up", "conv1", i) for i in range(12)]).test) < set(
        rows_of(tmp_path / "out", "made-up")
    )


def test_a_network_without_descriptions_has_one_split(tmp_path):
    path = write_zip(tmp_path / "a.zip", members(annotations=False))
    assert prepare("made-up", path, tmp_path / "out").units == {"test": 23}
    assert list_configs(tmp_path / "out") == {"made-up": ["test"]}
    assert {
        tuple(row["descriptions"]) for row in rows_of(tmp_path / "out", "made-up").values()
    } == {()}
    assert validation.validate(tmp_path / "out") == []


def test_a_zip_and_its_folder_give_the_same_shards(zipped, tmp_path):
    prepare("made-up", zipped, tmp_path / "a")
    prepare("made-up", write_folder(tmp_path / "unpacked", members(per_unit=2)), tmp_path / "b")
    sums = [(tmp_path / out / "made-up" / "checksums.json").read_bytes() for out in "ab"]
    assert sums[0] == sums[1]


def test_activations_and_own_unit_indices_are_kept(tmp_path):
    made = members({"conv1": 2}, annotations=False)
    made["conv1/units.npy"] = npy(np.array([3, 70]))
    made["conv1/activations.csv"] = b"3.00000e+00,2.50000e+00,1.00000e+00\n" * 2
    prepare("made-up", write_zip(tmp_path / "a.zip", made), tmp_path / "out")
    rows = rows_of(tmp_path / "out", "made-up")
    assert [unit.unit for unit in rows] == [3, 70]
    assert rows[Unit("made-up", "conv1", 3)]["activations"] == [3, 2.5, 1]


def test_lossy_pictures_are_smaller_and_the_card_says_so(tmp_path):
    path = write_zip(tmp_path / "a.zip", members({"conv1": 4}, side=64))
    prepare("made-up", path, tmp_path / "a")
    made = prepare("made-up", path, tmp_path / "b", quality=80)
    assert made.images == "WebP of quality 80 (lossy)"
    assert made.images in (tmp_path / "b" / "README.md").read_text()
    sizes = [sum(map(len, content(tmp_path / out / "made-up").values())) for out in "ab"]
    assert sizes[1] < sizes[0] / 2
    with pytest.raises(InputError, match="Expected 1 to 100"):
        prepare("made-up", path, tmp_path / "b", quality=0)


def test_a_layer_is_cut_into_shards_in_order(zipped, tmp_path, monkeypatch):
    monkeypatch.setattr(convert, "SHARD_BYTES", 1)
    prepare("made-up", zipped, tmp_path / "out")
    shards = sorted(path.name for path in (tmp_path / "out" / "made-up").glob("train-conv1-*"))
    assert shards == [f"train-conv1-{i:05d}.parquet" for i in range(3)]
    train = loading.load(tmp_path / "out", split="train", columns=["layer", "unit"])
    keys = [(row["layer"], row["unit"]) for row in train]
    assert keys == sorted(keys)
    assert validation.validate(tmp_path / "out") == []


def test_layers_whose_names_begin_alike_are_kept_apart(tmp_path):
    names = {"conv1": 2, "conv1-a": 2, "conv1-00000": 2, "blocks.0.mlp.fc1": 2, "0": 2}
    path = write_zip(tmp_path / "a.zip", members(names, annotations=False))
    prepare("made-up", path, tmp_path / "out")
    assert len(rows_of(tmp_path / "out", "made-up")) == 10
    assert validation.validate(tmp_path / "out") == []


class Fake:
    """Grey pictures."""

    def __init__(self, count=30, side=SIDE):
        self.count, self.side = count, side

    def crops(self, ids, side):
        if max(ids) >= self.count:
            raise InputError("there is no such picture")
        return (np.full((self.side, self.side, 3), i, dtype=np.uint8) for i in ids)


def test_pixels_are_asked_for_where_the_archive_has_none(tmp_path):
    made = members(images=False)
    made |= {n: d for n, d in members().items() if n == "conv2/images.npy"}
    path = write_zip(tmp_path / "a.zip", made)
    assert prepare("made-up", path, tmp_path / "a").images == "lossless WebP; none in conv1"
    prepare("made-up", path, tmp_path / "b", images=Fake())
    for unit, row in rows_of(tmp_path / "b", "made-up").items():
        grey = [str(np.asarray(image).max()) for image in row["images"]]
        assert (grey == row["source_ids"]) == (unit.layer == "conv1")
    for wrong in (Fake(count=3), Fake(side=8)):
        with pytest.raises(InputError, match=r"no such picture|expected \(16, 16, 3\)"):
            prepare("made-up", path, tmp_path / "c", images=wrong)


def test_dino_masks_are_marked_and_moved_back_when_asked(tmp_path):
    layers = dict.fromkeys(catalog.NETWORKS[convert.DINO].layers, 2)
    made = members(layers, images=False)
    path = write_zip(tmp_path / "dino.zip", made)
    bad = prepare(convert.DINO, path, tmp_path / "a", unlisted=True)
    good = prepare(convert.DINO, path, tmp_path / "b", unlisted=True, repair_dino_shift=True)
    assert "They are kept as published" in bad.notes[0]
    assert "were moved back" in good.notes[0]
    for out, note in (("a", bad.notes[0]), ("b", good.notes[0])):
        assert note in (tmp_path / out / "README.md").read_text()
    masks = np.load(io.BytesIO(made["blocks.10.mlp.fc1/masks.npy"]))[1, :, 0].astype(bool)
    unit = Unit(convert.DINO, "blocks.10.mlp.fc1", 1)
    kept, moved = (np.stack(rows_of(tmp_path / o, convert.DINO)[unit]["masks"]) for o in "ab")
    np.testing.assert_array_equal(kept, masks)
    np.testing.assert_array_equal(moved[:, :8, :8], masks[:, :8, 8:])  # 2 x 2 patches
    np.testing.assert_array_equal(moved[:, :8, 8:], masks[:, 8:, :8])
    assert not moved[:, 8:, 8:].any()
    assert rows_of(tmp_path / "a", convert.DINO)[unit]["unit_kind"] == "token"
    with pytest.raises(InputError, match="only to dino_vits8-imagenet"):
        prepare("made-up", path, tmp_path / "c", repair_dino_shift=True)


def test_text_and_exemplars_stand_side_by_side(zipped, tiny_annotations, tmp_path):
    text = tiny_annotations([("conv1", i, f"red {i}") for i in range(20)])
    annotations.build_edition(text, "text-only", tmp_path / "out")
    prepare("made-up", zipped, tmp_path / "out")
    annotations.build_edition(text, "more-text", tmp_path / "out")
    assert list(list_configs(tmp_path / "out")) == ["made-up", "more-text", "text-only"]
    assert validation.validate(tmp_path / "out") == []


@pytest.mark.parametrize("name", ["base", "alexnet", "not-alexnet-imagenet"])
def test_no_network_is_called_as_a_union(zipped, tiny_annotations, tmp_path, name):
    with pytest.raises(InputError, match="is the name of the union of"):
        prepare(name, zipped, tmp_path / "out", unlisted=True)
    with pytest.raises(InputError, match="is the name of the union of"):
        annotations.build_edition(tiny_annotations([("a", 0, "b")]), name, tmp_path / "out")


def test_select_reads_only_what_it_is_asked_for(zipped, tmp_path, monkeypatch):
    prepare("made-up", zipped, tmp_path / "out")
    rows = rows_of(tmp_path / "out", "made-up")
    monkeypatch.setattr(datasets, "load_dataset", None)
    found = loading.select(tmp_path / "out", count=9, seed=3)
    assert found.features == schema.features()
    assert len(found) == 9
    for row in found:
        same = rows[Unit(row["network"], row["layer"], row["unit"])]
        np.testing.assert_array_equal(np.stack(row["images"]), np.stack(same["images"]))
    assert loading.select(tmp_path / "out", layer="conv2", unit=3)[0]["unit"] == 3
    assert len(loading.select(tmp_path / "out", split="test")) == 2
    with pytest.raises(InputError, match=r"No split 'valid'.*train, test"):
        loading.select(tmp_path / "out", split="valid")
    (tmp_path / "out" / "made-up" / "test-conv1-00000.parquet").unlink()
    with pytest.raises(InputError, match="no such file"):
        loading.select(tmp_path / "out", count=1)


# ---- faults


def test_a_config_that_is_there_is_replaced_only_when_asked(zipped, tmp_path):
    out = tmp_path / "out"
    prepare("made-up", zipped, out)
    before = content(out)
    with pytest.raises(InputError, match="has made-up already"):
        prepare("made-up", zipped, out, quality=50)
    assert content(out) == before
    prepare("made-up", zipped, out, quality=50, overwrite=True)
    assert content(out) != before
    prepare("made-up", zipped, out, overwrite=True)
    assert content(out) == before


def test_a_damaged_archive_leaves_nothing_to_open(tmp_path):
    made = members({"conv1": 4, "conv2": 4})
    made["conv2/masks.npy"] = npy(np.full((4, K, 1, SIDE, SIDE), 2, dtype=np.uint8))
    with pytest.raises(InputError, match="expected 0 and 1, got 2"):
        prepare("made-up", write_zip(tmp_path / "a.zip", made), tmp_path / "out")
    with pytest.raises(InputError, match=r"README\.md"):
        loading.load(tmp_path / "out")


def test_an_archive_that_is_refused_leaves_no_folder(tmp_path):
    with pytest.raises(InputError):
        prepare("made-up", tmp_path / "absent.zip", tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("at", [1, 4, 6])
def test_a_full_disk_keeps_finished_layers_and_says_so(zipped, tmp_path, monkeypatch, at):
    prepare("made-up", zipped, tmp_path / "whole")
    write, calls = pyarrow.parquet.ParquetWriter.write_table, []

    def full(self, *args, **kwargs):
        calls.append(1)
        if len(calls) == at:
            raise OSError(errno.ENOSPC, "No space left on device")
        return write(self, *args, **kwargs)

    with monkeypatch.context() as patched:
        patched.setattr(pyarrow.parquet.ParquetWriter, "write_table", full)
        with pytest.raises(InputError, match=r"No space is left.*run the same command again"):
            prepare("made-up", zipped, tmp_path / "out")
    with pytest.raises(InputError, match=r"README\.md"):
        loading.load(tmp_path / "out")
    prepare("made-up", zipped, tmp_path / "out")
    assert content(tmp_path / "out" / "made-up") == content(tmp_path / "whole" / "made-up")
    assert [p.name for p in (tmp_path / "out").iterdir() if p.name.startswith(".")] == []


def interrupted(zipped, out, monkeypatch):
    """Stop a conversion in its second layer."""
    rows = convert._rows

    def stop(archive, layer, *args):
        if layer.name == "conv2":
            raise KeyboardInterrupt
        return rows(archive, layer, *args)

    with monkeypatch.context() as patched:
        patched.setattr(convert, "_rows", stop)
        with pytest.raises(KeyboardInterrupt):
            prepare("made-up", zipped, out)


def converted(monkeypatch):
    """Return a list that will hold the layers that are converted from now on."""
    rows, seen = convert._rows, []

    def note(archive, layer, *args):
        seen.append(layer.name)
        return rows(archive, layer, *args)

    monkeypatch.setattr(convert, "_rows", note)
    return seen


def test_a_run_goes_on_at_the_layer_it_was_at(zipped, tmp_path, monkeypatch):
    prepare("made-up", zipped, tmp_path / "whole")
    interrupted(zipped, tmp_path / "out", monkeypatch)
    seen = converted(monkeypatch)
    prepare("made-up", zipped, tmp_path / "out")
    assert seen == ["conv2"]
    assert content(tmp_path / "out" / "made-up") == content(tmp_path / "whole" / "made-up")


@pytest.mark.parametrize("what", ["settings", "source", "shard", "journal"])
def test_a_run_starts_over_where_anything_changed(zipped, tmp_path, monkeypatch, what):
    out, options = tmp_path / "out", {}
    interrupted(zipped, out, monkeypatch)
    work = out / ".made-up.unfinished"
    if what == "settings":
        options = {"quality": 90}
    elif what == "source":
        write_zip(zipped, members(per_unit=3))
    elif what == "shard":
        (work / "whole" / "train-conv1-00000.parquet").write_bytes(b"cut")
    else:
        (work / "journal.json").write_bytes(b"{")
    seen = converted(monkeypatch)
    prepare("made-up", zipped, out, **options)
    assert seen == ["conv1", "conv2"]
    assert validation.validate(out) == []


@pytest.mark.parametrize("point", ["whole", "before", "card", "clearing"])
@pytest.mark.parametrize("replaced", [False, True])
def test_a_run_stopped_at_the_end_loses_nothing(zipped, tmp_path, monkeypatch, point, replaced):
    out = tmp_path / "out"
    prepare("made-up", zipped, tmp_path / "whole")
    if replaced:
        prepare("made-up", zipped, out, quality=50)

    def stop(*_):
        raise KeyboardInterrupt

    rename = resumable.Path.rename

    def stop_at(path, target):
        if path.name == "whole" and point == "before":
            stop()
        rename(path, target)
        if path.name == "whole" and point == "whole":
            stop()

    with monkeypatch.context() as patched:
        patched.setattr(resumable.Path, "rename", stop_at)
        if point == "card":
            patched.setattr(resumable, "write_card", stop)
        if point == "clearing":
            patched.setattr(resumable.UnfinishedConfig, "clear", stop)
        with pytest.raises(KeyboardInterrupt):
            prepare("made-up", zipped, out, overwrite=True)
    seen = converted(monkeypatch)
    prepare("made-up", zipped, out, overwrite=True)
    assert seen == []
    assert content(out / "made-up") == content(tmp_path / "whole" / "made-up")
    assert not (out / ".made-up.unfinished").exists()
    assert validation.validate(out) == []


def started(zipped, out, pause):
    return subprocess.Popen(
        [sys.executable, "-c", CONVERT, str(zipped), str(out), str(pause)],
        stderr=subprocess.PIPE,
        text=True,
    )


def wait_for(found, process):
    for _ in range(1200):
        if found():
            return
        assert process.poll() is None, process.stderr.read()
        time.sleep(0.05)
    raise AssertionError("waited for a minute")


def test_a_kill_during_a_shard_changes_nothing_of_the_result(zipped, tmp_path, monkeypatch):
    prepare("made-up", zipped, tmp_path / "whole")
    out = tmp_path / "out"
    whole = out / ".made-up.unfinished" / "whole"
    process = started(zipped, out, 0.4)
    wait_for(lambda: list(whole.glob("train-conv2-*")), process)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    process.stderr.close()
    assert not (out / "made-up").exists()
    with pytest.raises(InputError, match=r"README\.md"):
        loading.load(out)
    seen = converted(monkeypatch)
    prepare("made-up", zipped, out)
    assert seen == ["conv2"]
    assert content(out / "made-up") == content(tmp_path / "whole" / "made-up")
    assert {path.name for path in out.iterdir()} == {"made-up", "README.md"}


def test_a_second_process_is_told_to_wait(zipped, tmp_path):
    out = tmp_path / "out"
    process = started(zipped, out, 1)
    wait_for(lambda: list(out.glob(".made-up.unfinished/whole/*.parquet")), process)
    with pytest.raises(InputError, match=rf"Another process \({process.pid}\).*Wait until"):
        prepare("made-up", zipped, out)
    prepare("beside", zipped, out)  # another network is no conflict
    assert process.wait(60) == 0, process.stderr.read()
    process.stderr.close()
    assert list(list_configs(out)) == ["beside", "made-up"]
    assert validation.validate(out) == []


# ---- what `check` finds


@pytest.fixture
def made(zipped, tmp_path):
    prepare("made-up", zipped, tmp_path / "out")
    return tmp_path / "out"


def spoilt(path, change):
    """Rewrite a shard's rows."""
    rows = pyarrow.parquet.read_table(path)
    changed = rows.to_pylist()
    change(changed)
    table = rows.schema.empty_table().from_pylist(changed, schema=rows.schema)
    pyarrow.parquet.write_table(table, path)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda rows: rows[0]["images"][1].update(bytes=b"RIFF"), "an image does not decode"),
        (lambda rows: rows[0]["masks"][1].update(bytes=None), "a mask does not decode"),
        (lambda rows: rows[0].update(masks=rows[0]["images"]), "a mask is RGB, not 1"),
        (lambda rows: rows[0]["masks"].pop(), "lists of unequal length: [2, 3]"),
        (lambda rows: rows[0].update(activations=[]), "an absent list is empty"),
        (lambda rows: rows[0].update(descriptions=None), "descriptions is null"),
        (lambda rows: rows[0].update(unit=rows[1]["unit"]), "repeated units"),
        (lambda rows: rows.pop(), "layer conv1 has 11 units; expected 12"),
    ],
)
def test_check_finds_what_is_wrong_with_a_row(made, change, said):
    path = made / "made-up" / "train-conv1-00000.parquet"
    spoilt(path, change)
    findings = validation.validate(made)
    assert any("its sha256 differs" in found for found in findings)
    assert any(said in found for found in findings), findings


def test_check_finds_pictures_of_another_size_than_their_masks(made, tmp_path):
    other = prepare("other", write_zip(tmp_path / "b.zip", members({"conv1": 12}, side=8)), made)
    strange = pyarrow.parquet.read_table(other.folder / "train-conv1-00000.parquet").to_pylist()
    path = made / "made-up" / "train-conv1-00000.parquet"
    spoilt(path, lambda rows: rows[0].update(masks=strange[0]["masks"]))
    assert any("differ in size" in found for found in validation.validate(made))


def test_check_finds_files_that_are_gone_cut_or_strange(made):
    folder = made / "made-up"
    (folder / "test-conv1-00000.parquet").unlink()
    assert any("no such file" in found for found in validation.validate(made))
    prepared = folder / "train-conv2-00000.parquet"
    prepared.write_bytes(prepared.read_bytes()[:-50])
    shutil.copy(folder / "train-conv1-00000.parquet", folder / "test-conv1-00000.parquet")
    findings = validation.validate(made)
    assert any("train-conv2-00000.parquet is damaged" in found for found in findings)
    assert any("repeated units" in found for found in findings)


def test_check_finds_other_columns(made):
    path = made / "made-up" / "train-conv1-00000.parquet"
    table = pyarrow.parquet.read_table(path)
    pyarrow.parquet.write_table(table.drop(["masks"]), path)
    assert any("masks is missing" in found for found in validation.validate(made))


def test_check_finds_units_on_the_wrong_side_and_beyond_the_catalog(tmp_path):
    path = write_zip(tmp_path / "a.zip", members({"conv1": 64}))
    prepare(ALEXNET, path, tmp_path / "out", unlisted=True)
    assert validation.validate(tmp_path / "out") == []
    shard = tmp_path / "out" / ALEXNET / "train-conv1-00000.parquet"
    spoilt(shard, lambda rows: rows[0].update(unit=splits.within(ALEXNET).test[0].unit))
    findings = validation.validate(tmp_path / "out")
    assert any("wrong split" in found for found in findings)


def test_the_embedded_edition_is_whole():
    assert validation.validate("mini") == []


def test_a_lock_removes_its_file_and_the_folder_that_it_made(tmp_path):
    there = tmp_path / "there"
    there.mkdir()
    for folder in (there, tmp_path / "new"):
        with resumable.hold_lock(folder, "the card"):
            assert (folder / ".the-card.lock").read_text() == str(os.getpid())
            with (
                pytest.raises(InputError, match=rf"Another process \({os.getpid()}\)"),
                resumable.hold_lock(folder, "the card"),
            ):
                pass
            with resumable.hold_lock(folder, "another"):
                pass
            assert (folder / ".the-card.lock").exists()
    assert list(there.iterdir()) == []
    assert not (tmp_path / "new").exists()
