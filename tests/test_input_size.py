"""A network is probed at the size that its exemplars were made at, not at a made-up one."""

import csv

import numpy as np
import pytest
from PIL import Image

from leaderboard.cli import main
from milannotations import InputError
from milannotations.exemplars.networks.preprocessing import Preprocessing
from milannotations.probes.base import ProbeItems, input_size, open_probe

NETWORK = '''
import torch
from torch import nn
from torchvision import transforms


def build():
    """Return a unit that fires on one-pixel checkers, one on brightness; images keep their size."""
    network = nn.Sequential(nn.Conv2d(3, 2, 2), nn.ReLU())
    with torch.no_grad():
        network[0].weight[0] = torch.tensor([[1.0, -1.0], [-1.0, 1.0]]).expand(3, 2, 2)
        network[0].weight[1] = 0.1
        network[0].bias[:] = torch.tensor([-4.0, 0.0])  # sharp contrast alone passes
    keep = transforms.Compose(
        [transforms.ToTensor(), transforms.Normalize((0.5,) * 3, (0.5,) * 3)]
    )
    return network, keep
'''
"""A network for small images: its preprocessing has no resize step, as those of CIFAR have none."""


def draw(kind, rng, size):
    """Return an image of one-pixel checkers, a bright one or a dark one, (height, width)."""
    height, width = size
    noise = rng.integers(0, 20, (height, width, 1))
    if kind == "checker":
        rows, columns = np.indices((height, width))
        values = ((rows + columns) % 2 * 200)[..., None] + noise
    else:
        values = noise + (180 if kind == "bright" else 20)
    return Image.fromarray(np.broadcast_to(values, (height, width, 3)).astype(np.uint8))


@pytest.fixture
def folder(tmp_path):
    """Return a function that writes class folders of images of one size."""

    def write(name, size, kinds=("bright", "checker", "dark")):
        rng = np.random.default_rng(0)
        for kind in kinds:
            (tmp_path / name / kind).mkdir(parents=True)
            for index in range(12):
                draw(kind, rng, size).save(tmp_path / name / kind / f"{index:02}.png")
        return tmp_path / name

    return write


def run(*words):
    with pytest.raises(SystemExit) as left:
        main.main([str(word) for word in words])
    assert left.value.code == 0


@pytest.mark.parametrize("size", [(32, 32), (24, 40)])
def test_a_unit_of_one_pixel_checkers_is_described_as_such(folder, tmp_path, size):
    images, network = folder("images", size), tmp_path / "net.py"
    network.write_text(NETWORK)
    model = f"{network}:build"
    run("exemplars", model, "--layer", "1", "--images", images, "--out", tmp_path / "edition")
    run("describe", tmp_path / "edition", "--method", "invert", "--subject", model, "--probe",
        f"images:{images}", "--set", "length=1", "--out", tmp_path / "invert.csv")  # fmt: skip
    with open(tmp_path / "invert.csv", newline="") as stream:
        described = {row["unit"]: row["description"] for row in csv.DictReader(stream)}
    assert described == {"0": "checker", "1": "bright"}


@pytest.mark.parametrize("size", [(32, 32), (64, 128)])
def test_the_size_comes_from_the_images(folder, size):
    probe = open_probe(f"images:{folder('images', size)}")
    as_is = Preprocessing.imagenet(None)
    assert input_size(probe, as_is) == size
    items = ProbeItems(probe, as_is)
    assert tuple(items[0]["image"].shape[1:]) == size
    assert items.source["side"] == (32 if size[0] == size[1] else [64, 128])
    assert input_size(probe, Preprocessing.imagenet(16)) == (16, 16)


def test_images_of_several_sizes_need_to_be_told_one(folder):
    folder("images", (32, 32), kinds=["bright"])
    images = folder("images", (40, 40), kinds=["dark"])
    probe = open_probe(f"images:{images}")
    with pytest.raises(InputError, match=r"32 x 32 pixels, .* 40 x 40\. Give .* --preprocess"):
        ProbeItems(probe, Preprocessing.imagenet(None))
    assert ProbeItems(probe, Preprocessing.imagenet(32)).input_size == (32, 32)


def test_preprocessing_is_said_or_given_in_every_command(folder, tmp_path, capsys):
    images, network = folder("images", (32, 32)), tmp_path / "net.py"
    network.write_text(NETWORK.replace("return network, keep", "return network"))
    model = f"{network}:build"
    given = ["--preprocess", "imagenet:as-is"]
    run("exemplars", model, "--layer", "1", "--images", images, "--out", tmp_path / "edition",
        *given)  # fmt: skip
    describe = ["describe", tmp_path / "edition", "--method", "invert", "--subject", model,
                "--probe", f"images:{images}", "--set", "length=1"]  # fmt: skip
    run(*describe, *given, "--out", tmp_path / "given.csv")
    assert "declares no preprocessing" not in capsys.readouterr().err
    with open(tmp_path / "given.csv", newline="") as stream:
        assert next(csv.DictReader(stream))["description"] == "checker"
    run(*describe, "--out", tmp_path / "default.csv")
    assert "declares no preprocessing" in capsys.readouterr().err
