"""Training objectives: negative log-likelihood of words, attention penalty, and held-out BLEU."""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor, nn
from torch.nn import functional as nnf

from milan.config import TrainingConfig
from milan.decoder import Decoder
from milan.features import Features
from milan.language_model import LanguageModel
from milan.model import Milan
from milan.tokenizer import Vocabulary


class Corpus(NamedTuple):
    """Features of units and, one row each, the annotations of all units.

    Attributes:
        features: of the units.
        references: annotations of each unit, as text.
        ids: tokens of every annotation, `start` first, filled up with `pad`.
        unit: index of the unit of every annotation.
    """

    features: Features
    references: list[list[str]]
    ids: Int64[Tensor, "text time"]
    unit: Int64[Tensor, " text"]

    @classmethod
    def of(cls, features: Features, texts: Sequence[list[str]], vocabulary: Vocabulary) -> "Corpus":
        """Return the corpus of units, given the annotations of each; blank ones are left out."""
        references = [[text for text in annotations if text.strip()] for annotations in texts]
        pairs = [(unit, text) for unit, kept in enumerate(references) for text in kept]
        return cls(
            features,
            references,
            vocabulary.encode([text for _, text in pairs]),
            torch.tensor([unit for unit, _ in pairs]),
        )


class LanguageModelLoss(nn.Module):
    """Loss of p(d): minus the mean log-probability of a word, given the words before it."""

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


class DecoderLoss(nn.Module):
    """Loss of p(d | E), with the penalty on attention that skips exemplars while training."""

    def __init__(self, model: Milan, corpus: Corpus, settings: TrainingConfig) -> None:
        super().__init__()
        self.decoder: Decoder = model.decoder
        self.corpus, self.pad, self.settings = corpus, model.vocabulary.pad, settings
        values, present = corpus.features.tensors(slice(0, 1000))
        sample = values[present]
        # one exemplar alone has no standard deviation
        spread = sample.std(0, correction=min(1, len(sample) - 1))
        self.register_buffer("spread", spread, persistent=False)

    def forward(self, rows: Int64[Tensor, " text"]) -> Float[Tensor, ""]:
        device, rows = self.decoder.output.weight.device, rows.cpu()
        ids = _trimmed(self.corpus.ids[rows], self.pad).to(device)
        units = self.corpus.unit[rows].numpy()
        features, present = (tensor.to(device) for tensor in self.corpus.features.tensors(units))
        if self.training:
            if self.settings.noise:
                features = features + self.settings.noise * self.spread * torch.randn_like(features)
            present = sample_present(present, self.settings.least)
        log_probs, attention = self.decoder(self.decoder.exemplars(features, present), ids[:, :-1])
        loss = _nll(log_probs, ids[:, 1:], self.pad)
        if self.training:
            loss = loss + self.settings.penalty * doubly_stochastic(attention, present)
        return loss


def doubly_stochastic(
    attention: Float[Tensor, "row time k"], present: Bool[Tensor, "row k"]
) -> Float[Tensor, ""]:
    """Return the mean over exemplars of (1 - sum over words of the attention to it)^2.

    Xu et al. 2015, equation 14.
    """
    return ((1 - attention.sum(1)) ** 2)[present].mean()


def sample_present(present: Bool[Tensor, "row k"], least: int | None) -> Bool[Tensor, "row k"]:
    """Return a random subset of the exemplars of each row, of random size.

    Args:
        present: which exemplars there are.
        least: smallest size of a subset; sizes are uniform from it to all. None takes all.
    """
    if least is None:
        return present
    # a random order of the exemplars of each row, in which absent ones come last
    order = torch.rand(present.shape, device=present.device).masked_fill(~present, 2.0)
    rank = order.argsort(1).argsort(1)
    counts = present.sum(1, keepdim=True)
    low = counts.clamp(max=least)
    size = low + (torch.rand_like(order[:, :1]) * (counts - low + 1)).long()
    return present & (rank < size)


def bleu(texts: Sequence[str], references: Sequence[Sequence[str]]) -> float:
    """Return corpus BLEU (Papineni et al. 2002), from 0 to 100, by sacrebleu.

    Args:
        texts: one per unit.
        references: at least one per unit; their number may vary.

    Example:
        >>> round(bleu(["some red round things"], [["some red round things", "balls"]]))
        100
    """
    import sacrebleu

    most = max(map(len, references), default=0)
    # sacrebleu takes columns: the i-th reference of every unit, None where there is none
    columns = [
        [_normalised(unit[i]) if i < len(unit) else None for unit in references]
        for i in range(most)
    ]
    return float(sacrebleu.corpus_bleu([_normalised(text) for text in texts], columns).score)


def _normalised(text: str) -> str:
    return text.lower().strip(". ")


def _nll(
    log_probs: Float[Tensor, "row time word"], targets: Int64[Tensor, "row time"], pad: int
) -> Float[Tensor, ""]:
    """Return minus the mean log-probability of the targets, `pad` aside."""
    return nnf.nll_loss(log_probs.flatten(0, 1), targets.flatten(), ignore_index=pad)


def _trimmed(ids: Int64[Tensor, "text time"], pad: int) -> Int64[Tensor, "text shorter"]:
    """Return texts without the columns that are `pad` in all of them."""
    return ids[:, : int((ids != pad).sum(1).max())]
