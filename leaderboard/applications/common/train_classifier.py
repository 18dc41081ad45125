"""Train an image classifier on a folder a class, as the 2022 code did (its section 6.5).

AdamW at 1e-4, batches of 128, at most 100 epochs, stopped when the loss on validation pictures has
not fallen for 4 epochs; the weights of the best epoch are kept. It has an output a class: 2022 kept
ImageNet's 1,000.
"""

from __future__ import annotations

import sys
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from milannotations.errors import InputError

if TYPE_CHECKING:
    from torch import nn

    from leaderboard.applications.common.ablated_accuracy import Labelled


@dataclass(frozen=True)
class Training:
    """How a classifier is trained; the defaults are those of 2022."""

    rate: float = 1e-4
    batch: int = 128
    epochs: int = 100
    patience: int = 4
    decay: float = 0.01

    def __post_init__(self) -> None:
        if min(self.batch, self.epochs, self.patience) < 1 or self.rate <= 0:
            raise InputError("rate, batch, epochs and patience are to be above 0.")


def train(
    architecture: str,
    training: Labelled,
    validation: Labelled,
    classes: int,
    out: Path,
    *,
    seed: int = 0,
    settings: Training | None = None,
    device: str | None = None,
) -> dict[str, Any]:
    """Train a network of torchvision's from scratch, and write its weights; return the record.

    The same seed gives the same network, on one machine and device.

    Args:
        architecture: its name, such as `resnet18`.
        training, validation: pictures with classes.
        classes: outputs.
        out: file of weights (safetensors).
        seed: of initial weights and the order of pictures.
        settings: how long, and how fast.
        device: None takes the best there is.

    Raises:
        InputError: torchvision has no such network.
    """
    import torch
    from torch.nn import functional as nnf
    from torch.utils.data import DataLoader
    from tqdm import tqdm

    from milannotations.exemplars.device import best_device
    from milannotations.synthetic.training import reproducible, write_weights

    settings, device = settings or Training(), device or best_device()
    losses: list[float] = []
    with reproducible(seed), torch.random.fork_rng():
        torch.manual_seed(seed)
        model = network(architecture, classes).to(device)
        optimizer = torch.optim.AdamW(
            model.parameters(), lr=settings.rate, weight_decay=settings.decay
        )
        loader = DataLoader(
            _Pairs(training),
            batch_size=settings.batch,
            shuffle=True,
            generator=torch.Generator().manual_seed(seed),
            drop_last=len(training.labels) % settings.batch == 1,  # batch norm wants two
        )
        best, kept = float("inf"), model.state_dict()
        bar = tqdm(
            range(settings.epochs), f"{architecture}, seed {seed}", unit="epoch",
            disable=not sys.stderr.isatty(),
        )  # fmt: skip
        for epoch in bar:
            model.train()
            for images, labels in loader:
                optimizer.zero_grad()
                nnf.cross_entropy(model(images.to(device)), labels.to(device)).backward()
                optimizer.step()
            losses.append(_loss(model, validation, settings.batch, device))
            bar.set_postfix(loss=f"{losses[-1]:.3f}")
            if losses[-1] < best:
                best = losses[-1]
                kept = {
                    name: value.detach().cpu().clone() for name, value in model.state_dict().items()
                }
            elif epoch - losses.index(best) >= settings.patience:
                break
        model.cpu().load_state_dict(kept)
    made = {
        "architecture": architecture,
        "classes": classes,
        "seed": seed,
        "settings": asdict(settings),
        "validation_loss": [round(loss, 6) for loss in losses],
        "epoch": losses.index(best) if best in losses else None,
        "training": dict(training.source),
        "validation": dict(validation.source),
    }
    write_weights(model.eval(), out, made)
    return made


def network(architecture: str, classes: int) -> nn.Module:
    """Return a network of torchvision's with random weights and an output a class.

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


def _loss(model: nn.Module, shown: Labelled, batch: int, device: str) -> float:
    import torch
    from torch.nn import functional as nnf
    from torch.utils.data import DataLoader

    model.eval()
    total = 0.0
    with torch.no_grad():
        for images, labels in DataLoader(_Pairs(shown), batch_size=batch):
            logits = model(images.to(device))
            total += float(nnf.cross_entropy(logits, labels.to(device), reduction="sum"))
    return total / len(shown.labels)


class _Pairs:
    def __init__(self, shown: Labelled) -> None:
        self.shown = shown

    def __len__(self) -> int:
        return len(self.shown.labels)

    def __getitem__(self, place: int) -> Any:
        item = self.shown.pictures[place]
        return item["image"] if isinstance(item, dict) else item, int(self.shown.labels[place])
