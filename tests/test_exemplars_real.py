"""The engine on real networks and real images, which are not part of the project."""

import csv

import numpy as np
import pytest
import torch

from milannotations import exemplars
from milannotations.exemplars import Pooled, Preprocessing, RunConfig

pytestmark = pytest.mark.slow


def mean_pooled(layer):
    return Pooled("mean")


@pytest.fixture(scope="module")
def pictures(real):
    return exemplars.open_images(real / "images" / "imagenet-sample", Preprocessing.imagenet())


def test_published_labels_rank_their_own_picture_on_their_own_unit(real, pictures):
    """INVERT's labels of ResNet-18 layer3 (Bykov et al. 2023) name one of 1,000 classes each."""
    loaded = exemplars.load_model(
        "torchvision:resnet18", weights=real / "weights" / "resnet18_imagenet_to_layer3.safetensors"
    )
    with open(real / "descriptions" / "invert" / "resnet18_imagenet_layer3.csv") as stream:
        labels = {int(row["neuron"]): row["concept_id"] for row in csv.DictReader(stream)}
    run = RunConfig(missing=loaded.missing)
    found = exemplars.compute(
        loaded.model, pictures, ["layer3"], tallies={"mean": mean_pooled}, run=run
    )
    pooled = found.layers["layer3"].tallies["mean"].values.numpy()
    classes = [pictures.source_id(i).split("/")[0] for i in range(len(pictures))]
    own = np.array([classes.index(labels[unit]) for unit in range(256)])
    # the share of pictures that a unit's labelled one is above, on every unit: (unit, label)
    ranks = np.stack([(pooled < pooled[place]).mean(0) for place in own], axis=1)
    on_own = ranks.diagonal().mean()
    on_others = (ranks.sum() - ranks.trace()) / (256 * 255)
    print(f"\nAUC on their own units {on_own:.3f}, on others {on_others:.3f}")
    assert on_own >= 0.85
    assert abs(on_others - 0.5) < 0.02


def test_squeezenet_tells_classes_by_what_the_engine_pooled(real, pictures):
    """The spatial means of its last maps are its logits: they predict the image's class."""
    loaded = exemplars.load_model(
        "torchvision:squeezenet1_1", weights=real / "weights" / "squeezenet1_1_imagenet.safetensors"
    )
    layers = ["features.12", "classifier.1"]
    found = exemplars.compute(loaded.model, pictures, layers, tallies={"mean": mean_pooled})
    logits = found.layers["classifier.1"].tallies["mean"].values
    correct = (logits.argmax(1) == torch.arange(1000)).float().mean()
    print(f"\ntop-1 {correct:.3f}")
    assert correct > 0.59
    assert found.layers["features.12"].ids.shape == (512, 15)
    assert found.forwards == 1000
