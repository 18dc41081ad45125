"""Networks and images for tests of the exemplar engine; a factory file for its command."""

import numpy as np
import torch
from torch import nn


class Exact(nn.Module):
    """Two convolutions and a head whose arithmetic is exact: small whole numbers.

    Sums do not depend on their order, so that batches of any size give the same bits.
    """

    def __init__(self):
        super().__init__()
        draw = torch.Generator().manual_seed(7)
        self.conv1 = nn.Conv2d(3, 6, 3, stride=2, padding=1)
        self.act = nn.ReLU()
        self.conv2 = nn.Conv2d(6, 8, 3, stride=2, padding=1)
        self.head = nn.Linear(8, 4)
        self.images = self.batches = 0
        for parameter in self.parameters():
            values = torch.randint(-2, 3, parameter.shape, generator=draw)
            parameter.data = values.float()

    def forward(self, x):
        self.images += len(x)
        self.batches += 1
        x = self.act(self.conv1((x * 255).round()))
        x = self.conv2(x)
        return self.head(x.sum((2, 3)))


def exact():
    return Exact().eval()


def plain(image):
    """Return an image as numbers from 0 to 1, (3, h, w)."""
    return torch.from_numpy(np.array(image)).permute(2, 0, 1).float() / 255


def exact_plain():
    return exact(), plain


def noise(count, side=16, seed=0):
    """Return images as numbers from 0 to 1: (count, 3, side, side), multiples of 1 / 255."""
    draw = torch.Generator().manual_seed(seed)
    return torch.randint(0, 256, (count, 3, side, side), generator=draw).float() / 255


def folder(path, count, side=16, seed=0):
    """Write images of noise as PNG files; return the folder."""
    from PIL import Image

    path.mkdir(parents=True)
    for i, image in enumerate(noise(count, side, seed)):
        pixels = (image * 255).round().byte().permute(1, 2, 0).numpy()
        Image.fromarray(pixels).save(path / f"{i:04d}.png")
    return path
