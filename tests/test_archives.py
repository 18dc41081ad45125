"""Published archives: what is read out of them, and what is refused."""

import io
import json
import stat
import zipfile

import numpy as np
import pytest
from archived import SIDE, K, members, npy, write_folder, write_zip

from milannotations import InputError, Unit
from milannotations.published import archive as archives
from milannotations.published import zip_members
from milannotations.published.archive import Archive, unshift_dino

NAMES = ("alexnet-imagenet", "alexnet-places365")


@pytest.fixture
def refused(tmp_path):
    """Return a function that opens and reads an archive to its end and returns what was said."""

    def read(content, network="made-up", folder=False, **options):
        write = write_folder if folder else write_zip
        path = content if hasattr(content, "exists") else write(tmp_path / "a", content)
        with pytest.raises(InputError) as error:
            read_whole(path, network, **options)
        assert str(path) in str(error.value) or "--unlisted" in str(error.value)
        return str(error.value)

    return read


def read_whole(path, network, **options):
    with Archive(path, network, **options) as archive:
        for layer in archive.layers:
            list(archive.units(layer))


def raw_zip(path, *infos):
    """Write a zip of (ZipInfo, bytes) beside a whole archive's members."""
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in members({"conv1": 2}).items():
            archive.writestr(name, data)
        for info, data in infos:
            archive.writestr(info, data)
    return path


# ---- as the code of 2022 wrote them


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("unpacked", [False, True])
def test_every_pixel_mask_id_and_description_is_that_of_the_original(
    parity, tmp_path, name, unpacked
):
    path = parity / f"a4_{name}.zip"
    zipped = zipfile.ZipFile(path)
    if unpacked:
        zipped.extractall(tmp_path)
    with Archive(tmp_path if unpacked else path, name, unlisted=True) as archive:
        golden = json.loads((parity / "a4_golden.json").read_text())[name]
        assert sorted(archive.layers) == golden["layers"]
        for layer in archive.layers:
            masks = np.load(io.BytesIO(zipped.read(f"{layer}/masks.npy")))[:, :, 0]
            ids = np.loadtxt(io.BytesIO(zipped.read(f"{layer}/ids.csv")), delimiter=",")
            units = list(archive.units(layer))
            assert [unit.unit for unit in units] == [0, 1, 2, 3]
            np.testing.assert_array_equal(np.stack([unit.masks for unit in units]), masks)
            np.testing.assert_array_equal([unit.ids for unit in units], ids)
            if "places" in name:
                images = np.load(io.BytesIO(zipped.read(f"{layer}/images.npy")))
                np.testing.assert_array_equal(np.stack([unit.images for unit in units]), images)
            else:
                assert all(unit.images is None for unit in units)
        for sample in golden["samples"]:
            unit = Unit(name, sample["layer"], sample["unit"])
            found = archive.annotations.descriptions[unit]
            assert found[: len(sample["annotations"])] == sample["annotations"]
        assert archive.layers["conv1"].k == 15
        assert archive.layers["conv1"].side == 32


def test_layers_of_digits_keep_two_and_four_descriptions(parity):
    with Archive(parity / "a4_alexnet-places365.zip", NAMES[1], unlisted=True) as archive:
        assert list(archive.layers) == ["conv1", "0", "4"]
        counts = [len(texts) for texts in archive.annotations.descriptions.values()]
        assert {2, 3, 4} == set(counts)
        assert {unit.layer for unit in archive.annotations.descriptions} == set(archive.layers)


# ---- the format


@pytest.mark.parametrize("write", [write_zip, write_folder])
def test_units_and_activations_of_own_archives(tmp_path, write):
    content = members({"conv1": 3}, annotations=False)
    content["conv1/units.npy"] = npy(np.array([2, 5, 9]))
    content["conv1/activations.csv"] = b"3.00000e+00,2.5e+00,1e-3\n" * 3
    with Archive(write(tmp_path / "a", content), "made-up") as archive:
        assert archive.annotations is None
        units = list(archive.units("conv1"))
    assert [unit.unit for unit in units] == [2, 5, 9]
    assert units[0].activations == pytest.approx([3, 2.5, 1e-3])
    assert units[0].masks.shape == (K, SIDE, SIDE)
    assert units[0].images.shape == (K, 3, SIDE, SIDE)


def test_layers_are_sorted_with_numbers_as_numbers(tmp_path):
    content = members({f"blocks.{i}.fc1": 1 for i in (10, 2, 0)}, annotations=False)
    with Archive(write_zip(tmp_path / "a", content), "made-up") as archive:
        assert list(archive.layers) == ["blocks.0.fc1", "blocks.2.fc1", "blocks.10.fc1"]


def test_what_desktops_scatter_is_passed_over(tmp_path):
    content = members({"conv1": 1})
    content |= {"__MACOSX/conv1/._masks.npy": b"x", "conv1/.DS_Store": b"x", ".hidden/a": b""}
    with Archive(write_zip(tmp_path / "a", content), "made-up") as archive:
        assert list(archive.layers) == ["conv1"]
    with Archive(write_folder(tmp_path / "b", content), "made-up") as archive:
        assert list(archive.layers) == ["conv1"]


def test_a_cut_down_archive_leaves_out_and_counts_what_is_described_elsewhere(tmp_path, refused):
    content = {n: data for n, data in members().items() if not n.startswith("conv2")}
    assert "layer conv2, which is not in the archive" in refused(content)
    with Archive(tmp_path / "a", "made-up", unlisted=True) as archive:
        assert archive.n_left_out == 11


def change(name, value):
    return lambda content: content | {name: value}


def drop(name):
    return lambda content: {key: data for key, data in content.items() if key != name}


def pixels(*shape, value=0, dtype=np.uint8):
    return npy(np.full(shape, value, dtype=dtype))


MASKS, IMAGES, IDS = "conv1/masks.npy", "conv1/images.npy", "conv1/ids.csv"


@pytest.mark.parametrize("folder", [False, True])
@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (drop(MASKS), ["no conv1/masks.npy"]),
        (drop(IDS), ["no conv1/ids.csv"]),
        (change(MASKS, npy(np.array([{}], dtype=object))), ["masks.npy holds Python objects"]),
        (change(IMAGES, npy(np.array([{}], dtype=object))), ["images.npy holds Python objects"]),
        (change("conv1/units.npy", npy(np.array([{}]))), ["units.npy holds Python objects"]),
        (change(MASKS, b"not an array"), ["masks.npy is not a .npy file"]),
        (change(MASKS, b""), ["masks.npy is not a .npy file"]),
        (change(MASKS, pixels(12, K, 1, SIDE, SIDE)[:-9]), ["its header states", "got 9,335"]),
        (change(MASKS, pixels(12, K, 1, SIDE, SIDE) + b"x"), ["its header states"]),
        (
            change(MASKS, pixels(12, K, 1, SIDE, SIDE, dtype=np.float32)),
            ["masks.npy: expected dtype |u1", "got <f4"],
        ),
        (
            change(MASKS, npy(np.asfortranarray(np.zeros((12, K, 1, SIDE, SIDE), np.uint8)))),
            ["expected C order"],
        ),
        (change(MASKS, pixels(12, K, SIDE, SIDE)), ["expected shape (units, k, 1", f"{SIDE})"]),
        (change(MASKS, pixels(12, K, 1, SIDE, 8)), ["expected shape (units, k, 1, side, side)"]),
        (change(MASKS, pixels(12, K, 1, SIDE, SIDE, value=2)), ["unit 0: expected 0 and 1, got 2"]),
        (
            change(IMAGES, pixels(11, K, 3, SIDE, SIDE)),
            [f"images.npy: expected shape (12, {K}, 3", f"got (11, {K}, 3"],
        ),
        (change(IMAGES, pixels(12, K, 1, SIDE, SIDE)), ["images.npy: expected shape (units, k, 3"]),
        (change(IDS, b"1,2,3\n" * 11), ["ids.csv: expected 12 lines", "got 11"]),
        (change(IDS, b"1,2\n" * 12), ["ids.csv, line 1: expected 3 numbers, got 2"]),
        (change(IDS, b"1,2,x\n" * 12), ["ids.csv, line 1: id 'x' is not a whole number"]),
        (change(IDS, b"1,2,-3\n" * 12), ["id '-3'"]),
        (change(IDS, b"\xff\xfe" * 12), ["expected numbers and commas"]),
        (change("conv1/activations.csv", b"1,2,nan\n" * 12), ["activation 'nan' is not a number"]),
        (change("conv1/units.npy", npy(np.arange(11))), ["expected shape (12,), got (11,)"]),
        (change("conv1/units.npy", npy(np.zeros(12, int))), ["expected ascending unit indices"]),
        (change("conv1/units.npy", npy(np.zeros(12))), ["expected dtype <i8"]),
        (
            change("annotations.csv", b"layer,unit,summary\r\nconv1,12,red\r\n"),
            ["describes unit 12 of layer conv1", "which is not in"],
        ),
        (change("annotations.csv", b"layer,unit\r\n"), ["annotations.csv has the columns"]),
        (change("sand castle/ids.csv", b""), ["a layer is named 'sand castle'"]),
        (lambda content: {"annotations.csv": content["annotations.csv"]}, ["has no layers"]),
        (
            lambda content: {f"inner/{name}": data for name, data in content.items()},
            ["the layers lie deeper", "inner"],
        ),
    ],
)
def test_what_does_not_fit_is_refused_by_name(refused, spoil, said, folder):
    message = refused(spoil(members()), folder=folder)
    for part in said:
        assert part in message


# ---- the catalog


@pytest.fixture
def small(monkeypatch):
    """Make the published shape small, and alexnet-imagenet a network of two layers."""
    from milannotations import catalog

    network = catalog.Network(
        "alexnet-imagenet", "classification", "imagenet-val", {"conv1": 12, "conv2": 11}
    )
    monkeypatch.setitem(catalog.NETWORKS, "alexnet-imagenet", network)
    monkeypatch.setattr(archives, "K", K)
    monkeypatch.setattr(archives, "SIDE", SIDE)
    return network


def test_a_whole_published_archive_passes(tmp_path, small):
    with Archive(write_zip(tmp_path / "a", members()), "alexnet/imagenet") as archive:
        assert archive.n_units == 23


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (members({"conv1": 12}), "lacks the layers conv2"),
        (members({"conv1": 12, "conv2": 11, "fc6": 1}), "annotations.csv: Layer 'fc6'"),
        (members({"conv1": 12, "conv2": 10}), "masks.npy: expected shape (11, 3, 1, 16, 16)"),
        (members(side=8), "got (12, 3, 1, 8, 8)"),
        (members(k=2), "got (12, 2, 1, 16, 16)"),
        (members(annotations=False), "has no annotations.csv"),
        (members() | {"conv2/units.npy": npy(np.arange(1, 12))}, "expected the units 0 to 10"),
    ],
)
def test_the_catalog_decides_unless_unlisted(tmp_path, refused, small, content, said):
    message = refused(content, network="alexnet-imagenet")
    assert said in message
    assert "--unlisted" in message or "layers:" in message
    if "conv2/units.npy" not in content:  # its annotations name unit 0
        Archive(tmp_path / "a", "alexnet-imagenet", unlisted=True).close()


def test_a_misspelt_network_is_asked_about(refused):
    assert "Did you mean 'alexnet-imagenet'?" in refused(members(), network="alexnet-imgnet")


# ---- damage and hostility


def test_a_truncated_zip_is_not_a_whole_zip(tmp_path, refused):
    path = write_zip(tmp_path / "a.zip", members())
    path.write_bytes(path.read_bytes()[:-2000])
    assert "is not a whole zip" in refused(path)


@pytest.mark.parametrize("method", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])
def test_bytes_that_changed_are_found(tmp_path, refused, method):
    path = tmp_path / "a.zip"
    with zipfile.ZipFile(path, "w", method) as archive:
        for name, data in members({"conv1": 4}).items():
            archive.writestr(name, data)
        begin = archive.getinfo(IMAGES).header_offset
    content = bytearray(path.read_bytes())
    content[begin + 3000] ^= 1
    path.write_bytes(content)
    assert f"{IMAGES} is damaged" in refused(path)


@pytest.mark.parametrize(
    "name", ["../evil.npy", "/etc/evil", "conv1/../../evil", "C:\\evil", "a\\b", "c:/evil"]
)
def test_a_member_that_points_out_is_refused(tmp_path, refused, name):
    path = raw_zip(tmp_path / "a.zip", (zipfile.ZipInfo(name), b""))
    assert "points out of the archive" in refused(path)


@pytest.mark.parametrize("kind", [stat.S_IFLNK, stat.S_IFIFO, stat.S_IFBLK])
def test_a_link_or_device_is_refused(tmp_path, refused, kind):
    info = zipfile.ZipInfo("conv1/activations.csv")
    info.create_system, info.external_attr = 3, (kind | 0o777) << 16
    assert "a link or a device" in refused(raw_zip(tmp_path / "a.zip", (info, b"/etc/passwd")))


@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_a_member_that_is_there_twice_is_refused(tmp_path, refused):
    path = raw_zip(tmp_path / "a.zip", (zipfile.ZipInfo(IDS), b"1,2,3\n" * 2))
    assert "twice" in refused(path)


def test_an_unusual_compression_is_refused(tmp_path, refused):
    info = zipfile.ZipInfo("conv1/more")
    info.compress_type = zipfile.ZIP_BZIP2
    assert "unusual way" in refused(raw_zip(tmp_path / "a.zip", (info, bytes(10_000_000))))


def test_a_promise_beyond_what_compression_can_do_is_refused(tmp_path, refused):
    path = raw_zip(tmp_path / "a.zip")
    with zipfile.ZipFile(path, "a") as archive:
        archive.getinfo(MASKS).file_size = 1 << 31
        archive._didModify = True
    assert "more than compression can do" in refused(path)


def test_more_than_any_published_archive_holds_is_refused(tmp_path, refused, monkeypatch):
    path = write_zip(tmp_path / "a.zip", members())
    monkeypatch.setattr(zip_members, "MAX_BYTES", 10_000)
    assert "more than 10,000" in refused(path)
    monkeypatch.setattr(zip_members, "MAX_MEMBERS", 3)
    assert "members, more than 3" in refused(path)
    monkeypatch.undo()
    monkeypatch.setattr(zip_members, "MAX_TEXT", 10)
    assert "expected at most 10 bytes" in refused(path)


def test_members_that_overlap_are_refused(tmp_path, refused):
    path = raw_zip(tmp_path / "a.zip", (zipfile.ZipInfo("kernel"), bytes(20_000)))
    with zipfile.ZipFile(path, "a") as archive:
        kernel = archive.getinfo("kernel")
        for i in range(9):
            again = zipfile.ZipInfo(f"again{i}")
            for part in ("header_offset", "compress_size", "file_size", "CRC", "compress_type"):
                setattr(again, part, getattr(kernel, part))
            archive.filelist.append(again)
            archive.NameToInfo[again.filename] = again
        archive._didModify = True
    assert "overlap" in refused(path)


def test_masks_of_one_colour_compress_as_far_as_they_may(tmp_path):
    # 1,000 to 1, and yet as published
    content = members({"conv1": 12}, images=False, side=224)
    content[MASKS] = pixels(12, K, 1, 224, 224)
    with Archive(write_zip(tmp_path / "a.zip", content), "made-up") as archive:
        assert sum(unit.masks.sum() for unit in archive.units("conv1")) == 0


def test_a_row_larger_than_any_image_is_refused(refused, monkeypatch):
    monkeypatch.setattr(archives, "MAX_ROW", 100)
    assert "one unit of shape" in refused(members())


def test_nothing_there_or_something_else(tmp_path, refused):
    assert "No such file" in refused(tmp_path / "absent.zip")
    (tmp_path / "page.zip").write_bytes(b"<html>404</html>")
    assert "(16 bytes) is not a whole zip" in refused(tmp_path / "page.zip")


def test_a_layer_that_is_not_there(tmp_path):
    archive = Archive(write_zip(tmp_path / "a", members()), "made-up")
    with archive, pytest.raises(InputError, match=r"No layer 'conv9'.*conv1, conv2"):
        next(archive.units("conv9"))


# ---- the shift of DINO


def test_unshifting_undoes_the_fault_of_2022_but_for_the_last_patch():
    n, patch, k = 28, 8, 2
    tokens = np.random.default_rng(0).integers(0, 2, (k, 1 + n * n), dtype=np.uint8)

    def enlarged(cells):
        return np.kron(cells.reshape(k, n, n), np.ones((patch, patch), dtype=np.uint8))

    right, published = enlarged(tokens[:, 1:]), enlarged(tokens[:, :-1])
    repaired = unshift_dino(published)
    last = np.zeros((n * patch, n * patch), dtype=bool)
    last[-patch:, -patch:] = True
    np.testing.assert_array_equal(repaired[:, ~last], right[:, ~last])
    assert not repaired[:, last].any()


def test_a_side_that_is_no_whole_number_of_patches():
    with pytest.raises(InputError, match="patches of 8"):
        unshift_dino(np.zeros((1, 30, 30), dtype=np.uint8))
