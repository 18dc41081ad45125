"""Training of the reference model on editions: `milan train`."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from leaderboard.reproduction.lambda_choice import choose_lambda, search_beams
from milannotations.editions import loading
from milannotations.errors import InputError, some

if TYPE_CHECKING:
    from milan import Milan
    from milan.config import Config
    from milan.features import Features


def train(
    data: Sequence[str],
    out: str,
    *,
    encoder: str | None = None,
    encoder_weights: str | None = None,
    encoder_layers: Sequence[str] = (),
    condition: str | None = None,
    sizes: str | None = None,
    settings: Mapping[str, Any] | None = None,
    lam: float | None = None,
    track: str | None = None,
    progress: bool = False,
) -> Milan:
    """Train MILAN on human descriptions of units, and write it to a folder.

    Args:
        data: editions, `EDITION` or `EDITION:CONFIG`; the model is trained on split `train`, and
            `validation`, where there is one, is held out.
        out: folder of the model.
        encoder: encoder of exemplars, `mini` or a network as in `milan exemplars` (default: mini
            for synthetic editions).
        encoder_weights: file of the encoder's weights.
        encoder_layers: layers whose activation maps are pooled (default: those of ResNets and
            AlexNet).
        condition: official split, whose `train` the model is trained on (one edition).
        sizes: `2022` or `small` (default: small with the encoder of the mini world).
        settings: fields of `milan.config.TrainingConfig` that differ from those of the sizes.
        lam: lambda, the weight of log p(d) (default: chosen on the held-out units).
        track: tracker that the training curves are sent to as well: trackio or wandb.
        progress: show progress.

    Raises:
        InputError: a model in `out`; no encoder; no such sizes, edition or condition.
    """
    from milan import encoder as encoders
    from milan import training
    from milan.config import DEFAULTS
    from milan.pretrained import CONFIG

    if (Path(out) / CONFIG).exists():
        raise InputError(f"{out} holds a model already. Give another --out, or remove it.")
    units = open_units(data, condition)
    if encoder is None:
        if not set(units[0]["unit_kind"]) <= {"synthetic"}:
            raise InputError(
                "No encoder: add --encoder torchvision:resnet50@DEFAULT (downloaded), or --encoder "
                "torchvision:resnet50 --encoder-weights FILE."
            )
        encoder = encoders.MINI
    sizes = sizes or ("small" if encoder == encoders.MINI else "2022")
    if sizes not in DEFAULTS:
        raise InputError(f"No sizes '{sizes}' (sizes: {', '.join(DEFAULTS)}).")
    training_settings = replace(DEFAULTS[sizes], **(settings or {}))
    split = training.held_out(*units, training_settings.hold_out, training_settings.seed)

    def finish(model: Milan, held_out: Features) -> Config:
        chosen = lam
        if chosen is None:
            chosen = choose_lambda([(split.validation, search_beams(model, held_out))])
        return replace(model.config, lam=chosen)

    return training.train(
        split,
        encoders.build(encoder, encoder_weights, encoder_layers),
        out,
        sizes=sizes,
        settings=training_settings,
        made_from={"editions": list(data), "condition": condition},
        finish=finish,
        track=track,
        progress=progress,
    )


def open_units(data: Sequence[str], condition: str | None = None) -> tuple[Any, Any | None]:
    """Return the training units of editions, and their validation units or None.

    Args:
        data, condition: see `train`.

    Raises:
        InputError: no such edition; no training units; a unit that comes twice.
    """
    from datasets import concatenate_datasets

    from baselines.framework.units import unit_keys

    parts: dict[str, list[Any]] = {"train": [], "validation": []}
    for given in data:
        # EDITION:CONFIG, unless a folder has that name
        name, _, config = given.rpartition(":") if not Path(given).exists() else (given, "", "")
        name, config = (name, config) if name else (given, "")
        edition = loading.load(name, config or None, condition=condition)
        for split, tables in parts.items():
            if split in edition:
                tables.append(edition[split])
    if not parts["train"]:
        raise InputError(f"{', '.join(data)} has no split 'train' to train on.")
    counts = Counter(key for tables in parts.values() for rows in tables for key in unit_keys(rows))
    if repeated := [str(key) for key, count in counts.items() if count > 1]:
        raise InputError(
            f"{', '.join(data)}: units come twice ({some(repeated)}). Name each edition "
            "and config once."
        )
    train, validation = (
        concatenate_datasets(tables) if tables else None for tables in parts.values()
    )
    return train, validation
