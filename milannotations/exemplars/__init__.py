"""Exemplar engine: the images that activate each unit of any network most, in one pass.

    from milannotations import exemplars

    loaded = exemplars.load_model("torchvision:resnet18", weights="resnet18.safetensors")
    images = exemplars.open_images("val", loaded.preprocessing)
    computed = exemplars.compute(loaded.model, images, ["layer3", "layer4"])
    exemplars.write(computed, images, "out", "resnet18-val", made_from={...})

`exemplars.Ablator` ablates units and returns the network's predictions.

On the command line: `milan exemplars`. In several processes, on one host or many: `torchrun
--nproc-per-node=N -m milannotations.exemplars`, with the same arguments.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import lazy_loader

if TYPE_CHECKING:
    from milannotations.exemplars.engine import compute
    from milannotations.exemplars.hooks.ablation import Ablator
    from milannotations.exemplars.hooks.layers import Layer
    from milannotations.exemplars.images.latents import GeneratedImages, Latents
    from milannotations.exemplars.images.sources import ImageDataset, open_images
    from milannotations.exemplars.networks.loaded_network import LoadedNetwork
    from milannotations.exemplars.networks.loading import load_model
    from milannotations.exemplars.networks.preprocessing import Preprocessing
    from milannotations.exemplars.output.edition import write
    from milannotations.exemplars.output.npy import write_npy
    from milannotations.exemplars.results import LayerExemplars, NetworkExemplars
    from milannotations.exemplars.run_config import RunConfig
    from milannotations.exemplars.tallies.base import Tally
    from milannotations.exemplars.tallies.overlap import Overlap, OverlapCounts
    from milannotations.exemplars.tallies.pooled import Pooled
    from milannotations.exemplars.tallies.quantile import Quantile
    from milannotations.exemplars.tallies.topk import TopK

__all__ = [
    "Ablator",
    "GeneratedImages",
    "ImageDataset",
    "Latents",
    "Layer",
    "LayerExemplars",
    "LoadedNetwork",
    "NetworkExemplars",
    "Overlap",
    "OverlapCounts",
    "Pooled",
    "Preprocessing",
    "Quantile",
    "RunConfig",
    "Tally",
    "TopK",
    "compute",
    "load_model",
    "open_images",
    "write",
    "write_npy",
]

# Names are imported on first use: torch takes seconds, and `milan --help` must not wait for it.
__getattr__, __dir__, _ = lazy_loader.attach(
    __name__,
    submod_attrs={
        "engine": ["compute"],
        "hooks.ablation": ["Ablator"],
        "hooks.layers": ["Layer"],
        "images.latents": ["GeneratedImages", "Latents"],
        "images.sources": ["ImageDataset", "open_images"],
        "networks.loaded_network": ["LoadedNetwork"],
        "networks.loading": ["load_model"],
        "networks.preprocessing": ["Preprocessing"],
        "output.edition": ["write"],
        "output.npy": ["write_npy"],
        "results": ["LayerExemplars", "NetworkExemplars"],
        "run_config": ["RunConfig"],
        "tallies.base": ["Tally"],
        "tallies.overlap": ["Overlap", "OverlapCounts"],
        "tallies.pooled": ["Pooled"],
        "tallies.quantile": ["Quantile"],
        "tallies.topk": ["TopK"],
    },
)
