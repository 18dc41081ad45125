"""Small image encoder of the mini world, which MILAN extracts features with.

It takes the part of the ResNet trained on photographs: a network that has learned the
world's shapes, colours, textures and objects, and nothing about units or descriptions.
`python -m milannotations.synthetic.encoder --out FILE` trains the weights that ship.
"""

from __future__ import annotations

import argparse
import json
import os
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.nn import functional as nnf

from milannotations.errors import InputError
from milannotations.synthetic.concepts import CATEGORIES, CATEGORY, CHANNEL, CONCEPTS, one_hot
from milannotations.synthetic.scenes import World
from milannotations.synthetic.training import (
    FitConfig,
    TensorBatch,
    fit,
    reproducible,
    write_weights,
)
from milannotations.utils.files import check_is_file, sha256

WEIGHTS = Path(__file__).parent.parent / "data" / "encoder.safetensors"
"""Weights that ship with the package."""

TRAINING_SCENES, HELD_OUT_SCENES = 1, 2
"""Random seeds of training and held-out scenes. The edition's pool has seed 0."""

SETTINGS = FitConfig(steps=1600, batch=32, rate=3e-3)
CELLS = 16
"""Side of the grid on which concepts are learned, in cells of 4 x 4 pixels."""

EXCLUSIVE = {"shape": 1.5, "color": 0.4, "texture": 1.3, "background": 0.5, "light": 0.1}
"""Categories of which a pixel has at most one label, and the weights of their losses.

Cross-entropy is averaged over the cells with a label of the category: over all cells, a
network first learns that most cells are background, and shapes hardly at all.
"""

OTHERS = {"text": 1.0, "face": 1.0, "edge": 1.0, "hair": 1.0, "eye": 8.0, "mouth": 8.0}
"""Concepts with a binary loss each, and the weights of its positives: eyes are rare."""

COVERED = {"text": 0.5, "face": 0.5, "edge": 0.25, "hair": 0.25, "eye": 0.25, "mouth": 0.25}
"""Least share of a cell that makes the cell positive in the figures; parts are small."""

_CHANNELS = {category: [CHANNEL[name] for name in CATEGORIES[category]] for category in EXCLUSIVE}


def _convolution(n_in: int, n_out: int, stride: int = 1, size: int = 3) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(n_in, n_out, size, stride, size // 2, bias=False),
        nn.BatchNorm2d(n_out),
        nn.ReLU(inplace=True),
    )


class MiniEncoder(nn.Module):
    """Feature pyramid of convolutions: four levels, and a fifth that combines them.

    Attributes:
        widths: channels of the maps that `forward` returns; `sum(widths)` features.

    Example:
        >>> [tuple(level.shape[1:]) for level in MiniEncoder()(torch.zeros(1, 3, 64, 64))]
        [(24, 32, 32), (48, 16, 16), (96, 8, 8), (128, 4, 4), (96, 16, 16)]
    """

    widths = (24, 48, 96, 128, 96)

    def __init__(self) -> None:
        super().__init__()
        a, b, c, d, joint = self.widths
        self.level1 = nn.Sequential(_convolution(3, a, stride=2, size=5), _convolution(a, a))
        self.level2 = nn.Sequential(_convolution(a, b, stride=2), _convolution(b, b))
        self.level3 = nn.Sequential(_convolution(b, c, stride=2), _convolution(c, c))
        self.level4 = nn.Sequential(
            _convolution(c, d, stride=2), _convolution(d, d), _convolution(d, d)
        )
        self.lateral = nn.ModuleList(nn.Conv2d(width, joint, 1, bias=False) for width in (b, c, d))
        self.norm = nn.BatchNorm2d(joint)
        self.head = nn.Conv2d(joint, len(CONCEPTS), 1)

    def forward(self, images: Tensor) -> list[Tensor]:
        """Return feature maps, (n, widths[i], side, side) each.

        Args:
            images: float (n, 3, 64, 64) from 0 to 1.
        """
        first = self.level1((images - 0.5) / 0.25)
        second = self.level2(first)
        third = self.level3(second)
        fourth = self.level4(third)
        joint = torch.zeros(())
        for lateral, level in zip(self.lateral, (second, third, fourth), strict=True):
            joint = joint + nnf.interpolate(lateral(level), size=(CELLS, CELLS), mode="bilinear")
        return [first, second, third, fourth, nnf.relu(self.norm(joint))]

    def concepts(self, images: Tensor) -> Tensor:
        """Return a logit for each concept and cell, (n, concept, 16, 16).

        Logits of a category in `EXCLUSIVE` are those of a softmax, others of a sigmoid.
        """
        logits: Tensor = self.head(self(images)[-1])
        return logits


def load(path: str | os.PathLike[str] = WEIGHTS) -> MiniEncoder:
    """Load an encoder in evaluation mode: the one that ships, or one made by `train`.

    Raises:
        InputError: no such file, or it holds no encoder.

    Example:
        >>> load().training
        False
    """
    try:
        state = load_file(check_is_file(path))
        with torch.device("meta"):  # without drawing weights from the global generator
            encoder = MiniEncoder()
        encoder.load_state_dict(state, assign=True)
    except (SafetensorError, RuntimeError) as error:
        raise InputError(f"{path} holds no encoder of the mini world: {error}") from error
    return encoder.eval().requires_grad_(False)


def digest(path: str | os.PathLike[str] = WEIGHTS) -> str:
    """Return the sha256 (hexadecimal) of an encoder's file, which identifies it in records."""
    return sha256(check_is_file(path))


def train(seed: int = 0, settings: FitConfig = SETTINGS) -> MiniEncoder:
    """Train an encoder from random weights: the same every time, on one machine.

    Args:
        seed: random seed of the initial weights.
        settings: number of steps, learning rate and so on.
    """
    with reproducible(seed):
        encoder = MiniEncoder()
        fit(
            encoder,
            lambda step: scene_batch(TRAINING_SCENES, step * settings.batch, settings.batch),
            lambda batch: _loss(encoder, batch),
            settings,
            "encoder",
        )
    return encoder.requires_grad_(False)


def note(path: str | os.PathLike[str] = WEIGHTS) -> dict[str, object]:
    """Return the note in an encoder's file: seed, settings, command and held-out figures."""
    with safe_open(check_is_file(path), "pt") as stream:
        values: dict[str, object] = json.loads((stream.metadata() or {}).get("made", "{}"))
    return values


def scene_batch(seed: int, start: int, count: int) -> TensorBatch:
    """Draw a batch of scenes, as inputs and targets of the encoder.

    Returns:
        images, float (n, 3, 64, 64) from 0 to 1, and the share of each cell that each
        concept covers, float (n, concept, 16, 16).
    """
    scenes = list(World().scenes(seed, count, start))
    images = torch.from_numpy(np.stack([scene.image for scene in scenes])).permute(0, 3, 1, 2)
    maps = torch.from_numpy(one_hot(np.stack([scene.labels for scene in scenes])))
    side = maps.shape[-1] // CELLS
    # (..., 64, 64) -> (..., cell row, row in cell, cell column, column in cell)
    cells = maps.view(torch.uint8).reshape(*maps.shape[:-2], CELLS, side, CELLS, side)
    shares = cells.sum(-1, dtype=torch.uint8).sum(-2, dtype=torch.uint8)
    return images.float() / 255, shares.float() / side**2


def _loss(encoder: MiniEncoder, batch: TensorBatch) -> Tensor:
    """Return the weighted sum of the categories' and the other concepts' cross-entropies."""
    images, shares = batch
    logits = encoder.concepts(images)
    total = torch.zeros(())
    for category, weight in EXCLUSIVE.items():
        targets = shares[:, _CHANNELS[category]]
        log_probabilities = logits[:, _CHANNELS[category]].log_softmax(1)
        weighted = weight * (targets * log_probabilities).sum()
        total = total - weighted / targets.sum().clamp(min=1)
    others = [CHANNEL[name] for name in OTHERS]
    weights = torch.tensor(list(OTHERS.values()))[:, None, None]
    return total + 4 * nnf.binary_cross_entropy_with_logits(
        logits[:, others], shares[:, others], pos_weight=weights
    )


def evaluate(
    encoder: MiniEncoder, seed: int = HELD_OUT_SCENES, count: int = 1000
) -> dict[str, float]:
    """Measure how well an encoder predicts the concepts of each cell, on held-out scenes.

    Args:
        encoder: in evaluation mode.
        seed: random seed of the scenes.
        count: number of scenes, at least 1.

    Returns:
        `<category>_accuracy` over the cells of which the category covers at least half;
        `text_iou`, `face_iou` at a probability of .5, over cells (at least half covered);
        `<part>_ap`, the average precision over cells, and `<part>_share`, the share of
        positive cells (at least a quarter covered), which is its chance level.
    """
    from sklearn.metrics import average_precision_score

    with reproducible(0), torch.no_grad():
        batches = []
        for start in range(0, count, 100):
            images, shares = scene_batch(seed, start, min(100, count - start))
            batches.append((encoder.concepts(images), shares))
    logits, shares = (torch.cat(parts) for parts in zip(*batches, strict=True))
    figures = {}
    for category in EXCLUSIVE:
        targets, scores = shares[:, _CHANNELS[category]], logits[:, _CHANNELS[category]]
        is_counted = targets.sum(1) >= 0.5
        is_correct = targets.argmax(1) == scores.argmax(1)
        figures[f"{category}_accuracy"] = is_correct[is_counted].float().mean().item()
    for name, least in COVERED.items():
        present, scores = shares[:, CHANNEL[name]] >= least, logits[:, CHANNEL[name]]
        if CATEGORY[name] == "object":
            both, either = (present & (scores > 0)).sum(), (present | (scores > 0)).sum()
            figures[f"{name}_iou"] = (both / either.clamp(min=1)).item()
        else:
            precision = average_precision_score(present.flatten(), scores.flatten())
            figures[f"{name}_ap"] = float(precision)
            figures[f"{name}_share"] = present.float().mean().item()
    return figures


def main(arguments: Sequence[str] | None = None) -> None:
    """Train an encoder, write it, and print its held-out figures as JSON."""
    parser = argparse.ArgumentParser(
        prog="python -m milannotations.synthetic.encoder", description=main.__doc__
    )
    parser.add_argument("--out", type=Path, required=True, help="file to write (safetensors)")
    parser.add_argument("--seed", type=int, default=0, help="random seed of the initial weights")
    parser.add_argument("--steps", type=int, default=SETTINGS.steps, help="number of batches")
    parser.add_argument("--held-out", type=int, default=1000, help="number of scenes to measure on")
    options = parser.parse_args(arguments)
    settings = replace(SETTINGS, steps=options.steps)
    encoder = train(options.seed, settings)
    figures = {
        name: round(value, 4) for name, value in evaluate(encoder, count=options.held_out).items()
    }
    note: dict[str, object] = {
        "command": f"{parser.prog} --seed {options.seed} --steps {options.steps} --out FILE",
        "seed": options.seed,
        "settings": asdict(settings),
        "scenes": {"training": TRAINING_SCENES, "held_out": HELD_OUT_SCENES},
        "figures": figures,
    }
    write_weights(encoder, options.out, note)
    print(json.dumps({**note, "digest": digest(options.out)}, indent=2))


if __name__ == "__main__":
    main()
