"""What MILAN sees: pooling beside loops, networks of several libraries; the model as a folder."""

import dataclasses
import json
import shutil

import pytest
import torch
import torchvision
from safetensors.torch import load_file, save_file
from torch.nn import functional as nnf

from milan import Milan
from milan import model as models
from milan.config import STRATEGIES, Config
from milan.encoder import RESNET, build, restore
from milan.pretrained import CONFIG, WEIGHTS
from milannotations.errors import InputError
from milannotations.synthetic.encoder import load as load_mini

CLOSE = {"rtol": 1e-4, "atol": 1e-5}
SIZES = {"embedding_size": 4, "hidden_size": 8, "attention_size": 6}
OWN = {"lm_embedding_size": 4, "lm_hidden_size": 8, "length": 4, "beam": 5}
MEAN_STD = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
WORDS = ("red", "green", "dogs", "of", "caf\u00e9")


def pictures(n=3, side=64, seed=0):
    """Return images, and masks of which the second is empty and the third one pixel."""
    draw = torch.Generator().manual_seed(seed)
    images = torch.rand(n, 3, side, side, generator=draw)
    masks = (torch.rand(n, 1, side // 2, side // 2, generator=draw) > 0.8).float()
    if n > 2:
        masks[1:3] = 0
        masks[2, 0, 0, 0] = 1
    return images, masks


def pooled(maps, masks):
    """Return the means of maps under masks, image by image, map by map, place by place."""
    rows = []
    for i in range(len(masks)):
        row = []
        for found in maps:
            h, w = found.shape[2:]
            cover = nnf.interpolate(masks[i : i + 1], (h, w), mode="bilinear")[0, 0]
            total = sum(cover[y, x].item() for y in range(h) for x in range(w))
            sums = torch.zeros(found.shape[1], dtype=torch.float64)
            for y, x in cover.nonzero().tolist():
                sums += cover[y, x].item() * found[i, :, y, x].double()
            row.append(sums / total if total else sums)
        rows.append(torch.cat(row))
    return torch.stack(rows).float()


def test_resnet_is_pooled_as_by_loops():
    encoder = build("torchvision:resnet18", random=True)
    assert encoder.config.feature_size == 64 + 64 + 128 + 256 + 512
    images, masks = pictures()
    network, maps = encoder.backbone, []
    mean, std = (torch.tensor(each)[:, None, None] for each in MEAN_STD)
    with torch.no_grad():
        x = network.conv1((images - mean) / std)
        maps.append(x)
        x = network.maxpool(torch.relu(network.bn1(x)))
        for stage in (network.layer1, network.layer2, network.layer3, network.layer4):
            x = stage(x)
            maps.append(x)
    made = encoder(images, masks)
    assert made.shape == (3, 1, 1024)
    torch.testing.assert_close(made[:, 0], pooled(maps, masks), **CLOSE)
    assert (made[1] == 0).all()
    assert made[0, 0, :64].min() < 0, "conv1 is raw"
    whole = torch.cat([each.mean((2, 3)) for each in maps], 1)
    torch.testing.assert_close(encoder(images)[:, 0], whole, **CLOSE)
    again = build("torchvision:resnet18", random=True)
    assert torch.equal(again(images, masks), made), "random weights have a seed"


def test_alexnet_is_read_after_its_relu():
    encoder = build("torchvision:alexnet", random=True)
    images, masks = pictures()
    mean, std = (torch.tensor(each)[:, None, None] for each in MEAN_STD)
    maps, x = [], (images - mean) / std
    with torch.no_grad():
        for i, layer in enumerate(encoder.backbone.features):
            x = layer(x.clone())
            if i in (1, 4, 7, 9, 11):
                maps.append(x)
    made = encoder(images, masks)
    assert made.shape == (3, 1, 1152)
    assert made.min() >= 0
    torch.testing.assert_close(made[:, 0], pooled(maps, masks), **CLOSE)


def test_an_empty_mask_gives_zeros_and_no_nan():
    encoder = build()
    images, masks = pictures(2)
    made = encoder(images, torch.zeros_like(masks).bool())
    assert made.shape == (2, 1, 392)
    assert (made == 0).all()


def test_the_mini_encoder_resizes_to_its_side():
    encoder = build()
    images, masks = pictures(side=96)
    small = nnf.interpolate(images, (64, 64), mode="bilinear", antialias=True)
    with torch.no_grad():
        maps = load_mini()(small)
    torch.testing.assert_close(encoder(images, masks)[:, 0], pooled(maps, masks), **CLOSE)
    alike = [encoder(images[i : i + 1], masks[i : i + 1]) for i in range(3)]
    torch.testing.assert_close(encoder(images, masks), torch.cat(alike), **CLOSE)


@pytest.mark.parametrize("side", [48, 80])
def test_images_of_another_size_where_the_network_takes_any(side):
    encoder = build("torchvision:resnet18", layers=RESNET[:3], random=True)
    assert encoder(torch.rand(2, 3, 64, 64)).shape == (2, 1, 256)
    images, masks = pictures(side=side)
    maps = encoder.maps(images)
    assert maps[0].shape[2:] == (side // 2, side // 2)
    torch.testing.assert_close(encoder(images, masks)[:, 0], pooled(maps, masks), **CLOSE)


def test_spatial_features_are_places_of_the_masked_image():
    encoder = build("torchvision:resnet18", kind="spatial", random=True)
    images, masks = pictures()
    made = encoder(images, masks > 0)
    assert made.shape == (3, 4, 512)
    shown = images * masks.repeat_interleave(2, 2).repeat_interleave(2, 3)
    mean, std = (torch.tensor(each)[:, None, None] for each in MEAN_STD)
    network = encoder.backbone
    trunk = torch.nn.Sequential(*list(network.children())[:-2])
    with torch.no_grad():
        last = trunk((shown - mean) / std)
    for y, x in ((0, 0), (0, 1), (1, 0), (1, 1)):
        torch.testing.assert_close(made[:, 2 * y + x], last[:, :, y, x], **CLOSE)
    with pytest.raises(InputError, match=r"No encoder of kind 'flat' .kinds: pyramid, spatial"):
        build("torchvision:resnet18", kind="flat", random=True)


def test_a_vit_of_a_folder(tmp_path):
    transformers = pytest.importorskip("transformers")
    sizes = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2}
    config = transformers.ViTConfig(**sizes, intermediate_size=24, image_size=32, patch_size=8)
    torch.manual_seed(0)
    network = transformers.ViTModel(config).eval()
    network.save_pretrained(tmp_path / "vit")
    small = {"height": 32, "width": 32}
    transformers.ViTImageProcessor(size=small).save_pretrained(tmp_path / "vit")
    names = [name for name, _ in network.named_modules() if name.endswith("mlp")]
    encoder = build(f"hf:{tmp_path / 'vit'}", layers=names)
    assert encoder.config.side == 32
    images, masks = pictures(side=40)
    small = nnf.interpolate(images, (32, 32), mode="bilinear", antialias=True)
    tokens = []
    for name in names:
        network.get_submodule(name).register_forward_hook(lambda *each: tokens.append(each[2]))
    with torch.no_grad():
        network(pixel_values=small * 2 - 1)  # its processor's mean and deviation are 0.5
    maps = [each[:, 1:].transpose(1, 2).unflatten(2, (4, 4)) for each in tokens]
    made = encoder(images, masks)
    assert made.shape == (3, 1, sum(each.shape[1] for each in maps))
    torch.testing.assert_close(made[:, 0], pooled(maps, masks), **CLOSE)
    model = milan(encoder)
    model.save_pretrained(tmp_path / "model")
    again = Milan.from_pretrained(tmp_path / "model")
    assert torch.equal(again.encoder(images, masks), made)


def test_a_network_of_timm():
    pytest.importorskip("timm", reason="needs timm")
    encoder = build("timm:resnet18", layers=("layer1", "layer2"), random=True)
    images, masks = pictures()
    wanted = pooled(encoder.maps(images), masks)
    torch.testing.assert_close(encoder(images, masks)[:, 0], wanted, **CLOSE)


def test_layers_are_asked_for_where_none_are_known():
    with pytest.raises(InputError, match="No default layers of torchvision:vgg11"):
        build("torchvision:vgg11", random=True)
    with pytest.raises(InputError, match="layer9"):
        build("torchvision:resnet18", layers=("layer9",), random=True)


def test_a_frozen_network_stays_as_it_is():
    encoder = build("torchvision:resnet18", layers=RESNET[:2], random=True)
    before = {name: value.clone() for name, value in encoder.backbone.state_dict().items()}
    encoder.train()
    assert not any(module.training for module in encoder.modules())
    encoder(torch.rand(2, 3, 32, 32))
    after = encoder.backbone.state_dict()
    assert all(torch.equal(before[name], after[name]) for name in before)
    assert not any(parameter.requires_grad for parameter in encoder.parameters())


# ---- the model as a folder


def milan(encoder=None, **how):
    torch.manual_seed(0)
    encoder = encoder or build()
    return Milan(Config(WORDS, encoder.config, **{**SIZES, **OWN, **how}), encoder).eval()


@pytest.fixture(scope="module")
def model():
    return milan(made={"epochs": 3}, lam=0.3)


@pytest.fixture
def folder(model, tmp_path):
    model.save_pretrained(tmp_path / "model")
    return tmp_path / "model"


def exemplars():
    draw = torch.Generator().manual_seed(5)
    images = torch.randint(0, 256, (3, 4, 3, 64, 64), generator=draw, dtype=torch.uint8)
    masks = torch.rand(3, 4, 1, 64, 64, generator=draw) > 0.7
    masks[1] = False
    return images, masks


def test_a_model_is_the_same_when_it_is_read_again(model, folder):
    again = Milan.from_pretrained(folder)
    assert again.config == model.config
    assert again.config.made == {"epochs": 3}
    assert again.config.encoder.weights == model.config.encoder.weights
    assert not again.training
    images, masks = exemplars()
    features = model.encode(images, masks)
    assert torch.equal(again.encode(images, masks), features)
    for strategy in STRATEGIES:
        one = model.describe(images, masks, strategy=strategy)
        assert again.describe(images, masks, strategy=strategy) == one
        assert all(one.text)
    texts = ["red dogs", "green", "caf\u00e9 of dogs"]
    assert torch.equal(again.score(texts, features).pmi, model.score(texts, features).pmi)


def test_images_are_encoded_alike_in_any_form_and_number(model, monkeypatch):
    images, masks = exemplars()
    made = model.encode(images, masks)
    assert made.shape == (3, 4, 392)
    assert (made[1] == 0).all()
    torch.testing.assert_close(model.encode(images / 255, masks.float()), made, **CLOSE)
    torch.testing.assert_close(model.encode(images, masks.byte()), made, **CLOSE)
    monkeypatch.setattr(models, "IMAGE_BATCH", 5)
    torch.testing.assert_close(model.encode(images, masks), made, **CLOSE)
    whole = model.encode(images, torch.ones_like(masks))
    torch.testing.assert_close(model.encode(images), whole, **CLOSE)
    assert model.encode(images[:0], masks[:0]).shape == (0, 4, 392)
    assert len(model.describe(images[:0], masks[:0])) == 0


@pytest.mark.parametrize("kind", ["pyramid", "spatial"])
def test_a_network_without_its_last_weights(tmp_path, kind):
    torch.manual_seed(1)
    state = torchvision.models.resnet18().state_dict()
    part = {key: value for key, value in state.items() if not key.startswith(("layer4", "fc"))}
    torch.save(part, tmp_path / "part.pth")
    encoder = build("torchvision:resnet18", tmp_path / "part.pth", RESNET[:4], kind=kind)
    assert {name.partition(".")[0] for name in encoder.config.missing} == {"layer4", "fc"}
    model = milan(encoder)
    model.save_pretrained(tmp_path / "model")
    again = Milan.from_pretrained(tmp_path / "model")
    images, masks = exemplars()
    features = model.encode(images, masks)
    assert torch.equal(again.encode(images, masks), features)
    assert again.describe_features(features) == model.describe_features(features)
    size = (tmp_path / "model" / WEIGHTS).stat().st_size
    assert size < 16e6, "what is not there is not written"
    with pytest.raises(InputError, match=r"weights lack .*layer4"):
        build("torchvision:resnet18", tmp_path / "part.pth")


def test_missing_weights_are_none_of_the_others(folder):
    assert json.loads((folder / CONFIG).read_text())["encoder"]["missing"] == []
    state = load_file(folder / WEIGHTS)
    del state["decoder.query.bias"]
    save_file(state, folder / WEIGHTS)
    with pytest.raises(InputError, match=r"does not fit config.json: .*decoder.query.bias"):
        Milan.from_pretrained(folder)


def test_an_encoder_is_restored_with_weights_to_be_loaded():
    made = build("torchvision:resnet18", layers=RESNET[:1], random=True)
    restored = restore(made.config)
    assert restored.config == made.config
    assert list(restored.state_dict()) == list(made.state_dict())
    restored.load_state_dict(made.state_dict())
    images, masks = pictures()
    assert torch.equal(restored(images, masks), made(images, masks))


# ---- faults


def change(folder, **fields):
    config = json.loads((folder / CONFIG).read_text())
    (folder / CONFIG).write_text(json.dumps({**config, **fields}))


def test_a_truncated_file(folder):
    whole = (folder / WEIGHTS).read_bytes()
    for length in (0, 5, len(whole) // 2, len(whole) - 1):
        (folder / WEIGHTS).write_bytes(whole[:length])
        with pytest.raises(InputError, match=r"cannot be read .*; is the copy complete"):
            Milan.from_pretrained(folder)


def test_a_vocabulary_of_another_model(folder):
    change(folder, vocabulary=[*WORDS, "cats"])
    with pytest.raises(InputError, match=r"has 10 tokens .* the weights have 9"):
        Milan.from_pretrained(folder)


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"hidden_size": 9}, "does not fit config.json: size mismatch"),
        ({"lm_layers": 0}, "does not fit config.json: .*language_model"),
        ({"format": 2}, "A model of format 2; this version reads format 1"),
        ({"depth": 2}, "config.json is not the configuration of a model"),
        ({"encoder": "mini"}, "config.json is not the configuration of a model"),
        ({"encoder": {"backbone": "mini"}}, "config.json is not the configuration of a model"),
        ({"vocabulary": ["red", "red", "green", "dogs", "of"]}, "twice"),
    ],
)
def test_a_config_that_does_not_fit(folder, fields, said):
    change(folder, **fields)
    with pytest.raises(InputError, match=said):
        Milan.from_pretrained(folder)


@pytest.mark.parametrize("text", ["", "{", "[]", "3", "null", '{"vocabulary": []}'])
def test_a_config_that_is_none(folder, text):
    (folder / CONFIG).write_text(text)
    with pytest.raises(InputError, match=r"config.json is not the configuration of a model"):
        Milan.from_pretrained(folder)


@pytest.mark.parametrize("name", [CONFIG, WEIGHTS])
def test_a_file_that_is_missing(folder, name):
    (folder / name).unlink()
    with pytest.raises(InputError, match=f"is no model: it has no {name}"):
        Milan.from_pretrained(folder)


def test_a_folder_that_is_no_model_and_names_that_are_none(tmp_path):
    with pytest.raises(InputError, match=r"is no model: it has no config.json"):
        Milan.from_pretrained(tmp_path)
    for name in ("nobody/nothing", str(tmp_path / "not-there"), "nobody-nothing", "a/b/c"):
        with pytest.raises(InputError, match=r"No model '.*': no folder of that name"):
            Milan.from_pretrained(name)


def test_a_network_that_is_gone_is_said(model, folder):
    encoder = {**dataclasses.asdict(model.config.encoder), "backbone": "torchvision:resnet19"}
    change(folder, encoder=encoder)
    with pytest.raises(InputError, match="resnet19"):
        Milan.from_pretrained(folder)


def test_saving_twice_and_moving_a_folder(model, folder, tmp_path):
    first = [(folder / name).read_bytes() for name in (CONFIG, WEIGHTS)]
    model.save_pretrained(folder)
    assert [(folder / name).read_bytes() for name in (CONFIG, WEIGHTS)] == first
    shutil.move(folder, tmp_path / "elsewhere")
    assert Milan.from_pretrained(tmp_path / "elsewhere").config == model.config
