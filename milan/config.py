"""Configurations of the model, of the search for descriptions, and of training."""

from dataclasses import dataclass, field
from typing import Any

from milannotations.errors import InputError

STRATEGIES = ("pmi", "beam", "greedy", "sample", "pmi-beam", "pmi-greedy")
COMPAT = "2022"
"""Value of `compat` that reproduces the code of 2022, with its quirks."""

STOP_CRITERIA = ("bleu", "loss")
PRECISIONS = ("no", "bf16", "fp16")

ENCODER_KINDS = ("pyramid", "spatial")


@dataclass(frozen=True)
class EncoderConfig:
    """Configuration of an encoder, without its weights.

    Args:
        backbone: `mini`, or a network as `milan exemplars` names it, without `@WEIGHTS`.
        layers: layers whose maps are pooled; `spatial` takes the last one alone.
        kind: `pyramid`: maps averaged under the mask, one vector per exemplar; `spatial`: the
            last map of the masked image, one vector per position of every exemplar.
        mean, std: normalisation of the input, one value per channel.
        side: input size in pixels, to which images are resized; None takes them as they come.
        prefix: number of class and register tokens before the patch tokens; None infers it.
        feature_size: length of a feature vector.
        missing: entries of the network that have no weights; the layers do not depend on them.
        weights: provenance of the weights, for records.
    """

    backbone: str
    layers: tuple[str, ...]
    kind: str = "pyramid"
    mean: tuple[float, ...] = (0.485, 0.456, 0.406)
    std: tuple[float, ...] = (0.229, 0.224, 0.225)
    side: int | None = None
    prefix: int | None = None
    feature_size: int = 0
    missing: tuple[str, ...] = ()
    weights: dict[str, Any] | None = field(default=None, compare=False)

    def __post_init__(self) -> None:
        for name in ("layers", "mean", "std", "missing"):  # JSON has only lists
            object.__setattr__(self, name, tuple(getattr(self, name)))
        if self.kind not in ENCODER_KINDS:
            raise InputError(
                f"No encoder of kind '{self.kind}' (kinds: {', '.join(ENCODER_KINDS)})."
            )


@dataclass(frozen=True)
class Config:
    """Architecture of a model, and the defaults of its search.

    Args:
        vocabulary: words, without special tokens.
        encoder: the frozen network that features come from.
        embedding_size, hidden_size, attention_size, dropout: of p(d | E); see `Decoder`.
        lm_embedding_size, lm_hidden_size, lm_layers, lm_dropout: of p(d); see `LanguageModel`.
            With 0 layers there is no p(d).
        length: maximum number of words in a description.
        beam: width of the beam.
        lam: lambda, the weight of log p(d).
        made: provenance, for records.
        format: version of the folder's layout.
    """

    vocabulary: tuple[str, ...]
    encoder: EncoderConfig
    embedding_size: int = 128
    hidden_size: int = 512
    attention_size: int = 512
    dropout: float = 0.5
    lm_embedding_size: int = 128
    lm_hidden_size: int = 512
    lm_layers: int = 2
    lm_dropout: float = 0.5
    length: int = 15
    beam: int = 50
    lam: float = 0.2
    made: dict[str, Any] | None = field(default=None, compare=False)
    format: int = 1

    def __post_init__(self) -> None:
        object.__setattr__(self, "vocabulary", tuple(self.vocabulary))
        if isinstance(self.encoder, dict):
            object.__setattr__(self, "encoder", EncoderConfig(**self.encoder))
        if self.format != 1:
            raise InputError(f"A model of format {self.format}; this version reads format 1.")


@dataclass(frozen=True)
class Search:
    """Options of the search for descriptions.

    Args:
        strategy: `pmi`, the beam of p(d | E) reranked by log p(d | E) - lambda log p(d); `beam`,
            that beam without reranking; `greedy`; `sample`; `pmi-beam` and `pmi-greedy` subtract
            lambda log p(word) at every word.
        beam, lam, length: None takes the model's.
        seed: random seed of `sample`.
        compat: `2022` gives the tokens, scores and texts of the code of 2022, quirks included:
            one token after a description's end counts in log p(d) of a rerank, greedy decoding
            continues and counts after the end, no token is forbidden, and texts are capitalised.
    """

    strategy: str = "pmi"
    beam: int | None = None
    lam: float | None = None
    length: int | None = None
    seed: int = 0
    compat: str | None = None

    def __post_init__(self) -> None:
        if self.strategy not in STRATEGIES:
            raise InputError(
                f"No strategy '{self.strategy}' (strategies: {', '.join(STRATEGIES)})."
            )
        if self.compat not in (None, COMPAT):
            raise InputError(f"compat={self.compat!r}; expected {COMPAT!r} or None.")
        for name in ("beam", "length"):
            if (value := getattr(self, name)) is not None and value < 1:
                raise InputError(f"{name}={value}; expected at least 1.")


@dataclass(frozen=True)
class TrainingConfig:
    """Options of training.

    Args:
        epochs: maximum number of epochs.
        patience: epochs in a row that may be no better than the best before training stops.
        batch: descriptions in a batch, over all processes.
        rate: learning rate of AdamW; it falls to 0 over `epochs` as a cosine.
        decay: weight decay of AdamW.
        penalty: weight of the doubly stochastic attention penalty.
        stop_on: `bleu` or `loss` of the held-out units; the language model always stops on loss.
        hold_out: share of the units that is held out if the data has no split `validation`.
        least: fewest exemplars that are seen of a unit; the number is drawn anew for each
            description, from this to all of them. None always shows all of them.
        noise: of features, in their standard deviations.
        seed: random seed of weights, order, draws and dropout.
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
        if self.stop_on not in STOP_CRITERIA:
            raise InputError(
                f"stop_on is '{self.stop_on}'; expected one of {', '.join(STOP_CRITERIA)}."
            )
        if self.precision not in PRECISIONS:
            raise InputError(
                f"precision is '{self.precision}'; expected one of {', '.join(PRECISIONS)}."
            )
        if self.epochs < 1 or self.batch < 1 or not 0 < self.hold_out < 1:
            raise InputError(
                f"{self.epochs} epochs, batches of {self.batch}, {self.hold_out} held out; "
                "expected at least 1, at least 1, and a share between 0 and 1."
            )


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
"""Fields of `Config` by name of a model size: that of 2022, for 20,000 units; a smaller one, for
a thousand."""

DEFAULTS = {
    "2022": TrainingConfig(),
    # Of a thousand units each is seen in varied form, so that less is learned by heart. The BLEU
    # of a hundred held-out units goes up and down by a half from epoch to epoch and would stop
    # training anywhere; their loss does not.
    "small": TrainingConfig(epochs=40, patience=8, rate=2e-3, stop_on="loss", least=8, noise=0.1),
}
"""Default training options by model size."""
