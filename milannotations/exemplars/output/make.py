"""Exemplars of a network, written as a config of an edition: what `milan exemplars` does."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from milannotations import catalog
from milannotations.editions.resumable import explain_full_disk, hold_lock
from milannotations.editions.writing import check_destination
from milannotations.exemplars import distributed
from milannotations.exemplars.checkpoint import KEPT
from milannotations.exemplars.engine import QUANTILE, K, compute
from milannotations.exemplars.hooks.layers import Layer
from milannotations.exemplars.output.options import OutputOptions, check_labels
from milannotations.exemplars.results import NetworkExemplars
from milannotations.exemplars.run_config import RunConfig

if TYPE_CHECKING:
    from milannotations.exemplars.images.latents import GeneratedImages
    from milannotations.exemplars.images.sources import ImageDataset
    from milannotations.exemplars.networks.loaded_network import LoadedNetwork


def make_edition(
    loaded: LoadedNetwork,
    images: ImageDataset | GeneratedImages,
    layers: Sequence[str | Layer],
    out: Path,
    name: str,
    k: int = K,
    quantile: float = QUANTILE,
    *,
    run: RunConfig | None = None,
    options: OutputOptions | None = None,
    overwrite: bool = False,
) -> NetworkExemplars | None:
    """Compute exemplars and write them as the config `name` of the edition at `out`.

    After an interruption (also a kill), a call with the same arguments resumes and gives the same
    bytes. Under `torchrun` every process computes, and the first one writes.

    Returns:
        The exemplars; None in processes that do not write.

    Raises:
        InputError: see `compute` and `writing.check_destination`; `out` has the config already.
    """
    from milannotations.exemplars.output.edition import write
    from milannotations.exemplars.output.npy import check_npy_folder, write_npy

    name = catalog.canonical(name)
    options, group = options or OutputOptions(), distributed.current()
    # refuse before the pass, which may take hours, what cannot be written after it
    parsed = [Layer.parse(layer) if isinstance(layer, str) else layer for layer in layers]
    check_labels(layer.label for layer in parsed)
    if options.npy is not None:
        check_npy_folder(options.npy)
    check_destination(out, name, overwrite=True)
    folder = out / f".{name}.pass"
    if not folder.exists():  # otherwise an earlier run was interrupted, maybe after writing
        check_destination(out, name, overwrite=overwrite)
    run = replace(
        run or RunConfig(), checkpoint=folder, missing=loaded.missing, prefix=loaded.prefix
    )
    with (
        explain_full_disk(out, KEPT),
        hold_lock(out, f"{name}.pass") if group.rank == 0 else nullcontext(),
    ):
        exemplars = compute(loaded.model, images, parsed, k, quantile, run=run)
        if group.rank != 0:
            return None
        write(
            exemplars,
            images,
            out,
            name,
            masks=options.masks,
            quality=options.quality,
            side=options.side,
            made_from={
                "model": loaded.source,
                "images": images.source,
                "preprocessing": images.preprocessing,
            },
            overwrite=True,
            progress=run.progress,
        )
        if options.npy is not None:
            write_npy(exemplars, images, options.npy, masks=options.masks, side=options.side)
        shutil.rmtree(folder)
    return exemplars
