"""The mini world: scenes, units and networks whose answers are known.

    from milannotations.synthetic import SceneDataset, World, network

| module | what it holds |
|---|---|
| `concepts` | what a pixel of a scene can be |
| `scenes` | the renderer: pictures, label maps, scene graphs |
| `dataset` | scenes for torch and for `datasets` |
| `formulas` | what a unit responds to, and where that is in a scene |
| `grammar` | formulas in words, and descriptions read back |
| `networks` | planted units, as modules over concept maps |
| `annotators` | simulated annotators |
| `edition` | the edition `mini`, made from all of these |
| `encoder` | a small encoder of scenes, for methods that need features |
| `subjects` | classifiers of scenes, trained for real, to be described and mended |
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

# Names are imported on first use: torch takes seconds, and reading a formula must not wait for it.
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
