"""Scenes as a dataset of torch and of `datasets`."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import torch
from torch.utils.data import Dataset

from milannotations.errors import InputError
from milannotations.synthetic.concepts import CATEGORIES
from milannotations.synthetic.scenes import Scene, World

if TYPE_CHECKING:
    import datasets


class SceneDataset(Dataset[dict[str, Any]]):
    """Scenes of one stream, drawn on access: the same for the same arguments.

    Args:
        count: number of scenes.
        seed: random seed of the stream. 0 is the edition's pool, 1 and 2 the encoder's, 3 and 4 the
            subject networks', 7 the probe dataset's, 1,000 the synthetic networks'.
        start: index of the first scene in the stream.
        world: distribution of scenes.

    Raises:
        InputError: a negative number.

    Each item is a dict of `image` (uint8, 3 x 64 x 64), `concepts` (bool, concept x 64 x 64,
    in the order of `CONCEPTS`: the input of a synthetic network), `labels` (uint8,
    category x 64 x 64, in the order of `CATEGORIES`: one label map per category, 0 for none,
    as in segmented probe datasets) and `source_id`.

    Example:
        >>> item = SceneDataset(10, seed=3)[0]
        >>> tuple(item["image"].shape), tuple(item["concepts"].shape), item["source_id"]
        ((3, 64, 64), (31, 64, 64), 'mini-3-000000')
    """

    def __init__(
        self, count: int, *, seed: int = 0, start: int = 0, world: World | None = None
    ) -> None:
        if count < 0 or seed < 0 or start < 0:
            raise InputError(
                f"count {count}, seed {seed}, start {start}: expected whole numbers from 0."
            )
        self.count, self.seed, self.start, self.world = count, seed, start, world or World()

    def __len__(self) -> int:
        return self.count

    def scene(self, index: int) -> Scene:
        """Return the scene of an item, with its graph.

        Raises:
            IndexError: no such item.
        """
        if not 0 <= index < self.count:
            raise IndexError(f"scene {index} of {self.count}")
        return self.world.scene(self.seed, self.start + index)

    def __getitem__(self, index: int) -> dict[str, Any]:
        scene = self.scene(index)
        return {
            "image": torch.from_numpy(scene.image).permute(2, 0, 1).contiguous(),
            "concepts": torch.from_numpy(scene.concepts),
            "labels": torch.from_numpy(scene.labels),
            "source_id": scene.source_id,
        }

    def to_datasets(self) -> datasets.Dataset:
        """Return the scenes as a `datasets.Dataset`.

        Columns: `source_id`, `image`, one label map per category (grey images whose values
        are labels, 0 for none, i for `CATEGORIES[category][i - 1]`), `instances` (0 for the
        background, i for the i-th item of the graph) and `graph` (JSON).
        """
        import datasets
        from PIL import Image

        image_feature = datasets.Image()
        features = datasets.Features(
            {
                "source_id": datasets.Value("string"),
                "image": image_feature,
                **dict.fromkeys((*CATEGORIES, "instances"), image_feature),
                "graph": datasets.Value("string"),
            }
        )
        columns: dict[str, list[Any]] = {name: [] for name in features}
        for scene in map(self.scene, range(self.count)):
            columns["source_id"].append(scene.source_id)
            columns["image"].append(Image.fromarray(scene.image))
            for i, category in enumerate(CATEGORIES):
                columns[category].append(Image.fromarray(scene.labels[i]))
            columns["instances"].append(Image.fromarray(scene.instances))
            columns["graph"].append(json.dumps(scene.graph, sort_keys=True))
        return datasets.Dataset.from_dict(columns, features=features)
