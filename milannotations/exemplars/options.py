"""Options for opening a network and its images, shared by many commands."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from annotated_types import Ge


@dataclass(frozen=True)
class NetworkOptions:
    """Weights and preprocessing of a network.

    Attributes:
        weights: file of weights, safetensors or a .pth of tensors alone (default: those that the
            network's name states).
        random: random weights, of a fixed seed.
        preprocess: preprocessing instead of the network's own: imagenet[:SIDE] or file.py:name.
    """

    weights: str | None = None
    random: bool = False
    preprocess: str | None = None


@dataclass(frozen=True)
class ImageOptions:
    """Selection of the images of a folder or dataset.

    Attributes:
        limit: number of images, spaced evenly over the folder or dataset (default: all).
        split: split of a 'datasets' dataset.
        column: column of a 'datasets' dataset that holds the images.
    """

    limit: Annotated[int, Ge(1)] | None = None
    split: str | None = None
    column: str | None = None
