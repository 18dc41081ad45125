"""Ablated units: the same predictions as complete runs, for maps, tokens and pooled layers."""

import numpy as np
import pytest
import torch
import torchvision
from torch import nn
from torch.nn import functional as nnf

from milannotations.errors import InputError
from milannotations.exemplars import Ablator, Layer, RunConfig
from milannotations.exemplars.hooks.accuracy import NO_PREDICTION, accuracy, accuracy_by_class
from milannotations.exemplars.hooks.interventions import ablate_units
from milannotations.exemplars.images.class_labels import class_labels
from milannotations.synthetic.subjects import SubjectNetwork

RUN = RunConfig(batch_size=4, device="cpu")


class Noise(torch.utils.data.Dataset):
    def __init__(self, count, side=32, seed=0):
        generator = torch.Generator().manual_seed(seed)
        self.images = torch.rand(count, 3, side, side, generator=generator)

    def __len__(self):
        return len(self.images)

    def __getitem__(self, index):
        return self.images[index]


class Tokens(nn.Module):
    """A class token, a shortcut, a module called twice, a dict, and arithmetic between modules."""

    def __init__(self):
        super().__init__()
        self.patches = nn.Conv2d(3, 12, 8, 8)
        self.cls = nn.Parameter(torch.randn(1, 1, 12))
        self.attention = nn.MultiheadAttention(12, 2, batch_first=True)
        self.norm = nn.LayerNorm(12)
        self.mlp = nn.Sequential(nn.Linear(12, 24), nn.GELU(), nn.Linear(24, 12))
        self.named = NamedOutputs()
        self.pool = nn.Linear(12, 9)
        self.head = nn.Linear(9, 5)

    def forward(self, images):
        tokens = self.patches(images * 2 - 1).flatten(2).transpose(1, 2)
        tokens = torch.cat([self.cls.expand(len(tokens), -1, -1), tokens], 1)
        normed = self.norm(tokens)
        tokens = tokens + self.attention(normed, normed, normed)[0]
        tokens = tokens + self.mlp(self.norm(tokens))
        tokens = self.named(tokens)["second"] + tokens
        return {"logits": self.head(nnf.relu_(self.pool(tokens.mean(1))))}


class NamedOutputs(nn.Module):
    def __init__(self):
        super().__init__()
        self.linear = nn.Linear(12, 12)

    def forward(self, tokens):
        return {"first": tokens, "second": self.linear(tokens)}


NETWORKS = {
    "subject": (SubjectNetwork, ["stem", "layer1", "layer2.conv1", "layer3", "layer4"]),
    "tokens": (Tokens, ["patches", "norm", "mlp.0", "mlp", "named:second", "pool"]),
    "resnet18": ("resnet18", ["conv1", "layer2.0.bn1", "layer4", "avgpool"]),
    "densenet121": ("densenet121", ["features.denseblock2.denselayer3", "features.norm5"]),
    "squeezenet1_1": ("squeezenet1_1", ["features.0", "features.1", "features.7"]),
}


def network(name):
    made, layers = NETWORKS[name]
    with torch.random.fork_rng():
        torch.manual_seed(0)
        if isinstance(made, str):
            model = torchvision.models.get_model(made, num_classes=7)
        else:
            model = made()
    return model.eval(), [Layer.parse(each) for each in layers]


@pytest.mark.parametrize("name", list(NETWORKS))
def test_replayed_runs_give_what_whole_runs_give(name):
    model, layers = network(name)
    images = Noise(6)
    ablator = Ablator(model, images, layers, run=RUN)
    labels = [each.label for each in layers]
    sets = [{}, *({label: [unit]} for label in labels for unit in range(2))]
    sets.append({label: [0, 3] for label in labels})
    found = ablator.logits(sets)
    for units, logits in zip(sets, found, strict=True):
        # by hooks alone, in one whole run
        handles = []
        for layer in layers:
            if own := units.get(layer.label):
                calls = ablator._replay.remaining_calls(None, layer.label)
                hook = by_hand(layer, own, calls)
                handles.append(model.get_submodule(layer.name).register_forward_hook(hook))
        with torch.no_grad():
            expected = model(images.images)
        for handle in handles:
            handle.remove()
        expected = expected["logits"] if isinstance(expected, dict) else expected
        assert np.allclose(logits, expected, atol=1e-3 * float(expected.abs().max())), units
    assert np.abs(found[-1] - found[0]).max() > 0
    assert all(plan.needed is not None for plan in ablator._replay.plans.values())
    assert np.array_equal(ablator.predictions(sets), found.argmax(-1))


def by_hand(layer, units, calls):
    left = [calls]

    def hook(module, given, output):
        left[0] -= 1
        if left[0]:
            return None
        tensor = output[layer.key] if layer.key else output
        tensor = tensor.clone()
        index = [slice(None)] * tensor.ndim
        index[1 if tensor.ndim in (2, 4) else 2] = list(units)
        tensor[tuple(index)] = 0
        return {**output, layer.key: tensor} if layer.key else tensor

    return hook


def test_single_units_are_run_from_their_layer_on():
    model, runs = SubjectNetwork().eval(), {"stem.0": 0, "layer4.conv1": 0, "head": 0}
    for name in runs:

        def count(module, given, output, name=name):
            runs[name] += 1

        model.get_submodule(name).register_forward_hook(count)
    ablator = Ablator(model, Noise(4), ["layer3", "layer4"], run=RUN)
    ablator.predictions([{}])
    before = dict(runs)
    ablator.predictions([{"layer4": [unit]} for unit in range(96)])
    assert runs["stem.0"] - before["stem.0"] == 1
    assert runs["layer4.conv1"] - before["layer4.conv1"] == 1
    assert 2 <= runs["head"] - before["head"] < 97, "several sets go through together"


def test_nothing_is_left_behind():
    model = SubjectNetwork().train()
    before = model(torch.zeros(2, 3, 32, 32)).detach()
    Ablator(model, Noise(5), ["layer1"], run=RUN).predictions([{"layer1": [0]}])
    assert model.training
    for module in model.modules():
        assert not module._forward_hooks
        assert not module._forward_pre_hooks
        assert "forward" not in vars(module)
    assert before.shape == (2, 8)


def test_mean_and_resample():
    model, images = SubjectNetwork().eval(), Noise(9)
    everything = {"layer4": range(96)}
    mean = Ablator(model, images, ["layer2", "layer4"], how="mean", run=RUN)
    found = mean.logits([everything])[0]
    with torch.no_grad():
        maps = model.layer4(
            model.layer3(model.layer2(model.layer1(model.stem(images.images * 4 - 2))))
        )
        expected = model.head(maps.mean((0, 2, 3)))
    assert np.allclose(found, expected, atol=1e-4)
    swapped = Ablator(model, images, ["layer2", "layer4"], how="resample", run=RUN)
    whole, moved = swapped.logits([{}, everything])
    # with the whole last layer of another image, the scores are those of the other image
    donors = [int(np.abs(whole - each).max(1).argmin()) for each in moved]
    assert sorted(donors) == list(range(9))
    assert all(donor != index for index, donor in enumerate(donors))
    again = Ablator(model, images, ["layer4"], how="resample", run=RUN)
    assert np.allclose(again.logits([everything])[0], moved, atol=1e-5)
    other = Ablator(model, images, ["layer4"], how="resample", run=RunConfig(batch_size=4, seed=1))
    assert not np.allclose(other.logits([everything])[0], moved, atol=1e-5)


def test_batches_do_not_change_answers():
    model, images = SubjectNetwork().eval(), Noise(11)
    sets = [{"layer2": [0, 5]}, {}, {"layer1": [1], "layer3": [2]}, {"layer2": [5, 0, 5]}]
    one, other = (
        Ablator(model, images, ["layer1", "layer2", "layer3"], run=RunConfig(batch_size=n)).logits(
            sets
        )
        for n in (3, 11)
    )
    assert np.allclose(one, other, atol=1e-4)
    assert np.array_equal(one[0], one[3])
    assert Ablator(model, images, ["layer1"], run=RUN).predictions([]).shape == (0, 11)


def test_ablated_lets_gradients_through():
    model = SubjectNetwork()
    with ablate_units(model, {"layer4": [0]}):
        model(torch.rand(2, 3, 32, 32)).sum().backward()
    assert model.head.weight.grad[:, 0].abs().max() == 0
    assert model.head.weight.grad[:, 1:].abs().max() > 0
    with (
        pytest.raises(InputError, match="96 units; unit 96"),
        ablate_units(model, {"layer4": [96]}),
    ):
        model(torch.rand(2, 3, 32, 32))


def test_accuracies_are_counted_by_class():
    answers = np.array([[0, 1, 1, NO_PREDICTION], [1, 1, 0, 0]])
    assert accuracy(answers, [0, 1, 0, 0]).tolist() == [2 / 3, 3 / 4]
    by_class = accuracy_by_class(answers, [0, 1, 0, 0], 3)
    assert by_class[:, :2].tolist() == [[1 / 2, 1], [2 / 3, 1]]
    assert np.isnan(by_class[:, 2]).all()
    with pytest.raises(InputError, match="3 labels for 4"):
        accuracy(answers, [0, 1, 0])


class FolderListing:
    def __init__(self, names):
        self.names = names

    def __len__(self):
        return len(self.names)

    def source_id(self, index):
        return self.names[index]


def test_labels_are_the_folders():
    folder = FolderListing(["b/1.png", "a/1.png", "b/2.png"])
    assert class_labels(folder).tolist() == [1, 0, 1]
    assert class_labels(folder, ["b", "x", "a"]).tolist() == [0, 2, 0]
    assert class_labels(folder, 4).tolist() == [1, 0, 1]
    with pytest.raises(InputError, match="lacks the classes b"):
        class_labels(folder, ["a", "c"])
    with pytest.raises(InputError, match="2 classes, and the network has 1"):
        class_labels(folder, 1)
    with pytest.raises(InputError, match=r"1\.png lies in no class"):
        class_labels(FolderListing(["1.png"]))


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        ({"layer2": [48]}, "Layer 'layer2' has 48 units; unit 48"),
        ({"layer2": [-1]}, "unit -1"),
        ({"layer5": [0]}, "Layer 'layer5' is not among the layers"),
    ],
)
def test_units_that_are_not_there(asked, message):
    ablator = Ablator(SubjectNetwork(), Noise(2), ["layer2"], run=RUN)
    with pytest.raises(InputError, match=message):
        ablator.predictions([asked])


def test_what_cannot_be_ablated_is_said():
    with pytest.raises(InputError, match="No layer 'layer9'"):
        Ablator(SubjectNetwork(), Noise(2), ["layer9"])
    with pytest.raises(InputError, match="ways: zero, mean, resample"):
        Ablator(SubjectNetwork(), Noise(2), ["layer1"], how="noise")
    with pytest.raises(InputError, match="1 images are too few"):
        Ablator(SubjectNetwork(), Noise(1), ["layer1"], how="resample")
    with pytest.raises(InputError, match="class scores"):
        Ablator(nn.Sequential(nn.Conv2d(3, 4, 3)), Noise(2), ["0"], run=RUN).predictions([{}])
    with pytest.raises(InputError, match="laid over"):
        Ablator(
            SubjectNetwork(), Noise(2), [Layer("layer1", encoder=lambda x: x)], run=RUN
        ).predictions([{}])  # fmt: skip
