"""Texts and pictures in one space: any CLIP or SigLIP of transformers, each thing embedded once.

What was embedded is known by its content, a text by its characters and a picture by its pixels,
in memory and, where a folder is given, on disk: any number of methods, layers, units and runs
costs one pass over the pictures and one over the texts.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

from milannotations.errors import InputError, some
from milannotations.utils.cache import Cache, content_key

if TYPE_CHECKING:
    import torch
    from PIL import Image
    from torch import Tensor

KINDS = {"clip": "CLIPModel", "siglip": "SiglipModel", "siglip2": "Siglip2Model"}
"""Types of models that are read, and their classes in transformers."""

EXAMPLE_MODEL = "openai/clip-vit-base-patch16"
"""The model of CLIP-Dissect's paper."""

PICTURES, TEXTS = 32, 256
"""How many are embedded together."""

SHARD = 1024
"""Embeddings in a file of the cache, so that an interrupted run loses little."""


@runtime_checkable
class TextImageModel(Protocol):
    """Anything that embeds texts and pictures in one space.

    Attributes:
        digest: changes whenever an embedding does.
    """

    @property
    def digest(self) -> str: ...

    def embed_images(self, pictures: Iterable[Image.Image]) -> Tensor:
        """Return vectors of pictures, float32 (picture, e); their similarities are products."""

    def embed_texts(self, texts: Sequence[str]) -> Tensor:
        """Return vectors of texts, float32 (text, e)."""


class ClipModel:
    """A CLIP or SigLIP of transformers; vectors have length 1 and are on the CPU.

    Pictures go in as the model's own image processor makes them, texts as its tokenizer does:
    CLIP's are padded to the longest that go together, SigLIP's to its whole context without a
    mask, as it was trained. What is beyond the context is cut off. The last digits of a vector
    may depend on what it is embedded together with.

    Args:
        model: of a type in `KINDS`.
        tokenizer: its tokenizer.
        processor: its image processor.
        cache: folder in which embeddings are kept; None keeps them in memory alone.

    Raises:
        InputError: the tokenizer is of another model.
    """

    def __init__(
        self, model: Any, tokenizer: Any, processor: Any, cache: str | Path | None = None
    ) -> None:
        self.model = model.float().eval().requires_grad_(False)
        self.tokenizer, self.processor = tokenizer, processor
        self.cache = Cache(cache)
        reads = model.config.text_config
        self.context = int(reads.max_position_embeddings)
        end = tokenizer.eos_token_id
        # CLIP reads a text at its end token (old configs say 2: at the highest token)
        other = model.config.model_type == "clip" and reads.eos_token_id not in (2, end)
        if len(tokenizer) > reads.vocab_size or other:
            raise InputError(
                f"The tokenizer has {len(tokenizer):,} tokens and ends texts with {end}; the model "
                f"has {reads.vocab_size:,} and looks for {reads.eos_token_id}. They are of two "
                "models; expected a folder that holds both of one."
            )
        self._known: dict[str, dict[bytes, Tensor]] = {}

    @classmethod
    def load(
        cls,
        name: str | Path,
        *,
        device: str | torch.device | None = None,
        cache: str | Path | None = None,
    ) -> ClipModel:
        """Return the model of a folder, or of a name on the hub.

        Args:
            name: what `save_pretrained` of the model and of its processor wrote.
            device: where it runs; None is the best there is.
            cache: folder in which embeddings are kept.

        Raises:
            InputError: no such folder or name; something else than a CLIP or SigLIP; weights,
                a tokenizer or an image processor that are missing.
        """
        import transformers

        from milannotations.exemplars.device import best_device
        from milannotations.exemplars.networks.transformers import explain_load_errors

        where = str(name)
        expected = (
            "a folder that save_pretrained of a CLIP or SigLIP and of its processor both wrote, or "
            f"a name on the hub such as {EXAMPLE_MODEL}"
        )
        with explain_load_errors("text-image model", where, expected):
            kind = transformers.AutoConfig.from_pretrained(where).model_type
            if kind not in KINDS:
                raise InputError(
                    f"{where} is a model of type '{kind}'; expected a whole CLIP or SigLIP, of "
                    f"texts and pictures ({', '.join(KINDS)}), such as {EXAMPLE_MODEL}."
                )
            of_kind = getattr(transformers, KINDS[kind])
            model, info = of_kind.from_pretrained(where, output_loading_info=True)
            tokenizer = transformers.AutoTokenizer.from_pretrained(where)
            processor = transformers.AutoImageProcessor.from_pretrained(where)
        lacking = [key for key in info["missing_keys"] if not key.endswith("position_ids")]
        if lacking:
            raise InputError(f"{where} lacks weights of a {kind}: {some(sorted(lacking), 3)}.")
        return cls(model.to(device or best_device()), tokenizer, processor, cache)

    @cached_property
    def digest(self) -> str:
        """Of the weights, the tokenizer and what is done to pictures."""
        from milannotations.exemplars.networks.digest import network_digest

        inner = getattr(self.tokenizer, "backend_tokenizer", None)
        words = inner.to_str() if inner is not None else sorted(self.tokenizer.get_vocab().items())
        pixels = {k: str(v) for k, v in self.processor.to_dict().items() if "name_or" not in k}
        return content_key(network_digest(self.model), words, pixels, self.context)

    def embed_images(self, pictures: Iterable[Image.Image]) -> Tensor:
        """Return vectors of pictures, float32 (picture, e); see `TextImageModel.embed_images`."""

        def keyed() -> Iterator[tuple[bytes, Any]]:
            for picture in pictures:
                shown = picture.convert("RGB")
                yield hashlib.sha256(f"{shown.size} ".encode() + shown.tobytes()).digest(), shown

        return self._vectors("images", keyed(), PICTURES)

    def embed_texts(self, texts: Sequence[str]) -> Tensor:
        """Return vectors of texts, float32 (text, e); see `TextImageModel.embed_texts`."""
        keyed = ((hashlib.sha256(text.encode()).digest(), text) for text in texts)
        return self._vectors("texts", keyed, TEXTS)

    # ---- embedding

    def _embed(self, kind: str, batch: list[Any]) -> Tensor:
        import torch
        from torch.nn import functional

        if kind == "images":
            made = self.processor(images=batch, return_tensors="pt")
        else:
            siglip = self.model.config.model_type.startswith("siglip")
            made = self.tokenizer(
                batch,
                padding="max_length" if siglip else True,
                truncation=True,
                max_length=self.context,
                return_tensors="pt",
            )
            used = ["input_ids"] if siglip else ["input_ids", "attention_mask"]
            made = {name: made[name] for name in used}
        sent = {name: value.to(self.model.device) for name, value in made.items()}
        embed = self.model.get_image_features if kind == "images" else self.model.get_text_features
        with torch.inference_mode():
            found = embed(**sent)
            vectors = found if isinstance(found, torch.Tensor) else found.pooler_output
            return functional.normalize(vectors.float(), dim=-1).cpu().clone()

    def _vectors(self, kind: str, keyed: Iterable[tuple[bytes, Any]], size: int) -> Tensor:
        import torch

        known, keys = self._remembered(kind), list[bytes]()
        pending: dict[bytes, Any] = {}
        unsaved: dict[bytes, Tensor] = {}

        def embed() -> None:
            if pending:
                made = self._embed(kind, list(pending.values()))
                unsaved.update(zip(pending, made.unbind(), strict=True))
                pending.clear()

        def keep() -> None:
            known.update(unsaved)
            if self.cache.folder is not None and unsaved:
                self._write(kind, unsaved)
            unsaved.clear()

        for key, each in keyed:
            keys.append(key)
            if key not in known and key not in unsaved:
                pending[key] = each
            if len(pending) == size:
                embed()
            if len(unsaved) >= SHARD:
                keep()
        embed()
        keep()
        if not keys:
            reads = self.model.config.text_config
            size = getattr(reads, "projection_size", None) or self.model.config.projection_dim
            return torch.zeros(0, size)
        return torch.stack([known[key] for key in keys])

    # ---- what is kept

    def _shards(self) -> Cache:
        """Return the part of the cache that is of this model: a file a shard."""
        folder = self.cache.entry("embeddings", self.digest).path
        assert folder is not None
        return Cache(folder)

    def _remembered(self, kind: str) -> dict[bytes, Tensor]:
        from safetensors import SafetensorError
        from safetensors.torch import load_file

        if kind in self._known:
            return self._known[kind]
        known = self._known[kind] = {}
        if self.cache.folder is None:
            return known
        for path in self._shards().paths(kind, ".safetensors"):
            try:
                kept = load_file(path)
            except SafetensorError as error:
                raise InputError(f"{path} is broken ({error}). Remove it; it is a cache.") from None
            rows = (bytes(row.tolist()) for row in kept["keys"])
            known.update(zip(rows, kept["vectors"].unbind(), strict=True))
        return known

    def _write(self, kind: str, vectors: dict[bytes, Tensor]) -> None:
        import torch
        from safetensors.torch import save_file

        shard = {
            "keys": torch.tensor([list(key) for key in vectors], dtype=torch.uint8),
            "vectors": torch.stack(list(vectors.values())),
        }
        entry = self._shards().entry(kind, [key.hex() for key in vectors], suffix=".safetensors")
        entry.write(lambda path: save_file(shard, path))
