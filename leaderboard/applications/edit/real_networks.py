"""Networks of real images with the images of all roles, and what their units see of the cue."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from leaderboard.applications.common.ablated_accuracy import ROLES, AblatedNetwork
from leaderboard.applications.common.labelled_images import LabelledImages
from leaderboard.applications.edit import spurious_cues
from leaderboard.applications.edit.image_roles import ImageRoles
from milannotations.errors import InputError, some
from milannotations.schema import Unit

if TYPE_CHECKING:
    from torch import Tensor, nn

    from milannotations.exemplars import (
        Layer,
        LoadedNetwork,
        NetworkExemplars,
        Preprocessing,
        RunConfig,
    )


def prepare_network(
    loaded: LoadedNetwork,
    name: str,
    layers: Sequence[str | Layer],
    roles: ImageRoles,
    *,
    seed: int = 0,
    run: RunConfig | None = None,
    folder: Path | None = None,
    computed: NetworkExemplars | None = None,
) -> AblatedNetwork:
    """Prepare a network for an edit: open the images of all roles, and measure selectivity.

    Args:
        loaded: the network.
        name: name of the network in predictions.
        layers: layers whose units may be ablated.
        roles: the images.
        seed: random seed of the network's training, and of draws.
        run: batches and device of the passes.
        folder: cache of accuracies.
        computed: exemplars of those layers on role `shown`; None computes them.

    Raises:
        InputError: weights are missing; the network has another number of outputs than there are
            classes.
    """
    from milannotations.exemplars import compute
    from milannotations.exemplars.networks.loading import resolve_preprocessing
    from milannotations.exemplars.run_config import RunConfig

    if loaded.missing:
        raise InputError(
            f"The weights of {name} lack {some(loaded.missing)}, so its predictions would be "
            "meaningless. Give a file with all weights: --weights FILE."
        )
    preprocessing = resolve_preprocessing(loaded)
    cued = CuedImages(roles, preprocessing)
    run = replace(run or RunConfig(), prefix=loaded.prefix)
    computed = computed or compute(loaded.model, cued.images, layers, run=run)
    images = {role: roles.load(role, preprocessing) for role in ROLES}
    # The last layer is fine-tuned on images that a network which came trained has not seen.
    images["training"] = roles.load("train" if "train" in roles.parts else "shown", preprocessing)
    outputs = _count_outputs(loaded, images["validation-clean"])
    if outputs != len(roles.classes):
        raise InputError(
            f"The network has {outputs:,} output classes, and there are {len(roles.classes):,} "
            f"class folders: {some(roles.classes)}. Name the folders of all its classes, in the "
            "order of its outputs: --classes FILE."
        )
    return AblatedNetwork(
        name,
        loaded.model,
        {layer: len(computed.layers[_label(layer)].units) for layer in layers},
        images,
        roles.classes,
        seed=seed,
        source=loaded.source,
        mask_shares=measure_mask_shares(name, cued, computed),
        selectivity=measure_selectivity(name, loaded.model, layers, cued, computed, run),
        run=run,
        folder=folder,
    )


def write_exemplars(
    loaded: LoadedNetwork,
    name: str,
    layers: Sequence[str | Layer],
    roles: ImageRoles,
    out: Path,
    *,
    run: RunConfig | None = None,
) -> NetworkExemplars | None:
    """Write exemplars of the images of role `shown`, to be described, as a config of an edition."""
    from milannotations.exemplars.networks.loading import resolve_preprocessing
    from milannotations.exemplars.output.make import make_edition

    images = roles.load("shown", resolve_preprocessing(loaded)).images
    return make_edition(loaded, images, layers, out, name, run=run)


class CuedImages:
    """Images of role `shown` with the location of the cue on each.

    Args:
        roles: the images.
        preprocessing: preprocessing of the network.
    """

    def __init__(self, roles: ImageRoles, preprocessing: Preprocessing) -> None:
        self.images = roles.load("shown", preprocessing).images
        self.boxes = spurious_cues.read_boxes(roles.folder / "shown")

    def cue_maps(self) -> Tensor:
        """Return where the cue is: bool (image, height, width)."""
        import torch

        height, width = self.images[0].shape[-2:]
        maps = torch.zeros(len(self.images), height, width, dtype=torch.bool)
        for i, cue_map in enumerate(maps):
            if (box := self.boxes.get(str(self.images.source_id(i)))) is not None:
                left, top, right, bottom = box
                cue_map[top:bottom, left:right] = True
        return maps


def measure_selectivity(
    name: str,
    model: nn.Module,
    layers: Sequence[str | Layer],
    cued: CuedImages,
    computed: NetworkExemplars,
    run: RunConfig | None = None,
) -> dict[Unit, float]:
    """Measure each unit's selectivity for the cue, over all images; see `common.selectivity`.

    Args:
        name: name of the network in predictions.
        model: the network.
        layers: layers of the units.
        cued: images with cues.
        computed: exemplars of those layers on those images.
        run: batches and device of the pass.
    """
    from leaderboard.applications.common.selectivity import (
        ImagesWithRegions,
        compute_selectivity,
    )

    images = ImagesWithRegions(cued.images, cued.cue_maps())
    by_layer = compute_selectivity(model, images, layers, computed, run)
    return {
        Unit(name, label, int(unit)): value
        for label, values in by_layer.items()
        for unit, value in zip(computed.layers[label].units.tolist(), values, strict=True)
    }


def measure_mask_shares(
    name: str, cued: CuedImages, computed: NetworkExemplars
) -> dict[Unit, float]:
    """Measure the share of each unit's exemplar masks inside the cue, averaged over exemplars.

    Args:
        name: name of the network in predictions.
        cued: images of the exemplars, with cues.
        computed: the exemplars.
    """
    maps = cued.cue_maps()
    shares: dict[Unit, float] = {}
    for label, layer in computed.layers.items():
        inside, total = layer.inside(maps)  # pixels (unit, exemplar)
        means = (inside.double() / total.clamp(min=1)).mean(1).tolist()
        shares |= {
            Unit(name, label, unit): share
            for unit, share in zip(layer.units.tolist(), means, strict=True)
        }
    return shares


def _count_outputs(loaded: LoadedNetwork, labelled: LabelledImages) -> int:
    """Return the number of the network's output classes, from one image."""
    from milannotations.exemplars import Ablator

    layer = next(name for name, _ in loaded.model.named_modules() if name)
    return int(Ablator(loaded.model, [labelled.images[0]], [layer]).logits([{}]).shape[-1])


def _label(layer: str | Layer) -> str:
    from milannotations.exemplars import Layer

    return (Layer.parse(layer) if isinstance(layer, str) else layer).label
