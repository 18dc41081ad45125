"""The mini world's grammar: a description is read as a formula, and scenes are known to the pixel.

Label maps and the scene graph say the same things of a scene; maps are what is looked at.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import combinations
from typing import TYPE_CHECKING, Any

import numpy as np

from leaderboard.metrics.base import Floats
from milannotations.errors import InputError
from milannotations.synthetic.formulas import Formula
from milannotations.synthetic.grammar import Meaning, parse
from milannotations.synthetic.scenes import SIZE

if TYPE_CHECKING:
    from torch import Tensor

    from milannotations.probes import Probe
    from milannotations.synthetic.scenes import Scene

BATCH = 64
"""Scenes whose maps are looked at together."""


class GrammarScorer:
    """Says where a description holds, of scenes of the mini world.

    A description is read whole or not at all: one with a word that the grammar does not know, or
    that says that there is nothing to describe, is not read.
    """

    has_regions = True
    source: dict[str, Any]

    def __init__(self) -> None:
        self.source = {"scorer": "grammar", "digest": "mini"}

    def presence(self, texts: Sequence[str], probe: Probe, grid: int | None) -> Floats:
        """Return presence; see `Scorer.presence`. A cell counts by the share that is covered.

        Raises:
            InputError: pictures that are no scenes of the mini world.
        """
        import torch
        from torch.nn.functional import avg_pool2d

        scenes = _scenes(probe)
        if grid is not None and SIZE % grid:
            raise InputError(f"A grid of {grid} does not divide scenes of {SIZE} pixels a side.")
        meanings = [parse(text) for text in texts]
        cells = 1 if grid is None else grid**2
        found = np.full((len(texts), len(scenes) * cells), np.nan)
        wanted = [i for i, meaning in enumerate(meanings) if _read(meaning)]
        for start in range(0, len(scenes), BATCH):
            part = scenes[start : start + BATCH]
            maps = torch.from_numpy(np.stack([scene.concepts for scene in part]))
            columns = slice(start * cells, (start + len(part)) * cells)
            for i in wanted:
                region = regions(meanings[i], maps)
                if grid is None:
                    found[i, columns] = region.flatten(1).any(1).numpy()
                else:
                    shares = avg_pool2d(region[:, None].float(), region.shape[-1] // grid)
                    found[i, columns] = shares.flatten().numpy()
        return found


def regions(meaning: Meaning, maps: Tensor) -> Tensor:
    """Return where a meaning holds.

    Args:
        meaning: that was read whole.
        maps: concept maps, bool (scene, concept, h, w).

    Returns:
        bool (scene, h, w).

    Example:
        >>> import torch
        >>> from milannotations.synthetic import CONCEPTS
        >>> maps = torch.ones(1, len(CONCEPTS), 16, 16, dtype=torch.bool)
        >>> bool(regions(parse("red circles"), maps).all())
        True
    """
    import torch

    concepts = sorted(meaning.concepts)
    if meaning.operator == "NEAR":
        of = [Formula("NEAR", pair).regions(maps) for pair in combinations(concepts, 2)]
    else:
        of = [Formula("IS", (concept,)).regions(maps) for concept in concepts]
    both = meaning.operator == "AND"
    found = torch.stack(of).all(0) if both else torch.stack(of).any(0)
    for place in sorted(meaning.places):
        halves = [Formula(place, (concept,)).regions(maps) for concept in concepts]
        found = found & torch.stack(halves).any(0)
    return found


def _read(meaning: Meaning) -> bool:
    return bool(meaning.concepts) and not meaning.unknown


def _scenes(probe: Probe) -> list[Scene]:
    whole, places = getattr(probe, "whole", probe), getattr(probe, "places", None)
    scenes = getattr(whole, "scenes", None)
    if scenes is None:
        raise InputError(
            f"The scorer 'grammar' reads scenes of the mini world, and {probe.name} are others. "
            "Take labels[:LEXICON], clip:MODEL or table:FILE."
        )
    return list(scenes) if places is None else [scenes[i] for i in places]


def create(said: str = "", *, cache: str | None = None) -> GrammarScorer:
    """Return the scorer.

    Raises:
        InputError: something is said behind the name.
    """
    if said:
        raise InputError(f"The scorer 'grammar' takes nothing behind it; got '{said}'.")
    return GrammarScorer()
