"""Train the reference model on editions, and choose lambda by a score on held-out units."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from leaderboard.evaluation import predictions, references
from leaderboard.evaluation.score_config import ScoreConfig
from leaderboard.evaluation.scoring import score
from milannotations.editions import loading
from milannotations.errors import InputError, some

if TYPE_CHECKING:
    from milan import Milan
    from milan.config import Config
    from milan.features import Features
    from milan.model import Candidate

LAMBDAS = (0.0, 0.05, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.8)
"""Values of lambda that are tried."""

LAMBDA = 0.2
"""The paper's, where nothing can be chosen by."""

CHOSEN_BY = "rouge-l-allref"
"""Lambda is the one with the largest lift of this metric: raw overlap would favour 0. All
references count, so that units with a single description do."""


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
    """Train MILAN on what people wrote of units, and write it to a folder.

    Args:
        data: editions, `EDITION` or `EDITION:CONFIG`; their split `train` is learned from, and
            `validation`, where there is one, is held out.
        out: folder of the model.
        encoder: `mini` or a network as `milan exemplars` names it; None is `mini` for synthetic
            editions.
        encoder_weights: a file of its weights.
        encoder_layers: whose maps are pooled; of ResNets and AlexNet they may be left out.
        condition: an official split, whose `train` is learned from (one edition).
        sizes: `2022` or `small`; None is `small` with the encoder of the mini world.
        settings: fields of `milan.config.TrainingConfig` that differ from those of the sizes.
        track, progress: see `milan.training.train`.
        lam: lambda; None chooses it on the held-out units.

    Raises:
        InputError: anything that the caller can mend, with what to do.
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
                "Which network is the encoder? For instance --encoder torchvision:resnet50@DEFAULT "
                "(fetched), or --encoder torchvision:resnet50 --encoder-weights FILE."
            )
        encoder = encoders.MINI
    sizes = sizes or ("small" if encoder == encoders.MINI else "2022")
    if sizes not in DEFAULTS:
        raise InputError(f"No sizes '{sizes}' (sizes: {', '.join(DEFAULTS)}).")
    chosen = replace(DEFAULTS[sizes], **(settings or {}))
    split = training.held_out(*units, chosen.hold_out, chosen.seed)

    def finish(model: Milan, held_out: Features) -> Config:
        found = lam
        if found is None:
            found = choose_lambda([(split.validation, beam_of(model, held_out))])
        return replace(model.config, lam=found)

    return training.train(
        split,
        encoders.build(encoder, encoder_weights, encoder_layers),
        out,
        sizes=sizes,
        settings=chosen,
        made_from={"editions": list(data), "condition": condition},
        finish=finish,
        track=track,
        progress=progress,
    )


def open_units(data: Sequence[str], condition: str | None = None) -> tuple[Any, Any | None]:
    """Return the units of editions to learn from, and those of their split `validation`, or None.

    Args:
        data, condition: see `train`.

    Raises:
        InputError: no such edition, or none to learn from; a unit that comes twice.
    """
    from datasets import concatenate_datasets

    from baselines.framework.run import unit_keys

    parts: dict[str, list[Any]] = {"train": [], "validation": []}
    for each in data:
        name, _, config = each.rpartition(":") if not Path(each).exists() else (each, "", "")
        name, config = (name, config) if name else (each, "")
        made = loading.load(name, config or None, condition=condition)
        for split, own in parts.items():
            if split in made:
                own.append(made[split])
    if not parts["train"]:
        raise InputError(f"{', '.join(data)}: there is no split 'train' to learn from.")
    counts = Counter(key for own in parts.values() for rows in own for key in unit_keys(rows))
    if twice := [str(key) for key, count in counts.items() if count > 1]:
        raise InputError(
            f"{', '.join(data)}: units come twice ({some(twice)}). Name each edition and config "
            "once."
        )
    train, validation = (concatenate_datasets(own) if own else None for own in parts.values())
    return train, validation


def beam_of(model: Milan, features: Features) -> list[list[Candidate]]:
    """Return the likelihood beam of units, with both scores of each candidate."""
    values, present = features.tensors()
    return model.describe_features(values, present, strategy="beam").n_best


def best_of(beam: Sequence[Sequence[Candidate]], lam: float) -> list[str]:
    """Return, for each unit, the candidate with the largest log p(d | E) - lambda log p(d)."""
    return [
        max(own, key=lambda one: one.log_p_given_exemplars - lam * (one.log_p or 0.0)).text
        for own in beam
    ]


def choose_lambda(
    held_out: Sequence[tuple[Any, Sequence[Sequence[Candidate]]]], metric: str = CHOSEN_BY
) -> float:
    """Return the lambda with the largest lift on held-out units; the smallest, among several.

    Args:
        held_out: `datasets.Dataset` of units with people's words, each with the candidates of
            its units; lifts are averaged over them.
        metric: whose lift.
    """
    from baselines.framework.run import unit_keys
    from leaderboard.metrics import build

    built = build([metric])
    lifts: list[list[float]] = []
    for units, beam in held_out:
        known = references.from_dataset({"validation": units}, edition="held out")
        own = []
        for lam in LAMBDAS:
            said = predictions.from_texts(unit_keys(units), best_of(beam, lam))
            found = score(said, known, built, settings=ScoreConfig(draws=10))
            own.append(found.record.scores[metric].lift)
        known_lifts = [lift for lift in own if lift is not None]
        if len(known_lifts) == len(own):  # layers of fewer than ten units have no lift
            lifts.append(known_lifts)
    if not lifts:
        return LAMBDA
    return LAMBDAS[int(np.mean(lifts, axis=0).round(6).argmax())]
