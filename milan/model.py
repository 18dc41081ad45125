"""MILAN: for a unit's exemplars E, the description d that maximises

    log p(d | E) - lambda log p(d)                    (Hernandez et al. 2022, equation 2)

`Milan` holds both models and the encoder, searches, scores, and is a folder on disk:
`config.json` and `model.safetensors`.
"""

import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import torch
from huggingface_hub import ModelCard, ModelHubMixin, hf_hub_download
from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError
from jaxtyping import Bool, Float, UInt8
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from milan import search
from milan.decoder import Decoder, Exemplars
from milan.encoder import Encoder, EncoderConfig, restore
from milan.language_model import LanguageModel
from milan.tokenizer import Vocabulary, tokenize
from milannotations.errors import InputError, some
from milannotations.exemplars.device import is_out_of_memory
from milannotations.utils.files import replacing

WEIGHTS, CONFIG = "model.safetensors", "config.json"
SHIPPED = {"mini": Path(__file__).parent / "data" / "mini"}
"""Models that ship, by name."""

STRATEGIES = ("pmi", "beam", "greedy", "sample", "pmi-beam", "pmi-greedy")
COMPAT = "2022"
CARD = """---
library_name: milannotations
tags:
- interpretability
- neuron-descriptions
---
# MILAN

Describes units of vision networks from the regions of pictures that excite them (Hernandez et
al., *Natural Language Descriptions of Deep Visual Features*, ICLR 2022): a beam of {beam}
descriptions by log p(d | exemplars), reranked by log p(d | exemplars) - {lam:g} log p(d). It sees
through `{encoder}` ({features:,} features an exemplar) and knows {words:,} words.

    from milan import Milan

    model = Milan.from_pretrained("this folder, or its name on the hub")
    print(model.describe(images, masks).text)

It knows what it was trained on. A model of the edition `mini` learned from simulated annotators
of a synthetic world, and knows nothing of photographs.

How it was made:

```json
{made}
```
"""
UNDER_WAY = 2048
"""Descriptions that are searched together, over all units: those of 40 units at a beam of 50."""

PICTURES = 32
"""Pictures that are encoded together."""


@dataclass(frozen=True)
class Config:
    """What a model is, and how it is searched unless told.

    Args:
        vocabulary: words, without special tokens.
        encoder: what it sees with.
        embedding_size, hidden_size, attention_size, dropout: of p(d | E); see `Decoder`.
        lm_embedding_size, lm_hidden_size, lm_layers, lm_dropout: of p(d); see `LanguageModel`.
            Without layers there is no p(d).
        length: words of a description at most.
        beam: width of the beam.
        lam: lambda, the weight of log p(d).
        made: how it was made, for the record.
        format: of the folder.
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
    """How descriptions are searched.

    Args:
        strategy: `pmi`, the beam of p(d | E) reranked by log p(d | E) - lambda log p(d);
            `beam`, that beam as it is; `greedy`; `sample`; `pmi-beam` and `pmi-greedy` subtract
            lambda log p(word) at every word.
        beam, lam, length: None takes the model's.
        seed: of `sample`.
        compat: `2022` gives the tokens, scores and texts of the code of 2022, its quirks
            included: one token after a description's end counts in log p(d) of a rerank, greedy
            decoding goes on and counts after the end, nothing is forbidden, and texts are
            capitalised.
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
            raise InputError(f"compat='{self.compat}' was asked for; expected {COMPAT} or None.")
        for name in ("beam", "length"):
            if (value := getattr(self, name)) is not None and value < 1:
                raise InputError(f"{name}={value} was asked for; expected at least 1.")


@dataclass(frozen=True)
class Candidate:
    """A description that was found.

    Attributes:
        text: as people read it.
        score: what candidates are ranked by.
        log_p_given_exemplars, log_p: of both models; None without a language model.
        tokens: ids, `stop` included if it came.
    """

    text: str
    score: float
    log_p_given_exemplars: float
    log_p: float | None
    tokens: tuple[int, ...]


@dataclass(frozen=True)
class Descriptions:
    """The best description of each unit, in order, and `n_best`, all that were found of it."""

    n_best: list[list[Candidate]]

    @property
    def text(self) -> list[str]:
        return [found[0].text for found in self.n_best]

    @property
    def score(self) -> list[float]:
        return [found[0].score for found in self.n_best]

    @property
    def log_p_given_exemplars(self) -> list[float]:
        return [found[0].log_p_given_exemplars for found in self.n_best]

    @property
    def log_p(self) -> list[float | None]:
        return [found[0].log_p for found in self.n_best]

    def __len__(self) -> int:
        return len(self.n_best)


class Scores(NamedTuple):
    """Of given descriptions: log p(d | E), log p(d), and log p(d | E) - lambda log p(d)."""

    log_p_given_exemplars: Float[Tensor, " text"]
    log_p: Float[Tensor, " text"] | None
    pmi: Float[Tensor, " text"] | None


class Milan(nn.Module, ModelHubMixin, library_name="milannotations"):  # type: ignore[call-arg]
    """Describes units.

    Args:
        config: what it is.
        encoder: with its weights; None makes the one that `config` names, weights to be loaded.
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

    # ---- E

    def encode(
        self,
        images: Float[Tensor, "unit k 3 height width"] | UInt8[Tensor, "unit k 3 height width"],
        masks: Bool[Tensor, "unit k 1 mask_height mask_width"]
        | Float[Tensor, "unit k 1 mask_height mask_width"]
        | UInt8[Tensor, "unit k 1 mask_height mask_width"]
        | None = None,
    ) -> Float[Tensor, "unit p f"]:
        """Return the features of units' exemplars.

        Args:
            images: RGB, float from 0 to 1 or bytes, of any size.
            masks: of any size; None is all of the picture. An empty mask gives zeros.

        Returns:
            A vector an exemplar, p = k (more with a `spatial` encoder).
        """
        if not images.shape[0]:
            return torch.zeros(0, images.shape[1], self.config.encoder.feature_size)
        flat = images.flatten(0, 1)
        covers = None if masks is None else masks.flatten(0, 1)
        parts = []
        for first in range(0, len(flat), PICTURES):
            part = slice(first, first + PICTURES)
            shown = flat[part].to(self.device)
            shown = shown / 255 if shown.dtype == torch.uint8 else shown
            cover = None if covers is None else covers[part].to(self.device, torch.float32)
            parts.append(self.encoder(shown, cover))
        return torch.cat(parts).unflatten(0, images.shape[:2]).flatten(1, 2)

    # ---- d

    def describe(
        self,
        images: Float[Tensor, "unit k 3 height width"] | UInt8[Tensor, "unit k 3 height width"],
        masks: Bool[Tensor, "unit k 1 mask_height mask_width"]
        | Float[Tensor, "unit k 1 mask_height mask_width"]
        | UInt8[Tensor, "unit k 1 mask_height mask_width"]
        | None = None,
        **how: Any,
    ) -> Descriptions:
        """Return descriptions of units.

        Args:
            images: of exemplars, RGB, float from 0 to 1 or bytes.
            masks: their regions; None is all of the picture. A unit whose masks are all empty
                is described too: by what p(d | E) says of features that are 0.
            how: the fields of `Search`.

        Raises:
            InputError: no such strategy; no language model for a strategy that needs it; no
                memory even for one unit.
        """
        return self.describe_features(self.encode(images, masks), **how)

    def describe_features(
        self,
        features: Float[Tensor, "unit k f"],
        present: Bool[Tensor, "unit k"] | None = None,
        **how: Any,
    ) -> Descriptions:
        """Return descriptions of units whose features are known; see `describe`.

        Args:
            features: of their exemplars (`encode`).
            present: False where a unit has fewer exemplars than others.
            how: the fields of `Search`.
        """
        asked = Search(**how)
        if asked.strategy.startswith("pmi") and self.language_model is None:
            raise InputError(
                f"Strategy '{asked.strategy}' needs a language model, and this model has none. "
                "Ask for 'beam' or 'greedy'."
            )
        width = self._width(asked)
        at_once, first, found = max(1, UNDER_WAY // width), 0, []
        while first < len(features):
            part = slice(first, first + at_once)
            try:
                with _describing(self):
                    seen = self._seen(features[part], None if present is None else present[part])
                    found += self._search(seen, asked, first)
            except RuntimeError as error:
                if not is_out_of_memory(error):
                    raise
                if at_once == 1:
                    raise InputError(
                        f"{self.device} has no memory for one unit at a beam of {width}. "
                        "Ask for a narrower beam."
                    ) from error
                at_once //= 2
                continue
            first += at_once
        return Descriptions(found)

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
            texts: one a unit; with one unit, any number of them.
            features, present: as `describe_features`.
            lam: lambda; None takes the model's.

        Raises:
            InputError: as many texts as units were expected.
        """
        if len(features) not in (1, len(texts)):
            raise InputError(
                f"{len(texts)} texts came for {len(features)} units; expected one each."
            )
        ids = self.vocabulary.encode(texts).to(self.device)
        unit = torch.arange(len(texts), device=self.device) % max(1, len(features))
        with _describing(self):
            log_probs, _ = self.decoder(self._seen(features, present), ids[:, :-1], unit)
            each = log_probs.gather(2, ids[:, 1:, None])[..., 0]
            given = each.masked_fill(ids[:, 1:] == self.vocabulary.pad, 0).sum(1)
        log_p = None if self.language_model is None else self.log_p(texts)
        lam = self.config.lam if lam is None else lam
        return Scores(given, log_p, None if log_p is None else given - lam * log_p)

    def log_p(self, texts: Sequence[str], compat: str | None = None) -> Float[Tensor, " text"]:
        """Return log p of texts, their ends included.

        Args:
            texts: any.
            compat: `2022` counts log p(pad) after the end of all but the longest of the texts,
                as the code of 2022 did.

        Raises:
            InputError: there is no language model.
        """
        if self.language_model is None:
            raise InputError("This model has no language model, so no log p of a description.")
        stop, pad = self.vocabulary.stop, self.vocabulary.pad
        ids = [[*self.vocabulary.ids(tokens), stop] for tokens in tokenize(texts)]
        if compat == COMPAT:
            longest = max(map(len, ids), default=0)
            ids = [[*each, pad] if len(each) < longest else each for each in ids]
        with _describing(self):
            return self.language_model.score(ids, self.vocabulary.start)

    def _width(self, asked: Search) -> int:
        return (
            (asked.beam or self.config.beam) if asked.strategy in ("pmi", "beam", "pmi-beam") else 1
        )

    def _seen(self, features: Tensor, present: Tensor | None) -> Exemplars:
        moved = None if present is None else present.to(self.device)
        return self.decoder.exemplars(features.to(self.device, torch.float32), moved)

    def _search(self, seen: Exemplars, asked: Search, first: int) -> list[list[Candidate]]:
        old, lam = asked.compat == COMPAT, self.config.lam if asked.lam is None else asked.lam
        words = self.vocabulary
        rules = search.Rules(
            words.start,
            words.stop,
            asked.length or self.config.length,
            never=() if old else (words.start, words.pad, words.unk),
            empty=old,
            after_stop=old,
        )
        model = search.Model(self.decoder)
        if asked.strategy in ("pmi-beam", "pmi-greedy"):
            model = search.Model(self.decoder, self.language_model, lam)
        if asked.strategy == "sample":
            found = search.sample(model, seen, rules, asked.seed, first)
        elif asked.strategy.endswith("greedy"):
            found = search.greedy(model, seen, rules)
        else:
            found = search.beam(model, seen, rules, self._width(asked))
        return self._candidates(found, asked, lam)

    def _candidates(self, found: search.Found, asked: Search, lam: float) -> list[list[Candidate]]:
        """Return what was found with both scores, ranked."""
        stop, old = self.vocabulary.stop, asked.compat == COMPAT
        whole = [[_ended(row, stop) for row in rows] for rows in found.tokens.tolist()]
        scores = found.scores.tolist()
        flat = [ids for rows in whole for ids in rows]
        log_ps: Iterator[float] | None = None
        if self.language_model is not None:
            counted = flat
            if old and asked.strategy == "pmi":  # one token after the end, where there is room
                width = found.tokens.shape[2]
                counted = [[*ids, stop] if len(ids) < width else ids for ids in flat]
            log_ps = iter(self.language_model.score(counted, self.vocabulary.start).tolist())
        made = []
        for rows, own in zip(whole, scores, strict=True):
            ranked = []
            for ids, score in zip(rows, own, strict=True):
                log_p = None if log_ps is None else next(log_ps)
                if score == -float("inf"):
                    continue  # fewer descriptions than places in the beam
                given = score
                if asked.strategy in ("pmi-beam", "pmi-greedy"):
                    given = score + lam * (log_p or 0.0)
                elif asked.strategy == "pmi":
                    score = score - lam * (log_p or 0.0)
                text = self.vocabulary.decode(ids, asked.compat)
                ranked.append(Candidate(text, score, given, log_p, tuple(ids)))
            made.append(sorted(ranked, key=lambda each: -each.score))
        return made

    # ---- on disk

    def save_pretrained(self, save_directory: str | Path, **options: Any) -> str | None:
        """Write the model as a folder, and push it to the hub if asked; see huggingface_hub."""
        url: str | None = super().save_pretrained(save_directory, **options)
        return url

    def generate_model_card(self, *_: Any, **__: Any) -> ModelCard:
        """Return the card that is written beside the weights."""
        made = self.config.made or {}
        return ModelCard(
            CARD.format(
                encoder=self.config.encoder.backbone,
                features=self.config.encoder.feature_size,
                words=len(self.config.vocabulary),
                lam=self.config.lam,
                beam=self.config.beam,
                made=json.dumps(made, indent=1, sort_keys=True),
            )
        )

    def _save_pretrained(self, save_directory: Path) -> None:
        lacking = {f"encoder.backbone.{name}" for name in self.config.encoder.missing}
        state = {
            name: value.detach().cpu().contiguous().clone()
            for name, value in self.state_dict().items()
            if name not in lacking
        }
        with replacing(save_directory / WEIGHTS) as temporary:
            save_file(state, temporary)
            temporary.chmod(0o644)
        with replacing(save_directory / CONFIG) as temporary:
            temporary.write_text(json.dumps(asdict(self.config), indent=1, sort_keys=True) + "\n")

    @classmethod
    def from_pretrained(cls, pretrained_model_name_or_path: str | Path, **options: Any) -> "Milan":
        """Return a model, ready to describe: of a folder, or of a name on the hub.

        Args:
            pretrained_model_name_or_path: folder, name, or `mini`: the model of the mini world,
                which ships.
            options: `revision`, `token` and so on; see huggingface_hub.

        Raises:
            InputError: no such folder or name; a file that is missing, damaged, or of something
                else; a vocabulary that does not fit the weights.
        """
        name = str(pretrained_model_name_or_path)
        folder = SHIPPED.get(name, Path(name))
        try:
            if folder.is_dir():
                files = [folder / file for file in (CONFIG, WEIGHTS)]
            else:
                files = [Path(hf_hub_download(name, file, **options)) for file in (CONFIG, WEIGHTS)]
        except (HfHubHTTPError, HFValidationError, LocalEntryNotFoundError, OSError) as error:
            raise InputError(
                f"No model '{name}': no folder of that name, and the hub says: "
                f"{str(error).splitlines()[0]} A folder that 'milan train' or 'milan convert' "
                "wrote was expected, or a name on the hub."
            ) from None
        return _read(*files).eval()

    @classmethod
    def _from_pretrained(cls, **_: Any) -> "Milan":
        raise NotImplementedError("from_pretrained reads the folder itself")


def _read(config_file: Path, weights: Path) -> Milan:
    for path in (config_file, weights):
        if not path.is_file():
            raise InputError(
                f"{path.parent} is no model: it has no {path.name}. Expected {CONFIG} and "
                f"{WEIGHTS}, as 'milan train' and 'milan convert' write them."
            )
    try:
        kept = _tuples(json.loads(config_file.read_text(encoding="utf-8")))
        config = Config(**{**kept, "encoder": EncoderConfig(**_tuples(kept["encoder"]))})
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        if isinstance(error, InputError):
            raise
        raise InputError(f"{config_file} is no model's: {str(error).splitlines()[0]}") from None
    try:
        state = load_file(weights)
    except (SafetensorError, OSError) as error:
        raise InputError(
            f"{weights} cannot be read ({str(error).splitlines()[0]}); is the copy complete?"
        ) from None
    rows = state.get("decoder.embedding.weight", torch.empty(0, 0)).shape[0]
    model = Milan(config)
    if rows != len(model.vocabulary):
        raise InputError(
            f"{weights.parent}: the vocabulary of {CONFIG} has {len(model.vocabulary):,} tokens "
            f"(4 special ones among them), the weights have {rows:,}. They are of two models."
        )
    try:
        missing, unexpected = model.load_state_dict(state, strict=False)
    except RuntimeError as error:
        raise InputError(
            f"{weights} does not fit {CONFIG}: {str(error).splitlines()[-1].strip()}"
        ) from None
    lacking = {f"encoder.backbone.{name}" for name in config.encoder.missing}
    wrong = [*(set(missing) - lacking), *unexpected]
    if wrong:
        raise InputError(
            f"{weights} does not fit {CONFIG}: {some(sorted(wrong))} are missing or too many."
        )
    return model


def _tuples(kept: dict[str, Any]) -> dict[str, Any]:
    """Return what JSON keeps, with tuples for its lists."""
    return {key: tuple(each) if isinstance(each, list) else each for key, each in kept.items()}


def _ended(ids: list[int], stop: int) -> list[int]:
    """Return the ids up to the first `stop`, with it."""
    return ids[: ids.index(stop) + 1] if stop in ids else ids


@contextmanager
def _describing(model: nn.Module) -> Iterator[None]:
    """Hold a model in evaluation mode, without gradients."""
    was_training = model.training
    model.eval()
    try:
        with torch.no_grad():
            yield
    finally:
        model.train(was_training)
