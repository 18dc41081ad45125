"""MILAN: for a unit's exemplars E, the description d that maximises

    log p(d | E) - lambda log p(d)                    (Hernandez et al. 2022, equation 2)

`Milan` joins the encoder of exemplars, both models and the search; `milan.pretrained` saves and
loads it.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from jaxtyping import Bool, Float, UInt8
from torch import Tensor, nn

from milan import search
from milan.config import COMPAT, Config, Search
from milan.decoder import Decoder, ExemplarFeatures
from milan.encoder import IMAGE_BATCH, Encoder, restore
from milan.language_model import LanguageModel
from milan.pretrained import PretrainedModel
from milan.tokenizer import Vocabulary, tokenize
from milannotations.errors import InputError
from milannotations.exemplars.device import is_out_of_memory

MAX_HYPOTHESES = 2048
"""Hypotheses that are searched together, over all units: those of 40 units at a beam of 50."""

UnitImages = Float[Tensor, "unit k 3 height width"] | UInt8[Tensor, "unit k 3 height width"]
UnitMasks = (
    Bool[Tensor, "unit k 1 mask_height mask_width"]
    | Float[Tensor, "unit k 1 mask_height mask_width"]
    | UInt8[Tensor, "unit k 1 mask_height mask_width"]
)


@dataclass(frozen=True)
class Candidate:
    """One description of a unit, with its scores.

    Attributes:
        text: detokenized description.
        score: what candidates are ranked by.
        log_p_given_exemplars: log p(d | E).
        log_p: log p(d); None without a language model.
        tokens: ids, with `stop` if the description ends within the length.
    """

    text: str
    score: float
    log_p_given_exemplars: float
    log_p: float | None
    tokens: tuple[int, ...]


@dataclass(frozen=True)
class Descriptions:
    """Descriptions of units, in the order of the units.

    Attributes:
        n_best: candidates of each unit, the best first. The properties are of the best ones.
    """

    n_best: list[list[Candidate]]

    @property
    def text(self) -> list[str]:
        return [candidates[0].text for candidates in self.n_best]

    @property
    def score(self) -> list[float]:
        return [candidates[0].score for candidates in self.n_best]

    @property
    def log_p_given_exemplars(self) -> list[float]:
        return [candidates[0].log_p_given_exemplars for candidates in self.n_best]

    @property
    def log_p(self) -> list[float | None]:
        return [candidates[0].log_p for candidates in self.n_best]

    def __len__(self) -> int:
        return len(self.n_best)


class Scores(NamedTuple):
    """Scores of given descriptions: log p(d | E), log p(d), log p(d | E) - lambda log p(d)."""

    log_p_given_exemplars: Float[Tensor, " text"]
    log_p: Float[Tensor, " text"] | None
    pmi: Float[Tensor, " text"] | None


class Milan(PretrainedModel):
    """Model that describes units by their exemplars.

    Args:
        config: architecture and defaults.
        encoder: with its weights; None builds the one of `config`, with weights to be loaded.
    """

    def __init__(self, config: Config, encoder: Encoder | None = None) -> None:
        super().__init__()
        self.config = config
        self.vocabulary = Vocabulary(config.vocabulary)
        words = len(self.vocabulary)
        self.encoder = encoder or restore(config.encoder)
        self.decoder = Decoder(
            words,
            config.encoder.feature_size,
            config.embedding_size,
            config.hidden_size,
            config.attention_size,
            config.dropout,
        )
        self.language_model = (
            LanguageModel(
                words,
                self.vocabulary.pad,
                config.lm_embedding_size,
                config.lm_hidden_size,
                config.lm_layers,
                config.lm_dropout,
            )
            if config.lm_layers
            else None
        )

    @property
    def device(self) -> torch.device:
        return self.decoder.output.weight.device

    # ---- E: images and masks to features

    def encode(
        self,
        images: UnitImages,
        masks: UnitMasks | None = None,
    ) -> Float[Tensor, "unit p f"]:
        """Return the features of units' exemplars.

        Args:
            images: RGB, float from 0 to 1 or bytes, of any size.
            masks: of any size; None takes the whole image. An empty mask gives zeros.

        Returns:
            One vector per exemplar, p = k (more with a `spatial` encoder).
        """
        if not images.shape[0]:
            return torch.zeros(0, images.shape[1], self.config.encoder.feature_size)
        # (unit, k, ...) -> (unit * k, ...): the encoder does not know of units
        flat_images = images.flatten(0, 1)
        flat_masks = None if masks is None else masks.flatten(0, 1)
        parts = []
        for first in range(0, len(flat_images), IMAGE_BATCH):
            part = slice(first, first + IMAGE_BATCH)
            batch = flat_images[part].to(self.device)
            batch = batch / 255 if batch.dtype == torch.uint8 else batch
            mask = None if flat_masks is None else flat_masks[part].to(self.device, torch.float32)
            parts.append(self.encoder(batch, mask))
        # (unit * k, vectors, f) -> (unit, k * vectors, f)
        return torch.cat(parts).unflatten(0, images.shape[:2]).flatten(1, 2)

    # ---- d: features to descriptions

    def describe(
        self,
        images: UnitImages,
        masks: UnitMasks | None = None,
        **options: Any,
    ) -> Descriptions:
        """Return descriptions of units.

        Args:
            images: of exemplars, RGB, float from 0 to 1 or bytes.
            masks: their regions; None takes the whole image. A unit whose masks are all empty is
                described by p(d | E) of features that are 0.
            options: fields of `Search`.

        Raises:
            InputError: no such strategy; no language model for a strategy that needs it; too
                little memory even for one unit.
        """
        return self.describe_features(self.encode(images, masks), **options)

    def describe_features(
        self,
        features: Float[Tensor, "unit k f"],
        present: Bool[Tensor, "unit k"] | None = None,
        **options: Any,
    ) -> Descriptions:
        """Return descriptions of units from their features; see `describe`.

        Args:
            features: of their exemplars (`encode`).
            present: False where a unit has fewer exemplars than others.
            options: fields of `Search`.
        """
        settings = Search(**options)
        if settings.strategy.startswith("pmi") and self.language_model is None:
            raise InputError(
                f"Strategy '{settings.strategy}' needs a language model, and this model has none. "
                "Use 'beam' or 'greedy'."
            )
        width = self._beam_width(settings)
        batch, first = max(1, MAX_HYPOTHESES // width), 0
        candidates: list[list[Candidate]] = []
        while first < len(features):
            part = slice(first, first + batch)
            try:
                with _evaluating(self):
                    seen = self._seen(features[part], None if present is None else present[part])
                    candidates += self._search(seen, settings, first)
            except RuntimeError as error:
                if not is_out_of_memory(error):
                    raise
                if batch == 1:
                    raise InputError(
                        f"{self.device} has too little memory for one unit at a beam of {width}. "
                        "Use a narrower beam."
                    ) from error
                batch //= 2
                continue
            first += batch
        return Descriptions(candidates)

    def score(
        self,
        texts: Sequence[str],
        features: Float[Tensor, "unit k f"],
        present: Bool[Tensor, "unit k"] | None = None,
        *,
        lam: float | None = None,
    ) -> Scores:
        """Return both models' log-probabilities of given descriptions, their ends included.

        Args:
            texts: one per unit; with one unit, any number of them.
            features, present: as `describe_features`.
            lam: lambda; None takes the model's.

        Raises:
            InputError: the numbers of texts and units differ.
        """
        if len(features) not in (1, len(texts)):
            raise InputError(
                f"{len(texts)} texts came for {len(features)} units; expected one each."
            )
        ids = self.vocabulary.encode(texts).to(self.device)
        unit = torch.arange(len(texts), device=self.device) % max(1, len(features))
        with _evaluating(self):
            # ids are start, words, stop, pad: position t predicts the token at t + 1
            log_probs, _ = self.decoder(self._seen(features, present), ids[:, :-1], unit)
            word_log_probs = log_probs.gather(2, ids[:, 1:, None])[..., 0]
            given = word_log_probs.masked_fill(ids[:, 1:] == self.vocabulary.pad, 0).sum(1)
        log_p = None if self.language_model is None else self.log_p(texts)
        lam = self.config.lam if lam is None else lam
        return Scores(given, log_p, None if log_p is None else given - lam * log_p)

    def log_p(self, texts: Sequence[str], compat: str | None = None) -> Float[Tensor, " text"]:
        """Return log p(d) of texts, their ends included.

        Args:
            texts: any.
            compat: `2022` counts log p(pad) after the end of all but the longest of the texts,
                as the code of 2022 did.

        Raises:
            InputError: there is no language model.
        """
        if self.language_model is None:
            raise InputError("This model has no language model, so no log p(d) of a description.")
        stop, pad = self.vocabulary.stop, self.vocabulary.pad
        sequences = [[*self.vocabulary.ids(tokens), stop] for tokens in tokenize(texts)]
        if compat == COMPAT:
            longest = max(map(len, sequences), default=0)
            sequences = [[*ids, pad] if len(ids) < longest else ids for ids in sequences]
        with _evaluating(self):
            return self.language_model.score(sequences, self.vocabulary.start)

    def _beam_width(self, settings: Search) -> int:
        if settings.strategy in ("pmi", "beam", "pmi-beam"):
            return settings.beam or self.config.beam
        return 1

    def _seen(self, features: Tensor, present: Tensor | None) -> ExemplarFeatures:
        """Move features to the model's device and project their keys."""
        present = None if present is None else present.to(self.device)
        return self.decoder.exemplars(features.to(self.device, torch.float32), present)

    def _search(
        self, seen: ExemplarFeatures, settings: Search, first: int
    ) -> list[list[Candidate]]:
        """Return the candidates of each unit; `first` is the index of the first one."""
        as_in_2022 = settings.compat == COMPAT
        lam = self.config.lam if settings.lam is None else settings.lam
        vocabulary = self.vocabulary
        rules = search.Rules(
            vocabulary.start,
            vocabulary.stop,
            settings.length or self.config.length,
            never=() if as_in_2022 else (vocabulary.start, vocabulary.pad, vocabulary.unk),
            empty=as_in_2022,
            after_stop=as_in_2022,
        )
        model = search.WordScorer(self.decoder)
        if settings.strategy in ("pmi-beam", "pmi-greedy"):
            model = search.WordScorer(self.decoder, self.language_model, lam)
        if settings.strategy == "sample":
            result = search.sample(model, seen, rules, settings.seed, first)
        elif settings.strategy.endswith("greedy"):
            result = search.greedy(model, seen, rules)
        else:
            result = search.beam(model, seen, rules, self._beam_width(settings))
        return self._candidates(result, settings, lam)

    def _candidates(
        self, result: search.SearchResult, settings: Search, lam: float
    ) -> list[list[Candidate]]:
        """Return each unit's descriptions with both scores, ranked by the strategy's own."""
        stop = self.vocabulary.stop
        sequences = [[_until_stop(ids, stop) for ids in rows] for rows in result.tokens.tolist()]
        log_ps = self._log_ps([ids for rows in sequences for ids in rows], result, settings)
        ranked = []
        for rows, scores in zip(sequences, result.scores.tolist(), strict=True):
            candidates = []
            for ids, score in zip(rows, scores, strict=True):
                log_p = next(log_ps)
                if score == -float("inf"):
                    continue  # the beam is wider than the number of descriptions
                given = score
                if settings.strategy in ("pmi-beam", "pmi-greedy"):
                    # the search subtracted lambda log p(word) at every word
                    given = score + lam * (log_p or 0.0)
                elif settings.strategy == "pmi":
                    score = score - lam * (log_p or 0.0)
                text = self.vocabulary.decode(ids, settings.compat)
                candidates.append(Candidate(text, score, given, log_p, tuple(ids)))
            ranked.append(sorted(candidates, key=lambda candidate: -candidate.score))
        return ranked

    def _log_ps(
        self, sequences: list[list[int]], result: search.SearchResult, settings: Search
    ) -> Iterator[float | None]:
        """Return log p(d) of all found descriptions, one after the other."""
        if self.language_model is None:
            return iter([None] * len(sequences))
        if settings.compat == COMPAT and settings.strategy == "pmi":
            # the reranker of 2022 counted one token after the end, where there is room for it
            room = result.tokens.shape[2]
            stop = self.vocabulary.stop
            sequences = [[*ids, stop] if len(ids) < room else ids for ids in sequences]
        return iter(self.language_model.score(sequences, self.vocabulary.start).tolist())


def _until_stop(ids: list[int], stop: int) -> list[int]:
    """Return the ids up to and including the first `stop`."""
    return ids[: ids.index(stop) + 1] if stop in ids else ids


@contextmanager
def _evaluating(model: nn.Module) -> Iterator[None]:
    """Hold a model in evaluation mode, without gradients."""
    was_training = model.training
    model.eval()
    try:
        with torch.no_grad():
            yield
    finally:
        model.train(was_training)
