"""Training loop: epochs of AdamW with early stopping, resumed after the last whole epoch."""

import copy
import hashlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from tqdm import tqdm

from milan.config import TrainingConfig
from milan.objectives import DecoderLoss, LanguageModelLoss
from milannotations.errors import InputError
from milannotations.utils.files import replacing

Curve = list[dict[str, int | float]]
"""Losses and metrics of a model, one dict per epoch."""


@dataclass
class TrainingLoop:
    """Loop that trains one model after the other, over all processes.

    Args:
        accelerator: of accelerate.
        settings: training options.
        key: digest of all that training depends on; a state of another key is not resumed.
        work: folder of the states.
        progress: show a progress bar.
    """

    accelerator: Any
    settings: TrainingConfig
    key: str
    work: Path
    progress: bool
    _steps: int = field(default=0, init=False)

    def fit(
        self,
        name: str,
        objective: LanguageModelLoss | DecoderLoss,
        validate: Callable[[], dict[str, float]],
    ) -> Curve:
        """Train in place, restore the weights of the best epoch, and return the curve.

        Args:
            name: of the model, in the file of its state and in messages.
            objective: returns the loss of a batch.
            validate: returns metrics of the held-out units; `value` is to be maximised.

        Raises:
            InputError: the loss is not finite; the state is damaged.
        """
        from accelerate.utils import broadcast_object_list

        settings, file = self.settings, self.work / f"{name}.pt"
        objective.to(self.accelerator.device)
        optimizer = torch.optim.AdamW(
            objective.parameters(), lr=settings.rate, weight_decay=settings.decay
        )
        schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, settings.epochs)
        curve: Curve = []
        best: dict[str, Tensor] = {}
        if (state := self._load(file)) is not None:
            objective.load_state_dict(state["weights"])
            optimizer.load_state_dict(state["optimizer"])
            schedule.load_state_dict(state["schedule"])
            curve, best = state["curve"], state["best"]
        prepared, optimizer = self.accelerator.prepare(objective, optimizer)
        bar = tqdm(
            range(len(curve), settings.epochs), name, unit="epoch", disable=not self.progress
        )
        for epoch in bar:
            if self._is_over(curve):
                break
            prepared.train()
            self._seed(name, epoch)
            losses = [
                self._step(prepared, optimizer, rows)
                for rows in self._batches(len(objective.corpus.ids), epoch)
            ]
            schedule.step()
            objective.eval()
            local = {"epoch": epoch, "train_loss": float(np.mean(losses)), **validate()}
            # All processes must stop at the same epoch. Their last digits may differ, so the
            # metrics of the first one count for all.
            (metrics,) = broadcast_object_list([local])
            if not np.isfinite(list(metrics.values())).all():
                raise InputError(
                    f"The loss of {name} is not a finite number after epoch {epoch}. Try a lower "
                    f"learning rate than {settings.rate:g} (--rate)."
                )
            curve.append(metrics)
            if best_epoch(curve) == epoch:
                best = copy.deepcopy(objective.state_dict())
            self.accelerator.log(
                {f"{name}/{key}": value for key, value in metrics.items()}, step=self._steps
            )
            self._steps += 1
            bar.set_postfix({key: f"{value:.2f}" for key, value in metrics.items()})
            if self.accelerator.is_main_process:
                self._save(file, objective, optimizer, schedule, curve, best)
        objective.load_state_dict(best)
        self.accelerator.free_memory()
        return curve

    def _step(self, objective: nn.Module, optimizer: Any, rows: Tensor) -> float:
        optimizer.zero_grad()
        loss = objective(rows)
        self.accelerator.backward(loss)
        optimizer.step()
        return float(loss.detach())

    def _seed(self, name: str, epoch: int) -> None:
        """Seed torch by model, epoch and process, so that a resumed epoch draws the same."""
        key = f"{name}/{self.settings.seed}/{epoch}/{self.accelerator.process_index}"
        torch.manual_seed(int(hashlib.sha256(key.encode()).hexdigest()[:15], 16))

    def _batches(self, count: int, epoch: int) -> Iterator[Tensor]:
        """Yield this process's rows of each batch, in an order that depends on the epoch."""
        rank, world = self.accelerator.process_index, self.accelerator.num_processes
        order = np.random.default_rng([self.settings.seed, epoch]).permutation(count)
        for first in range(0, count, self.settings.batch):
            batch = order[first : first + self.settings.batch]
            # The last batch may have fewer rows than there are processes. All must take part in
            # it, or the others would wait forever: some rows are then seen twice.
            yield torch.from_numpy(batch[rank % len(batch) :: world])

    def _is_over(self, curve: Curve) -> bool:
        return bool(curve) and len(curve) - 1 - best_epoch(curve) > self.settings.patience

    def _load(self, file: Path) -> dict[str, Any] | None:
        """Return the state after the last whole epoch, if it is of the same training."""
        self.accelerator.wait_for_everyone()
        if not file.is_file():
            return None
        try:
            state: dict[str, Any] = torch.load(file, map_location="cpu", weights_only=True)
        except Exception as error:
            raise InputError(
                f"{file} is damaged: {str(error).splitlines()[0]} Remove it and run the command "
                "again."
            ) from error
        return state if state["key"] == self.key else None

    def _save(
        self,
        file: Path,
        objective: nn.Module,
        optimizer: Any,
        schedule: Any,
        curve: Curve,
        best: dict[str, Tensor],
    ) -> None:
        state = {
            "key": self.key,
            "weights": objective.state_dict(),
            "optimizer": optimizer.state_dict(),
            "schedule": schedule.state_dict(),
            "curve": curve,
            "best": best,
        }
        with replacing(file) as temporary:
            torch.save(state, temporary)


def best_epoch(curve: Curve) -> int:
    """Return the epoch with the highest value; ties go to the lowest loss, then to the first.

    The BLEU of short descriptions is 0 until four words in a row are right: the loss tells such
    epochs apart.

    Example:
        >>> best_epoch([{"value": 0.0, "loss": 2.5}, {"value": 0.0, "loss": 1.5}])
        1
    """
    ranks = [(metrics["value"], -metrics["loss"], -epoch) for epoch, metrics in enumerate(curve)]
    return ranks.index(max(ranks))
