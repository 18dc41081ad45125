"""Images of each role of an edit, written with and without a cue.

Class names are written into copies of the images (`spurious_cues`), which are kept:

    WORK/<role>/            validation-clean, validation-conflict, test-clean, test-conflict
    WORK/shown/             validation images, half of them with their own class's name: the images
                            of exemplars, on which the selectivity of units for text is measured
    WORK/train/             training images, where a classifier is trained: half of them with
                            their own class's name
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import numpy as np
from annotated_types import Ge

from leaderboard.applications.common.labelled_images import LabelledImages
from leaderboard.applications.edit import spurious_cues
from leaderboard.applications.edit.spurious_cues import Cue
from milannotations.errors import InputError, some

if TYPE_CHECKING:
    from milannotations.exemplars import Preprocessing

SHARES = {"validation": 0.5, "test": 0.5}
"""Shares of the images in each part, for a network that is trained already."""

TRAINING_SHARES = {"train": 0.8, "validation": 0.1, "test": 0.1}
"""Shares of the images in each part, for a network that is to be trained."""


@dataclass(frozen=True)
class ImageRoles:
    """Written images of all roles.

    Attributes:
        folder: folder of the roles.
        classes: class folders, in the order of the network's outputs.
        cue: cue of the images of roles `shown` and `train`.
        parts: images of each part, by their path in the source.
    """

    folder: Path
    classes: tuple[str, ...]
    cue: Cue
    parts: Mapping[str, tuple[str, ...]]

    def load(self, role: str, preprocessing: Preprocessing) -> LabelledImages:
        """Return the labelled images of a role, preprocessed for a network."""
        from milannotations.exemplars import open_images
        from milannotations.exemplars.images.class_labels import class_labels

        images = open_images(self.folder / role, without_resizing(preprocessing))
        source = {**images.source, "cue": asdict(self.role_cue(role))}
        return LabelledImages(images, class_labels(images, self.classes), source)

    def role_cue(self, role: str) -> Cue:
        """Return the cue of the images of a role."""
        if role.endswith("-clean"):
            return replace(self.cue, share=0.0, wrong=False)
        if role.endswith("-conflict"):
            return replace(self.cue, share=1.0, wrong=True)
        return self.cue


def write_roles(
    images: str | os.PathLike[str],
    work: str | os.PathLike[str],
    cue: Cue | None = None,
    *,
    classes: Sequence[str] | None = None,
    names: dict[str, str] | None = None,
    shares: Mapping[str, float] = SHARES,
    limit: Annotated[int, Ge(2)] | None = None,
    progress: bool = False,
) -> ImageRoles:
    """Write the images of all roles; folders of the same images and cue are left as they are.

    Args:
        images: images in ImageFolder layout (one folder per class).
        work: folder to write to.
        cue: names or colors (default: names on half of the images, in the top-left corner).
        classes: class folders in the order of the network's outputs (default: by name).
        names: text to write, by class folder (default: the folder's name).
        shares: share of the images in each part; every class is split the same way.
        limit: number of images, spread evenly over all of them (default: all).
        progress: show progress bars.

    Raises:
        InputError: see `spurious_cues.write`; a class that the network lacks; roles of other
            images in `work`; too few images for the parts.
    """
    from milannotations.exemplars.images.folder import FolderSource
    from milannotations.exemplars.images.subset import evenly_spaced

    cue, work, source = cue or Cue(), Path(work), FolderSource(images)
    paths = sorted(path for path in source.paths if "/" in path)
    folders = sorted({path.split("/")[0] for path in paths})
    if not paths:
        raise InputError(f"{images} has no images in class folders; expected one folder per class.")
    unknown = [name for name in folders if classes is not None and name not in classes]
    if unknown:
        raise InputError(
            f"The network lacks the classes {some(unknown)} (it has: {some(classes or ())}). Give "
            "images of classes that it was trained on."
        )
    paths = [paths[i] for i in evenly_spaced(len(paths), limit)]
    parts = split_by_class(paths, shares, cue.seed)
    if empty := [part for part, members in parts.items() if not members]:
        raise InputError(f"{len(paths)} images are too few: none is left for {empty[0]}.")
    roles = ImageRoles(work, tuple(classes or folders), cue, parts)
    members_of = {
        f"{part}-{kind}": parts[part]
        for part in ("validation", "test")
        for kind in ("clean", "conflict")
    }
    members_of["shown"] = parts["validation"]
    if "train" in parts:
        members_of["train"] = parts["train"]
    for role, members in members_of.items():
        role_cue = roles.role_cue(role)
        if (work / role).exists():
            record = spurious_cues.read(work / role)
            if record["cue"] != asdict(role_cue) or record["pictures"] != len(members):
                raise InputError(f"{work / role} holds other images; give another folder.")
            continue
        spurious_cues.write(
            images, work / role, role_cue, names=names, only=members, progress=progress
        )
    return roles


def split_by_class(
    paths: Sequence[str], shares: Mapping[str, float], seed: int
) -> dict[str, tuple[str, ...]]:
    """Split images into parts by their shares, each class alike, however few images it has.

    Args:
        paths: images, `class/name`.
        shares: share of each part.
        seed: random seed of the split.

    Example:
        >>> paths = ["a/1", "b/1", "c/1", "d/1"]
        >>> {part: len(members) for part, members in split_by_class(paths, SHARES, 0).items()}
        {'validation': 2, 'test': 2}
    """
    rng = np.random.default_rng([seed, 11])
    by_class: dict[str, list[str]] = {}
    for path in paths:
        by_class.setdefault(path.split("/")[0], []).append(path)
    parts: dict[str, list[str]] = {part: [] for part in shares}
    # Every image adds each part's share to its credit and goes to the part with the most, which
    # pays one. Credit carries over between classes, so that classes of one image split fairly too.
    credit = dict.fromkeys(shares, 0.0)
    for members in by_class.values():
        for index in rng.permutation(len(members)):
            for part, share in shares.items():
                credit[part] += share
            part = max(credit, key=lambda name: round(credit[name], 9))
            credit[part] -= 1
            parts[part].append(members[int(index)])
    return {part: tuple(sorted(members)) for part, members in parts.items()}


def without_resizing(preprocessing: Preprocessing) -> Preprocessing:
    """Return a preprocessing without resizing and cropping: images are written as cropped."""
    from torchvision import transforms

    from milannotations.exemplars import Preprocessing
    from milannotations.exemplars.networks.normalization import ChannelOrder

    mean, std, order = preprocessing.mean, preprocessing.std, preprocessing.order
    steps = [transforms.ToTensor(), ChannelOrder(order), transforms.Normalize(mean, std)]
    return Preprocessing(transforms.Compose(steps), mean, std, order)
