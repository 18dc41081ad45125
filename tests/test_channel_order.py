"""Networks that take blue, green, red: exemplar images keep their colours."""

import pickle

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision import transforms

from milannotations.exemplars.networks.preprocessing import Preprocessing
from milannotations.probes.base import ProbeItems

RED = Image.new("RGB", (40, 30), (250, 10, 20))


def flip(tensor):
    return tensor.flip(0)


def caffe(image):
    """Return an image as Caffe's networks take it: BGR, 0 to 255, less the mean."""
    values = torch.from_numpy(np.asarray(image.resize((32, 32)), np.float32)).permute(2, 0, 1)
    return values.flip(0) - torch.tensor([103.94, 116.78, 123.68])[:, None, None]


def processor():
    """Return a transform of transformers that flips the order of channels."""
    from transformers.models.mobilevit import MobileViTImageProcessor

    return MobileViTImageProcessor(
        do_flip_channel_order=True, size={"shortest_edge": 32}, crop_size=32
    )


FLIPPED = {
    "torchvision": lambda: Preprocessing.from_transform(
        transforms.Compose(
            [transforms.ToTensor(), flip, transforms.Normalize((0.4, 0.5, 0.6), (0.2, 0.3, 0.4))]
        )
    ),
    "caffe": lambda: Preprocessing.from_transform(caffe),
    "caffe, mean given": lambda: Preprocessing.from_transform(
        caffe, (103.94 / 255, 116.78 / 255, 123.68 / 255), (1 / 255,) * 3
    ),
    "transformers": lambda: Preprocessing.from_hf(processor()),
}


@pytest.mark.parametrize("name", FLIPPED)
def test_a_red_image_stays_red(name):
    preprocessing = FLIPPED[name]()
    assert preprocessing.order == (2, 1, 0)
    assert preprocessing.describe()["channels"] == "bgr"
    pixels = preprocessing.undo(preprocessing(RED))
    assert np.abs(pixels[15, 15].astype(int) - (250, 10, 20)).max() <= 1


def test_other_networks_are_read_as_before():
    plain = Preprocessing.imagenet(16)
    assert Preprocessing.from_transform(plain.transform).order == (0, 1, 2)
    assert "channels" not in plain.describe()
    grey = Preprocessing.from_transform(
        transforms.Compose([transforms.Grayscale(3), transforms.ToTensor()])
    )
    assert grey.order == (0, 1, 2)
    assert len(set(grey.undo(grey(RED))[0, 0].tolist())) == 1  # what the network saw


def test_a_process_that_loads_images_keeps_the_order():
    assert pickle.loads(pickle.dumps(FLIPPED["caffe"]())).order == (2, 1, 0)


def test_probe_images_reach_the_network_in_its_order():
    class Probe:
        name, concepts, source = "one", (), {}

        def __len__(self):
            return 1

        def source_id(self, i):
            return "red"

        def image(self, i):
            return RED

        def labels(self, i, size):
            return np.zeros((1, *size), np.int32)

    preprocessing = FLIPPED["caffe"]()
    item = ProbeItems(Probe(), preprocessing)[0]["image"]
    assert torch.allclose(item, preprocessing(RED), atol=0.01)
