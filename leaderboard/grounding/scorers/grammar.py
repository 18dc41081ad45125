"""Scorer of the mini world: parses a description into a formula and evaluates it on scenes.

Scenes are annotated by label maps and by scene graphs, which agree; this module reads the maps.
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
"""Scenes whose concept maps are in memory at once."""


class GrammarScorer:
    """Presence of descriptions in scenes of the mini world.

    A description is read as a whole or not at all: a description with a word that the grammar does
    not know, or that says that there is nothing to describe, is unreadable.
    """

    has_regions = True
    source: dict[str, Any]

    def __init__(self) -> None:
        self.source = {"scorer": "grammar", "digest": "mini"}

    def presence(self, texts: Sequence[str], probe: Probe, grid: int | None) -> Floats:
        """Return presence; see `Scorer.presence`. In a cell, it is the share of pixels covered.

        Raises:
            InputError: the images are no scenes of the mini world, or the grid does not divide
                them.
        """
        import torch
        from torch.nn.functional import avg_pool2d

        scenes = _scenes(probe)
        if grid is not None and SIZE % grid:
            raise InputError(
                f"--grid {grid} does not divide scenes of {SIZE} pixels per side. Give a divisor "
                f"of {SIZE}."
            )
        meanings = [parse(text) for text in texts]
        cells = 1 if grid is None else grid**2
        presence = np.full((len(texts), len(scenes) * cells), np.nan)
        readable = [i for i, meaning in enumerate(meanings) if _is_readable(meaning)]
        for start in range(0, len(scenes), BATCH):
            batch = scenes[start : start + BATCH]
            maps = torch.from_numpy(np.stack([scene.concepts for scene in batch]))
            columns = slice(start * cells, (start + len(batch)) * cells)
            for i in readable:
                region = regions(meanings[i], maps)
                if grid is None:
                    presence[i, columns] = region.flatten(1).any(1).numpy()
                else:
                    shares = avg_pool2d(region[:, None].float(), region.shape[-1] // grid)
                    presence[i, columns] = shares.flatten().numpy()
        return presence


def regions(meaning: Meaning, maps: Tensor) -> Tensor:
    """Return the region in which a meaning holds.

    Args:
        meaning: meaning of a readable description.
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

    # NEAR holds for any pair of its concepts; AND needs all of them, OR any.
    concepts = sorted(meaning.concepts)
    if meaning.operator == "NEAR":
        parts = [Formula("NEAR", pair).regions(maps) for pair in combinations(concepts, 2)]
    else:
        parts = [Formula("IS", (concept,)).regions(maps) for concept in concepts]
    stacked = torch.stack(parts)
    region = stacked.all(0) if meaning.operator == "AND" else stacked.any(0)
    # A place such as TOP keeps the part where one of the concepts is in that half of the image.
    for place in sorted(meaning.places):
        halves = [Formula(place, (concept,)).regions(maps) for concept in concepts]
        region = region & torch.stack(halves).any(0)
    return region


def _is_readable(meaning: Meaning) -> bool:
    return bool(meaning.concepts) and not meaning.unknown


def _scenes(probe: Probe) -> list[Scene]:
    """Return the scenes of a probe dataset or of a subset of one (`ProbeSubset`)."""
    whole, indices = getattr(probe, "whole", probe), getattr(probe, "indices", None)
    scenes = getattr(whole, "scenes", None)
    if scenes is None:
        raise InputError(
            f"The scorer 'grammar' reads scenes of the mini world only; {probe.name} has other "
            "images. Use --scorer labels[:LEXICON], clip:MODEL or table:FILE."
        )
    return list(scenes) if indices is None else [scenes[i] for i in indices]


def create(argument: str = "", *, cache: str | None = None) -> GrammarScorer:
    """Create the scorer.

    Raises:
        InputError: an argument after the name.
    """
    if argument:
        raise InputError(
            f"The scorer 'grammar' takes no argument; got '{argument}'. Use --scorer grammar."
        )
    return GrammarScorer()
