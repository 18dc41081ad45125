"""Tiny CLIP and SigLIP folders on disk, and artificial networks on probe datasets."""

import gzip
from functools import cached_property
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import nn
from transformers import (
    CLIPConfig,
    CLIPImageProcessor,
    CLIPModel,
    CLIPProcessor,
    CLIPTextConfig,
    CLIPTokenizer,
    CLIPVisionConfig,
    PreTrainedTokenizerFast,
    SiglipConfig,
    SiglipImageProcessor,
    SiglipModel,
    SiglipProcessor,
    SiglipTextConfig,
    SiglipVisionConfig,
)

from baselines.shared.probe_statistics import ProbeStatistics
from milannotations.probes import Concept, stack_planes

START, END = "<|startoftext|>", "<|endoftext|>"
SIDE, PATCH = 32, 8
VISION = {"hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 3}
TEXT = {"hidden_size": 12, "intermediate_size": 20, "num_hidden_layers": 2}


def alphabet():
    """Return a tiny BPE in CLIP's format: vocabulary and merges."""
    letters = [chr(i) for i in range(33, 127)]
    merges = [("r", "e"), ("re", "d</w>"), ("b", "a"), ("ba", "l"), ("bal", "l</w>")]
    tokens = [*letters, *(each + "</w>" for each in letters), *map("".join, merges), START, END]
    return {token: i for i, token in enumerate(tokens)}, merges


def clip_bpe(path):
    """Return CLIP's own BPE from its file."""
    kept = [*range(33, 127), *range(161, 173), *range(174, 256)]
    others = [i for i in range(256) if i not in kept]
    names = [chr(i) for i in kept] + [chr(256 + n) for n in range(len(others))]
    lines = gzip.decompress(Path(path).read_bytes()).decode().split("\n")
    merges = [tuple(line.split()) for line in lines[1 : 49152 - 256 - 2 + 1]]
    tokens = [*names, *(each + "</w>" for each in names), *map("".join, merges), START, END]
    return {token: i for i, token in enumerate(tokens)}, merges


def clip(vocabulary, seed=0, context=12, **text):
    """Return a CLIP with random weights."""
    special = {"bos_token_id": vocabulary[START], "eos_token_id": vocabulary[END]}
    reads = {
        **TEXT,
        **special,
        "pad_token_id": vocabulary[END],
        "num_attention_heads": 3,
        "vocab_size": len(vocabulary),
        "max_position_embeddings": context,
        "projection_dim": 10,
        **text,
    }
    sees = {
        **VISION,
        "num_attention_heads": 4,
        "image_size": SIDE,
        "patch_size": PATCH,
        "projection_dim": 10,
    }
    config = CLIPConfig(
        text_config=CLIPTextConfig(**reads).to_dict(),
        vision_config=CLIPVisionConfig(**sees).to_dict(),
        projection_dim=10,
    )
    return drawn(CLIPModel(config), seed)


def drawn(model, seed=0):
    """Return a model with random weights."""
    draw = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for value in model.parameters():
            value.copy_(torch.randn(value.shape, generator=draw) * 0.4)
    return model.eval()


def pictures():
    return CLIPImageProcessor(
        size={"shortest_edge": SIDE}, crop_size={"height": SIDE, "width": SIDE}
    )


def write(folder, bpe, **options):
    """Write a CLIP as `save_pretrained` does."""
    clip(bpe[0], **options).save_pretrained(folder)
    CLIPProcessor(pictures(), CLIPTokenizer(*bpe)).save_pretrained(folder)
    return folder


def write_siglip(folder, seed=0, context=16):
    """Write a SigLIP as `save_pretrained` does, with a tokenizer of letters."""
    from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors

    letters = ["<pad>", "</s>", "<unk>", "▁", *(chr(i) for i in range(33, 127))]
    inner = Tokenizer(models.Unigram([(each, -1.0) for each in letters], unk_id=2))
    inner.normalizer = normalizers.Lowercase()
    inner.pre_tokenizer = pre_tokenizers.Metaspace()
    inner.post_processor = processors.TemplateProcessing(
        single="$A </s>", special_tokens=[("</s>", 1)]
    )
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=inner, pad_token="<pad>", eos_token="</s>", unk_token="<unk>"
    )
    special = {"pad_token_id": 0, "eos_token_id": 1, "bos_token_id": 1}
    sizes = {**VISION, "num_hidden_layers": 2, "num_attention_heads": 4}
    config = SiglipConfig(
        text_config=SiglipTextConfig(
            **sizes, **special, vocab_size=len(letters), max_position_embeddings=context
        ).to_dict(),
        vision_config=SiglipVisionConfig(**sizes, image_size=SIDE, patch_size=PATCH).to_dict(),
    )
    drawn(SiglipModel(config), seed).save_pretrained(folder)
    seen = SiglipImageProcessor(size={"height": SIDE, "width": SIDE})
    SiglipProcessor(seen, tokenizer).save_pretrained(folder)
    return folder


def shown(count, side=16, seed=0):
    """Return images of noise."""
    draw = np.random.default_rng(seed)
    return [
        Image.fromarray(draw.integers(0, 256, (side, side, 3), dtype=np.uint8))
        for _ in range(count)
    ]


class Squares:
    """A probe: each image has some concepts, each a column of pixels of its own color.

    Args:
        presence: bool (image, concept).
    """

    name = "squares"

    def __init__(self, presence, names=None):
        self.presence = np.asarray(presence, bool)
        names = names or [f"thing{i}" for i in range(self.presence.shape[1])]
        self.concepts = tuple(Concept(name, "object") for name in names)
        self.source = {"name": "squares", "sha256": "0" * 64}
        self.decoded = 0

    def __len__(self):
        return len(self.presence)

    def source_id(self, i):
        return f"{i}"

    def image(self, i):
        self.decoded += 1
        pixels = np.zeros((16, 16, 3), np.uint8)
        pixels[0, 0] = (*divmod(i, 256), 7)  # no two are alike
        pixels[1:, : len(self.concepts)] = self.presence[i, None, :, None] * 255
        return Image.fromarray(pixels)

    def labels(self, i, size):
        masks = {}
        for concept in np.flatnonzero(self.presence[i]):
            mask = np.zeros(size, bool)
            mask[size[0] // 4 :, concept] = True
            masks[int(concept) + 1] = mask
        return stack_planes(masks, size)


class Items:
    """Probe as a dataset for the exemplar engine, without preprocessing."""

    def __init__(self, probe):
        self.probe, self.source = probe, {"probe": probe.source}

    def __len__(self):
        return len(self.probe)

    def source_id(self, i):
        return self.probe.source_id(i)

    def __getitem__(self, i):
        pixels = np.array(self.probe.image(i))
        return {
            "image": torch.from_numpy(pixels).permute(2, 0, 1).float() / 255,
            "concepts": torch.from_numpy(self.probe.labels(i, (16, 16))),
        }


class Columns(nn.Module):
    """Network whose units are weighted sums of the columns of pixels: of concepts in `Squares`."""

    def __init__(self, weights):
        super().__init__()
        self.conv = nn.Conv2d(3, len(weights), (1, 16), bias=False)
        with torch.no_grad():
            self.conv.weight.zero_()
            for unit, own in enumerate(weights):
                self.conv.weight[unit, 0, 0, : len(own)] = torch.tensor(own).float()

    def forward(self, x):
        return self.conv(x[:, :, 1:])


def probing(weights, presence, names=None, network="net"):
    """Return a network whose units are weighted sums of concepts, on a probe of them."""
    probe = Squares(presence, names)
    return ProbeStatistics(network, Columns(weights).eval(), Items(probe), probe, ["conv"])


class Planted(ProbeStatistics):
    """Statistics with given pooled activations: by layer, (image, unit)."""

    def __init__(self, pooled, presence, names=None, network="net"):
        probe = Squares(presence, names)
        super().__init__(network, nn.Identity(), Items(probe), probe, [])
        self._given = {k: torch.as_tensor(np.asarray(v)).float() for k, v in pooled.items()}

    def pooled_activations(self, how="mean"):
        return self._given

    def thresholds(self, quantile=0.995):
        return {label: values.amax(0) for label, values in self._given.items()}

    @cached_property
    def presence(self):
        return self.probe.presence


def rows(network, units, layer="conv"):
    """Return rows of units with all columns, null except for the keys."""
    from datasets import Dataset

    from milannotations import schema

    own = {"network": network, "layer": layer}
    filled = [
        {name: own.get(name, unit if name == "unit" else None) for name in schema.COLUMNS}
        for unit in units or [0]
    ]
    made = Dataset.from_list(filled)
    return made if units else made.select([])
