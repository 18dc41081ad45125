"""Subject networks: small trained classifiers, whose units nobody planted.

The class of an image is the shape of its largest object. A world may add what a network
should not rely on: the class's name written in a corner, or faces. Methods describe the
units of such networks; audits and edits are scored on them (Hernandez et al. 2022,
sections 5 and 6, with photographs).
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as nnf
from torch.utils.data import Dataset

from milannotations.errors import InputError
from milannotations.synthetic.scenes import SHAPES, SIZE, Canvas, Scene
from milannotations.synthetic.training import (
    FitConfig,
    TensorBatch,
    fit,
    reproducible,
    write_weights,
)

CLASSES = SHAPES
"""Classes, in the order of a subject network's outputs."""

TRAINING_SCENES, VALIDATION_SCENES, TEST_SCENES = 1000, 3, 4
"""Random seeds of scenes. A network trained with seed s learns from scenes of seed 1000 + s."""

WORD_HEIGHT = 13
"""Height of a word in a corner, at the top or bottom, in pixels."""

SETTINGS = FitConfig(steps=900, batch=32, rate=4e-3, decay=1e-2)


@dataclass(frozen=True)
class SubjectWorld:
    """Distribution of a subject network's images.

    The same seed and index draw the same objects in all worlds.

    Attributes:
        text: share of images with a class's name in a corner.
        adversarial: the name is that of another class, each equally often.
        face: share of images with a face, where there is room; independent of the class, except
            with `telling_faces`.
        blurred_faces: blur faces, so that they have no eyes and mouths.
        telling_faces: faces are sharp in images of the first four classes and blurred in the
            others', so that a network gains by looking at them. With `blurred_faces` they carry
            no information.
        radii: least and largest radius of the object that decides the class, in pixels.
        distractors: most other objects.
        distractor_radii: least and largest radius of other objects.
        noise: largest additional noise of a pixel, in steps of 255, the same for each colour.

    Raises:
        InputError: settings that cannot be drawn.

    Example:
        >>> scene, label = SubjectWorld(text=1).scene(0, 0)
        >>> scene.items[-1].word == CLASSES[label] == scene.items[0].shape
        True
    """

    text: float = 0.0
    adversarial: bool = False
    face: float = 0.0
    blurred_faces: bool = False
    telling_faces: bool = False
    radii: tuple[int, int] = (8, 13)
    distractors: int = 2
    distractor_radii: tuple[int, int] = (3, 5)
    noise: int = 12

    def __post_init__(self) -> None:
        for name in ("text", "face"):
            if not 0 <= getattr(self, name) <= 1:
                raise InputError(
                    f"{name} is {getattr(self, name)}; expected a share of images, from 0 to 1."
                )
        if self.distractors < 0 or self.noise < 0:
            raise InputError(
                f"distractors {self.distractors}, noise {self.noise}: expected counts, from 0."
            )
        low, high = self.distractor_radii
        if not 1 <= low <= high < self.radii[0] <= self.radii[1] <= 20:
            raise InputError(
                f"Radii are {self.radii} and {self.distractor_radii}; expected least and largest "
                "each, up to 20, and all distractors smaller than the object."
            )

    @property
    def name(self) -> str:
        """First part of the scenes' ids: `subject`, and the world's additions."""
        parts = ["subject"]
        if self.text:
            parts.append(f"{'wrong' if self.adversarial else 'right'}text{self.text:g}")
        if self.face:
            kind = "blurred" if self.blurred_faces else "telling" if self.telling_faces else ""
            parts.append(f"{kind}face{self.face:g}")
        return "-".join(parts)

    def scene(self, seed: int, index: int) -> tuple[Scene, int]:
        """Draw scene `index` of the stream `seed`.

        Returns:
            The scene and the index of its class.
        """
        canvas = Canvas(seed, index)
        canvas.paint_background()
        label = canvas.draw(len(CLASSES))
        radius = _draw_radius(canvas, self.radii)
        # far enough from top and bottom that a word hides a third of it at most
        margin = WORD_HEIGHT + radius * 2 // 3
        x, y = (edge + canvas.draw(SIZE - 2 * edge) for edge in (radius, margin))
        canvas.add_shape(radius, CLASSES[label], (x, y))
        # every random number is drawn in every world, so that worlds differ in additions alone
        with_face, face_radius = canvas.draw(10_000), 9 + canvas.draw(3)
        with_text, corner, other = (canvas.draw(n) for n in (10_000, 4, len(CLASSES) - 1))
        for _ in range(canvas.draw(self.distractors + 1)):
            canvas.add_shape(_draw_radius(canvas, self.distractor_radii))
        if with_face < round(self.face * 10_000):
            is_blurred_class = self.telling_faces and label >= len(CLASSES) // 2
            canvas.add_face(face_radius, blurred=self.blurred_faces or is_blurred_class)
        if with_text < round(self.text * 10_000):
            named = (label + 1 + other) % len(CLASSES) if self.adversarial else label
            canvas.add_text(CLASSES[named], corner=corner)
        if self.noise:
            grain = np.random.Generator(np.random.PCG64([seed, index, 1]))
            shape = (*canvas.image.shape[:2], 1)
            canvas.image += grain.integers(-self.noise, self.noise + 1, shape, dtype=np.int16)
        return canvas.scene(f"{self.name}-{seed}-{index:06d}"), label


def _draw_radius(canvas: Canvas, radii: tuple[int, int]) -> int:
    """Draw a radius between the least and the largest, inclusive."""
    return radii[0] + canvas.draw(radii[1] - radii[0] + 1)


class SubjectDataset(Dataset[dict[str, Any]]):
    """Images of a world as a torch dataset, drawn on access: the same for the same arguments.

    Args:
        world: distribution of images.
        count: number of images.
        seed: random seed of the stream: `TRAINING_SCENES`, `VALIDATION_SCENES`, `TEST_SCENES`.
        concepts: add concept maps to the items.

    Each item is a dict of `image` (float, 3 x 64 x 64, from 0 to 1), `label` (index in
    `CLASSES`), `source_id` and, if requested, `concepts` (bool, concept x 64 x 64).

    Raises:
        InputError: a negative number.

    Example:
        >>> item = SubjectDataset(SubjectWorld(), 10)[3]
        >>> tuple(item["image"].shape), item["source_id"]
        ((3, 64, 64), 'subject-4-000003')
    """

    def __init__(
        self,
        world: SubjectWorld,
        count: int,
        *,
        seed: int = TEST_SCENES,
        concepts: bool = False,
    ) -> None:
        if count < 0 or seed < 0:
            raise InputError(f"count {count}, seed {seed}: expected whole numbers from 0.")
        self.world, self.count, self.seed, self.concepts = world, count, seed, concepts

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, index: int) -> dict[str, Any]:
        if not 0 <= index < self.count:
            raise IndexError(f"image {index} of {self.count}")
        scene, label = self.world.scene(self.seed, index)
        item = {
            "image": torch.from_numpy(scene.image).permute(2, 0, 1).float() / 255,
            "label": label,
            "source_id": scene.source_id,
        }
        if self.concepts:
            item["concepts"] = torch.from_numpy(scene.concepts)
        return item


class ResidualBlock(nn.Module):
    """Two convolutions with a shortcut connection (He et al. 2016)."""

    def __init__(self, n_in: int, n_out: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(n_in, n_out, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(n_out)
        self.conv2 = nn.Conv2d(n_out, n_out, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(n_out)
        self.shortcut = (
            nn.Identity() if n_in == n_out else nn.Conv2d(n_in, n_out, 1, stride, bias=False)
        )

    def forward(self, maps: Tensor) -> Tensor:
        inner = self.bn2(self.conv2(nnf.relu(self.bn1(self.conv1(maps)))))
        return nnf.relu(inner + self.shortcut(maps))


class SubjectNetwork(nn.Module):
    """Small residual network; its units are the channels of `layer1` to `layer4`.

    Attributes:
        widths: units of each layer, 240 in all.

    Example:
        >>> tuple(SubjectNetwork()(torch.zeros(2, 3, 64, 64)).shape)
        (2, 8)
    """

    widths = (32, 48, 64, 96)

    def __init__(self) -> None:
        super().__init__()
        first, second, third, fourth = self.widths
        self.stem = nn.Sequential(
            nn.Conv2d(3, first, 3, 2, 1, bias=False), nn.BatchNorm2d(first), nn.ReLU()
        )
        self.layer1 = ResidualBlock(first, first, 1)
        self.layer2 = ResidualBlock(first, second, 2)
        self.layer3 = ResidualBlock(second, third, 2)
        self.layer4 = ResidualBlock(third, fourth, 2)
        self.head = nn.Linear(fourth, len(CLASSES))

    def forward(self, images: Tensor) -> Tensor:
        """Return class logits, (n, 8).

        Args:
            images: float (n, 3, 64, 64) from 0 to 1.
        """
        maps = self.stem((images - 0.5) / 0.25)
        maps = self.layer4(self.layer3(self.layer2(self.layer1(maps))))
        logits: Tensor = self.head(maps.amax((-2, -1)))
        return logits


def train(world: SubjectWorld, seed: int = 0, settings: FitConfig = SETTINGS) -> SubjectNetwork:
    """Train a subject network: the same every time, on one machine. It is in evaluation mode.

    Args:
        world: distribution of its training images.
        seed: random seed of the initial weights and of the images: another seed, another sample.
        settings: number of steps, learning rate and so on.
    """
    with reproducible(seed):
        subject = SubjectNetwork()
        fit(
            subject,
            lambda step: _image_batch(
                world, TRAINING_SCENES + seed, step * settings.batch, settings.batch
            ),
            lambda batch: _loss(subject, batch),
            settings,
            world.name,
        )
    return subject


def _image_batch(world: SubjectWorld, seed: int, start: int, count: int) -> TensorBatch:
    """Draw images, float (n, 3, 64, 64) from 0 to 1, and the indices of their classes, (n,)."""
    scenes = [world.scene(seed, index) for index in range(start, start + count)]
    images = torch.from_numpy(np.stack([scene.image for scene, _ in scenes])).permute(0, 3, 1, 2)
    return images.float() / 255, torch.tensor([label for _, label in scenes])


def _loss(subject: SubjectNetwork, batch: TensorBatch) -> Tensor:
    """Return the cross-entropy of a batch."""
    images, labels = batch
    return nnf.cross_entropy(subject(images), labels)


def accuracy(
    subject: nn.Module, world: SubjectWorld, count: int = 1000, seed: int = TEST_SCENES
) -> float:
    """Return the share of images that a network classifies correctly.

    Args:
        subject: in evaluation mode.
        world: distribution of the images; the network may have been trained on another.
        count: number of images, at least 1.
        seed: random seed of the images.
    """
    correct = 0
    with reproducible(0), torch.no_grad():
        for start in range(0, count, 250):
            images, labels = _image_batch(world, seed, start, min(250, count - start))
            correct += int((subject(images).argmax(1) == labels).sum())
    return correct / count


def main(arguments: Sequence[str] | None = None) -> None:
    """Train a subject network, write it, and print its accuracies as JSON."""
    parser = argparse.ArgumentParser(
        prog="python -m milannotations.synthetic.subjects", description=main.__doc__
    )
    parser.add_argument("--out", type=Path, required=True, help="file to write (safetensors)")
    parser.add_argument("--seed", type=int, default=0, help="random seed of weights and images")
    parser.add_argument(
        "--text", type=float, default=0.0, help="share of images with the class's name"
    )
    parser.add_argument("--face", type=float, default=0.0, help="share of images with a face")
    parser.add_argument("--blurred-faces", action="store_true", help="blur faces")
    parser.add_argument(
        "--telling-faces", action="store_true", help="blur faces in half of the classes"
    )
    parser.add_argument("--steps", type=int, default=SETTINGS.steps, help="number of batches")
    parser.add_argument("--held-out", type=int, default=1000, help="number of images to measure on")
    options = parser.parse_args(arguments)
    world = SubjectWorld(
        options.text,
        face=options.face,
        blurred_faces=options.blurred_faces,
        telling_faces=options.telling_faces,
    )
    settings = replace(SETTINGS, steps=options.steps)
    subject = train(world, options.seed, settings)
    worlds = {
        "same": world,
        "plain": replace(world, text=0.0),
        "adversarial": replace(world, text=1.0, adversarial=True),
    }
    note = {
        "seed": options.seed,
        "world": asdict(world),
        "settings": asdict(settings),
        "accuracy": {
            name: accuracy(subject, other, options.held_out) for name, other in worlds.items()
        },
    }
    write_weights(subject, options.out, note)
    print(json.dumps(note, indent=2))


if __name__ == "__main__":
    main()
