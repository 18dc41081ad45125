"""CLIP chooses among the descriptions that were found: the `+clip` models of 2022, as documented.

Candidates are ranked by how well CLIP thinks that they fit a unit's exemplars, summed over the
exemplars, once with the attention held to the masked region and once without:

    score(d) = (1 - lam) sum_i cos(CLIP(image_i, mask_i), CLIP(d))
                 +   lam sum_i cos(CLIP(image_i), CLIP(d))

CLIP sees a masked picture like this: in a layer, after the softmax, what the CLS token pays to
each patch is multiplied by the mask there. What it pays to itself stays, and nothing is scaled
back to a sum of 1, so under an empty mask it sees nothing but itself.

The code of 2022 did not do what it said: it threw the resized pictures away, its factory set lam
to 1, which leaves no masked term, and its candidates were few and another search's. The paper
has no figures of it.

Axes as in `milan.decoder`; `patch`, of a picture; `e`, size of CLIP's space.
"""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Bool, Float, UInt8
from torch import Tensor
from torch.nn import functional as nnf

from milan.model import Candidate, Descriptions, Milan
from milannotations.errors import InputError, some
from milannotations.exemplars.networks.transformers import expecting

BEAM = 1000
"""Candidates of a unit."""

TEXTS = 256
"""Texts that are encoded together."""

USUAL = "openai/clip-vit-base-patch32"
"""The CLIP of 2022."""

NO_MASKS = (
    "No masks came; CLIP ranks by the regions of the pictures, so each needs its mask. "
    "Without them, ask the model alone: model.describe(images)."
)

Images = Float[Tensor, "k 3 height width"] | UInt8[Tensor, "k 3 height width"]
Masks = (
    Bool[Tensor, "mask 1 mask_height mask_width"]
    | Float[Tensor, "mask 1 mask_height mask_width"]
    | UInt8[Tensor, "mask 1 mask_height mask_width"]
)


class ClipReranker:
    """Ranks descriptions by a CLIP.

    Texts are remembered with their vectors (2 kB each with the CLIP of 2022), so that each is
    encoded once however many units propose it; `forget` frees them.

    Args:
        model: a `transformers.CLIPModel`.
        processor: its `CLIPProcessor`.
        lam: weight of the unmasked term, from 0 to 1.
        layers: of the vision model, those whose attention is masked, the first is 0; None is all.

    Raises:
        InputError: no such lam or layer; a tokenizer that is of another model.
    """

    def __init__(
        self, model: Any, processor: Any, lam: float = 0.5, layers: Sequence[int] | None = None
    ) -> None:
        self.model = model.float().eval().requires_grad_(False)
        self.tokenizer = processor.tokenizer
        self.lam = _checked(lam)
        sees, reads = model.config.vision_config, model.config.text_config
        self.side, self.grid = sees.image_size, sees.image_size // sees.patch_size
        shown = processor.image_processor
        self.mean, self.std = (
            torch.tensor(each)[:, None, None] for each in (shown.image_mean, shown.image_std)
        )
        self.layers = tuple(range(sees.num_hidden_layers) if layers is None else layers)
        absent = [each for each in self.layers if not 0 <= each < sees.num_hidden_layers]
        if absent:
            raise InputError(
                f"This CLIP's vision model has layers 0 to {sees.num_hidden_layers - 1}; "
                f"asked for {some(absent)}."
            )
        end = self.tokenizer.eos_token_id
        # a text is read at its end token: at another's it would read alike whatever it says
        # (2 is what old configs say, and transformers takes the highest token in its place)
        if len(self.tokenizer) > reads.vocab_size or reads.eos_token_id not in (2, end):
            raise InputError(
                f"The tokenizer has {len(self.tokenizer):,} tokens and ends texts with {end}; the "
                f"model has {reads.vocab_size:,} and looks for {reads.eos_token_id}. "
                "They are of two models; expected a folder that holds both of one CLIP."
            )
        self.context = reads.max_position_embeddings
        self._known: dict[str, Tensor] = {}

    @classmethod
    def load(
        cls,
        name: str | Path = USUAL,
        *,
        lam: float = 0.5,
        layers: Sequence[int] | None = None,
        device: str | torch.device = "cpu",
    ) -> "ClipReranker":
        """Return a reranker with the CLIP of a folder, or of a name on the hub.

        Args:
            name: what `CLIPModel.save_pretrained` and `CLIPProcessor.save_pretrained` wrote.
            lam, layers: see the class.
            device: where CLIP runs.

        Raises:
            InputError: no such folder or name; something else than a CLIP; a file or weights
                that are missing.
        """
        from transformers import AutoConfig, CLIPModel, CLIPProcessor

        where = str(name)
        expected = (
            "a folder that CLIPModel.save_pretrained and CLIPProcessor.save_pretrained both "
            f"wrote, or a name on the hub such as {USUAL}"
        )
        with expecting("CLIP", where, expected):
            kind = AutoConfig.from_pretrained(where).model_type
            if kind != "clip":
                raise InputError(
                    f"{where} is a model of type '{kind}'; expected a CLIP, with both its text "
                    f"and its vision model, such as {USUAL}."
                )
            model, info = CLIPModel.from_pretrained(where, output_loading_info=True)
            processor = CLIPProcessor.from_pretrained(where)
        lacking = [key for key in info["missing_keys"] if not key.endswith("position_ids")]
        if lacking:
            raise InputError(f"{where} lacks weights of a CLIP: {some(sorted(lacking), 3)}.")
        return cls(model.to(device), processor, lam, layers)

    @property
    def device(self) -> torch.device:
        return self.model.visual_projection.weight.device

    # ---- what CLIP sees

    @torch.no_grad()
    def see(self, images: Images, masks: Masks | None = None) -> Float[Tensor, "k e"]:
        """Return CLIP's vectors of pictures, of length 1.

        Args:
            images: RGB, float from 0 to 1 or bytes, of any size; resized to CLIP's (bicubic,
                antialiased, as CLIP's own are) whole, so that they still lie under their masks.
            masks: of any size, resized to the patches (bilinear); None masks nothing.

        Raises:
            InputError: not one mask a picture.
        """
        pixels = images.to(self.device)
        pixels = pixels / 255 if pixels.dtype == torch.uint8 else pixels.float()
        if pixels.shape[-2:] != (self.side, self.side):
            pixels = nnf.interpolate(
                pixels, (self.side, self.side), mode="bicubic", align_corners=False, antialias=True
            ).clamp(0, 1)  # bicubic goes beyond what it is given
        cover = None
        if masks is not None:
            if len(masks) != len(images):
                raise InputError(
                    f"{len(images)} pictures came with {len(masks)} masks; expected one each."
                )
            cover = nnf.interpolate(
                masks.to(self.device, torch.float32),
                (self.grid, self.grid),
                mode="bilinear",
                align_corners=False,
            ).flatten(1)
        sight = self.model.vision_model
        x = sight.embeddings((pixels - self.mean.to(pixels)) / self.std.to(pixels))
        x = sight.pre_layrnorm(x)
        for place, layer in enumerate(sight.encoder.layers):
            x = _layer(layer, x, cover if place in self.layers else None)
        seen = self.model.visual_projection(sight.post_layernorm(x[:, 0]))
        return nnf.normalize(seen, dim=-1).cpu()

    @torch.no_grad()
    def read(self, texts: Sequence[str]) -> Float[Tensor, "text e"]:
        """Return CLIP's vectors of texts, of length 1; what is beyond its context is cut off."""
        new = [text for text in dict.fromkeys(texts) if text not in self._known]
        for first in range(0, len(new), TEXTS):
            part = new[first : first + TEXTS]
            tokens = self.tokenizer(
                part, padding=True, truncation=True, max_length=self.context, return_tensors="pt"
            ).to(self.device)
            ends = self.model.text_model(
                input_ids=tokens["input_ids"], attention_mask=tokens["attention_mask"]
            ).pooler_output
            vectors = nnf.normalize(self.model.text_projection(ends), dim=-1).cpu()
            self._known.update(zip(part, vectors, strict=True))
        if not texts:
            return torch.zeros(0, self.model.config.projection_dim)
        return torch.stack([self._known[text] for text in texts])

    def forget(self) -> None:
        """Drop the vectors of the texts that were read."""
        self._known.clear()

    # ---- what it makes of it

    def score(
        self, images: Images, masks: Masks | None, texts: Sequence[str], lam: float | None = None
    ) -> Float[Tensor, " text"]:
        """Return the scores of candidates for one unit, in their order.

        Args:
            images: of its exemplars; see `see`.
            masks: their regions.
            texts: the candidates.
            lam: weight of the unmasked term; None takes the reranker's. At 0 and at 1 the term
                that has no weight is not computed.

        Raises:
            InputError: no masks, or not one a picture; a lam that is not from 0 to 1.
        """
        if masks is None:
            raise InputError(NO_MASKS)
        lam = self.lam if lam is None else _checked(lam)
        seen = torch.zeros(self.model.config.projection_dim, dtype=torch.float64)
        if lam < 1:
            seen += (1 - lam) * self.see(images, masks).double().sum(0)
        if lam > 0:
            seen += lam * self.see(images).double().sum(0)
        # not a matrix product, in which equal rows may come out unequal
        return (self.read(texts) * seen).sum(1)

    def rerank(
        self, images: Images, masks: Masks | None, texts: Sequence[str], lam: float | None = None
    ) -> list[tuple[str, float]]:
        """Return candidates with their scores, the best first (of equals, the earlier).

        See `score`.
        """
        scores = self.score(images, masks, texts, lam).tolist()
        return sorted(zip(texts, scores, strict=True), key=lambda each: -each[1])


def describe(
    model: Milan,
    reranker: ClipReranker,
    images: Float[Tensor, "unit k 3 height width"] | UInt8[Tensor, "unit k 3 height width"],
    masks: Bool[Tensor, "unit k 1 mask_height mask_width"]
    | Float[Tensor, "unit k 1 mask_height mask_width"]
    | UInt8[Tensor, "unit k 1 mask_height mask_width"]
    | None,
    *,
    beam: int = BEAM,
    lam: float | None = None,
) -> Descriptions:
    """Return descriptions of units: the beam of p(d | E), ranked by CLIP.

    Args:
        model: finds the candidates. Texts that it finds twice count once, as first found.
        reranker: ranks them; a candidate's `score` is its own.
        images: of exemplars, RGB, float from 0 to 1 or bytes.
        masks: their regions.
        beam: width of the beam; where there are fewer descriptions, all of them are candidates.
        lam: weight of CLIP's unmasked term; None takes the reranker's.

    Raises:
        InputError: no masks; a lam that is not from 0 to 1; see `Milan.describe`.
    """
    if masks is None:
        raise InputError(NO_MASKS)
    lam = reranker.lam if lam is None else _checked(lam)
    found = model.describe(images, masks, strategy="beam", beam=beam)
    ranked = []
    for unit, candidates in enumerate(found.n_best):
        first: dict[str, Candidate] = {}
        for each in candidates:
            first.setdefault(each.text, each)
        order = reranker.rerank(images[unit], masks[unit], list(first), lam)
        ranked.append([replace(first[text], score=score) for text, score in order])
    return Descriptions(ranked)


def _layer(
    layer: Any, x: Float[Tensor, "k token h"], cover: Float[Tensor, "k patch"] | None
) -> Float[Tensor, "k token h"]:
    """Return a layer of CLIP's vision model, with the CLS token's attention under a mask."""
    own, normed = layer.self_attn, layer.layer_norm1(x)
    query, key, value = (
        project(normed).unflatten(2, (own.num_heads, -1)).transpose(1, 2)
        for project in (own.q_proj, own.k_proj, own.v_proj)
    )
    attention = (query @ key.mT * own.scale).softmax(-1)
    if cover is not None:
        attention[:, :, 0, 1:] *= cover[:, None]
    x = x + own.out_proj((attention @ value).transpose(1, 2).flatten(2))
    return x + layer.mlp(layer.layer_norm2(x))


def _checked(lam: float) -> float:
    if not 0 <= lam <= 1:
        raise InputError(f"lam={lam} was asked for; expected 0 (masked alone) to 1 (unmasked).")
    return lam
