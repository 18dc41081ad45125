"""Exemplars of a network as a config of an edition: what `milan exemplars` does."""

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
from milannotations.exemplars.output.options import OutputOptions, check_form, check_labels
from milannotations.exemplars.results import NetworkExemplars
from milannotations.exemplars.run_config import RunConfig

if TYPE_CHECKING:
    from milannotations.exemplars.images.latents import Generated
    from milannotations.exemplars.images.sources import Pictures
    from milannotations.exemplars.networks.loading import Loaded


def make(
    loaded: Loaded,
    images: Pictures | Generated,
    layers: Sequence[str | Layer],
    out: Path,
    name: str,
    k: int = K,
    quantile: float = QUANTILE,
    *,
    run: RunConfig | None = None,
    form: OutputOptions | None = None,
    overwrite: bool = False,
) -> NetworkExemplars | None:
    """Compute exemplars and write them as the config `name` of the edition at `out`.

    Run again after an interruption, by a kill too, with the same arguments, it goes on and
    gives the same bytes. Under `torchrun` every process computes, the first one writes.

    Returns:
        What was found; None where another process writes.

    Raises:
        InputError: see `compute` and `writing.check_destination`; `out` has the config already.
    """
    from milannotations.exemplars.output.edition import check_npy_place, write, write_npy

    name = catalog.canonical(name)
    form, group = form or OutputOptions(), distributed.current()
    # what cannot be written is said before the pass, which may take hours
    check_form(form.masks, form.quality, form.side)
    wanted = [Layer.parse(each) if isinstance(each, str) else each for each in layers]
    check_labels(each.label for each in wanted)
    if form.npy is not None:
        check_npy_place(form.npy)
    check_destination(out, name, overwrite=True)
    folder = out / f".{name}.pass"
    if not folder.exists():  # else an earlier run was interrupted, perhaps while it cleared up
        check_destination(out, name, overwrite=overwrite)
    run = replace(
        run or RunConfig(), checkpoint=folder, missing=loaded.missing, prefix=loaded.prefix
    )
    with (
        explain_full_disk(out, KEPT),
        hold_lock(out, f"{name}.pass") if group.rank == 0 else nullcontext(),
    ):
        computed = compute(loaded.model, images, wanted, k, quantile, run=run)
        if group.rank != 0:
            return None
        write(
            computed,
            images,
            out,
            name,
            masks=form.masks,
            quality=form.quality,
            side=form.side,
            made_from={
                "model": loaded.source,
                "images": images.source,
                "preprocessing": images.preprocessing,
            },
            overwrite=True,
            progress=run.progress,
        )
        if form.npy is not None:
            write_npy(computed, images, form.npy, masks=form.masks, side=form.side)
        shutil.rmtree(folder)
    return computed
