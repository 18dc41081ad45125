"""Pixels from an ImageFolder, beside torchvision's and beside the original merge."""

import csv
import io
import random
import threading
import zipfile

import numpy as np
import pytest
from PIL import Image

from leaderboard import doctor
from milannotations import InputError
from milannotations.published import imagenet
from milannotations.published.imagenet import (
    ImageNetImages,
    check_folder,
    crop,
    list_images,
    shorter_side,
)


def picture(seed, size=(50, 40), mode="RGB"):
    noise = np.random.default_rng(seed).integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)
    return Image.fromarray(noise).convert(mode)


def fill(root, classes=3, each=4, suffix="JPEG", size=None):
    """Write a folder like the validation set, with sizes that differ."""
    for number in range(1, classes * each + 1):
        folder = root / f"n{(number - 1) % classes:08d}"
        folder.mkdir(parents=True, exist_ok=True)
        shape = size or (40 + number % 7, 36 + number % 5)
        picture(number, shape).save(folder / f"ILSVRC2012_val_{number:08d}.{suffix}")
    return root


@pytest.fixture
def folder(tmp_path):
    return fill(tmp_path / "val", suffix="png")


# --- listing and cutting, beside torchvision


def test_the_order_is_that_of_image_folder(folder):
    from torchvision.datasets import ImageFolder

    (folder / "n00000000" / "deeper").mkdir()
    picture(0).save(folder / "n00000000" / "deeper" / "a.png")
    picture(0).save(folder / "n00000001" / "._hidden.PNG")
    (folder / "n00000002" / "notes.txt").write_text("x")
    (folder / "stray.png").write_bytes(b"")
    (folder / "n00000003").symlink_to(folder / "n00000001")
    theirs = [path for path, _ in ImageFolder(folder).samples]
    assert [str(folder / path) for path in list_images(folder)] == theirs


@pytest.mark.parametrize("side", [32, 64, 224, 227])
@pytest.mark.parametrize(
    "size", [(50, 40), (333, 500), (500, 375), (256, 256), (37, 90), (301, 64)]
)
def test_the_cut_is_that_of_torchvision(side, size):
    from torchvision import transforms

    source = picture(1, size)
    aligned = transforms.Compose(
        [transforms.Resize(shorter_side(side)), transforms.CenterCrop(side)]
    )
    squashed = transforms.Resize((side, side))
    np.testing.assert_array_equal(crop(source, side), np.asarray(aligned(source)))
    np.testing.assert_array_equal(
        crop(source, side, legacy_squash=True), np.asarray(squashed(source))
    )


@pytest.mark.parametrize("mode", ["L", "CMYK", "P", "1", "LA", "RGBA", "I;16"])
def test_colours_are_those_of_image_folders_loader(folder, mode):
    from torchvision.datasets.folder import default_loader

    path = folder / "n00000000" / "ILSVRC2012_val_00000000.tiff"
    made = (
        picture(3, mode="L").convert("I").convert(mode) if mode == "I;16" else picture(3, mode=mode)
    )
    if mode == "P":
        path = path.with_suffix(".png")
    made.save(path)
    [got] = ImageNetImages(folder).crops([0], 32)
    np.testing.assert_array_equal(got, crop(default_loader(path), 32))


# --- parity with the original merge


@pytest.fixture(scope="module")
def sources(parity, tmp_path_factory):
    root = tmp_path_factory.mktemp("sources")
    with zipfile.ZipFile(parity / "a4_imagenet_val_source.zip") as archive:
        archive.extractall(root)
    return root


def layer_ids(parity, layer):
    with zipfile.ZipFile(parity / "a4_alexnet-imagenet.zip") as archive:
        text = archive.read(f"{layer}/ids.csv").decode()
    return [int(cell) for row in csv.reader(io.StringIO(text)) for cell in row]


def merged(golden):
    """Return (unit, k, 3, s, s) as (unit * k, s, s, 3)."""
    return golden.reshape(-1, *golden.shape[2:]).transpose(0, 2, 3, 1)


@pytest.mark.parametrize("layer", ["conv1", "conv2", "conv3"])
def test_legacy_squash_is_the_original_merge(parity, sources, layer):
    golden = np.load(parity / "a4_golden_merge.npz")[f"merged_by_original/{layer}"]
    pixels = ImageNetImages(sources, legacy_squash=True)
    got = np.stack(list(pixels.crops(layer_ids(parity, layer), 32)))
    np.testing.assert_array_equal(got, merged(golden))


def test_the_aligned_merge_is_exact(parity, sources):
    golden = np.load(parity / "a4_golden_merge.npz")["aligned_resize37_crop32/conv1"]
    ids = layer_ids(parity, "conv1")
    pixels = ImageNetImages(sources)
    got = np.stack(list(pixels.crops(ids, 32)))
    np.testing.assert_array_equal(got, merged(golden))
    assert pixels.decoded == len(set(ids)) < len(ids)


def test_the_aligned_merge_at_36_is_exact(parity, sources, monkeypatch):
    golden = np.load(parity / "a4_golden_merge.npz")["aligned_resize36_crop32/conv1"]
    monkeypatch.setattr(imagenet, "shorter_side", lambda _: 36)
    got = np.stack(list(ImageNetImages(sources).crops(layer_ids(parity, "conv1"), 32)))
    np.testing.assert_array_equal(got, merged(golden))


# --- many at once


@pytest.mark.parametrize("workers", [1, 2, 7])
def test_order_does_not_depend_on_workers(folder, workers):
    ids = random.Random(0).choices(range(12), k=200)
    pixels = ImageNetImages(folder, workers=workers)
    got = list(pixels.crops(ids, 32))
    alone = [crop(Image.open(folder / path).convert("RGB"), 32) for path in list_images(folder)]
    assert len(got) == 200
    assert all(np.array_equal(one, alone[index]) for one, index in zip(got, ids, strict=True))
    assert pixels.decoded == len(set(ids))
    assert got[0].dtype == np.uint8
    assert not got[0].flags.writeable


def test_what_is_kept_serves_later_calls(folder):
    pixels = ImageNetImages(folder)
    for _ in range(3):
        assert len(list(pixels.crops([1, 2, 1, 3], 32))) == 4
    assert pixels.decoded == 3
    list(pixels.crops([1], 16))
    assert pixels.decoded == 4


@pytest.mark.parametrize("kept", [0, 1, 3, 11])
def test_memory_is_bounded_and_each_is_decoded_once(folder, monkeypatch, kept):
    monkeypatch.setattr(imagenet, "CACHE_BYTES", kept * 32 * 32 * 3)
    alone = [crop(Image.open(folder / path).convert("RGB"), 32) for path in list_images(folder)]
    ids = [*range(12), *range(12), *random.Random(0).choices(range(12), k=200)]
    pixels = ImageNetImages(folder, workers=1)
    for number, got in enumerate(pixels.crops(ids, 32)):
        assert len(pixels._cache) <= kept
        assert np.array_equal(got, alone[ids[number]])
        assert not got.flags.writeable
    assert pixels.decoded == 12


def test_slots_of_the_file_are_used_again():
    spilt = imagenet._Spill(4)
    pictures = [np.full((4, 4, 3), value, np.uint8) for value in range(9)]
    for round_ in range(3):
        for index in range(round_ * 3, round_ * 3 + 3):
            spilt.put(index, pictures[index])
        for index in range(round_ * 3, round_ * 3 + 3):
            assert np.array_equal(spilt.get(index, last=False), pictures[index])
            assert np.array_equal(spilt.get(index, last=True), pictures[index])
            assert spilt.get(index, last=True) is None
    assert spilt.file.seek(0, 2) == 3 * 48
    spilt.close()


def test_without_room_for_the_file_pictures_are_decoded_again(folder, monkeypatch):
    def full(**options):
        raise OSError("no room")

    monkeypatch.setattr(imagenet, "CACHE_BYTES", 3 * 32 * 32 * 3)
    monkeypatch.setattr(imagenet.tempfile, "TemporaryFile", full)
    pixels = ImageNetImages(folder, workers=1)
    got = list(pixels.crops([*range(12), *range(12)], 32))
    assert pixels.decoded == 24
    assert all(np.array_equal(got[i], got[i + 12]) for i in range(12))


def test_a_picture_pushed_out_while_it_waits_is_still_right(folder, monkeypatch):
    monkeypatch.setattr(imagenet, "CACHE_BYTES", 32 * 32 * 3)
    pixels = ImageNetImages(folder, workers=2)
    [first] = pixels.crops([0], 32)
    got = list(pixels.crops([1, 2, 3, 4, 0, 5, 0], 32))
    assert np.array_equal(got[4], first)
    assert np.array_equal(got[6], first)


def test_stopping_early_leaves_no_threads(folder):
    before = threading.active_count()
    stream = ImageNetImages(folder).crops(list(range(12)), 32)
    next(stream)
    stream.close()
    assert threading.active_count() == before


def test_no_ids(folder):
    assert list(ImageNetImages(folder).crops([], 32)) == []


# --- what goes wrong


def test_an_id_beyond_the_folder(folder):
    with pytest.raises(
        InputError, match=r"0 to 11, but there are ids such as -1, 12\. .*milan doctor"
    ):
        ImageNetImages(folder).crops([3, 12, -1], 32)


@pytest.mark.parametrize("keep", [0, 10, 60, -20])
def test_a_damaged_picture(tmp_path, keep):
    root = fill(tmp_path / "val")
    path = root / list_images(root)[5]
    path.write_bytes(path.read_bytes()[:keep])
    stream = ImageNetImages(root).crops([4, 5], 32)
    next(stream)
    with pytest.raises(InputError, match=rf"{path.name} \(id 5\) cannot be read"):
        next(stream)


def test_a_picture_of_too_many_pixels(folder, monkeypatch):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100)
    with pytest.raises(InputError, match=r"\(id 0\) cannot be read: .*exceeds limit"):
        list(ImageNetImages(folder).crops([0], 32))


def test_a_picture_that_went_away(folder):
    pixels = ImageNetImages(folder)
    (folder / pixels.paths[2]).unlink()
    with pytest.raises(InputError, match=r"\(id 2\) was removed"):
        list(pixels.crops([2], 32))


def test_no_folder_and_no_pictures(tmp_path):
    with pytest.raises(InputError, match="No such folder"):
        ImageNetImages(tmp_path / "nowhere")
    with pytest.raises(InputError, match="no class folders"):
        ImageNetImages(tmp_path)


# --- what can be wrong with a folder


def wrong(findings):
    return {finding.name: finding.message for finding in findings if not finding.passed}


def test_a_good_folder(folder):
    found = check_folder(folder, (3, 4))
    assert wrong(found) == {}
    assert [f.name for f in found] == ["layout", "classes", "counts", "names", "strays", "readable"]
    assert "12 images drawn" in found[-1].message


def test_the_shape_of_the_validation_set_is_expected(folder):
    says = wrong(check_folder(folder))
    assert "3 class folders; expected 1,000" in says["classes"]
    assert "12 images; expected 50,000; not 50 in n00000000 (4)" in says["counts"]


@pytest.mark.parametrize("inner", ["val", "imagenet/val", "data/ILSVRC/val"])
def test_a_folder_too_far_out(tmp_path, inner):
    fill(tmp_path / inner)
    (tmp_path / inner).with_name("devkit").mkdir()
    says = wrong(check_folder(tmp_path, (3, 4)))
    assert says["layout"].endswith(f"--images {tmp_path / inner}")


def test_val_is_found_before_train(tmp_path):
    fill(tmp_path / "train")
    fill(tmp_path / "val")
    assert wrong(check_folder(tmp_path))["layout"].endswith(f"--images {tmp_path / 'val'}")


def test_a_flat_folder(tmp_path):
    for number in range(3):
        picture(number).save(tmp_path / f"ILSVRC2012_val_{number:08d}.JPEG")
    says = wrong(check_folder(tmp_path))["layout"]
    assert "3 images are directly in" in says
    assert "class folders" in says


def test_nothing_a_file_and_nowhere(tmp_path, write_file):
    tar = write_file("val.tar", "x")
    (tmp_path / "empty").mkdir()
    assert "unpack it" in wrong(check_folder(tar))["layout"]
    assert "no such folder" in wrong(check_folder(tmp_path / "none"))["layout"]
    assert "no class folders" in wrong(check_folder(tmp_path / "empty"))["layout"]


def test_training_pictures(tmp_path):
    for number in range(12):
        (tmp_path / "n00000001").mkdir(exist_ok=True)
        picture(number, (40, 40 + number)).save(tmp_path / "n00000001" / f"n00000001_{number}.JPEG")
    says = wrong(check_folder(tmp_path, (1, 2)))
    assert "look like the training images" in says["counts"]
    assert "not named like ILSVRC2012_val_" in says["names"]


def test_one_picture_short(folder):
    path = folder / list_images(folder)[5]
    path.unlink()
    says = wrong(check_folder(folder, (3, 4)))
    assert list(says) == ["counts"]
    assert f"not 4 in {path.parent.name} (3). Every id after" in says["counts"]


def test_a_class_without_a_picture(folder):
    (folder / "n00000003").mkdir()
    assert "not 4 in n00000003 (0)" in wrong(check_folder(folder, (4, 4)))["counts"]


def test_folders_that_are_no_classes(folder):
    (folder / ".ipynb_checkpoints").mkdir()
    says = wrong(check_folder(folder, (3, 4)))
    assert "3 class folders; .ipynb_checkpoints would count" in says["classes"]


def test_pictures_that_do_not_belong(folder):
    first = folder / list_images(folder)[0]
    (first.parent / f"._{first.name}").write_bytes(first.read_bytes())
    (first.parent / "deeper").mkdir()
    first.rename(first.parent / "deeper" / first.name)
    (folder / "n00000002" / first.name).write_bytes(b"")
    says = wrong(check_folder(folder, (3, 4), sample=0))
    assert "._ILSVRC2012_val" in says["names"]
    assert "deeper" in says["names"]


def test_a_picture_twice(folder):
    first = folder / list_images(folder)[0]
    (folder / "n00000002" / first.name).write_bytes(first.read_bytes())
    assert "repeated: 00000001" in wrong(check_folder(folder, (3, 4)))["names"]


def test_stray_files(folder):
    (folder / "n00000001" / "notes.xml").write_text("x")
    found = check_folder(folder, (3, 4))
    assert wrong(found) == {}
    assert "ignored: n00000001/notes.xml" in found[4].message
    picture(0).save(folder / "loose.png")
    assert "loose.png" in wrong(check_folder(folder, (3, 4)))["strays"]


def test_unreadable_pictures(folder):
    paths = list_images(folder)
    for path in paths[:4]:
        (folder / path).write_bytes(b"not a picture")
    says = wrong(check_folder(folder, (3, 4)))["readable"]
    assert paths[0] in says
    assert "(4 in all) of 12 drawn" in says


@pytest.mark.parametrize(("size", "fit"), [((40, 40), False), (None, True)])
def test_resized_pictures(tmp_path, size, fit):
    root = tmp_path / "val"
    fill(root, size=size)
    if size is None:
        for number, path in enumerate(list_images(root)):
            picture(number, (40, 41 + number)).save(root / path)
    says = wrong(check_folder(root, (3, 4)))["readable"]
    assert "shorter side of 40 pixels" in says
    assert ("masks will not fit" in says) is not fit


def test_the_doctor_looks_at_pictures(folder):
    checks = {check.name: check for check in doctor.run_checks(images=folder)}
    assert checks["images: layout"].passed
    assert not checks["images: classes"].passed
    assert not any(check.name.startswith("images") for check in doctor.run_checks())


def test_real_pictures(real):
    """One picture a class, resized: the doctor says both, and every one can be cut."""
    root = real / "images" / "imagenet-sample"
    says = wrong(check_folder(root))
    assert set(says) == {"counts", "names", "readable"}
    assert "shorter side of 256" in says["readable"]
    assert wrong(check_folder(root, (1000, 1))).keys() == {"names", "readable"}
    pixels = ImageNetImages(root)
    assert len(pixels) == 1000
    assert all(cutting.shape == (224, 224, 3) for cutting in pixels.crops(range(0, 1000, 50), 224))
