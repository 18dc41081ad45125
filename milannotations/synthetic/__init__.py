"""The mini world: scenes, units and networks with known ground truth.

    from milannotations.synthetic import SceneDataset, World, network

| module | content |
|---|---|
| `concepts` | the concepts that a pixel of a scene may have |
| `scenes`, `drawing` | the renderer: images, label maps, scene graphs; masks of shapes |
| `dataset` | scenes for torch and for `datasets` |
| `formulas` | formulas that units respond to, and where they hold in a scene |
| `grammar` | formulas in words, and descriptions parsed back |
| `unit_plan`, `networks` | planted units, and modules that compute them over concept maps |
| `annotators` | simulated annotators |
| `edition` | the edition `mini`, made from all of these |
| `encoder` | a small encoder of scenes, for methods that need features |
| `subjects` | trained classifiers of scenes, to be described and edited |
| `training` | the training loop of encoder and classifiers |
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import lazy_loader

if TYPE_CHECKING:
    from milannotations.synthetic.concepts import CATEGORIES, CONCEPTS
    from milannotations.synthetic.dataset import SceneDataset
    from milannotations.synthetic.formulas import Formula
    from milannotations.synthetic.grammar import parse, phrase
    from milannotations.synthetic.networks import network
    from milannotations.synthetic.scenes import Scene, World
    from milannotations.synthetic.unit_plan import NETWORKS

__all__ = [
    "CATEGORIES",
    "CONCEPTS",
    "NETWORKS",
    "Formula",
    "Scene",
    "SceneDataset",
    "World",
    "network",
    "parse",
    "phrase",
]

# Names are imported on first use: torch takes seconds, and parsing a formula must not wait for it.
__getattr__, __dir__, _ = lazy_loader.attach(
    __name__,
    submod_attrs={
        "concepts": ["CATEGORIES", "CONCEPTS"],
        "dataset": ["SceneDataset"],
        "formulas": ["Formula"],
        "grammar": ["parse", "phrase"],
        "unit_plan": ["NETWORKS"],
        "networks": ["network"],
        "scenes": ["Scene", "World"],
    },
)
