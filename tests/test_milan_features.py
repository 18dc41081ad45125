"""Features of an edition: each image encoded once, the values those of one unit at a time."""

import io
import multiprocessing
import os
import signal
from collections import Counter

import datasets
import numpy as np
import pytest
import torch
from PIL import Image

import milan.features
from milan import encoder as encoders
from milan.features import Features, features_of
from milannotations import InputError, schema
from milannotations.editions import loading

CLOSE = {"rtol": 1e-4, "atol": 1e-5}  # batches of other sizes are summed in another order


@pytest.fixture(scope="module")
def encoder():
    return encoders.build()


@pytest.fixture(scope="module")
def spatial():
    return encoders.build(layers=["outputs:4"], kind="spatial")


@pytest.fixture(scope="module")
def units():
    return loading.load("mini", split="train").select(range(12))


def picture(height, width, seed, mode="RGB"):
    draw = np.random.default_rng(seed)
    shape = (height, width, 3) if mode == "RGB" else (height, width)
    return Image.fromarray(draw.integers(0, 256, shape, np.uint8))


def mask(height, width, seed):
    return Image.fromarray(np.random.default_rng(seed).random((height, width)) > 0.5)


def made(*rows):
    """Return units of given (images, masks)."""
    empty = dict.fromkeys(schema.COLUMNS) | {"network": "made", "layer": "a"}
    empty |= {"descriptions": ["a thing"], "annotator_ids": [None], "unit_kind": "channel"}
    members = [
        empty | {"unit": i, "images": images, "masks": masks}
        for i, (images, masks) in enumerate(rows)
    ]
    return datasets.Dataset.from_list(members, features=schema.features())


def alone(encoder, images, masks):
    """Return the features of one unit: each exemplar through the encoder by itself."""
    found = []
    for i, image in enumerate(images):
        pixels = torch.from_numpy(np.array(image.convert("RGB"))).permute(2, 0, 1)[None] / 255
        cover = None
        if masks is not None:
            cover = torch.from_numpy(np.array(masks[i]) > 0)[None, None].float()
        found.append(encoder(pixels, cover)[0])
    return torch.cat(found)


def counting(encoder, monkeypatch):
    """Return a list that gets every image that goes through the encoder's network."""
    seen, maps = [], encoder.maps
    monkeypatch.setattr(encoder, "maps", lambda images: seen.extend(images) or maps(images))
    return seen


# ---- values


@pytest.mark.parametrize("kind", ["pyramid", "spatial"])
def test_values_are_those_of_one_unit_at_a_time(units, encoder, spatial, kind):
    encoder = spatial if kind == "spatial" else encoder
    some = units.select(range(3))
    features, present = features_of(some, encoder).tensors()
    k = len(some[0]["images"])
    places = features.shape[1] // k
    assert (places > 1) == (kind == "spatial")
    assert features.dtype == torch.float32
    assert present.all()
    for row, found in zip(some, features, strict=True):
        torch.testing.assert_close(found, alone(encoder, row["images"], row["masks"]), **CLOSE)


def test_every_distinct_image_goes_through_the_network_once(units, encoder, monkeypatch):
    distinct = Counter(
        image["bytes"]
        for row in units.with_format("arrow")[:]["images"].to_pylist()
        for image in row
    )
    assert distinct.total() > len(distinct)  # images are shared, or nothing is tested
    seen = counting(encoder, monkeypatch)
    features_of(units, encoder)
    assert len(seen) == len(distinct)
    assert len({image.numpy().tobytes() for image in seen}) == len(seen)


def test_units_of_few_exemplars_no_masks_many_sizes_and_masks_of_another_size(encoder):
    square, wide, grey = picture(64, 64, 0), picture(40, 96, 1), picture(50, 30, 2, "L")
    rows = [
        ([square, wide, grey], [mask(64, 64, 3), mask(40, 96, 4), mask(50, 30, 5)]),
        ([wide], [mask(20, 20, 6)]),
        ([grey, square], None),
        ([square, square], [mask(64, 64, 7), mask(13, 29, 8)]),
    ]
    found = features_of(made(*rows), encoder)
    features, present = found.tensors()
    assert present.tolist() == [[place < len(images) for place in range(3)] for images, _ in rows]
    assert np.isnan(found.values).any(2).tolist() == (~present).tolist()
    assert not features[~present].any()
    assert features.isfinite().all()
    for (images, masks), own in zip(rows, features, strict=True):
        wanted = alone(encoder, images, masks)
        torch.testing.assert_close(own[: len(images)], wanted, **CLOSE)
    # a unit without masks is seen whole
    whole = alone(encoder, [grey], [Image.fromarray(np.ones((50, 30), bool))])
    torch.testing.assert_close(features[2, :1], whole, **CLOSE)


def test_places_of_a_spatial_encoder_follow_their_exemplar(spatial):
    rows = [
        ([picture(64, 64, 0), picture(64, 64, 1)], None),
        ([picture(64, 64, 1)], [mask(64, 64, 2)]),
    ]
    features, present = features_of(made(*rows), spatial).tensors()
    places = features.shape[1] // 2
    assert present.tolist() == [[True] * 2 * places, [True] * places + [False] * places]
    torch.testing.assert_close(features[0], alone(spatial, *rows[0]), **CLOSE)
    torch.testing.assert_close(features[1, :places], alone(spatial, *rows[1]), **CLOSE)


def test_of_takes_rows_and_rows_of_rows():
    values = np.arange(24, dtype=np.float32).reshape(4, 2, 3)
    values[1, 1] = np.nan
    some = Features(values).of([3, 1])
    assert len(some) == 2
    assert some.values is values
    features, present = some.tensors()
    assert features[0].tolist() == values[3].tolist()
    assert features[1].tolist() == [values[1, 0].tolist(), [0.0, 0.0, 0.0]]
    assert present.tolist() == [[True, True], [True, False]]
    assert some.of([1]).tensors()[0].tolist() == [features[1].tolist()]
    assert some.tensors([1, 0, 1])[0][:, 0, 0].tolist() == [6, 18, 6]
    features += 1  # a copy
    assert values[3, 0, 0] == 18


def test_no_units(encoder, tmp_path):
    nothing = made(([picture(8, 8, 0)], None)).select([])
    for file in (None, tmp_path / "f.npy", tmp_path / "f.npy"):
        features, present = features_of(nothing, encoder, file=file).tensors()
        assert len(features) == len(present) == 0


# ---- what cannot be


def test_text_alone_cannot_be_seen(units, encoder):
    with pytest.raises(InputError, match="Unit 1 of the data has no images"):
        features_of(made(([picture(8, 8, 0)], None), (None, None)), encoder)


def test_images_and_masks_that_are_not_as_many(encoder):
    with pytest.raises(InputError, match="Unit 0 has 2 images and 1 masks"):
        features_of(made(([picture(8, 8, 0)] * 2, [mask(8, 8, 1)])), encoder)


@pytest.mark.parametrize("what", ["images", "masks"])
def test_what_cannot_be_decoded_is_said(encoder, what):
    stream = io.BytesIO()
    picture(64, 64, 0).save(stream, "PNG")
    broken = {"bytes": stream.getvalue()[:100], "path": None}
    images = [broken] if what == "images" else [picture(8, 8, 0)]
    masks = [broken] if what == "masks" else [mask(8, 8, 1)]
    with pytest.raises(InputError, match="cannot be decoded"):
        features_of(made((images, masks)), encoder)


def test_a_spatial_encoder_without_a_side_needs_images_of_one_size():
    encoder = encoders.build("torchvision:resnet18", kind="spatial", random=True)
    assert encoder.config.side is None
    sizes = made(([picture(64, 64, 0), picture(96, 64, 1)], None))
    with pytest.raises(InputError, match="one size"):
        features_of(sizes, encoder)


# ---- files


def test_a_file_is_mapped_and_read_the_second_time(units, encoder, tmp_path, monkeypatch):
    file = tmp_path / "deep" / "features.npy"
    first = features_of(units, encoder, file=file)
    assert isinstance(first.values, np.memmap)
    assert np.array_equal(first.values, features_of(units, encoder).values)
    assert [path.name for path in file.parent.iterdir()] == ["features.npy"]
    seen = counting(encoder, monkeypatch)
    again = features_of(units, encoder, file=file)
    assert not seen
    assert np.array_equal(first.values, again.values)


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (np.zeros((5, 2, 392), np.float32), "holds other features"),
        (np.zeros((12, 15, 4), np.float32), "holds other features"),
        (np.zeros((12, 392), np.float32), "holds other features"),
        (b"", "damaged"),
        (b"not an array", "damaged"),
    ],
)
def test_a_file_of_something_else(units, encoder, tmp_path, content, says):
    file = tmp_path / "features.npy"
    if isinstance(content, bytes):
        file.write_bytes(content)
    else:
        np.save(file, content)
    before = file.read_bytes()
    with pytest.raises(InputError, match=says):
        features_of(units, encoder, file=file)
    assert file.read_bytes() == before


def test_interrupted_half_way_there_is_no_file(units, encoder, tmp_path, monkeypatch):
    maps = encoder.maps
    calls = []

    def once(images):
        calls.append(len(images))
        if len(calls) > 1:
            raise KeyboardInterrupt
        return maps(images)

    monkeypatch.setattr(encoder, "maps", once)
    monkeypatch.setattr(milan.features, "IMAGE_BATCH", 8)
    with pytest.raises(KeyboardInterrupt):
        features_of(units, encoder, file=tmp_path / "features.npy")
    assert list(tmp_path.iterdir()) == []


def killed(file):
    """Compute features in a process that is killed while it does."""
    encoder, maps, calls = encoders.build(), None, []
    maps = encoder.maps

    def die(images):
        calls.append(len(images))
        if len(calls) > 1:
            os.kill(os.getpid(), signal.SIGKILL)
        return maps(images)

    encoder.maps = die
    features_of(loading.load("mini", split="train").select(range(12)), encoder, file=file)


@pytest.mark.slow
def test_killed_half_way_there_is_no_file(units, encoder, tmp_path):
    file = tmp_path / "features.npy"
    process = multiprocessing.get_context("fork").Process(target=killed, args=(file,))
    process.start()
    process.join(120)
    assert process.exitcode == -signal.SIGKILL
    assert not file.exists()
    wanted = features_of(units, encoder)
    assert np.array_equal(features_of(units, encoder, file=file).values, wanted.values)
