"""Networks by name, of torchvision, timm, transformers and users' files, and their weights."""

import json
import os
import pickle
import subprocess
import sys
from types import SimpleNamespace
from urllib.error import URLError

import numpy as np
import pytest
import torch
import torchvision
from PIL import Image
from safetensors.torch import save_file
from torch import nn
from torchvision import transforms
from torchvision.transforms import v2

from milannotations import InputError, catalog
from milannotations.exemplars.networks.loaded_network import count_prefix_tokens
from milannotations.exemplars.networks.loading import (
    build_module,
    declared_preprocessing,
    load_model,
    parse_preprocessing,
)
from milannotations.exemplars.networks.names import default_config_name
from milannotations.exemplars.networks.preprocessing import MEAN, STD, Preprocessing
from milannotations.exemplars.networks.weights import load_into, match_names, read
from milannotations.utils import python_file

SQUEEZE = "torchvision:squeezenet1_1"
SIZES = {
    "hidden_size": 16,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 24,
    "image_size": 32,
    "patch_size": 8,
}
SMALL = """
import torch
from torch import nn
def build():
    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Conv2d(4, 5, 3))
"""


@pytest.fixture(scope="module")
def squeeze():
    with torch.random.fork_rng():
        torch.manual_seed(1)
        return torchvision.models.squeezenet1_1()


def same(network, other):
    mine, theirs = network.state_dict(), other.state_dict()
    return list(mine) == list(theirs) and all(torch.equal(mine[k], theirs[k]) for k in mine)


def noise(side=64, seed=0):
    return Image.fromarray(
        np.random.default_rng(seed).integers(0, 256, (side, side, 3), dtype=np.uint8)
    )


# --- preprocessing


@pytest.mark.parametrize(
    ("mean", "std"),
    [
        (MEAN, STD),
        ((0.5,) * 3, (0.5,) * 3),
        ((0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)),
        ((0, 0, 0), (1, 1, 1)),
    ],
)
def test_every_byte_comes_back(mean, std):
    pixels = np.repeat(np.arange(256, dtype=np.uint8), 3).reshape(16, 16, 3)
    steps = transforms.Compose([transforms.ToTensor(), transforms.Normalize(mean, std)])
    made = Preprocessing.from_transform(steps)
    assert (made.mean, made.std) == (tuple(map(float, mean)), tuple(map(float, std)))
    assert np.array_equal(made.undo(made(Image.fromarray(pixels))), pixels)


def test_imagenet_is_that_of_2022():
    image = noise(300)
    made = Preprocessing.imagenet()
    theirs = transforms.Compose(
        [
            transforms.Resize(256),
            transforms.CenterCrop(224),
            transforms.ToTensor(),
            transforms.Normalize(MEAN, STD),
        ]
    )
    assert torch.equal(made(image), theirs(image))
    assert torch.equal(made(image), parse_preprocessing("imagenet:224")(image))
    assert Preprocessing.imagenet(64).blank().shape == (3, 64, 64)
    assert np.array_equal(
        (plain := parse_preprocessing("imagenet:as-is")).undo(plain(image)), image
    )


def test_undo_of_what_is_out_of_range_and_of_grey():
    made = Preprocessing(transforms.ToTensor(), (0, 0, 0), (1, 1, 1))
    seen = torch.tensor([-1.0, 0.4, 2.0]).view(1, 1, 3)
    assert made.undo(seen).tolist() == [[[0] * 3, [102] * 3, [255] * 3]]


def test_normalise_is_found_however_it_is_nested():
    normalise = transforms.Normalize([0.1, 0.2, 0.3], [0.4, 0.5, 0.6])
    for steps in (
        transforms.Compose([transforms.Compose([transforms.ToTensor()]), normalise]),
        v2.Compose([v2.Compose([v2.ToImage(), v2.ToDtype(torch.float32, scale=True)]), normalise]),
        transforms.Compose([transforms.ToTensor(), nn.Sequential(normalise)]),
    ):
        made = Preprocessing.from_transform(steps)
        assert (made.mean, made.std) == ((0.1, 0.2, 0.3), (0.4, 0.5, 0.6))


def test_mean_and_std_are_measured_where_nothing_declares_them():
    to_tensor = transforms.ToTensor()
    made = Preprocessing.from_transform(lambda image: to_tensor(image) * 2 - 1)
    assert (made.mean, made.std) == ((0.5,) * 3, (0.5,) * 3)
    made = Preprocessing.from_transform(to_tensor)
    assert (made.mean, made.std) == ((0.0,) * 3, (1.0,) * 3)
    # two in a row: neither alone undoes them
    twice = transforms.Compose(
        [to_tensor, transforms.Normalize(MEAN, STD), transforms.Normalize((1, 1, 1), (2, 2, 2))]
    )
    made, image = Preprocessing.from_transform(twice), noise(224)
    assert np.array_equal(made.undo(made(image)), np.asarray(image))


@pytest.mark.parametrize(
    ("transform", "message"),
    [
        (transforms.Compose([transforms.RandomCrop(8), transforms.ToTensor()]), "at random"),
        (transforms.PILToTensor(), r"ToDtype\(torch.float32, scale=True\)"),
        (lambda image: image, "ToTensor"),
        (lambda image: transforms.ToTensor()(image) ** 2, "Preprocessing(transform, mean"),
        (lambda image: transforms.ToTensor()(image)[:2], "(2, 224, 224)"),
        (lambda image: 1 / 0, "ZeroDivisionError"),
        ("imagenet", "callable"),
    ],
)
def test_preprocessing_that_is_none(transform, message):
    with pytest.raises(InputError) as caught:
        Preprocessing.from_transform(transform)
    assert message.replace("\\", "") in str(caught.value)


def test_preprocessing_given_by_hand_is_believed():
    made = Preprocessing(lambda image: transforms.ToTensor()(image) ** 2, MEAN, STD)
    assert made.mean == MEAN
    with pytest.raises(InputError, match="three numbers"):
        Preprocessing(transforms.ToTensor(), (0.5,), (0.5,))


def test_preprocessing_is_described_without_addresses():
    for each in (
        Preprocessing.imagenet(),
        Preprocessing.from_transform(lambda p: transforms.ToTensor()(p)),
        declared_preprocessing("torchvision:resnet18"),
    ):
        record = json.dumps(each.describe())
        assert "0x" not in record
        assert "\\n" not in record


def test_preprocessing_by_words(tmp_path):
    resnet50 = parse_preprocessing("torchvision:resnet50@IMAGENET1K_V1")
    assert "resize_size=[256]" in resnet50.describe()["transform"]
    assert (
        "resize_size=[232]" in parse_preprocessing("torchvision:resnet50").describe()["transform"]
    )
    file = tmp_path / "mine.py"
    file.write_text("from torchvision.transforms import ToTensor\nprepare = ToTensor()\n")
    assert parse_preprocessing(f"{file}:prepare").std == (1.0, 1.0, 1.0)
    for wrong in ("imagnet", "imagenet:big", "torchvision:", "imagenet:0"):
        with pytest.raises(InputError):
            parse_preprocessing(wrong)
    with pytest.raises(InputError, match="Did you mean 'imagenet'"):
        parse_preprocessing("imagnet")


# --- torchvision


def test_torchvision_wants_weights_or_random():
    with pytest.raises(InputError) as caught:
        load_model("torchvision:resnet18")
    for way in ("torchvision:resnet18@DEFAULT", "--weights FILE", "--random"):
        assert way in str(caught.value)
    with pytest.raises(InputError, match="one of them"):
        load_model(SQUEEZE, weights="x", random=True)
    with pytest.raises(InputError, match="expected one"):
        load_model(f"{SQUEEZE}@DEFAULT", random=True)


def test_torchvision_random_is_the_same_each_time():
    torch.manual_seed(5)
    before = torch.random.get_rng_state()
    one, two = load_model(SQUEEZE, random=True), load_model(SQUEEZE, random=True)
    assert torch.equal(before, torch.random.get_rng_state())
    assert same(one.model, two.model)
    assert not one.model.training
    assert (one.name, one.missing, one.prefix) == ("squeezenet1-1", (), None)
    assert one.source["random_seed"] == 0
    assert one.source["weights"] is None
    assert one.source["versions"]["torchvision"] == torchvision.__version__.partition("+")[0]
    assert one.preprocessing.mean == MEAN


def test_torchvision_prefix_and_no_fetched_backbone(monkeypatch):
    # a detector's backbone would be fetched if it were not told not to
    monkeypatch.setattr(torch.hub, "load_state_dict_from_url", lambda *a, **k: 1 / 0)
    assert load_model("torchvision:ssdlite320_mobilenet_v3_large", random=True).prefix is None
    assert count_prefix_tokens(torchvision.models.vit_b_16(num_classes=2).named_parameters()) == 1


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("torchvision:resnet19", "Did you mean 'resnet18'"),
        ("torchvision:resnet18@IMAGENET1K_V9", "Known: IMAGENET1K_V1, DEFAULT"),
        ("resnet18", "Did you mean 'torchvision:resnet18'"),
        ("resnet18@DEFAULT", "Did you mean 'torchvision:resnet18@DEFAULT'"),
        ("torchvison:resnet20", "Did you mean 'torchvision'"),
        ("torchvision:", "Expected torchvision:NAME"),
        ("hf:/nowhere/at/all", "No such folder: /nowhere/at/all"),
        ("nowhere.py:build", "No such file: nowhere.py"),
    ],
)
def test_no_such_model(spec, message):
    with pytest.raises(InputError) as caught:
        load_model(spec)
    assert message in str(caught.value)


def test_torchvision_weights_by_name_out_of_the_cache(tmp_path, monkeypatch, squeeze):
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    (tmp_path / "hub" / "checkpoints").mkdir(parents=True)
    url = torchvision.models.SqueezeNet1_1_Weights.DEFAULT.url
    torch.save(squeeze.state_dict(), tmp_path / "hub" / "checkpoints" / url.rpartition("/")[2])
    made = load_model(f"{SQUEEZE}@IMAGENET1K_V1")
    assert same(made.model, squeeze)
    assert made.source["weights"]["name"] == "SqueezeNet1_1_Weights.IMAGENET1K_V1"
    assert len(made.source["weights"]["sha256"]) == 64
    assert str(tmp_path) not in json.dumps(made.source)


def test_torchvision_weights_that_cannot_be_fetched(tmp_path, monkeypatch):
    def refuse(*_, **__):
        raise URLError("no network")

    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    monkeypatch.setattr(torch.hub, "download_url_to_file", refuse)
    with pytest.raises(InputError) as caught:
        load_model(f"{SQUEEZE}@DEFAULT")
    assert str(tmp_path / "hub" / "checkpoints" / "squeezenet1_1-b8a52dc0.pth") in str(caught.value)


def test_a_published_file_brings_its_own_preprocessing(monkeypatch):
    from milannotations.exemplars.networks import torchvision as torchvision_models

    # resnet50's default is V2, with another preprocessing than that of the well-known V1
    digest = "0676ba61" + "0" * 56
    made = torchvision_models.preprocessing("resnet50", "", digest)
    assert "resize_size=[256]" in made.describe()["transform"]


# --- weights


def files(tmp_path, state):
    """Write a state in every form that weights come in."""
    save_file(state, tmp_path / "a.safetensors")
    save_file(state, tmp_path / "no-ending")
    forms = {
        "plain.pth": state,
        "nested.pt": {"state_dict": state, "epoch": 3, "optimizer": {"state": {0: {}}}},
        "parallel.th": {"model": {f"module.{k}": v for k, v in state.items()}},
        "compiled.bin": {f"_orig_mod.module.{k}": v for k, v in state.items()},
        "lightning.ckpt": {"state_dict": {f"backbone.net.{k}": v for k, v in state.items()}},
        "half.pth": {k: v.half().float() for k, v in state.items()},
    }
    for name, content in forms.items():
        torch.save(content, tmp_path / name)
    torch.save(state, tmp_path / "old.th", _use_new_zipfile_serialization=False)
    return sorted(tmp_path.iterdir())


def test_weights_in_every_form(tmp_path, squeeze):
    with torch.no_grad():
        state = {k: v.half().float() for k, v in squeeze.state_dict().items()}
    torch.save({k: v.half() for k, v in state.items()}, tmp_path / "halves.pt")
    for file in files(tmp_path, state):
        made = load_model(SQUEEZE, weights=file)
        assert made.missing == (), file.name
        assert all(torch.equal(v, state[k]) for k, v in made.model.state_dict().items()), file.name
        assert {v.dtype for v in made.model.state_dict().values()} == {torch.float32}
        assert made.source["weights"]["file"] == file.name
        assert str(tmp_path) not in json.dumps(made.source)


def test_weights_that_lack_something(tmp_path, squeeze):
    state = {k: v for k, v in squeeze.state_dict().items() if not k.startswith("classifier")}
    save_file(state, tmp_path / "trunk.safetensors")
    made = load_model(SQUEEZE, weights=tmp_path / "trunk.safetensors")
    assert made.missing == ("classifier.1.weight", "classifier.1.bias")
    again = load_model(SQUEEZE, weights=tmp_path / "trunk.safetensors")
    assert same(made.model, again.model)  # what is missing is drawn from the seed
    assert made.source["missing"] == 2


def test_weights_for_other_classes_make_a_network_of_as_many(tmp_path):
    other = torchvision.models.squeezenet1_1(num_classes=7)
    save_file(other.state_dict(), tmp_path / "seven.safetensors")
    assert same(load_model(SQUEEZE, weights=tmp_path / "seven.safetensors").model, other)


def test_counters_never_count_as_missing(tmp_path):
    network = nn.Sequential(nn.Conv2d(3, 2, 1), nn.BatchNorm2d(2))
    state = {k: v for k, v in network.state_dict().items() if "num_batches" not in k}
    assert load_into(network, state, "x") == ()
    assert load_into(network, {**state, "2.num_batches_tracked": torch.tensor(1)}, "x") == ()


def test_a_tied_entry_is_not_missing():
    network = nn.ModuleDict({"a": nn.Linear(2, 2, bias=False), "b": nn.Linear(2, 2, bias=False)})
    network["b"].weight = network["a"].weight
    assert load_into(network, {"a.weight": torch.zeros(2, 2)}, "x") == ()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda s: {"x.y": torch.zeros(2), "z.w": torch.zeros(1)}, "holds no weights of this"),
        (lambda s: {**s, "9.weight": torch.zeros(2)}, "which has no 9.weight; 2 of the file's 3"),
        (lambda s: {**s, "0.bias": torch.zeros(9)}, "0.bias 9, not 2"),
        (lambda s: {**s, "0.weight": s["0.weight"].to(torch.int8)}, "quantised"),
    ],
)
def test_weights_that_do_not_fit(change, message):
    network = nn.Sequential(nn.Linear(3, 2))
    with pytest.raises(InputError) as caught:
        load_into(network, change(network.state_dict()), "mine.pth")
    assert message in str(caught.value)
    assert "mine.pth" in str(caught.value)


def test_a_beginning_is_put_off_or_on():
    own = ["net.a.w", "net.b.w"]
    assert sorted(match_names({"a.w": 1, "b.w": 2}, own)) == own
    assert sorted(match_names({"module.model.a.w": 1, "module.model.b.w": 2}, own)) == own
    assert match_names({"c.w": 1}, own) == {"c.w": 1}
    # one entry alone has no common beginning to lose but its own
    assert match_names({"net.a.w": 1}, own) == {"net.a.w": 1}


class Odd:
    """Class that no file of weights should hold."""


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"state_dict": {"a": torch.zeros(1)}, "args": Odd()}, "Odd"),
        ({"state_dict": {"a": torch.zeros(1)}, "best": np.float64(0.5)}, "multiarray.scalar"),
        (nn.Linear(2, 2), "torch.nn.modules.linear.Linear"),
    ],
)
def test_a_pickle_of_more_than_tensors_is_refused(tmp_path, content, message):
    torch.save(content, tmp_path / "w.pth")
    with pytest.raises(InputError) as caught:
        read(tmp_path / "w.pth")
    assert message in str(caught.value)
    assert "safetensors" in str(caught.value)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"teacher": {"a": torch.zeros(1)}, "student": {"a": torch.zeros(1)}}, "teacher, student"),
        ({"epoch": 1}, "a dict of epoch"),
        ([torch.zeros(1)], "a list"),
    ],
)
def test_a_file_without_one_state(tmp_path, content, message):
    torch.save(content, tmp_path / "w.pth")
    with pytest.raises(InputError) as caught:
        read(tmp_path / "w.pth")
    assert message in str(caught.value)


def test_files_that_are_no_weights(tmp_path, write_file):
    for name, content in {
        "empty.pth": b"",
        "page.pth": b"<html>not found</html>",
        "cut.safetensors": b"\x10\0\0\0\0\0\0\0{",
        "pickle.pth": pickle.dumps({"a": 1}, protocol=2),
    }.items():
        with pytest.raises(InputError, match=name):
            read(write_file(name, content))
    with pytest.raises(InputError, match="git lfs pull"):
        read(write_file("lfs.safetensors", "version https://git-lfs.github.com/spec/v1\n"))
    torch.save({"a": torch.zeros(1000)}, tmp_path / "whole.pth")
    cut = write_file("half.pth", (tmp_path / "whole.pth").read_bytes()[:2000])
    with pytest.raises(InputError, match="is the copy complete"):
        read(cut)
    with pytest.raises(InputError, match="No such file"):
        read(tmp_path / "none.pth")


# --- files of one's own


@pytest.fixture
def own(tmp_path):
    """Return a function that writes a Python file and returns its path."""

    def write(content, name="my_net.py", folder="."):
        path = tmp_path / folder / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(content)
        return path

    return write


def test_a_factory(own):
    path = own(SMALL)
    made = load_model(f"{path}:build")
    assert (made.name, made.preprocessing, made.prefix) == ("my-net-build", None, None)
    assert not made.model.training
    assert made.source["spec"] == "my_net.py:build"
    assert made.source["file"]["name"] == "my_net.py"
    assert str(path.parent) not in json.dumps(made.source)
    assert same(made.model, load_model(f"{path}:build").model)
    assert isinstance(build_module(f"{path}:build"), nn.Sequential)


def test_a_factory_with_weights(own, tmp_path):
    path = own(SMALL)
    state = {f"module.{k}": v + 1 for k, v in build_module(f"{path}:build").state_dict().items()}
    torch.save({"state_dict": state}, tmp_path / "w.pth")
    made = load_model(f"{path}:build", weights=tmp_path / "w.pth")
    assert made.missing == ()
    assert torch.equal(made.model[0].bias, state["module.0.bias"])


def test_a_factory_with_its_preprocessing_a_dataclass_and_a_neighbour(own):
    own("SIDE = 12\n", "sizes.py")
    path = own(
        "from dataclasses import dataclass, field\nfrom torch import nn\n"
        "from torchvision import transforms as T\nfrom sizes import SIDE\n"
        "@dataclass(eq=False)\nclass Net(nn.Module):\n    width: int = 3\n"
        "    def __post_init__(self):\n        super().__init__()\n"
        "        self.register = nn.Parameter(__import__('torch').zeros(1, 4, 8))\n"
        "def build():\n    import more_sizes\n"
        "    return Net(), T.Compose([T.Resize((SIDE, SIDE)), T.ToTensor(),"
        " T.Normalize([.1, .1, .1], [.2, .2, .2])])\n"
    )
    own("", "more_sizes.py")
    before = list(sys.path)
    made = load_model(f"{path}:build")
    assert made.preprocessing.blank().shape == (3, 12, 12)
    assert made.preprocessing.mean == (0.1, 0.1, 0.1)
    assert made.prefix == 4
    assert sys.path == before


def test_neighbours_of_one_name_are_kept_apart(own):
    for folder, size in (("a", 1), ("b", 2)):
        own(f"SIZE = {size}\n", "helper.py", folder)
        path = own(
            "import helper\nfrom torch import nn\ndef build():\n"
            "    return nn.Linear(helper.SIZE, 1)\n",
            "net.py",
            folder,
        )
        assert build_module(f"{path}:build").in_features == size


def test_a_file_that_changed_is_read_anew(own):
    text = "from torch import nn\ndef build():\n    return nn.Linear({}, 1)\n"
    for size in (1, 2):
        assert build_module(f"{own(text.format(size))}:build").in_features == size


@pytest.mark.parametrize(
    ("content", "name", "message"),
    [
        (SMALL, "bild", "Did you mean 'build'"),
        (SMALL, "", "my_net.py:build"),
        ("def build(:\n", "build", "my_net.py, line 1: SyntaxError"),
        ("\nimport nowhere_to_be_found\n", "build", "line 2 (`import nowhere_to_be_found`)"),
        ("def build():\n    x = {}\n    return x['y']\n", "build", "line 3 (`return x['y']`)"),
        ("def build(width):\n    pass\n", "build", "missing 1 required positional argument"),
        ("def build():\n    return 3\n", "build", "returned a int; expected a torch.nn.Module"),
        ("def build():\n    return {}\n", "build", "looks like its weights"),
        ("def build():\n    return (1, 2, 3)\n", "build", "returned a tuple"),
        ("build = 3\n", "build", "is a int; expected a function"),
        ("import sys\nsys.exit(0)\n", "build", "line 2 (`sys.exit(0)`): the file ends"),
        (SMALL.replace("return ", "return 1, 2; "), "build", "returned a int"),
        (
            "from torch import nn\ndef build():\n    return nn.ReLU(), 'imagenet'\n",
            "build",
            "expected a callable",
        ),
    ],
)
def test_files_that_give_no_network(own, content, name, message):
    with pytest.raises(InputError) as caught:
        load_model(f"{own(content)}:{name}".rstrip(":"))
    assert message in str(caught.value)


def test_a_module_itself_and_a_class(own):
    path = own("from torch import nn\nnet = nn.Linear(2, 1)\nclass Net(nn.ReLU):\n    pass\n")
    assert isinstance(load_model(f"{path}:net").model, nn.Linear)
    assert type(load_model(f"{path}:Net").model).__name__ == "Net"


def test_preprocessing_of_a_file_reaches_another_process(own, tmp_path):
    path = own(
        "import sizes\nfrom torchvision.transforms.functional import to_tensor\n"
        "class Prepare:\n    def __call__(self, image):\n"
        "        return to_tensor(image.resize((sizes.SIDE, sizes.SIDE)))\n"
        "prepare = Prepare()\n"
    )
    own("SIDE = 9\n", "sizes.py")
    made = parse_preprocessing(f"{path}:prepare")
    (tmp_path / "made").write_bytes(pickle.dumps(made))
    program = (
        "import pickle; made = pickle.load(open('made', 'rb')); print(tuple(made.blank().shape))"
    )
    ran = subprocess.run(
        [sys.executable, "-c", program],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": os.getcwd()},
        capture_output=True,
        text=True,
    )
    assert ran.stdout.strip() == "(3, 9, 9)", ran.stderr
    assert str(path) in python_file.loaded_files()


# --- names


@pytest.mark.parametrize(
    ("spec", "images", "name"),
    [
        ("torchvision:resnet18", "imagenet-sample", "resnet18-imagenet-sample"),
        ("torchvision:vit_b_16@DEFAULT", "Val Set", "vit-b-16-val-set"),
        ("timm:resnet18.a1_in1k", "val", "resnet18-a1-in1k-val"),
        ("hf:google/vit-base-patch16-224", "val", "vit-base-patch16-224-val"),
        ("nets/resnet20.py:resnet20", "cifar10-test", "resnet20-cifar10-test"),
        ("a/b.py:make_it", "写真", "b-make-it-images"),
    ],
)
def test_default_names(spec, images, name):
    assert default_config_name(spec, images) == name


def test_default_names_are_names_of_configs():
    for spec, images in (("x.py:not", "alexnet-imagenet"), ("not.py:not", "alexnet-imagenet")):
        assert default_config_name(spec, images) not in catalog.GROUPS
    long = default_config_name("torchvision:resnet18", "a" * 300)
    assert len(long) <= 100
    assert long != default_config_name("torchvision:resnet18", "a" * 301)
    assert default_config_name("x.py:y", "notes.md") == "x-y-notes-md"


# --- transformers


@pytest.fixture(scope="module")
def hf(tmp_path_factory):
    """Write tiny models in the real format: config, safetensors, preprocessor_config."""
    import transformers as t

    t.utils.logging.disable_progress_bar()
    root = tmp_path_factory.mktemp("hf")
    text = {
        "hidden_size": 8,
        "num_hidden_layers": 1,
        "num_attention_heads": 1,
        "intermediate_size": 8,
        "vocab_size": 20,
    }
    stages = {"hidden_sizes": [8, 16], "depths": [1, 1]}
    small = {"height": 32, "width": 32}
    models = {
        "ViT-tiny": t.ViTForImageClassification(t.ViTConfig(**SIZES)),
        "dinov2-reg": t.Dinov2WithRegistersModel(
            t.Dinov2WithRegistersConfig(**SIZES, num_register_tokens=4)
        ),
        "clip": t.CLIPModel(t.CLIPConfig(vision_config=SIZES, text_config=text, projection_dim=8)),
        "siglip": t.SiglipModel(t.SiglipConfig(vision_config=SIZES, text_config=text)),
        "swin": t.SwinModel(
            t.SwinConfig(
                image_size=32, patch_size=4, embed_dim=8, depths=[1, 1], num_heads=[1, 2],
                window_size=4,
            )
        ),
        "convnext": t.ConvNextModel(t.ConvNextConfig(num_stages=2, **stages)),
        "resnet": t.ResNetModel(
            t.ResNetConfig(embedding_size=8, layer_type="basic", **stages)
        ),
    }  # fmt: skip
    processors = {
        "ViT-tiny": t.ViTImageProcessor(size=small),
        "dinov2-reg": t.BitImageProcessor(size={"shortest_edge": 36}, crop_size=small),
        "clip": t.CLIPImageProcessor(size={"shortest_edge": 32}, crop_size=small),
        "siglip": t.SiglipImageProcessor(size=small),
        "swin": t.ViTImageProcessor(size=small, image_mean=MEAN, image_std=STD),
        "convnext": t.ConvNextImageProcessor(size={"shortest_edge": 32}),
        "resnet": t.ConvNextImageProcessor(size={"shortest_edge": 32}),
    }
    for name, model in models.items():
        model.save_pretrained(root / name)
        processors[name].save_pretrained(root / name)
    return SimpleNamespace(root=root, models=models, processors=processors)


@pytest.mark.parametrize(
    ("name", "prefix", "trunk"),
    [
        ("ViT-tiny", 1, lambda m: m.vit),
        ("dinov2-reg", 5, lambda m: m),
        ("clip", 1, lambda m: m.vision_model),
        ("siglip", 0, lambda m: m.vision_model),
        ("swin", 0, lambda m: m),
        ("convnext", 0, lambda m: m),
        ("resnet", None, lambda m: m),
    ],
)
def test_hf_folders(hf, name, prefix, trunk):
    made = load_model(f"hf:{hf.root / name}")
    assert made.prefix == prefix
    assert made.name == name.lower()
    assert str(hf.root) not in json.dumps(made.source)
    assert made.source["weights"]["files"] == ["model.safetensors"]
    theirs, image = trunk(hf.models[name]).eval(), noise(48)
    seen = made.preprocessing(image)
    given = hf.processors[name](images=image, return_tensors="pt")["pixel_values"][0]
    assert torch.equal(seen, given)
    with torch.no_grad():
        mine, yours = made.model(seen[None]), theirs(seen[None])
    assert torch.equal(mine.last_hidden_state, yours.last_hidden_state)
    tokens = mine.last_hidden_state
    if prefix and tokens.ndim == 3:
        assert tokens.shape[1] == prefix + 16
    # a head's weights are no part of it, and one that they lack is named
    assert made.missing == (
        ("pooler.dense.weight", "pooler.dense.bias") if name == "ViT-tiny" else ()
    )


@pytest.mark.parametrize("name", ["ViT-tiny", "clip", "swin"])
def test_hf_preprocessing_is_undone(hf, name):
    made = load_model(f"hf:{hf.root / name}").preprocessing
    assert made.mean == pytest.approx(hf.processors[name].image_mean)
    grey = Image.new("RGB", (40, 40), (10, 100, 200))
    assert made.undo(made(grey))[16, 16].tolist() == [10, 100, 200]
    assert str(hf.root) not in json.dumps(made.describe())
    assert pickle.loads(pickle.dumps(made)).describe() == made.describe()


def test_hf_processors_that_scale_in_other_ways():
    import transformers as t

    grey, side = Image.new("RGB", (40, 40), (10, 100, 200)), {"height": 8, "width": 8}
    for processor, mean in (
        (t.ViTImageProcessor(size=side, do_normalize=False), 0),
        (t.ViTImageProcessor(size=side, do_rescale=False, image_mean=[127.5] * 3), 0.5),
        (t.EfficientNetImageProcessor(size=side, rescale_offset=True), None),
    ):
        made = Preprocessing.from_hf(processor)
        assert made.undo(made(grey))[4, 4].tolist() == [10, 100, 200]
        assert mean is None or made.mean == (mean,) * 3
    bytes_as_they_are = t.ViTImageProcessor(size=side, do_rescale=False, do_normalize=False)
    with pytest.raises(InputError, match="float32"):
        Preprocessing.from_hf(bytes_as_they_are)


def test_hf_random_and_half_precision(hf, tmp_path):
    one = load_model(f"hf:{hf.root / 'clip'}", random=True)
    assert same(one.model, load_model(f"hf:{hf.root / 'clip'}", random=True).model)
    assert not same(one.model, load_model(f"hf:{hf.root / 'clip'}").model)
    assert one.source["weights"] is None
    half = hf.models["swin"].half()
    half.save_pretrained(tmp_path / "half")
    hf.models["swin"].float()
    made = load_model(f"hf:{tmp_path / 'half'}")
    assert {v.dtype for v in made.model.parameters()} == {torch.float32}
    assert made.preprocessing is None  # no preprocessor_config.json there


def test_hf_weights_from_a_file_under_their_published_names(hf, tmp_path):
    for name in ("ViT-tiny", "clip", "resnet"):
        own = load_model(f"hf:{hf.root / name}")
        made = load_model(f"hf:{hf.root / name}", weights=hf.root / name / "model.safetensors")
        assert same(own.model, made.model)
        assert made.missing == own.missing
    torch.save({"state_dict": hf.models["resnet"].state_dict()}, tmp_path / "w.pth")
    made = load_model(f"hf:{hf.root / 'resnet'}", weights=tmp_path / "w.pth")
    assert same(made.model, hf.models["resnet"])
    with pytest.raises(InputError, match="holds no weights of this network"):
        load_model(f"hf:{hf.root / 'resnet'}", weights=hf.root / "clip" / "model.safetensors")
    other = load_model(f"hf:{hf.root / 'swin'}").model.state_dict()
    other["embeddings.patch_embeddings.projection.bias"] = torch.zeros(3)
    save_file(other, tmp_path / "odd.safetensors")
    with pytest.raises(InputError, match="of other shapes are embeddings"):
        load_model(f"hf:{hf.root / 'swin'}", weights=tmp_path / "odd.safetensors")


def test_hf_folders_that_are_none(hf, tmp_path):
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match=r"no config\.json"):
        load_model(f"hf:{tmp_path / 'empty'}")
    (tmp_path / "bare").mkdir()
    config = (hf.root / "swin" / "config.json").read_text()
    (tmp_path / "bare" / "config.json").write_text(config)
    with pytest.raises(InputError, match="could not load"):
        load_model(f"hf:{tmp_path / 'bare'}")
    assert load_model(f"hf:{tmp_path / 'bare'}", random=True).missing == ()
    with pytest.raises(InputError, match="could not load nobody/no-such-model"):
        load_model("hf:nobody/no-such-model")
    with pytest.raises(InputError, match=r"Did you mean 'hf:"):
        load_model(str(hf.root / "swin"))


def test_hf_networks_that_take_no_images_or_hide_some(tmp_path):
    import transformers as t

    t.BertConfig(hidden_size=8, num_hidden_layers=1, num_attention_heads=1).save_pretrained(
        tmp_path / "text"
    )
    with pytest.raises(InputError, match="input_ids first"):
        load_model(f"hf:{tmp_path / 'text'}", random=True)
    t.ViTMAEConfig(hidden_size=8).save_pretrained(tmp_path / "mae")
    with pytest.raises(InputError, match="at random"):
        load_model(f"hf:{tmp_path / 'mae'}", random=True)


# --- timm


@pytest.fixture
def timm():
    return pytest.importorskip("timm", reason="needs timm (pip install timm)")


def test_timm_is_asked_for_where_it_is_not(monkeypatch):
    monkeypatch.setitem(sys.modules, "timm", None)
    with pytest.raises(InputError, match="pip install timm"):
        load_model("timm:resnet18", random=True)


def test_timm_random(timm):
    made = load_model("timm:vit_tiny_patch16_224", random=True)
    assert (made.prefix, made.name) == (1, "vit-tiny-patch16-224")
    assert made.preprocessing.mean == (0.5, 0.5, 0.5)
    assert made.preprocessing.blank().shape == (3, 224, 224)
    assert same(made.model, load_model("timm:vit_tiny_patch16_224", random=True).model)
    assert "timm" in made.source["versions"]


def test_timm_weights(timm, tmp_path):
    network = timm.create_model("test_resnet", num_classes=5)
    save_file(network.state_dict(), tmp_path / "w.safetensors")
    made = load_model("timm:test_resnet", weights=tmp_path / "w.safetensors")
    assert same(made.model, network)
    assert made.prefix is None
    settings = timm.data.resolve_model_data_config(network)
    theirs = timm.data.create_transform(**settings, is_training=False)
    assert torch.equal(made.preprocessing(noise(200)), theirs(noise(200)))
    tagged = declared_preprocessing("timm:test_resnet.r160_in1k").describe()
    assert tagged == made.preprocessing.describe()


def test_timm_names(timm):
    with pytest.raises(InputError) as caught:
        load_model("timm:resnet18")
    for way in ("timm:resnet18@DEFAULT", "--weights FILE", "--random"):
        assert way in str(caught.value)
    with pytest.raises(InputError, match="Did you mean 'resnet18'"):
        load_model("timm:resnet18q")
    with pytest.raises(InputError, match=r"Did you mean 'a1_in1k'.*Known: "):
        load_model("timm:resnet18@a1_in2k")
    with pytest.raises(InputError, match="two sets of weights"):
        load_model("timm:resnet18.a1_in1k@a2_in1k")
    with pytest.raises(InputError, match="could not be downloaded"):  # HF_HUB_OFFLINE
        load_model("timm:test_resnet@DEFAULT")


# --- real ones


RESNET20 = """
import torch.nn.functional as F
from torch import nn
from torchvision import transforms as T

class Block(nn.Module):
    def __init__(self, before, width, stride):
        super().__init__()
        self.conv1 = nn.Conv2d(before, width, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.conv2 = nn.Conv2d(width, width, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(width)
        self.pad = (width - before) // 2
        self.stride = stride

    def forward(self, x):
        out = self.bn2(self.conv2(F.relu(self.bn1(self.conv1(x)))))
        short = F.pad(x[:, :, :: self.stride, :: self.stride], (0, 0, 0, 0, self.pad, self.pad))
        return F.relu(out + short)

class ResNet20(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv1 = nn.Conv2d(3, 16, 3, 1, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(16)
        before = 16
        for stage, width in enumerate((16, 32, 64), 1):
            blocks = [Block(before if i == 0 else width, width, 2 if i == 0 and stage > 1 else 1)
                      for i in range(3)]
            setattr(self, f"layer{stage}", nn.Sequential(*blocks))
            before = width
        self.linear = nn.Linear(64, 10)

    def forward(self, x):
        x = F.relu(self.bn1(self.conv1(x)))
        x = self.layer3(self.layer2(self.layer1(x)))
        return self.linear(x.mean((2, 3)))

def resnet20():
    normalise = T.Normalize([.485, .456, .406], [.229, .224, .225])
    return ResNet20(), T.Compose([T.ToTensor(), normalise])
"""


def accuracy(loaded, images, names):
    right, found = 0, []
    with torch.no_grad():
        for begin in range(0, len(images), 50):
            batch = range(begin, min(begin + 50, len(images)))
            found += loaded.model(torch.stack([images[i] for i in batch])).argmax(1).tolist()
    for i, guess in enumerate(found):
        right += images.source_id(i).partition("/")[0] == names[guess]
    return right / len(images)


@pytest.mark.slow
def test_real_resnet20_through_a_file(real, own):
    from milannotations.exemplars.images.sources import open_images

    path = own(RESNET20, "resnet20.py")
    loaded = load_model(f"{path}:resnet20", weights=real / "weights" / "resnet20_cifar10.th")
    assert (loaded.name, loaded.missing) == ("resnet20", ())
    folder = real / "images" / "cifar10-test"
    names = sorted(each.name for each in folder.iterdir() if each.is_dir())
    images = open_images(folder, loaded.preprocessing, limit=300)
    # .917 on the original images; these are JPEG copies of 32 pixels
    assert accuracy(loaded, images, names) > 0.75


@pytest.mark.slow
def test_real_squeezenet(real):
    from milannotations.exemplars.images.sources import open_images

    weights = real / "weights" / "squeezenet1_1_imagenet.safetensors"
    loaded = load_model(SQUEEZE, weights=weights)
    assert loaded.missing == ()
    folder = real / "images" / "imagenet-sample"
    names = sorted(each.name for each in folder.iterdir() if each.is_dir())
    images = open_images(folder, loaded.preprocessing, limit=200)
    assert accuracy(loaded, images, names) > 0.5


def test_real_resnet18_to_layer3(real):
    weights = real / "weights" / "resnet18_imagenet_to_layer3.safetensors"
    loaded = load_model("torchvision:resnet18", weights=weights)
    assert loaded.missing
    assert {name.partition(".")[0] for name in loaded.missing} == {"layer4", "fc"}
