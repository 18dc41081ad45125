"""Layers by name, their activation maps, and where a network can be stopped."""

from collections import OrderedDict, namedtuple

import pytest
import torch
from torch import nn
from torch.nn import functional as nnf

from milannotations.errors import InputError
from milannotations.exemplars.hooks.layers import Layer, as_maps, find_modules, select_tensor
from milannotations.exemplars.hooks.reader import LayerReader


class Counting(nn.Module):
    """Layer that counts its runs."""

    def __init__(self, inner):
        super().__init__()
        self.inner, self.runs = inner, 0

    def forward(self, x):
        self.runs += 1
        return self.inner(x)


@pytest.fixture
def network():
    torch.manual_seed(0)
    return nn.Sequential(
        OrderedDict(
            conv1=nn.Conv2d(3, 4, 3, padding=1),
            relu1=nn.ReLU(inplace=True),
            conv2=nn.Conv2d(4, 5, 3, padding=1),
            relu2=nn.ReLU(),
            conv3=Counting(nn.Conv2d(5, 6, 3)),
        )
    ).eval()


X = torch.randn(2, 3, 8, 8, generator=torch.Generator().manual_seed(1))


def read(network, *names, **options):
    with (
        LayerReader(network, [Layer.parse(name) for name in names], **options) as reader,
        torch.no_grad(),
    ):
        runs = [reader.run(X) for _ in range(3)]
    for later in runs[1:]:
        assert {k: v.tolist() for k, v in later.items()} == {
            k: v.tolist() for k, v in runs[0].items()
        }
    return runs[-1]


def test_a_name_that_is_not_there_is_answered_with_one_that_is(network):
    with pytest.raises(InputError, match=r"No layer 'conv9'.*Did you mean 'conv.'.*--list-layers"):
        find_modules(network, [Layer("conv9")])
    with pytest.raises(InputError, match=r"Did you mean 'conv3.inner'"):
        find_modules(network, [Layer("inner")])
    with pytest.raises(InputError, match="twice"):
        find_modules(network, [Layer("conv1"), Layer("conv1")])
    with pytest.raises(InputError, match="No layer was given"):
        find_modules(network, [])


def test_pre_is_what_the_layer_returned_and_post_what_in_place_operations_left(network):
    with torch.no_grad():
        raw = network.conv1(X)
        second = network.conv2(raw.clone().relu())
    assert torch.equal(read(network, "conv1", "conv2", read="pre")["conv1"], raw)
    post = read(network, "conv1", "conv2", read="post")
    assert torch.equal(post["conv1"], raw.relu())
    assert torch.equal(post["conv2"], second)
    assert torch.equal(read(network, "conv1")["conv1"], raw), "no family that 2022 knew: pre"


@pytest.mark.parametrize("how", ["pre", "post"])
def test_the_network_stops_after_what_is_asked_for_but_runs_whole_once(network, how):
    read(network, "conv1", "conv2", read=how)
    assert network.conv3.runs == 1
    read(network, "outputs", read=how)
    assert network.conv3.runs == 4


def test_the_last_layer_is_read_after_its_own_rectifier_although_the_network_stops():
    network = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(inplace=True), nn.Flatten()).eval()
    with torch.no_grad():
        raw = network[0](X)
    assert torch.equal(read(network, "0", read="post")["0"], raw.relu())
    assert torch.equal(read(network, "0", read="pre")["0"], raw)


class Functional(nn.Module):
    """Writes over its layer's output without a module's help, at the very end."""

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3)
        self.later = nn.Conv2d(4, 4, 3)

    def forward(self, x):
        x = self.conv(x)
        self.later(x)
        return nnf.relu_(x)


def test_what_is_written_over_after_the_last_module_is_still_seen():
    network = Functional().eval()
    with torch.no_grad():
        raw = network.conv(X)
    assert torch.equal(read(network, "conv", read="post")["conv"], raw.relu())
    assert torch.equal(read(network, "conv", read="pre")["conv"], raw)


def test_residual_sums_write_over_the_branch(network):
    torchvision = pytest.importorskip("torchvision")
    torch.manual_seed(0)
    network = torchvision.models.resnet18().eval()
    x = torch.randn(1, 3, 64, 64)
    layers = [Layer("layer1.0.bn2"), Layer("layer1.0"), Layer("conv1")]
    with LayerReader(network, layers) as reader, torch.no_grad():
        for _ in range(2):
            seen = reader.run(x)
        raw = network.conv1(x)
    assert reader.read == "post", "torchvision's ResNet is of 2022"
    assert torch.equal(seen["layer1.0.bn2"], seen["layer1.0"])
    assert torch.equal(seen["conv1"], raw)
    with LayerReader(network, layers, read="pre") as reader, torch.no_grad():
        for _ in range(2):
            seen = reader.run(x)
    assert not torch.equal(seen["layer1.0.bn2"], seen["layer1.0"])


def test_a_module_used_twice_is_read_at_its_last_call():
    class Twice(nn.Module):
        def __init__(self):
            super().__init__()
            self.act = nn.ReLU()
            self.after = Counting(nn.Identity())

        def forward(self, x):
            x = self.act(x) - 1
            return self.after(self.act(x))

    network = Twice().eval()
    assert torch.equal(read(network, "act")["act"], (X.relu() - 1).relu())
    assert network.after.runs == 1


def test_hooks_are_gone_afterwards(network):
    read(network, "conv1")
    assert not any(module._forward_hooks for module in network.modules())


def test_layers_that_need_missing_weights_are_refused(network):
    layers, missing = [Layer("conv2")], ["conv3.inner.weight"]
    with LayerReader(network, layers, missing=missing) as reader, torch.no_grad():
        reader.run(X)
    with (
        LayerReader(network, [Layer("conv3")], missing=missing) as reader,
        torch.no_grad(),
        pytest.raises(InputError, match=r"lack conv3.inner.weight"),
    ):
        reader.run(X)


def test_a_module_that_forward_does_not_call_is_named(network):
    network.unused = nn.Linear(2, 2)
    network.forward = lambda x: network.conv1(x)
    with (
        LayerReader(network, [Layer("unused")]) as reader,
        torch.no_grad(),
        pytest.raises(InputError, match="without reaching unused"),
    ):
        reader.run(X)


# ---- outputs of layers


def test_a_tensor_is_selected_from_the_output_of_a_module():
    a, b = torch.zeros(1, 2), torch.ones(1, 2)
    pair = namedtuple("Pair", "h ys")
    assert select_tensor(a, Layer("x")) is a
    assert select_tensor((a, None), Layer("x")) is a
    assert select_tensor((a, b), Layer("x", key=1)) is b
    assert select_tensor({"h": a, "ys": b}, Layer("x", key="ys")) is b
    assert select_tensor(pair(a, b), Layer("x", key="h")) is a
    assert Layer.parse("layer0:h").label == "layer0.h"
    with pytest.raises(InputError, match=r"returns a tuple; choose a tensor: x:0, x:1"):
        select_tensor((a, b), Layer("x"))
    with pytest.raises(InputError, match=r"without 'z'; choose a tensor: x:h, x:ys"):
        select_tensor({"h": a, "ys": b}, Layer("x", key="z"))
    with pytest.raises(InputError, match="there is none"):
        select_tensor(None, Layer("x"))


def tokens(count, n=2, units=3):
    return torch.arange(n * count * units, dtype=torch.float32).view(n, count, units)


@pytest.mark.parametrize(
    ("count", "size", "declared", "before", "grid"),
    [
        (197, (224, 224), None, 1, (14, 14)),  # ViT-B/16
        (196, (224, 224), None, 0, (14, 14)),  # SigLIP
        (201, (224, 224), None, 5, (14, 14)),  # DINOv2 with registers
        (785, (224, 224), 1, 1, (28, 28)),  # ViT-S/8
        (9, (32, 64), None, 1, (2, 4)),
        (1 + 7 * 14, (112, 224), None, 1, (7, 14)),
        (257, (224, 224), None, 1, (16, 16)),  # patches of 14
        (17, None, None, 1, (4, 4)),
        (1 + 15 * 20, (240, 320), None, 1, (15, 20)),
        (1 + 8 * 9, (100, 110), 1, 1, (8, 9)),  # sizes that are no multiples of the patch, 12
    ],
)
def test_tokens_are_laid_on_the_grid_of_the_patches(count, size, declared, before, grid):
    given = tokens(count)
    seen = as_maps(given, Layer("x"), 2, size, declared)
    assert seen.unit_kind == "token"
    assert seen.maps.shape == (2, 3, *grid)
    assert torch.equal(seen.maps[1, 2].flatten(), given[1, before:, 2])


def test_the_prefix_and_grid_can_be_given():
    seen = as_maps(tokens(16), Layer("x", prefix=4, grid=(3, 4)), 2)
    assert torch.equal(seen.maps[0, 0].flatten(), tokens(16)[0, 4:, 0])
    assert as_maps(tokens(16), Layer("x", prefix=7), 2).maps.shape[2:] == (3, 3)
    with pytest.raises(InputError, match=r"16 tokens.*--prefix-tokens"):
        as_maps(tokens(16), Layer("x", prefix=1), 2, (224, 224))
    with pytest.raises(InputError, match="grid of 4 x 4 after 1 prefix"):
        as_maps(tokens(16), Layer("x", prefix=1, grid=(4, 4)), 2)


def test_other_layouts():
    maps = torch.randn(2, 3, 4, 5)
    assert torch.equal(as_maps(maps, Layer("x"), 2).maps, maps)
    last = maps.permute(0, 2, 3, 1)
    assert torch.equal(as_maps(last, Layer("x", layout="maps-last"), 2).maps, maps)
    pooled = as_maps(maps[:, :, 0, 0], Layer("x"), 2)
    assert pooled.maps.shape == (2, 3, 1, 1)
    assert pooled.unit_kind == "channel"
    half = as_maps(maps.half(), Layer("x"), 2).maps
    assert half.dtype == torch.float32
    with pytest.raises(InputError, match=r"\(2, 3, 4, 5\) for 3 images"):
        as_maps(maps, Layer("x"), 3)
    with pytest.raises(InputError, match="real numbers"):
        as_maps(maps.long(), Layer("x"), 2)
    with pytest.raises(InputError, match="No layout"):
        Layer("x", layout="channels")


def test_units_are_taken_by_index():
    maps = torch.randn(2, 6, 4, 4)
    assert torch.equal(as_maps(maps, Layer("x", units=(1, 4)), 2).maps, maps[:, [1, 4]])
    with pytest.raises(InputError, match="6 units; unit 9"):
        as_maps(maps, Layer("x", units=(1, 9)), 2)
    with pytest.raises(InputError, match="ascending"):
        Layer("x", units=(4, 1))


def test_latents_laid_over_a_layer_are_those_of_each_position():
    torch.manual_seed(0)
    sae = nn.Sequential(nn.Linear(3, 7), nn.ReLU())
    maps = torch.randn(2, 3, 4, 5)
    layer = Layer("layer3", encoder=sae)
    seen = as_maps(maps, layer, 2)
    assert layer.label == "layer3.sae"
    assert seen.unit_kind == "sae_latent"
    assert torch.allclose(seen.maps[1, :, 2, 3], sae(maps[1, :, 2, 3]), atol=1e-6)
    with pytest.raises(InputError, match=r"returns a tuple.*encoder"):
        as_maps(maps, Layer("x", encoder=lambda x: (x, x)), 2)
    with pytest.raises(InputError, match=r"expected latents \(position, latent\)"):
        as_maps(maps, Layer("x", encoder=lambda x: x[:, 0]), 2)
