"""Training of both models on the annotations of units: p(d), then p(d | E).

Hernandez et al. 2022, section 3, and the code published with it: maximum likelihood given the
words before (teacher forcing); for the decoder also the doubly stochastic attention penalty (Xu
et al. 2015, section 4.2.1); AdamW (Loshchilov and Hutter 2019); early stopping on the BLEU of
greedy descriptions of held-out units, or on their loss. Unlike in 2022, the weights of the best
epoch are kept, and both models hold out the same units. The encoder is not trained.

    OUT/
      config.json, model.safetensors   the model, written last and whole
      curves.json                      losses and BLEU of every epoch
      .training/                       features, and the state after each epoch, during training
"""

import hashlib
import json
import shutil
from collections.abc import Callable, Sequence
from dataclasses import asdict, replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch

from milan.config import DEFAULTS, SIZES, Config, TrainingConfig
from milan.encoder import Encoder
from milan.features import Features, features_of
from milan.model import Milan
from milan.objectives import Corpus, DecoderLoss, LanguageModelLoss, bleu
from milan.tokenizer import Vocabulary
from milan.training_loop import Curve, TrainingLoop, best_epoch
from milannotations.errors import InputError
from milannotations.exemplars.networks.digest import network_digest
from milannotations.utils.cache import Cache
from milannotations.utils.files import replacing

TRACKERS = ("trackio", "wandb")
Curves = dict[str, Curve]


class TrainingUnits(NamedTuple):
    """Annotated units, two of `datasets.Dataset`: to train on, and held out."""

    train: Any
    validation: Any


def train(
    units: TrainingUnits,
    encoder: Encoder,
    out: str | Path,
    *,
    sizes: str = "2022",
    settings: TrainingConfig | None = None,
    made_from: dict[str, Any] | None = None,
    finish: Callable[[Milan, Features], Config] | None = None,
    track: str | None = None,
    progress: bool = False,
) -> Milan:
    """Train a model and write it to a folder.

    Run again with the same arguments after an interruption, training resumes after the last whole
    epoch and ends with the same weights. Under `accelerate launch` all processes train.

    Args:
        units: see `held_out`.
        encoder: with its weights.
        out: folder of the model.
        sizes: `2022` or `small`; see `config.SIZES`.
        settings: training options; None takes `config.DEFAULTS`.
        made_from: provenance of the data for the record, as JSON.
        finish: returns the final config of the trained model, with lambda chosen for instance,
            given the model and the features of the held-out units.
        track: `wandb` or `trackio`, to send curves there too.
        progress: show progress bars.

    Raises:
        InputError: no unit with images and an annotation to train on or to hold out; a precision
            or a tracker that is not available; a damaged state; a loss that is not finite.
    """
    texts = [rows["descriptions"] for rows in units]
    _check_annotated(texts)
    settings = settings or DEFAULTS[sizes]
    accelerator = _open_accelerator(settings, track)
    if track:
        accelerator.init_trackers("milan", config=asdict(settings))
    out, work = Path(out), Path(out) / ".training"
    encoder = encoder.to(accelerator.device)
    features = []
    for name, rows in zip(TrainingUnits._fields, units, strict=True):
        # everything that features depend on: the exemplars and the encoder
        key = (rows._fingerprint, asdict(encoder.config), network_digest(encoder.backbone))
        file = Cache(work).entry(name, *key, suffix=".npy").path
        with accelerator.main_process_first():
            features.append(features_of(rows, encoder, file=file, progress=progress))
    model, curves = learn(
        features, texts, encoder, work, sizes, settings, accelerator=accelerator, progress=progress
    )
    made = {
        "data": made_from,
        "sizes": sizes,
        "settings": asdict(settings),
        "units": {name: len(rows) for name, rows in zip(TrainingUnits._fields, units, strict=True)},
        "best_epoch": {name: best_epoch(curve) for name, curve in curves.items()},
        "torch": str(torch.__version__),
    }
    if finish is not None:
        model.config = finish(model, features[1])
    model = model.cpu()
    model.config = replace(model.config, made=made)
    if accelerator.is_main_process:
        with replacing(out / "curves.json") as temporary:
            temporary.write_text(json.dumps(curves, indent=1) + "\n")
        model.save_pretrained(out)
        shutil.rmtree(work)
    accelerator.wait_for_everyone()
    if track:
        accelerator.end_training()
    return model


def learn(
    features: Sequence[Features],
    texts: Sequence[Sequence[list[str]]],
    encoder: Encoder,
    work: Path,
    sizes: str,
    settings: TrainingConfig,
    *,
    accelerator: Any | None = None,
    progress: bool = False,
) -> tuple[Milan, Curves]:
    """Return a model trained on given features, and its curves.

    Args:
        features: of the training units, and of the held-out ones.
        texts: annotations of each unit, likewise.
        encoder: the one that made the features.
        work: folder of the state after each epoch.
        sizes, settings, progress: see `train`.
        accelerator: of accelerate; None opens one.

    Raises:
        InputError: see `train`.
    """
    _check_annotated(texts)
    vocabulary = Vocabulary.of(text for annotations in texts[0] for text in annotations)
    train, validation = (
        Corpus.of(part, annotations, vocabulary)
        for part, annotations in zip(features, texts, strict=True)
    )
    torch.manual_seed(settings.seed)
    model = Milan(Config(vocabulary.words, encoder.config, **SIZES[sizes]), encoder)
    accelerator = accelerator or _open_accelerator(settings)
    key = _training_key(settings, sizes, vocabulary, (train, validation))
    loop = TrainingLoop(accelerator, settings, key, work, progress and accelerator.is_main_process)
    curves = {
        "language_model": loop.fit(
            "language_model",
            LanguageModelLoss(model, train),
            lambda: validation_loss(loop, LanguageModelLoss(model, validation)),
        ),
        "decoder": loop.fit(
            "decoder",
            DecoderLoss(model, train, settings),
            lambda: validate_decoder(loop, model, validation),
        ),
    }
    return model.eval(), curves


def held_out(train: Any, validation: Any | None, share: float, seed: int) -> TrainingUnits:
    """Return annotated units, with those of `validation`, or else a seeded share, held out.

    Args:
        train, validation: `datasets.Dataset` of units; those without annotations are left out.
        share: of the units, to hold out if there is no `validation`.
        seed: random seed of the draw.
    """
    train = _annotated(train)
    if validation is not None and len(validation := _annotated(validation)):
        return TrainingUnits(train, validation)
    order = np.random.default_rng(seed).permutation(len(train))
    count = max(1, round(share * len(train)))
    return TrainingUnits(train.select(np.sort(order[count:])), train.select(np.sort(order[:count])))


def validation_loss(
    loop: TrainingLoop, objective: LanguageModelLoss | DecoderLoss
) -> dict[str, float]:
    """Return the mean loss of the held-out annotations, and minus it as the `value` to maximise."""
    objective.eval().to(loop.accelerator.device)
    total, count = 0.0, len(objective.corpus.ids)
    with torch.no_grad(), loop.accelerator.autocast():
        for rows in torch.arange(count).split(loop.settings.batch):
            total += float(objective(rows)) * len(rows)
    return {"loss": total / count, "value": -total / count}


def validate_decoder(loop: TrainingLoop, model: Milan, corpus: Corpus) -> dict[str, float]:
    """Return loss and BLEU of the held-out units, and the `value` to maximise."""
    metrics = validation_loss(loop, DecoderLoss(model, corpus, loop.settings))
    features, present = corpus.features.tensors()
    descriptions = model.describe_features(features, present, strategy="greedy").text
    metrics["bleu"] = bleu(descriptions, corpus.references)
    if loop.settings.stop_on == "bleu":
        metrics["value"] = metrics["bleu"]
    return metrics


def _annotated(units: Any) -> Any:
    """Return the units that have an annotation."""
    return units.select(
        [i for i, annotations in enumerate(units["descriptions"]) if _has_text(annotations)]
    )


def _has_text(annotations: Sequence[str]) -> bool:
    return any(text.strip() for text in annotations)


def _check_annotated(texts: Sequence[Sequence[list[str]]]) -> None:
    """Raise InputError unless there are annotations to train on and to hold out."""
    for annotations, purpose in zip(texts, ("learn from", "hold out"), strict=True):
        if not any(map(_has_text, annotations)):
            raise InputError(
                f"There are no descriptions to {purpose}. Expected at least two units with a "
                "description, or one in the split 'train' and one in 'validation'."
            )


def _open_accelerator(settings: TrainingConfig, track: str | None = None) -> Any:
    """Return an `Accelerator` of the wanted precision.

    Raises:
        InputError: the tracker or the precision is not available.
    """
    from accelerate import Accelerator

    if track is not None and track not in TRACKERS:
        raise InputError(f"No tracker '{track}' (trackers: {', '.join(TRACKERS)}).")
    if track is not None and find_spec(track) is None:
        raise InputError(f"The tracker '{track}' is not installed: pip install {track}")
    try:
        accelerator = Accelerator(mixed_precision=settings.precision, log_with=track)
    except ValueError as error:
        raise InputError(f"precision '{settings.precision}' is not available: {error}") from error
    if settings.precision == "fp16" and accelerator.device.type == "cpu":
        raise InputError("precision 'fp16' needs a GPU; on a processor use no or bf16.")
    return accelerator


def _training_key(
    settings: TrainingConfig, sizes: str, vocabulary: Vocabulary, corpora: Sequence[Corpus]
) -> str:
    """Return the digest of everything that training depends on; a state is of use if it agrees."""
    references = [corpus.references for corpus in corpora]
    options = [asdict(settings), SIZES[sizes], vocabulary.words, references]
    key = hashlib.sha256(json.dumps(options).encode())
    for features, *_ in corpora:
        for first in range(0, len(features), 1000):
            key.update(features.values[features.rows[first : first + 1000]].tobytes())
    return key.hexdigest()
