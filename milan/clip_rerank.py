"""CLIP as a reranker of descriptions: the `+clip` models of 2022, as they were documented.

Candidates are ranked by the similarity of CLIP's vectors to a unit's exemplars, summed over the
exemplars, once with the attention restricted to the masked region and once without:

    score(d) = (1 - lam) sum_i cos(CLIP(image_i, mask_i), CLIP(d))
                 +   lam sum_i cos(CLIP(image_i), CLIP(d))

A mask works inside CLIP's vision model: in a masked layer, after the softmax, the attention of the
CLS token to each patch is multiplied by the mask there. Its attention to itself stays, and nothing
is rescaled to a sum of 1, so under an empty mask the CLS token attends to nothing but itself.

The code of 2022 differed from its documentation: it dropped the resized images, its factory set
lam to 1, which leaves no masked term, and its candidates were few and those of another search. The
paper has no results with it.

Axes as in `milan.decoder`; `patch`, of an image; `e`, size of CLIP's embedding space.
"""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Bool, Float, UInt8
from torch import Tensor
from torch.nn import functional as nnf

from milan.model import Candidate, Descriptions, Milan, UnitImages, UnitMasks
from milannotations.errors import InputError, some
from milannotations.exemplars.networks.transformers import explain_load_errors

BEAM = 1000
"""Default number of candidates per unit."""

TEXT_BATCH = 256
"""Texts that are encoded together."""

DEFAULT_MODEL = "openai/clip-vit-base-patch32"
"""The CLIP of 2022."""

NO_MASKS = (
    "No masks came. CLIP ranks by the regions of the images, so each image needs a mask. "
    "Without masks, use the model alone: model.describe(images)."
)

Images = Float[Tensor, "k 3 height width"] | UInt8[Tensor, "k 3 height width"]
Masks = (
    Bool[Tensor, "mask 1 mask_height mask_width"]
    | Float[Tensor, "mask 1 mask_height mask_width"]
    | UInt8[Tensor, "mask 1 mask_height mask_width"]
)


class ClipReranker:
    """Reranker of descriptions by their CLIP similarity to the exemplars.

    Vectors of texts are cached (2 kB each with the CLIP of 2022), so that each text is encoded
    once however many units propose it; `clear_cache` frees them.

    Args:
        model: a `transformers.CLIPModel`.
        processor: its `CLIPProcessor`.
        lam: weight of the unmasked term, from 0 to 1.
        layers: indices of the vision model's layers whose attention is masked; None is all.

    Raises:
        InputError: lam or a layer is out of range; the tokenizer belongs to another model.
    """

    def __init__(
        self, model: Any, processor: Any, lam: float = 0.5, layers: Sequence[int] | None = None
    ) -> None:
        self.model = model.float().eval().requires_grad_(False)
        self.tokenizer = processor.tokenizer
        self.lam = _check_lam(lam)
        vision, text = model.config.vision_config, model.config.text_config
        self.side, self.grid = vision.image_size, vision.image_size // vision.patch_size
        self.mean, self.std = (
            torch.tensor(channels)[:, None, None]
            for channels in (
                processor.image_processor.image_mean,
                processor.image_processor.image_std,
            )
        )
        self.layers = tuple(range(vision.num_hidden_layers) if layers is None else layers)
        absent = [layer for layer in self.layers if not 0 <= layer < vision.num_hidden_layers]
        if absent:
            raise InputError(
                f"This CLIP's vision model has layers 0 to {vision.num_hidden_layers - 1}; "
                f"asked for {some(absent)}."
            )
        end = self.tokenizer.eos_token_id
        # CLIP's vector of a text is the state at its end token. With the end token of another
        # tokenizer all texts would get the state of the same position, whatever they say. (Old
        # configs have 2 there, for which transformers takes the highest token.)
        if len(self.tokenizer) > text.vocab_size or text.eos_token_id not in (2, end):
            raise InputError(
                f"The tokenizer has {len(self.tokenizer):,} tokens and ends texts with {end}; the "
                f"model has {text.vocab_size:,} and looks for {text.eos_token_id}. "
                "They are of two models; expected a folder that holds both of one CLIP."
            )
        self.context = text.max_position_embeddings
        self._text_vectors: dict[str, Tensor] = {}

    @classmethod
    def load(
        cls,
        name: str | Path = DEFAULT_MODEL,
        *,
        lam: float = 0.5,
        layers: Sequence[int] | None = None,
        device: str | torch.device = "cpu",
    ) -> "ClipReranker":
        """Return a reranker with the CLIP of a folder, or of a name on the hub.

        Args:
            name: folder that `CLIPModel.save_pretrained` and `CLIPProcessor.save_pretrained`
                wrote, or name on the hub.
            lam, layers: see the class.
            device: of the model.

        Raises:
            InputError: no such folder or name; something else than a CLIP; missing files or
                weights.
        """
        from transformers import AutoConfig, CLIPModel, CLIPProcessor

        source = str(name)
        expected = (
            "a folder that CLIPModel.save_pretrained and CLIPProcessor.save_pretrained both "
            f"wrote, or a name on the hub such as {DEFAULT_MODEL}"
        )
        with explain_load_errors("CLIP", source, expected):
            kind = AutoConfig.from_pretrained(source).model_type
            if kind != "clip":
                raise InputError(
                    f"{source} is a model of type '{kind}'; expected a CLIP, with both a text "
                    f"and a vision model, such as {DEFAULT_MODEL}."
                )
            model, info = CLIPModel.from_pretrained(source, output_loading_info=True)
            processor = CLIPProcessor.from_pretrained(source)
        lacking = [key for key in info["missing_keys"] if not key.endswith("position_ids")]
        if lacking:
            raise InputError(f"{source} lacks weights of a CLIP: {some(sorted(lacking), 3)}.")
        return cls(model.to(device), processor, lam, layers)

    @property
    def device(self) -> torch.device:
        return self.model.visual_projection.weight.device

    # ---- vectors

    @torch.no_grad()
    def embed_images(self, images: Images, masks: Masks | None = None) -> Float[Tensor, "k e"]:
        """Return CLIP's vectors of images, of length 1.

        Args:
            images: RGB, float from 0 to 1 or bytes, of any size; resized to CLIP's input size
                (bicubic, antialiased, as in CLIP's preprocessing) without cropping, so that masks
                still fit.
            masks: of any size, resized to the patches (bilinear); None masks nothing.

        Raises:
            InputError: the numbers of images and masks differ.
        """
        pixels = images.to(self.device)
        pixels = pixels / 255 if pixels.dtype == torch.uint8 else pixels.float()
        if pixels.shape[-2:] != (self.side, self.side):
            pixels = nnf.interpolate(
                pixels, (self.side, self.side), mode="bicubic", align_corners=False, antialias=True
            ).clamp(0, 1)  # bicubic interpolation overshoots
        patch_masks = None
        if masks is not None:
            if len(masks) != len(images):
                raise InputError(
                    f"{len(images)} images came with {len(masks)} masks; expected one each."
                )
            patch_masks = nnf.interpolate(
                masks.to(self.device, torch.float32),
                (self.grid, self.grid),
                mode="bilinear",
                align_corners=False,
            ).flatten(1)
        # CLIPVisionModel's forward pass, with layers of ours
        vision = self.model.vision_model
        x = vision.embeddings((pixels - self.mean.to(pixels)) / self.std.to(pixels))
        x = vision.pre_layrnorm(x)
        for index, layer in enumerate(vision.encoder.layers):
            x = _masked_layer(layer, x, patch_masks if index in self.layers else None)
        # token 0 is CLS
        vectors = self.model.visual_projection(vision.post_layernorm(x[:, 0]))
        return nnf.normalize(vectors, dim=-1).cpu()

    @torch.no_grad()
    def embed_texts(self, texts: Sequence[str]) -> Float[Tensor, "text e"]:
        """Return CLIP's vectors of texts, of length 1; texts are cut off at its context length."""
        new = [text for text in dict.fromkeys(texts) if text not in self._text_vectors]
        for first in range(0, len(new), TEXT_BATCH):
            part = new[first : first + TEXT_BATCH]
            tokens = self.tokenizer(
                part, padding=True, truncation=True, max_length=self.context, return_tensors="pt"
            ).to(self.device)
            end_states = self.model.text_model(
                input_ids=tokens["input_ids"], attention_mask=tokens["attention_mask"]
            ).pooler_output
            vectors = nnf.normalize(self.model.text_projection(end_states), dim=-1).cpu()
            self._text_vectors.update(zip(part, vectors, strict=True))
        if not texts:
            return torch.zeros(0, self.model.config.projection_dim)
        return torch.stack([self._text_vectors[text] for text in texts])

    def clear_cache(self) -> None:
        """Remove the cached vectors of texts."""
        self._text_vectors.clear()

    # ---- scores

    def score(
        self, images: Images, masks: Masks | None, texts: Sequence[str], lam: float | None = None
    ) -> Float[Tensor, " text"]:
        """Return the scores of candidates for one unit, in their order.

        Args:
            images: of its exemplars; see `embed_images`.
            masks: their regions.
            texts: the candidates.
            lam: weight of the unmasked term; None takes the reranker's. At 0 and at 1 the term
                of weight 0 is not computed.

        Raises:
            InputError: no masks, or not one per image; lam is not from 0 to 1.
        """
        if masks is None:
            raise InputError(NO_MASKS)
        lam = self.lam if lam is None else _check_lam(lam)
        # a sum of dot products with one text is the dot product with the sum
        total = torch.zeros(self.model.config.projection_dim, dtype=torch.float64)
        if lam < 1:
            total += (1 - lam) * self.embed_images(images, masks).double().sum(0)
        if lam > 0:
            total += lam * self.embed_images(images).double().sum(0)
        # not a matrix product, in which equal rows may give unequal results
        return (self.embed_texts(texts) * total).sum(1)

    def rerank(
        self, images: Images, masks: Masks | None, texts: Sequence[str], lam: float | None = None
    ) -> list[tuple[str, float]]:
        """Return candidates with their scores, best first, ties in their order; see `score`."""
        scores = self.score(images, masks, texts, lam).tolist()
        return sorted(zip(texts, scores, strict=True), key=lambda pair: -pair[1])


def describe(
    model: Milan,
    reranker: ClipReranker,
    images: UnitImages,
    masks: UnitMasks | None,
    *,
    beam: int = BEAM,
    lam: float | None = None,
) -> Descriptions:
    """Return descriptions of units: the beam of p(d | E), ranked by CLIP.

    Args:
        model: proposes the candidates. Of equal texts the best one counts.
        reranker: ranks them; a candidate's `score` is the reranker's.
        images: of exemplars, RGB, float from 0 to 1 or bytes.
        masks: their regions.
        beam: width of the beam: maximum number of candidates.
        lam: weight of CLIP's unmasked term; None takes the reranker's.

    Raises:
        InputError: no masks; lam is not from 0 to 1; see `Milan.describe`.
    """
    if masks is None:
        raise InputError(NO_MASKS)
    lam = reranker.lam if lam is None else _check_lam(lam)
    descriptions = model.describe(images, masks, strategy="beam", beam=beam)
    ranked = []
    for unit, candidates in enumerate(descriptions.n_best):
        # different tokens may be the same text; candidates come best first
        first: dict[str, Candidate] = {}
        for candidate in candidates:
            first.setdefault(candidate.text, candidate)
        order = reranker.rerank(images[unit], masks[unit], list(first), lam)
        ranked.append([replace(first[text], score=score) for text, score in order])
    return Descriptions(ranked)


def _masked_layer(
    layer: Any, x: Float[Tensor, "k token h"], masks: Float[Tensor, "k patch"] | None
) -> Float[Tensor, "k token h"]:
    """Return the output of a layer of CLIP's vision model, with the attention of CLS masked."""
    attend, normed = layer.self_attn, layer.layer_norm1(x)
    # (k, token, h) -> (k, head, token, h / heads)
    query, key, value = (
        project(normed).unflatten(2, (attend.num_heads, -1)).transpose(1, 2)
        for project in (attend.q_proj, attend.k_proj, attend.v_proj)
    )
    attention = (query @ key.mT * attend.scale).softmax(-1)
    if masks is not None:
        # row 0: from the CLS token; columns 1 and on: to the patches
        attention[:, :, 0, 1:] *= masks[:, None]
    x = x + attend.out_proj((attention @ value).transpose(1, 2).flatten(2))
    return x + layer.mlp(layer.layer_norm2(x))


def _check_lam(lam: float) -> float:
    if not 0 <= lam <= 1:
        raise InputError(
            f"lam={lam}; expected a number from 0 (masked alone) to 1 (unmasked alone)."
        )
    return lam
