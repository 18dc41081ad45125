"""Training of an image classifier on images in class folders, as in the 2022 code (section 6.5).

AdamW at 1e-4, batches of 128, at most 100 epochs, stopped when the loss on validation images has
not fallen for 4 epochs; the weights of the best epoch are kept. The classifier has one output per
class; 2022 kept the 1,000 of ImageNet.
"""

from __future__ import annotations

import sys
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from milannotations.errors import InputError

if TYPE_CHECKING:
    from torch import nn

    from leaderboard.applications.common.labelled_images import LabelledImages


@dataclass(frozen=True)
class ClassifierConfig:
    """Configuration of the training of a classifier; the defaults are those of 2022."""

    rate: float = 1e-4
    """Learning rate (default: 1e-4)."""

    batch: int = 128
    """Images in a batch (default: 128)."""

    epochs: int = 100
    """Most epochs (default: 100)."""

    patience: int = 4
    """Epochs without a lower validation loss before training stops (default: 4)."""

    decay: float = 0.01
    """Weight decay (default: .01)."""

    def __post_init__(self) -> None:
        if min(self.batch, self.epochs, self.patience) < 1 or self.rate <= 0:
            raise InputError("rate, batch, epochs and patience must be above 0.")


def train(
    architecture: str,
    training: LabelledImages,
    validation: LabelledImages,
    classes: int,
    out: Path,
    *,
    seed: int = 0,
    config: ClassifierConfig | None = None,
    device: str | None = None,
) -> dict[str, Any]:
    """Train a torchvision network from scratch, write its weights, and return the record.

    The same seed gives the same network on one machine and device.

    Args:
        architecture: torchvision's name of the network, such as `resnet18`.
        training, validation: labelled images.
        classes: number of output classes.
        out: file of weights (safetensors).
        seed: random seed of the initial weights and the order of images.
        config: see `ClassifierConfig`.
        device: None takes the best available.

    Raises:
        InputError: torchvision has no such network.
    """
    import torch
    from torch.nn import functional as nnf
    from torch.utils.data import DataLoader
    from tqdm import tqdm

    from milannotations.exemplars.device import best_device
    from milannotations.synthetic.training import reproducible, write_weights

    config, device = config or ClassifierConfig(), device or best_device()
    losses: list[float] = []
    with reproducible(seed), torch.random.fork_rng():
        torch.manual_seed(seed)
        model = create_network(architecture, classes).to(device)
        optimizer = torch.optim.AdamW(model.parameters(), lr=config.rate, weight_decay=config.decay)
        loader = DataLoader(
            training,
            batch_size=config.batch,
            shuffle=True,
            generator=torch.Generator().manual_seed(seed),
            # batch normalization cannot be trained on a batch of one
            drop_last=len(training) % config.batch == 1,
        )
        best, best_weights = float("inf"), model.state_dict()
        bar = tqdm(
            range(config.epochs), f"{architecture}, seed {seed}", unit="epoch",
            disable=not sys.stderr.isatty(),
        )  # fmt: skip
        for epoch in bar:
            model.train()
            for images, labels in loader:
                optimizer.zero_grad()
                nnf.cross_entropy(model(images.to(device)), labels.to(device)).backward()
                optimizer.step()
            losses.append(_mean_loss(model, validation, config.batch, device))
            bar.set_postfix(loss=f"{losses[-1]:.3f}")
            if losses[-1] < best:
                best = losses[-1]
                best_weights = {
                    name: value.detach().cpu().clone() for name, value in model.state_dict().items()
                }
            elif epoch - losses.index(best) >= config.patience:
                break
        model.cpu().load_state_dict(best_weights)
    record = {
        "architecture": architecture,
        "classes": classes,
        "seed": seed,
        "settings": asdict(config),
        "validation_loss": [round(loss, 6) for loss in losses],
        "epoch": losses.index(best) if best in losses else None,
        "training": dict(training.source),
        "validation": dict(validation.source),
    }
    write_weights(model.eval(), out, record)
    return record


def create_network(architecture: str, classes: int) -> nn.Module:
    """Create a torchvision network with random weights and one output per class.

    Raises:
        InputError: torchvision has no such network.
    """
    import torchvision

    from milannotations.errors import did_you_mean

    known = torchvision.models.list_models(module=torchvision.models)
    if architecture not in known:
        raise InputError(
            f"torchvision has no network '{architecture}'.{did_you_mean(architecture, known)}"
        )
    model: nn.Module = torchvision.models.get_model(architecture, weights=None, num_classes=classes)
    return model


def _mean_loss(model: nn.Module, labelled: LabelledImages, batch: int, device: str) -> float:
    """Return the mean cross-entropy over images."""
    import torch
    from torch.nn import functional as nnf
    from torch.utils.data import DataLoader

    model.eval()
    total = 0.0
    with torch.no_grad():
        for images, labels in DataLoader(labelled, batch_size=batch):
            logits = model(images.to(device))
            total += float(nnf.cross_entropy(logits, labels.to(device), reduction="sum"))
    return total / len(labelled)
