"""The networks and data of the golden exemplars (../shared/data/parity), made again.

Weights come from a formula, so that no network is stored; see the README there.
"""

import csv
import functools
import io
import zipfile

import numpy as np
import torch
from torch import nn

MEAN = torch.tensor([0.485, 0.456, 0.406])
STD = torch.tensor([0.229, 0.224, 0.225])
U32 = np.uint64(0xFFFFFFFF)

EXEMPLARS = [
    ("a3_cnn.zip", "cnn/conv1", 15, 0.99, None),
    ("a3_cnn.zip", "cnn/conv2", 15, 0.99, None),
    ("a3_cnn.zip", "cnn_units/conv2", 15, 0.99, (1, 4)),
    ("a3_cnn.zip", "cnn_k5_q90/conv2", 5, 0.9, None),
    ("a3_vit.zip", "vit/fc1", 15, 0.99, None),
]
"""Archive, folder in it, exemplars of a unit, quantile, units."""


def formula_values(name, shape, index):
    """Return the float32 values of the `index`-th entry of a state dict."""
    numel = int(np.prod(shape))
    k = np.arange(1, numel + 1, dtype=np.uint64)
    x = ((k * np.uint64(2654435761)) ^ np.uint64((index + 1) * 2246822519)) & U32
    x ^= x >> np.uint64(15)
    x = x * np.uint64(2246822519) & U32
    x ^= x >> np.uint64(13)
    x = x * np.uint64(3266489917) & U32
    x ^= x >> np.uint64(16)
    u = x.astype(np.float64) / 2**32 * 2 - 1
    last = name.rsplit(".", 1)[-1]
    if len(shape) >= 2:
        values = u * np.sqrt(6 / (numel / shape[0]))
    elif last == "num_batches_tracked":
        values = 0 * u
    else:
        scale, offset = {
            "running_var": (0.2, 1.0),
            "running_mean": (0.05, 0.0),
            "weight": (0.1, 0.5),
        }.get(last, (0.1, 0.0))
        values = offset + scale * u
    return torch.from_numpy(values.astype(np.float32)).reshape(shape)


def formula_weights(module):
    """Fill a module's state with the formula's weights; return it, for evaluation."""
    state = module.state_dict()
    module.load_state_dict(
        {
            name: formula_values(name, tuple(entry.shape), index).to(entry.dtype)
            for index, (name, entry) in enumerate(state.items())
        }
    )
    return module.eval()


class Cnn(nn.Module):
    """Two convolutions: `conv1` is recorded after its in-place ReLU, `conv2` as it is."""

    def __init__(self):
        super().__init__()
        self.conv1 = nn.Conv2d(3, 6, 7, stride=4, padding=3)
        self.relu1 = nn.ReLU(inplace=True)
        self.conv2 = nn.Conv2d(6, 6, 5, stride=3, padding=1)
        self.relu2 = nn.ReLU()
        self.head = nn.Linear(6, 4)

    def forward(self, images):
        hidden = self.relu2(self.conv2(self.relu1(self.conv1(images))))
        return self.head(hidden.mean((2, 3)))


class Vit(nn.Module):
    """A class token, 4 x 4 patches, one mixing of tokens; `fc1` gives tokens (image, 17, 6)."""

    def __init__(self):
        super().__init__()
        self.cls = nn.Parameter(torch.zeros(1, 1, 8))
        self.patch = nn.Conv2d(3, 8, 16, stride=16)
        self.mix = nn.Linear(17, 17)
        self.fc1 = nn.Linear(8, 6)
        self.fc2 = nn.Linear(6, 4)

    def forward(self, images):
        patches = self.patch(images).flatten(2).transpose(1, 2)
        tokens = torch.cat([self.cls.expand(len(images), -1, -1), patches], dim=1)
        tokens = tokens + self.mix(tokens.transpose(1, 2)).transpose(1, 2)
        return self.fc2(torch.relu(self.fc1(tokens)).mean(1))


class Generator(nn.Module):
    """A latent and a class give an image (3, 32, 32) in -1 to 1; `up1` and `up2` are recorded."""

    def __init__(self):
        super().__init__()
        self.emb = nn.Embedding(4, 3)
        self.fc = nn.Linear(8, 96)
        self.up1 = nn.ConvTranspose2d(6, 6, 4, 2, 1)
        self.up2 = nn.ConvTranspose2d(6, 4, 4, stride=4)
        self.out = nn.Conv2d(4, 3, 3, padding=1)

    def forward(self, z, y):
        hidden = self.fc(torch.cat([z, self.emb(y)], dim=1)).view(-1, 6, 4, 4)
        hidden = torch.relu(self.up2(torch.relu(self.up1(hidden))))
        return torch.tanh(self.out(hidden))


def images(parity):
    """Return the data set as the networks see it: float32 (300, 3, 64, 64)."""
    with np.load(parity / "a3_images.npz") as arrays:
        (name,) = arrays.files
        pixels = torch.from_numpy(arrays[name])
    return (pixels.float() / 255 - MEAN[:, None, None]) / STD[:, None, None]


def latents(parity):
    """Return the generator's latents: z float32 (300, 5), y int64 (300,)."""
    with np.load(parity / "a3_latents.npz") as arrays:
        return torch.from_numpy(arrays["z"]), torch.from_numpy(arrays["y"]).long()


def activations(module, layer, *arguments, batch=64):
    """Return what a layer holds once the network has run, in batches: (image, ...)."""
    found = []

    def keep(_, __, output):
        found.append(output)  # not a copy: an in-place ReLU that follows is seen, as in 2022

    handle = module.get_submodule(layer).register_forward_hook(keep)
    with torch.no_grad():
        for parts in zip(*(each.split(batch) for each in arguments), strict=True):
            module(*parts)
    handle.remove()
    return torch.cat(found)


def maps_of_tokens(tokens, prefix=1):
    """Return tokens (image, token, unit) without the prefix, on a square grid."""
    patches = tokens[:, prefix:].transpose(1, 2)
    side = round(patches.shape[2] ** 0.5)
    return patches.unflatten(2, (side, side))


@functools.cache
def maps(parity, name, units=None):
    """Return the maps (image, unit, h, w) that the exemplars in a folder of EXEMPLARS are of."""
    layer = name.rsplit("/", 1)[1]
    network = formula_weights(Vit() if layer == "fc1" else Cnn())
    found = activations(network, layer, images(parity))
    found = maps_of_tokens(found) if layer == "fc1" else found
    return found if units is None else found[:, list(units)]


def folder(archive, name):
    """Return the arrays and tables of a folder in a zip, by the names of their files.

    Arrays as they are; tables float64 arrays; `thresholds.csv` a dict of its columns.
    """
    found = {}
    with zipfile.ZipFile(archive) as opened:
        for member in opened.namelist():
            parent, _, file = member.rpartition("/")
            if parent != name or not file:
                continue
            content = opened.read(member)
            if file.endswith(".npy"):
                found[file] = np.load(io.BytesIO(content))
            elif file == "thresholds.csv":
                head, *rows = csv.reader(io.StringIO(content.decode()))
                columns = np.array(rows, dtype=np.float64).T
                found[file] = dict(zip(head, columns, strict=True))
            else:
                found[file] = np.loadtxt(io.StringIO(content.decode()), delimiter=",", ndmin=2)
    assert found, f"no folder {name} in {archive}"
    return found
