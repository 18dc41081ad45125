"""`milan exemplars`: exemplars of a network's units, from images to an edition."""

from __future__ import annotations

import sys
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from milannotations.errors import InputError
from milannotations.utils.terminal import Json, examples, print_json, print_table

if TYPE_CHECKING:
    from milannotations.exemplars.dry_run import Listed, Plan
    from milannotations.exemplars.results import NetworkExemplars

EPILOG = examples(
    "milan exemplars torchvision:resnet18 --random --layer layer3 layer4 --images val --out out",
    "milan exemplars torchvision:resnet18@DEFAULT --list-layers",
)


def exemplars(
    model: Annotated[
        str,
        typer.Argument(
            help="torchvision:NAME\\[@WEIGHTS], timm:NAME, hf:NAME_OR_FOLDER or "
            "path/to/file.py:factory."
        ),
    ],
    layer: Annotated[
        list[str] | None,
        typer.Option(help="Layers: dotted names, NAME:KEY where a module gives several tensors."),
    ] = None,
    images: Annotated[
        str | None, typer.Option(help="Folder of pictures, or a 'datasets' data set.")
    ] = None,
    out: Annotated[str | None, typer.Option(help="Folder of the edition; made, or added to.")] = (
        None
    ),
    weights: Annotated[
        str | None, typer.Option(help="Weights: safetensors, or a .pth of tensors alone.")
    ] = None,
    random: Annotated[
        bool, typer.Option("--random", help="Random weights, of a fixed seed.")
    ] = False,
    name: Annotated[
        str | None, typer.Option(help="Config and network (default: <model>-<images folder>).")
    ] = None,
    units: Annotated[
        str | None, typer.Option(help="Of every layer, these units alone: 0-99 or 3,7,20-29.")
    ] = None,
    limit: Annotated[
        int | None, typer.Option(help="So many pictures, evenly over the folder.", min=1)
    ] = None,
    split: Annotated[str | None, typer.Option(help="Of a 'datasets' data set.")] = None,
    column: Annotated[
        str | None, typer.Option(help="Of a 'datasets' data set: which holds the pictures.")
    ] = None,
    latents: Annotated[
        str | None, typer.Option(help="Of a generator, instead of --images: its inputs (.pth).")
    ] = None,
    preprocess: Annotated[
        str | None,
        typer.Option(help="imagenet[:SIDE] or file.py:name, instead of the model's own."),
    ] = None,
    k: Annotated[int, typer.Option("--k", help="Exemplars of a unit.", min=1)] = 15,
    quantile: Annotated[float, typer.Option(help="Of activations: the threshold of masks.")] = 0.99,
    read: Annotated[
        str,
        typer.Option(help="A layer's output before (pre) or after (post) in-place operations."),
    ] = "auto",
    prefix_tokens: Annotated[
        int | None, typer.Option(help="Class and register tokens before the patches.", min=0)
    ] = None,
    channels_last: Annotated[
        bool, typer.Option("--channels-last", help="Maps come as (image, h, w, unit).")
    ] = False,
    sae: Annotated[
        str | None,
        typer.Option(help="Laid over the layer: path/to/file.py:factory of a module."),
    ] = None,
    masks: Annotated[str, typer.Option(help="Beyond the edge: clamped, or 2022 (zeros).")] = (
        "clamped"
    ),
    side: Annotated[
        int | None, typer.Option(help="Of pictures and masks (default: the input's).", min=1)
    ] = None,
    quality: Annotated[
        int | None, typer.Option(help="Of lossy WebP (default: lossless).", min=1, max=100)
    ] = None,
    also_npy: Annotated[
        str | None, typer.Option(help="A folder to write the 2022 format to as well.")
    ] = None,
    batch_size: Annotated[int, typer.Option(help="Images at a time.", min=1)] = 32,
    workers: Annotated[int, typer.Option(help="Processes that load images.", min=0)] = 0,
    device: Annotated[str | None, typer.Option(help="cpu, cuda, cuda:1, mps.")] = None,
    dtype: Annotated[str, typer.Option(help="float32, bfloat16 or float16.")] = "float32",
    skip_bad: Annotated[
        bool, typer.Option("--skip-bad", help="Leave out pictures that cannot be read.")
    ] = False,
    seed: Annotated[int, typer.Option(help="Of the positions that quantiles look at.", min=0)] = 0,
    checkpoint_every: Annotated[
        float, typer.Option(help="Seconds between two writings of what a rerun goes on from.")
    ] = 120.0,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Replace the config if it is there.")
    ] = False,
    list_layers: Annotated[
        bool, typer.Option("--list-layers", help="Print the network's layers and stop.")
    ] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Say what would be computed, and what it needs.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Find what excites the units of a network most, and write it as an edition."""
    from milannotations.exemplars import dry_run as planning
    from milannotations.exemplars.hooks.layers import Layer
    from milannotations.exemplars.images.batches import batches
    from milannotations.exemplars.images.latents import Generated, Latents
    from milannotations.exemplars.images.sources import open_images
    from milannotations.exemplars.networks import loading
    from milannotations.exemplars.networks.preprocessing import Preprocessing
    from milannotations.exemplars.output import make
    from milannotations.exemplars.run_config import RunConfig

    loaded = loading.load_model(model, weights=weights, random=random)
    preprocessing = Preprocessing.parse(preprocess) if preprocess else loaded.preprocessing
    if preprocessing is None:
        preprocessing = Preprocessing.imagenet()
        if not latents:
            print(
                f"{model} says no preprocessing of its own: pictures are resized to 256, cropped "
                "to 224 and normalised as for ImageNet. Another: --preprocess",
                file=sys.stderr,
            )
    over = loading.load_module(sae) if sae else None
    chosen = [
        Layer.parse(
            each,
            units=_units(units),
            then=over,
            layout="maps-last" if channels_last else "auto",
            prefix=prefix_tokens,
        )
        for each in layer or ()
    ]
    data: Any = None
    if latents:
        data = Generated(loaded.model, Latents(latents, limit=limit))
    elif images:
        data = open_images(images, preprocessing, limit=limit, split=split, column=column)
    if list_layers:
        sample: Any = (preprocessing.blank()[None],)
        if data is not None:
            sample = next(batches(data, [0], 1, 0, None)).arguments
        _print_layers(planning.list_layers(loaded.model, sample), as_json)
        return
    if data is None or (out is None and not dry_run):
        lacking = "--images DIR" if data is None else "--out DIR"
        raise typer.BadParameter(f"give {lacking}, or --list-layers to see what there is")
    run = RunConfig(
        batch_size=batch_size,
        workers=workers,
        device=device,
        dtype=dtype,
        read=read,
        missing=loaded.missing,
        prefix=loaded.prefix,
        skip_bad=skip_bad,
        seed=seed,
        checkpoint_every=checkpoint_every,
        progress=sys.stderr.isatty(),
    )
    if dry_run:
        _print_plan(planning.plan(loaded, data, chosen, k, quantile, run, quality), as_json)
        return
    assert out is not None
    name = name or loading.default_name(model, Path(images or latents or "").resolve().name)
    form = make.Form(masks, quality, side, Path(also_npy) if also_npy else None)
    computed = make.make(
        loaded, data, chosen, Path(out), name, k, quantile, run=run, form=form, overwrite=overwrite
    )
    if computed is not None:
        _print_made(computed, Path(out), name, as_json)


def _units(text: str | None) -> tuple[int, ...] | None:
    """Return the units that `0-99` or `3,7,20-29` stands for.

    Example:
        >>> _units("3,7-9")
        (3, 7, 8, 9)
    """
    if text is None:
        return None
    found: set[int] = set()
    for part in text.split(","):
        begin, dash, end = part.strip().partition("-")
        if not begin.isdigit() or (dash and not end.isdigit()):
            raise InputError(f"--units {text}: expected 0-99 or 3,7,20-29.")
        found |= set(range(int(begin), int(end or begin) + 1))
    if not found:
        raise InputError(f"--units {text} names no unit.")
    return tuple(sorted(found))


def _print_layers(found: list[Listed], as_json: bool) -> None:
    if as_json:
        print_json([vars(each) for each in found])
    else:
        print_table(
            ("layer", "module", "gives, for one image"),
            [(each.name, each.module, each.gives) for each in found],
        )


def _print_plan(plan: Plan, as_json: bool) -> None:
    if as_json:
        print_json(asdict(plan))
        return
    print_table(
        ("layer", "kind", "units", "maps"),
        [
            (each.label, each.unit_kind, f"{each.units:,}", f"{each.grid[0]} x {each.grid[1]}")
            for each in plan.layers
        ],
    )
    size = "" if plan.input_size is None else f" of {plan.input_size[0]} x {plan.input_size[1]}"
    print(
        f"\n{plan.images:,} images{size}, each through the network once. The tallies need up to "
        f"{plan.memory / 1e6:,.0f} MB of memory beside the network; disk, about "
        f"{plan.disk / 1e6:,.0f} MB. Nothing was computed."
    )


def _print_made(computed: NetworkExemplars, out: Path, name: str, as_json: bool) -> None:
    counts = {
        label: {
            "units": len(layer.units),
            "unit_kind": layer.unit_kind,
            "dead": int(layer.dead.sum()),
            "silent": int(layer.silent.sum()),
        }
        for label, layer in computed.layers.items()
    }
    if as_json:
        print_json(
            {
                "edition": str(out),
                "config": name,
                "images": computed.images,
                "skipped": [asdict(each) for each in computed.skipped],
                "layers": counts,
            }
        )
        return
    print_table(
        ("layer", "kind", "units", "dead", "never fire"),
        [
            (label, str(c["unit_kind"]), *(f"{c[key]:,}" for key in ("units", "dead", "silent")))
            for label, c in counts.items()
        ],
    )
    print(f"\n{computed.images:,} images seen, {len(computed.skipped):,} left out as unreadable.")
    print(f'Open it: datasets.load_dataset("{out}", "{name}")')
    print(f"Look at it: milan data show {out} --config {name}")
