"""Edit of real networks: any classifier, on pictures in a folder a class.

Class names are written into copies of the pictures (`spurious`), which are kept:

    WORK/<role>/            validation-clean, validation-conflict, test-clean, test-conflict
    WORK/shown/             validation pictures, half of them with their own class's name: what
                            exemplars are of, and units' selectivity for text is measured on
    WORK/train/             where a classifier is trained: half with their own class's name
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from leaderboard.applications.common.ablated_accuracy import Labelled, Trial
from leaderboard.applications.edit import spurious_cues
from leaderboard.applications.edit.spurious_cues import Cue
from milannotations.errors import InputError, some
from milannotations.schema import Unit

if TYPE_CHECKING:
    from torch import Tensor, nn

    from milannotations.exemplars import Layer, Loaded, NetworkExemplars, Preprocessing, RunConfig

SHARES = {"validation": 0.5, "test": 0.5}
"""Of the pictures, for a network that is trained already."""

TRAINED = {"train": 0.8, "validation": 0.1, "test": 0.1}
"""Of the pictures, for a network that is to be trained."""


@dataclass(frozen=True)
class Roles:
    """Pictures of all roles, written.

    Attributes:
        folder: where they are.
        classes: folders of the classes, in the order of the network's outputs.
        cue: what was written.
        parts: pictures of each part, by their path in the source.
    """

    folder: Path
    classes: tuple[str, ...]
    cue: Cue
    parts: Mapping[str, tuple[str, ...]]

    def labelled(self, role: str, preprocessing: Preprocessing) -> Labelled:
        """Return the pictures of a role as a network wants them, with their classes."""
        from milannotations.exemplars import open_images
        from milannotations.exemplars.hooks.ablation import labels_of

        pictures = open_images(self.folder / role, as_written(preprocessing))
        source = {**pictures.source, "cue": asdict(self.of(role))}
        return Labelled(pictures, labels_of(pictures, self.classes), source)

    def of(self, role: str) -> Cue:
        """Return what is written on the pictures of a role."""
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
    limit: int | None = None,
    progress: bool = False,
) -> Roles:
    """Write the pictures of all roles; what is there of the same pictures and cue is left.

    Args:
        images: a folder a class, with pictures.
        work: where they go.
        cue: names or colours (default: names on half of the pictures, in the top-left corner).
        classes: folders, in the order of the network's outputs (default: by name).
        names: what is written, by folder (default: the folder's name).
        shares: of the pictures, of each part; each class is dealt out alike.
        limit: so many pictures, evenly over the folder.
        progress: show bars.

    Raises:
        InputError: see `spurious.write`; a class that the network lacks; `work` holds roles of
            other pictures; too few pictures for the parts.
    """
    from milannotations.exemplars.images.sources import Folder

    cue, work, source = cue or Cue(), Path(work), Folder(images)
    paths = sorted(path for path in source.paths if "/" in path)
    there = sorted({path.split("/")[0] for path in paths})
    if not paths:
        raise InputError(f"{images}: pictures in a folder a class were expected.")
    unknown = [name for name in there if classes is not None and name not in classes]
    if unknown:
        raise InputError(
            f"The network lacks the classes {some(unknown)} (it has: {some(classes or ())}). Show "
            "it classes that it was trained on."
        )
    if limit is not None and limit < len(paths):
        paths = [paths[i * len(paths) // limit] for i in range(limit)]
    parts = dealt(paths, shares, cue.seed)
    made = Roles(work, tuple(classes or there), cue, parts)
    if empty := [part for part, own in parts.items() if not own]:
        raise InputError(f"{len(paths)} pictures are too few: none is left for {empty[0]}.")
    wanted = {f"{part}-{kind}": parts[part] for part in ("validation", "test")
              for kind in ("clean", "conflict")}  # fmt: skip
    wanted["shown"] = parts["validation"]
    if "train" in parts:
        wanted["train"] = parts["train"]
    for role, own in wanted.items():
        if (work / role).exists():
            held = spurious_cues.read(work / role)
            if held["cue"] != asdict(made.of(role)) or held["pictures"] != len(own):
                raise InputError(f"{work / role} holds other pictures; give another folder.")
            continue
        spurious_cues.write(
            images, work / role, made.of(role), names=names, only=own, progress=progress
        )
    return made


def dealt(
    paths: Sequence[str], shares: Mapping[str, float], seed: int
) -> dict[str, tuple[str, ...]]:
    """Deal pictures out to parts by their shares, each class alike, however few it has.

    Example:
        >>> {part: len(own) for part, own in dealt(["a/1", "b/1", "c/1", "d/1"], SHARES, 0).items()}
        {'validation': 2, 'test': 2}
    """
    rng = np.random.default_rng([seed, 11])
    by_class: dict[str, list[str]] = {}
    for path in paths:
        by_class.setdefault(path.split("/")[0], []).append(path)
    found: dict[str, list[str]] = {part: [] for part in shares}
    credit = dict.fromkeys(shares, 0.0)
    for own in by_class.values():
        for place in rng.permutation(len(own)):
            for part, share in shares.items():
                credit[part] += share
            part = max(credit, key=lambda each: round(credit[each], 9))
            credit[part] -= 1
            found[part].append(own[int(place)])
    return {part: tuple(sorted(own)) for part, own in found.items()}


def as_written(preprocessing: Preprocessing) -> Preprocessing:
    """Return a preprocessing without resizing and cutting: pictures are written as cut."""
    from torchvision import transforms

    from milannotations.exemplars import Preprocessing

    mean, std = preprocessing.mean, preprocessing.std
    steps = [transforms.ToTensor(), transforms.Normalize(mean, std)]
    return Preprocessing(transforms.Compose(steps), mean, std)


def trial_of(
    loaded: Loaded,
    name: str,
    layers: Sequence[str | Layer],
    roles: Roles,
    *,
    seed: int = 0,
    run: RunConfig | None = None,
    folder: Path | None = None,
    computed: NetworkExemplars | None = None,
) -> Trial:
    """Return a network with the pictures of all roles, its units' selectivity measured.

    Args:
        loaded: the network.
        name: as predictions call it.
        layers: whose units may be deleted.
        roles: the pictures.
        seed: of its training, and of draws.
        run: of the passes.
        folder: where measured accuracies are kept.
        computed: exemplars of those layers on the role `shown`, if they are there.

    Raises:
        InputError: weights that are lacking; another number of outputs than of classes.
    """
    from milannotations.exemplars import compute
    from milannotations.exemplars.run_config import RunConfig

    if loaded.missing:
        raise InputError(
            f"The weights of {name} lack {some(loaded.missing)}; its answers would mean nothing."
        )
    preprocessing = preprocessing_of(loaded)
    shown = Marked(roles, preprocessing)
    run = replace(run or RunConfig(), prefix=loaded.prefix)
    computed = computed or compute(loaded.model, shown.images, layers, run=run)
    pictures = {
        f"{part}-{kind}": roles.labelled(f"{part}-{kind}", preprocessing)
        for part in ("validation", "test")
        for kind in ("clean", "conflict")
    }
    # what a head is trained on: a network that came trained has seen none of these pictures
    pictures["training"] = roles.labelled(
        "train" if "train" in roles.parts else "shown", preprocessing
    )
    outputs = _outputs(loaded, pictures["validation-clean"])
    if outputs != len(roles.classes):
        raise InputError(
            f"The network tells {outputs:,} classes, and there are {len(roles.classes):,}: "
            f"{some(roles.classes)}. Say the folders of all of its classes, in its order: "
            "--classes FILE."
        )
    return Trial(
        name,
        loaded.model,
        {each: len(computed.layers[_label(each)].units) for each in layers},
        pictures,
        outputs,
        seed=seed,
        source=loaded.source,
        shown=shares(name, shown, computed),
        selectivity=selectivity(name, loaded.model, layers, shown, computed, run),
        run=run,
        folder=folder,
    )


def write_exemplars(
    loaded: Loaded,
    name: str,
    layers: Sequence[str | Layer],
    roles: Roles,
    out: Path,
    *,
    run: RunConfig | None = None,
) -> NetworkExemplars | None:
    """Write exemplars of the role `shown` as a config of an edition, to be described."""
    from milannotations.exemplars.output.make import make_edition

    images = roles.labelled("shown", preprocessing_of(loaded)).pictures
    return make_edition(loaded, images, layers, out, name, run=run)


class Marked:
    """Pictures of the role `shown`, and where their cue is.

    Args:
        roles: the pictures.
        preprocessing: of the network.
    """

    def __init__(self, roles: Roles, preprocessing: Preprocessing) -> None:
        self.images = roles.labelled("shown", preprocessing).pictures
        self.boxes = spurious_cues.boxes(roles.folder / "shown")

    def maps(self) -> Tensor:
        """Return where the cue is: bool (picture, height, width)."""
        import torch

        high, wide = self.images[0].shape[-2:]
        found = torch.zeros(len(self.images), high, wide, dtype=torch.bool)
        for i, own in enumerate(found):
            if (box := self.boxes.get(str(self.images.source_id(i)))) is not None:
                left, top, right, bottom = box
                own[top:bottom, left:right] = True
        return found


def selectivity(
    name: str,
    model: nn.Module,
    layers: Sequence[str | Layer],
    shown: Marked,
    computed: NetworkExemplars,
    run: RunConfig | None = None,
) -> dict[Unit, float]:
    """Return, of each unit, which share of where it is active lies in the cue; see `regions`."""
    from leaderboard.applications.common.selectivity import Regions, active_inside

    pictures = Regions(shown.images, shown.maps())
    found = active_inside(model, pictures, layers, computed, run)
    return {
        Unit(name, label, int(unit)): share
        for label, own in found.items()
        for unit, share in zip(computed.layers[label].units.tolist(), own, strict=True)
    }


def shares(name: str, shown: Marked, computed: NetworkExemplars) -> dict[Unit, float]:
    """Return, of each unit, which share of its exemplars' masks lies in the cue, each alike.

    Args:
        name: of the network.
        shown: the pictures that exemplars are of.
        computed: the exemplars.
    """
    maps = shown.maps()
    found: dict[Unit, float] = {}
    for label, layer in computed.layers.items():
        both, whole = layer.inside(maps)
        shares = (both.double() / whole.clamp(min=1)).mean(1).tolist()
        found |= {
            Unit(name, label, unit): share
            for unit, share in zip(layer.units.tolist(), shares, strict=True)
        }
    return found


def preprocessing_of(loaded: Loaded) -> Preprocessing:
    """Return a network's own preprocessing, or ImageNet's."""
    from milannotations.exemplars import Preprocessing

    return loaded.preprocessing or Preprocessing.imagenet()


def _outputs(loaded: Loaded, shown: Labelled) -> int:
    from milannotations.exemplars import Ablator

    first = Labelled([shown.pictures[0]], shown.labels[:1], {})
    layer = next(name for name, _ in loaded.model.named_modules() if name)
    return int(Ablator(loaded.model, first.pictures, [layer]).logits([{}]).shape[-1])


def _label(layer: str | Layer) -> str:
    from milannotations.exemplars import Layer

    return (Layer.parse(layer) if isinstance(layer, str) else layer).label
