"""Training: p(d), then p(d | E), on what people wrote of units; the encoder stays as it is.

Hernandez et al. 2022, section 3 and the code published with it: maximum likelihood with the
words before given (teacher forcing); of the decoder, plus the doubly-stochastic attention
penalty (Xu et al. 2015, section 4.2.1); AdamW (Loshchilov and Hutter 2019); stopping early on
the BLEU of greedy descriptions of held-out units, or on their loss. Here the weights of the
best epoch are what is kept, and both models hold the same units out.

    OUT/
      config.json, model.safetensors   the model, written last and whole
      curves.json                      losses and BLEU of every epoch
      .training/                       features, and the state after each epoch, while it runs
"""

import copy
import hashlib
import json
import shutil
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, field, replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor, nn
from torch.nn import functional as nnf
from tqdm import tqdm

from milan.decoder import Decoder
from milan.encoder import Encoder
from milan.features import Features, features_of
from milan.language_model import LanguageModel
from milan.model import Config, Milan
from milan.tokenizer import Vocabulary
from milannotations.errors import InputError
from milannotations.exemplars.networks.digest import network_digest
from milannotations.utils.cache import Cache
from milannotations.utils.files import replacing

SIZES: dict[str, dict[str, Any]] = {
    "2022": {},
    "small": {
        "embedding_size": 96,
        "hidden_size": 256,
        "attention_size": 128,
        "dropout": 0.4,
        "lm_embedding_size": 48,
        "lm_hidden_size": 96,
    },
}
"""Sizes of models: those of 2022, for 20,000 units; smaller ones, for a thousand."""

STOPS = ("bleu", "loss")
PRECISIONS = ("no", "bf16", "fp16")
TRACKERS = ("trackio", "wandb")


@dataclass(frozen=True)
class Settings:
    """How a model is trained.

    Args:
        epochs: at most.
        patience: so many epochs may be no better than the best before training stops.
        batch: descriptions, over all processes.
        rate, decay: of AdamW; the rate falls to 0 over `epochs` as a cosine.
        penalty: weight of the doubly-stochastic attention penalty.
        stop_on: `bleu` or `loss`, of the held-out units; the language model goes by loss.
        hold_out: share of the units that is held out where the data has no split `validation`.
        least: exemplars that are seen of a unit at least: as many as are drawn for each
            description anew, of all. None shows all of them.
        noise: of features, in their standard deviations.
        seed: of weights, order, draws and dropout.
        precision: `no`, `bf16` or `fp16` (accelerate's mixed precision).
    """

    epochs: int = 100
    patience: int = 4
    batch: int = 64
    rate: float = 1e-3
    decay: float = 1e-2
    penalty: float = 1.0
    stop_on: str = "bleu"
    hold_out: float = 0.1
    least: int | None = None
    noise: float = 0.0
    seed: int = 0
    precision: str = "no"

    def __post_init__(self) -> None:
        if self.stop_on not in STOPS:
            raise InputError(f"stop_on is '{self.stop_on}'; expected one of {', '.join(STOPS)}.")
        if self.precision not in PRECISIONS:
            raise InputError(
                f"precision is '{self.precision}'; expected one of {', '.join(PRECISIONS)}."
            )
        if self.epochs < 1 or self.batch < 1 or not 0 < self.hold_out < 1:
            raise InputError(
                f"{self.epochs} epochs, batches of {self.batch}, {self.hold_out} held out; "
                "expected at least 1, at least 1, and a share between 0 and 1."
            )


SMALL = Settings(epochs=40, patience=8, rate=2e-3, stop_on="loss", least=8, noise=0.1)
"""For a thousand units: what is seen of each is varied, so that less is learned by heart. BLEU
of a hundred held-out units goes up and down by a half from epoch to epoch, and would stop
training anywhere; their loss does not."""


DEFAULTS = {"2022": Settings(), "small": SMALL}
"""How models of each size are trained unless told."""


class Units(NamedTuple):
    """Described units: `datasets.Dataset` of training units and of held-out ones."""

    train: Any
    validation: Any


class Corpus(NamedTuple):
    """What is learned from: features of units and, a row each, descriptions of them."""

    features: Features
    references: list[list[str]]
    ids: Int64[Tensor, "text time"]
    unit: Int64[Tensor, " text"]

    @classmethod
    def of(cls, features: Features, texts: Sequence[list[str]], vocabulary: Vocabulary) -> "Corpus":
        """Return units with what people wrote of each."""
        pairs = [(row, text) for row, own in enumerate(texts) for text in own if text.strip()]
        return cls(
            features,
            [[text for text in own if text.strip()] for own in texts],
            vocabulary.encode([text for _, text in pairs]),
            torch.tensor([row for row, _ in pairs]),
        )


Curve = list[dict[str, int | float]]
Curves = dict[str, Curve]


def train(
    units: Units,
    encoder: Encoder,
    out: str | Path,
    *,
    sizes: str = "2022",
    settings: Settings | None = None,
    made_from: dict[str, Any] | None = None,
    finish: Callable[[Milan, Features], Config] | None = None,
    track: str | None = None,
    progress: bool = False,
) -> Milan:
    """Train a model and write it to a folder.

    Run again after an interruption, with the same arguments, it goes on after the last whole
    epoch and ends with the same weights. Under `accelerate launch` all processes train.

    Args:
        units: see `held_out`.
        encoder: with its weights.
        out: folder of the model.
        sizes: `2022` or `small`; see `SIZES`.
        settings: None is that of `DEFAULTS`.
        made_from: for the record: what data, as JSON.
        finish: returns the trained model's config, lambda chosen for instance, from it and the
            features of the units held out.
        track: `wandb` or `trackio`, to send curves to as well.
        progress: show bars.

    Raises:
        InputError: no unit with pictures and a description to learn from or to hold out; a
            precision or a tracker that is not to be had; a state that is damaged; a loss that is
            no number.
    """
    texts = [rows["descriptions"] for rows in units]
    _check(texts)
    settings = settings or DEFAULTS[sizes]
    accelerator = _accelerator(settings, track)
    if track:
        accelerator.init_trackers("milan", config=asdict(settings))
    out, work = Path(out), Path(out) / ".training"
    encoder = encoder.to(accelerator.device)
    found = []
    for name, rows in zip(Units._fields, units, strict=True):
        # what features depend on: the exemplars and the encoder
        key = (rows._fingerprint, asdict(encoder.config), network_digest(encoder.backbone))
        file = Cache(work).entry(name, *key, suffix=".npy").path
        with accelerator.main_process_first():
            found.append(features_of(rows, encoder, file=file, progress=progress))
    model, curves = learn(
        found, texts, encoder, work, sizes, settings, accelerator=accelerator, progress=progress
    )
    made = {
        "data": made_from,
        "sizes": sizes,
        "settings": asdict(settings),
        "units": {name: len(rows) for name, rows in zip(Units._fields, units, strict=True)},
        "best_epoch": {name: _best(curve) for name, curve in curves.items()},
        "torch": str(torch.__version__),
    }
    if finish is not None:
        model.config = finish(model, found[1])
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
    settings: Settings,
    *,
    accelerator: Any | None = None,
    progress: bool = False,
) -> tuple[Milan, Curves]:
    """Return a model trained on features that are known, and its curves.

    Args:
        features: of the training units, and of those held out.
        texts: what people wrote of each.
        encoder: which made the features.
        work: folder of the state after each epoch.
        sizes, settings, progress: see `train`.
        accelerator: of accelerate; None makes one.

    Raises:
        InputError: see `train`.
    """
    _check(texts)
    vocabulary = Vocabulary.of(text for own in texts[0] for text in own)
    train, validation = (
        Corpus.of(found, own, vocabulary) for found, own in zip(features, texts, strict=True)
    )
    torch.manual_seed(settings.seed)
    model = Milan(Config(vocabulary.words, encoder.config, **SIZES[sizes]), encoder)
    accelerator = accelerator or _accelerator(settings)
    key = _key(settings, sizes, vocabulary, (train, validation))
    run = _Run(accelerator, settings, key, work, progress and accelerator.is_main_process)
    curves = {
        "language_model": run.fit(
            "language_model",
            _Words(model, train),
            lambda: _loss(run, _Words(model, validation)),
        ),
        "decoder": run.fit(
            "decoder",
            _Exemplars(model, train, settings),
            lambda: _judge(run, model, validation),
        ),
    }
    return model.eval(), curves


def held_out(train: Any, validation: Any | None, share: float, seed: int) -> Units:
    """Return described units, some of them held out: those of `validation`, or a seeded share.

    Args:
        train, validation: `datasets.Dataset` of units, those without a description included.
        share: of the units, to hold out where there is no `validation`.
        seed: of the draw.
    """
    train = _described(train)
    if validation is not None and len(validation := _described(validation)):
        return Units(train, validation)
    order = np.random.default_rng(seed).permutation(len(train))
    count = max(1, round(share * len(train)))
    return Units(train.select(np.sort(order[count:])), train.select(np.sort(order[:count])))


def _described(units: Any) -> Any:
    return units.select([i for i, own in enumerate(units["descriptions"]) if _has_words(own)])


def _has_words(texts: Sequence[str]) -> bool:
    return any(text.strip() for text in texts)


def _check(texts: Sequence[Sequence[list[str]]]) -> None:
    for own, what in zip(texts, ("learn from", "hold out"), strict=True):
        if not any(map(_has_words, own)):
            raise InputError(
                f"There are no descriptions to {what}: at least two units with a description "
                "were expected, or one in the split 'train' and one in 'validation'."
            )


def _accelerator(settings: Settings, track: str | None = None) -> Any:
    from accelerate import Accelerator

    if track is not None and track not in TRACKERS:
        raise InputError(f"No tracker '{track}' (trackers: {', '.join(TRACKERS)}).")
    if track is not None and find_spec(track) is None:
        raise InputError(f"'{track}' is not installed, so no curves go there: pip install {track}")
    try:
        accelerator = Accelerator(mixed_precision=settings.precision, log_with=track)
    except ValueError as error:
        raise InputError(f"precision '{settings.precision}' is not to be had: {error}") from error
    if settings.precision == "fp16" and accelerator.device.type == "cpu":
        raise InputError("precision 'fp16' needs a GPU; on a processor ask for no or bf16.")
    return accelerator


def _key(settings: Settings, sizes: str, vocabulary: Vocabulary, corpora: Sequence[Corpus]) -> str:
    """Return what a training depends on, as a name: states are of use where it is the same."""
    said = [asdict(settings), SIZES[sizes], vocabulary.words, [each.references for each in corpora]]
    found = hashlib.sha256(json.dumps(said).encode())
    for features, *_ in corpora:
        for first in range(0, len(features), 1000):
            found.update(features.values[features.rows[first : first + 1000]].tobytes())
    return found.hexdigest()


# ---- what is minimised


class _Words(nn.Module):
    """The loss of p(d): minus the mean log-probability of a word."""

    def __init__(self, model: Milan, corpus: Corpus) -> None:
        super().__init__()
        assert model.language_model is not None
        self.language_model: LanguageModel = model.language_model
        self.corpus, self.pad = corpus, model.vocabulary.pad

    def forward(self, rows: Int64[Tensor, " text"]) -> Float[Tensor, ""]:
        ids = _trimmed(self.corpus.ids[rows.cpu()], self.pad).to(
            self.language_model.output.weight.device
        )
        with torch.autocast("cpu", enabled=False):  # few processors have an LSTM in half precision
            return _nll(self.language_model(ids[:, :-1]), ids[:, 1:], self.pad)


class _Exemplars(nn.Module):
    """The loss of p(d | E), and the penalty on attention that passes exemplars over."""

    def __init__(self, model: Milan, corpus: Corpus, settings: Settings) -> None:
        super().__init__()
        self.decoder: Decoder = model.decoder
        self.corpus, self.pad, self.settings = corpus, model.vocabulary.pad, settings
        seen, present = corpus.features.tensors(slice(0, 1000))
        own = seen[present]
        spread = own.std(0, correction=min(1, len(own) - 1))  # one exemplar has none
        self.register_buffer("spread", spread, persistent=False)

    def forward(self, rows: Int64[Tensor, " text"]) -> Float[Tensor, ""]:
        device, rows = self.decoder.output.weight.device, rows.cpu()
        ids = _trimmed(self.corpus.ids[rows], self.pad).to(device)
        units = self.corpus.unit[rows].numpy()
        features, present = (each.to(device) for each in self.corpus.features.tensors(units))
        if self.training:
            if self.settings.noise:
                features = features + self.settings.noise * self.spread * torch.randn_like(features)
            present = _some(present, self.settings.least)
        log_probs, attention = self.decoder(self.decoder.exemplars(features, present), ids[:, :-1])
        loss = _nll(log_probs, ids[:, 1:], self.pad)
        if self.training:
            loss = loss + self.settings.penalty * doubly_stochastic(attention, present)
        return loss


def doubly_stochastic(
    attention: Float[Tensor, "row time k"], present: Bool[Tensor, "row k"]
) -> Float[Tensor, ""]:
    """Return the mean over exemplars of (1 - sum over words of the attention paid to it)^2.

    Xu et al. 2015, equation 14.
    """
    return ((1 - attention.sum(1)) ** 2)[present].mean()


def _nll(
    log_probs: Float[Tensor, "row time word"], targets: Int64[Tensor, "row time"], pad: int
) -> Float[Tensor, ""]:
    return nnf.nll_loss(log_probs.flatten(0, 1), targets.flatten(), ignore_index=pad)


def _trimmed(ids: Int64[Tensor, "text time"], pad: int) -> Int64[Tensor, "text shorter"]:
    """Return texts without the places that none of them fills."""
    return ids[:, : int((ids != pad).sum(1).max())]


def _some(present: Bool[Tensor, "row k"], least: int | None) -> Bool[Tensor, "row k"]:
    """Return a random number, at least `least`, of those present, drawn for each row."""
    if least is None:
        return present
    order = torch.rand(present.shape, device=present.device).masked_fill(~present, 2.0)
    rank = order.argsort(1).argsort(1)
    counts = present.sum(1, keepdim=True)
    low = counts.clamp(max=least)
    drawn = low + (torch.rand_like(order[:, :1]) * (counts - low + 1)).long()
    return present & (rank < drawn)


# ---- what is held out


def _judge(run: "_Run", model: Milan, corpus: Corpus) -> dict[str, float]:
    """Return loss and BLEU of the held-out units, and the `value` to stop by: higher is better."""
    found = _loss(run, _Exemplars(model, corpus, run.settings))
    features, present = corpus.features.tensors()
    said = model.describe_features(features, present, strategy="greedy").text
    found["bleu"] = bleu(said, corpus.references)
    if run.settings.stop_on == "bleu":
        found["value"] = found["bleu"]
    return found


def _loss(run: "_Run", objective: "_Words | _Exemplars") -> dict[str, float]:
    """Return the mean loss of held-out descriptions, and minus it as the `value` to stop by."""
    objective.eval().to(run.accelerator.device)
    total, count = 0.0, len(objective.corpus.ids)
    with torch.no_grad(), run.accelerator.autocast():
        for rows in torch.arange(count).split(run.settings.batch):
            total += float(objective(rows)) * len(rows)
    return {"loss": total / count, "value": -total / count}


def bleu(texts: Sequence[str], references: Sequence[Sequence[str]]) -> float:
    """Return corpus BLEU (Papineni et al. 2002), 0 to 100, by sacrebleu.

    Args:
        texts: one a unit.
        references: of each unit, from one on; not as many for all.

    Example:
        >>> round(bleu(["some red round things"], [["some red round things", "balls"]]))
        100
    """
    import sacrebleu

    most = max(map(len, references), default=0)
    columns = [
        [own[i].lower().strip(". ") if i < len(own) else None for own in references]
        for i in range(most)
    ]
    said = [text.lower().strip(". ") for text in texts]
    return float(sacrebleu.corpus_bleu(said, columns).score)


# ---- the loop


@dataclass
class _Run:
    """A training under way: processes, settings, and the folder of its states."""

    accelerator: Any
    settings: Settings
    key: str
    work: Path
    progress: bool
    _steps: int = field(default=0, init=False)

    def fit(
        self,
        name: str,
        objective: "_Words | _Exemplars",
        validate: Callable[[], dict[str, float]],
    ) -> Curve:
        """Train in place, with the best epoch's weights at the end; return the curve."""
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
            own = {"epoch": epoch, "train_loss": float(np.mean(losses)), **validate()}
            # all processes are to stop at one epoch, whatever the last digits of each
            (found,) = broadcast_object_list([own])
            if not np.isfinite(list(found.values())).all():
                raise InputError(
                    f"After epoch {epoch} the loss of {name} is no number any more. Try a lower "
                    f"rate than {settings.rate:g}."
                )
            curve.append(found)
            if _best(curve) == epoch:
                best = copy.deepcopy(objective.state_dict())
            self.accelerator.log(
                {f"{name}/{key}": value for key, value in found.items()}, step=self._steps
            )
            self._steps += 1
            bar.set_postfix({key: f"{value:.2f}" for key, value in found.items()})
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
        """Make draws depend on stage, epoch and process alone: nothing is kept between epochs."""
        key = f"{name}/{self.settings.seed}/{epoch}/{self.accelerator.process_index}"
        torch.manual_seed(int(hashlib.sha256(key.encode()).hexdigest()[:15], 16))

    def _batches(self, count: int, epoch: int) -> Iterator[Tensor]:
        """Yield this process's share of each batch, in an order of the epoch's own."""
        rank, world = self.accelerator.process_index, self.accelerator.num_processes
        order = np.random.default_rng([self.settings.seed, epoch]).permutation(count)
        for first in range(0, count, self.settings.batch):
            batch = order[first : first + self.settings.batch]
            # the last may have fewer rows than there are processes, and all of them take part
            yield torch.from_numpy(batch[rank % len(batch) :: world])

    def _is_over(self, curve: Curve) -> bool:
        return bool(curve) and len(curve) - 1 - _best(curve) > self.settings.patience

    def _load(self, file: Path) -> dict[str, Any] | None:
        """Return the state after the last whole epoch of a training that was asked the same."""
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


def _best(curve: Curve) -> int:
    """Return the epoch with the highest value; of several, that of the lowest loss; the first.

    The BLEU of short descriptions is 0 until four words in a row are right: loss tells such
    epochs apart.

    Example:
        >>> _best([{"value": 0.0, "loss": 2.5}, {"value": 0.0, "loss": 1.5}])
        1
    """
    by = [(each["value"], -each["loss"], -epoch) for epoch, each in enumerate(curve)]
    return by.index(max(by))
