"""CLIP and SigLIP models of transformers, with a cache of embeddings.

Embeddings are cached by content, of a text by its characters and of an image by its pixels, in
memory and, if a folder is given, on disk. Any number of methods, layers, units and runs therefore
needs one pass over the images and one over the texts.
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

MODEL_CLASSES = {"clip": "CLIPModel", "siglip": "SiglipModel", "siglip2": "Siglip2Model"}
"""Supported model types and their classes in transformers."""

EXAMPLE_MODEL = "openai/clip-vit-base-patch16"
"""Model of CLIP-Dissect's paper, named in messages."""

IMAGE_BATCH, TEXT_BATCH = 32, 256
"""Images, and texts, embedded together."""

SHARD = 1024
"""Embeddings in a file of the cache; an interrupted run loses at most so many."""


@runtime_checkable
class TextImageModel(Protocol):
    """A model that embeds texts and images in one space."""

    @property
    def digest(self) -> str:
        """Digest that changes whenever an embedding does."""

    def embed_images(self, images: Iterable[Image.Image]) -> Tensor:
        """Return embeddings of images, float32 (image, e).

        Their inner products with those of texts are similarities.
        """

    def embed_texts(self, texts: Sequence[str]) -> Tensor:
        """Return embeddings of texts, float32 (text, e)."""


class ClipModel:
    """A CLIP or SigLIP of transformers; embeddings have length 1 and are on the CPU.

    Images are preprocessed by the model's own image processor, texts by its tokenizer: CLIP's are
    padded to the longest of a batch, SigLIP's to its whole context without a mask, as it was
    trained. Texts are truncated to the context. The last digits of an embedding may depend on
    what is embedded in the same batch.

    Args:
        model: model of a type in `MODEL_CLASSES`.
        tokenizer: its tokenizer.
        processor: its image processor.
        cache: folder for embeddings; None keeps them in memory only.

    Raises:
        InputError: the tokenizer belongs to another model.
    """

    def __init__(
        self, model: Any, tokenizer: Any, processor: Any, cache: str | Path | None = None
    ) -> None:
        self.model = model.float().eval().requires_grad_(False)
        self.tokenizer, self.processor = tokenizer, processor
        self.cache = Cache(cache)
        config = model.config.text_config
        self.context = int(config.max_position_embeddings)
        end = tokenizer.eos_token_id
        # CLIP reads a text at its end token (old configs say 2, which means the highest token)
        wrong_end = model.config.model_type == "clip" and config.eos_token_id not in (2, end)
        if len(tokenizer) > config.vocab_size or wrong_end:
            raise InputError(
                f"The tokenizer has {len(tokenizer):,} tokens and ends texts with {end}; the model "
                f"has {config.vocab_size:,} and looks for {config.eos_token_id}. They are of two "
                "models; expected a folder that holds both of one."
            )
        self._embeddings: dict[str, dict[bytes, Tensor]] = {}

    @classmethod
    def load(
        cls,
        name: str | Path,
        *,
        device: str | torch.device | None = None,
        cache: str | Path | None = None,
    ) -> ClipModel:
        """Load the model of a folder, or of a name on the hub.

        Args:
            name: folder that `save_pretrained` of the model and of its processor wrote, or a name.
            device: device to run on; None is the best one available.
            cache: folder for embeddings.

        Raises:
            InputError: unknown folder or name; no CLIP or SigLIP; missing weights, tokenizer or
                image processor.
        """
        import transformers

        from milannotations.exemplars.device import best_device
        from milannotations.exemplars.networks.transformers import explain_load_errors

        location = str(name)
        expected = (
            "a folder that save_pretrained of a CLIP or SigLIP and of its processor both wrote, or "
            f"a name on the hub such as {EXAMPLE_MODEL}"
        )
        with explain_load_errors("text-image model", location, expected):
            kind = transformers.AutoConfig.from_pretrained(location).model_type
            if kind not in MODEL_CLASSES:
                raise InputError(
                    f"{location} is a model of type '{kind}'; expected a whole CLIP or SigLIP, of "
                    f"texts and images ({', '.join(MODEL_CLASSES)}), such as {EXAMPLE_MODEL}."
                )
            model_class = getattr(transformers, MODEL_CLASSES[kind])
            model, info = model_class.from_pretrained(location, output_loading_info=True)
            tokenizer = transformers.AutoTokenizer.from_pretrained(location)
            processor = transformers.AutoImageProcessor.from_pretrained(location)
        missing = [key for key in info["missing_keys"] if not key.endswith("position_ids")]
        if missing:
            raise InputError(f"{location} lacks weights of a {kind}: {some(sorted(missing), 3)}.")
        return cls(model.to(device or best_device()), tokenizer, processor, cache)

    @cached_property
    def digest(self) -> str:
        """Digest of the weights, the tokenizer and the image preprocessing."""
        from milannotations.exemplars.networks.digest import network_digest

        backend = getattr(self.tokenizer, "backend_tokenizer", None)
        vocabulary = (
            backend.to_str() if backend is not None else sorted(self.tokenizer.get_vocab().items())
        )
        # the name or path of a processor decides nothing
        settings = {k: str(v) for k, v in self.processor.to_dict().items() if "name_or" not in k}
        return content_key(network_digest(self.model), vocabulary, settings, self.context)

    def embed_images(self, images: Iterable[Image.Image]) -> Tensor:
        """Return embeddings of images, float32 (image, e); see `TextImageModel.embed_images`."""

        def with_keys() -> Iterator[tuple[bytes, Any]]:
            for image in images:
                rgb = image.convert("RGB")
                yield hashlib.sha256(f"{rgb.size} ".encode() + rgb.tobytes()).digest(), rgb

        return self._embed_all("images", with_keys(), IMAGE_BATCH)

    def embed_texts(self, texts: Sequence[str]) -> Tensor:
        """Return embeddings of texts, float32 (text, e); see `TextImageModel.embed_texts`."""
        with_keys = ((hashlib.sha256(text.encode()).digest(), text) for text in texts)
        return self._embed_all("texts", with_keys, TEXT_BATCH)

    # ---- embedding

    def _embed(self, kind: str, batch: list[Any]) -> Tensor:
        """Return the embeddings of a batch of images or texts, (item, e)."""
        import torch
        from torch.nn import functional

        if kind == "images":
            inputs = self.processor(images=batch, return_tensors="pt")
        else:
            siglip = self.model.config.model_type.startswith("siglip")
            inputs = self.tokenizer(
                batch,
                padding="max_length" if siglip else True,
                truncation=True,
                max_length=self.context,
                return_tensors="pt",
            )
            names = ["input_ids"] if siglip else ["input_ids", "attention_mask"]
            inputs = {name: inputs[name] for name in names}
        inputs = {name: value.to(self.model.device) for name, value in inputs.items()}
        embed = self.model.get_image_features if kind == "images" else self.model.get_text_features
        with torch.inference_mode():
            # versions of transformers differ in what they return
            output = embed(**inputs)
            vectors = output if isinstance(output, torch.Tensor) else output.pooler_output
            return functional.normalize(vectors.float(), dim=-1).cpu().clone()

    def _embed_all(self, kind: str, items: Iterable[tuple[bytes, Any]], size: int) -> Tensor:
        """Return the embeddings of (key, item) pairs, of which only new keys are embedded."""
        import torch

        embeddings, keys = self._read_cache(kind), list[bytes]()
        pending: dict[bytes, Any] = {}
        unsaved: dict[bytes, Tensor] = {}

        def embed_pending() -> None:
            if pending:
                vectors = self._embed(kind, list(pending.values()))
                unsaved.update(zip(pending, vectors.unbind(), strict=True))
                pending.clear()

        def save() -> None:
            embeddings.update(unsaved)
            if self.cache.folder is not None and unsaved:
                self._write_cache(kind, unsaved)
            unsaved.clear()

        for key, item in items:
            keys.append(key)
            if key not in embeddings and key not in unsaved:
                pending[key] = item
            if len(pending) == size:
                embed_pending()
            if len(unsaved) >= SHARD:
                save()
        embed_pending()
        save()
        if not keys:
            config = self.model.config.text_config
            width = getattr(config, "projection_size", None) or self.model.config.projection_dim
            return torch.zeros(0, width)
        return torch.stack([embeddings[key] for key in keys])

    # ---- cache on disk

    def _shards(self) -> Cache:
        """Return the cache of this model's embeddings, with one entry per shard."""
        folder = self.cache.entry("embeddings", self.digest).path
        assert folder is not None
        return Cache(folder)

    def _read_cache(self, kind: str) -> dict[bytes, Tensor]:
        from safetensors import SafetensorError
        from safetensors.torch import load_file

        if kind in self._embeddings:
            return self._embeddings[kind]
        embeddings = self._embeddings[kind] = {}
        if self.cache.folder is None:
            return embeddings
        for path in self._shards().paths(kind, ".safetensors"):
            try:
                shard = load_file(path)
            except SafetensorError as error:
                raise InputError(f"{path} is broken ({error}). Remove it; it is a cache.") from None
            keys = (bytes(row.tolist()) for row in shard["keys"])
            embeddings.update(zip(keys, shard["vectors"].unbind(), strict=True))
        return embeddings

    def _write_cache(self, kind: str, embeddings: dict[bytes, Tensor]) -> None:
        import torch
        from safetensors.torch import save_file

        shard = {
            "keys": torch.tensor([list(key) for key in embeddings], dtype=torch.uint8),
            "vectors": torch.stack(list(embeddings.values())),
        }
        entry = self._shards().entry(kind, [key.hex() for key in embeddings], suffix=".safetensors")
        entry.write(lambda path: save_file(shard, path))
