"""`milan data prepare`, `check` and `push`, as a user types them."""

import json

import numpy as np
import pytest


@pytest.fixture
def archive(tmp_path):
    """Return an unpacked archive of two layers in the published format."""
    draw = np.random.default_rng(0)
    folder = tmp_path / "mine"
    lines = ["layer,unit,summary"]
    for layer, n in (("conv1", 12), ("0", 3)):
        place = folder / layer
        place.mkdir(parents=True)
        np.save(place / "images.npy", draw.integers(0, 256, (n, 4, 3, 32, 32), dtype=np.uint8))
        np.save(place / "masks.npy", draw.integers(0, 2, (n, 4, 1, 32, 32), dtype=np.uint8))
        ids = draw.integers(0, 99, (n, 4))
        np.savetxt(place / "ids.csv", ids, fmt="%i", delimiter=",")
        lines += [f"{layer},{unit},red things {k}" for unit in range(n) for k in range(3)]
    (folder / "annotations.csv").write_text("\r\n".join(lines) + "\r\n")
    return folder


def test_prepare_then_check_then_load(milan, archive, tmp_path):
    import milannotations

    out = tmp_path / "release"
    status, said, err = milan(
        "data", "prepare", "mine", "--zip", archive, "--unlisted", "--out", out
    )
    assert status == 0, err
    assert "15" in said or "14" in said
    assert milan("data", "check", out)[:2] == (0, f"{out}: nothing is wrong.\n")
    loaded = milannotations.load(out, "mine")
    assert sum(map(len, loaded.values())) == 15
    row = next(row for row in loaded["train"] if row["layer"] == "conv1")
    images = np.load(archive / "conv1" / "images.npy")[row["unit"]]
    assert np.array_equal(np.asarray(row["images"][0]), images[0].transpose(1, 2, 0))
    assert row["descriptions"] == [f"red things {k}" for k in range(3)]
    status, _, err = milan("data", "prepare", "mine", "--zip", archive, "--unlisted", "--out", out)
    assert (status, "--overwrite" in err) == (1, True)


def test_check_finds_a_changed_file(milan, archive, tmp_path):
    out = tmp_path / "release"
    milan("data", "prepare", "mine", "--zip", archive, "--unlisted", "--out", out)
    shard = next(out.glob("mine/train-*.parquet"))
    content = bytearray(shard.read_bytes())
    content[100] ^= 255
    shard.write_bytes(content)
    status, said, _ = milan("data", "check", out, "--json")
    assert status == 1
    assert json.loads(said)["findings"]


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (("prepare", "alexnet-imagenet", "--out", "x"), "--download"),
        (("prepare", "alexnet-imagnet", "--zip", "nowhere.zip", "--out", "x"), "alexnet-imagenet"),
        (("check", "nowhere"), "No edition 'nowhere'"),
        (("push", "mini", "mine"), "ORG/NAME"),
        (("push", "mini", "me/mine"), "HF_HUB_OFFLINE"),
    ],
)
def test_what_cannot_be_done(milan, tmp_path, monkeypatch, words, says):
    monkeypatch.chdir(tmp_path)
    status, _, err = milan("data", *words)
    assert (status, says in err) == (1, True), err


def test_the_doctor_looks_at_a_folder_of_pictures(milan, tmp_path):
    (tmp_path / "val").mkdir()
    status, said, _ = milan("doctor", "--images", tmp_path / "val")
    assert status == 1
    assert "FAIL  images: " in said
