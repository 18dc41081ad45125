"""`milan exemplars`: exemplars of a network's units, from images to an edition."""

from __future__ import annotations

import sys
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from milannotations.errors import InputError
from milannotations.exemplars.options import ImageOptions, NetworkOptions
from milannotations.exemplars.output.options import OutputOptions
from milannotations.exemplars.run_config import RunConfig
from milannotations.utils.options import OptionsOf, with_options
from milannotations.utils.terminal import Json, examples, print_json, print_table

if TYPE_CHECKING:
    from milannotations.exemplars.dry_run import ModuleOutput, Plan
    from milannotations.exemplars.results import NetworkExemplars

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)


@app.command(
    epilog=examples(
        "milan exemplars torchvision:resnet18 --random --layer layer3 layer4 --images val "
        "--out out",
        "milan exemplars torchvision:resnet18@DEFAULT --list-layers",
    )
)
@with_options
def exemplars(
    model: Annotated[
        str,
        typer.Argument(
            help="torchvision:NAME\\[@WEIGHTS], timm:NAME, hf:NAME_OR_FOLDER or "
            "path/to/file.py:factory."
        ),
    ],
    network: Annotated[NetworkOptions, OptionsOf(NetworkOptions)],
    source: Annotated[ImageOptions, OptionsOf(ImageOptions)],
    form: Annotated[OutputOptions, OptionsOf(OutputOptions, names={"npy": "--also-npy"})],
    run: Annotated[
        dict[str, Any],
        OptionsOf(
            RunConfig,
            only=(
                "read",
                "batch_size",
                "workers",
                "device",
                "dtype",
                "skip_bad",
                "seed",
                "checkpoint_every",
            ),
        ),
    ],
    layer: Annotated[
        list[str] | None,
        typer.Option(help="Layers: dotted names, NAME:KEY where a module gives several tensors."),
    ] = None,
    images: Annotated[
        str | None, typer.Option(help="Folder of images, or a 'datasets' dataset.")
    ] = None,
    latents: Annotated[
        str | None, typer.Option(help="Inputs of a generator (.pth), instead of --images.")
    ] = None,
    out: Annotated[
        str | None, typer.Option(help="Folder of the edition; made, or added to.")
    ] = None,
    name: Annotated[
        str | None,
        typer.Option(help="Name of config and network (default: <model>-<images folder>)."),
    ] = None,
    units: Annotated[
        str | None, typer.Option(help="Units of every layer (default: all): 0-99 or 3,7,20-29.")
    ] = None,
    k: Annotated[int, typer.Option("--k", help="Exemplars of each unit.", min=1)] = 15,
    quantile: Annotated[
        float, typer.Option(help="Quantile of a unit's activations: the threshold of its masks.")
    ] = 0.99,
    prefix_tokens: Annotated[
        int | None, typer.Option(help="Class and register tokens before the patches.", min=0)
    ] = None,
    channels_last: Annotated[
        bool, typer.Option("--channels-last", help="Read maps as (image, h, w, unit).")
    ] = False,
    sae: Annotated[
        str | None,
        typer.Option(help="Autoencoder to lay over the layers: path/to/file.py:factory."),
    ] = None,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Replace the config if it is there.")
    ] = False,
    list_layers: Annotated[
        bool, typer.Option("--list-layers", help="Print the network's layers and stop.")
    ] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Print what would be computed, and what it needs.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Find the images that activate a network's units most.

    They are written as an edition, with masks of the regions that activate each unit.
    """
    # here, because torch takes seconds to import and --help must answer at once
    from milannotations.exemplars import dry_run as planning
    from milannotations.exemplars.hooks.layers import Layer
    from milannotations.exemplars.images.batches import load_batches
    from milannotations.exemplars.images.latents import GeneratedImages, Latents
    from milannotations.exemplars.images.sources import open_images
    from milannotations.exemplars.networks import loading, names
    from milannotations.exemplars.networks.preprocessing import Preprocessing
    from milannotations.exemplars.output.make import make_edition

    loaded = loading.load_model(model, **asdict(network))
    # a generator is given latents, which are not preprocessed
    preprocessing = Preprocessing.imagenet() if latents else loading.resolve_preprocessing(loaded)
    autoencoder = loading.build_module(sae) if sae else None
    layers = [
        Layer.parse(
            text,
            units=_units(units),
            encoder=autoencoder,
            layout="maps-last" if channels_last else "auto",
            prefix=prefix_tokens,
        )
        for text in layer or ()
    ]
    data: Any = None
    if latents:
        data = GeneratedImages(loaded.model, Latents(latents, limit=source.limit))
    elif images:
        data = open_images(images, preprocessing, **asdict(source))
    if list_layers:
        sample: Any = (preprocessing.blank()[None],)
        if data is not None:
            sample = next(load_batches(data, [0], 1, 0, None)).arguments
        _print_layers(planning.list_layers(loaded.model, sample), as_json)
        return
    if data is None or (out is None and not dry_run):
        missing = "--images DIR" if data is None else "--out DIR"
        raise typer.BadParameter(f"give {missing}, or --list-layers to see the layers")
    config = RunConfig(
        missing=loaded.missing,
        prefix=loaded.prefix,
        progress=sys.stderr.isatty(),
        **run,
    )
    if dry_run:
        plan = planning.plan(loaded, data, layers, k, quantile, config, form.quality)
        _print_plan(plan, as_json)
        return
    assert out is not None
    name = name or names.default_config_name(model, Path(images or latents or "").resolve().name)
    computed = make_edition(
        loaded,
        data,
        layers,
        Path(out),
        name,
        k,
        quantile,
        run=config,
        options=form,
        overwrite=overwrite,
    )
    if computed is not None:
        _print_results(computed, Path(out), name, as_json)


def _units(text: str | None) -> tuple[int, ...] | None:
    """Parse the indices of units, such as `0-99` or `3,7,20-29`.

    Returns:
        Ascending indices; None for None.

    Raises:
        InputError: another form, or no unit.

    Example:
        >>> _units("3,7-9")
        (3, 7, 8, 9)
    """
    if text is None:
        return None
    units: set[int] = set()
    for part in text.split(","):
        begin, dash, end = part.strip().partition("-")
        if not begin.isdigit() or (dash and not end.isdigit()):
            raise InputError(f"--units {text}: expected 0-99 or 3,7,20-29.")
        units |= set(range(int(begin), int(end or begin) + 1))
    if not units:
        raise InputError(f"--units {text} names no unit.")
    return tuple(sorted(units))


def _print_layers(outputs: list[ModuleOutput], as_json: bool) -> None:
    if as_json:
        print_json([vars(output) for output in outputs])
    else:
        print_table(
            ("layer", "module", "output for one image"),
            [(output.name, output.module, output.gives) for output in outputs],
        )


def _print_plan(plan: Plan, as_json: bool) -> None:
    if as_json:
        print_json(asdict(plan))
        return
    print_table(
        ("layer", "kind", "units", "maps"),
        [
            (layer.label, layer.unit_kind, f"{layer.units:,}", f"{layer.grid[0]} x {layer.grid[1]}")
            for layer in plan.layers
        ],
    )
    size = "" if plan.input_size is None else f" of {plan.input_size[0]} x {plan.input_size[1]}"
    print(
        f"\n{plan.images:,} images{size}, each through the network once. The tallies need up to "
        f"{plan.memory / 1e6:,.0f} MB of memory beside the network's own, and the edition about "
        f"{plan.disk / 1e6:,.0f} MB of disk. Nothing was computed."
    )


def _print_results(exemplars: NetworkExemplars, out: Path, name: str, as_json: bool) -> None:
    counts = {
        label: {
            "units": len(layer.units),
            "unit_kind": layer.unit_kind,
            "dead": int(layer.dead.sum()),
            "silent": int(layer.silent.sum()),
        }
        for label, layer in exemplars.layers.items()
    }
    if as_json:
        print_json(
            {
                "edition": str(out),
                "config": name,
                "images": exemplars.images,
                "skipped": [asdict(image) for image in exemplars.skipped],
                "layers": counts,
            }
        )
        return
    print_table(
        ("layer", "kind", "units", "dead", "never fire"),
        [
            (label, str(n["unit_kind"]), *(f"{n[key]:,}" for key in ("units", "dead", "silent")))
            for label, n in counts.items()
        ],
    )
    print(f"\n{exemplars.images:,} images seen, {len(exemplars.skipped):,} left out as unreadable.")
    print(f'Open it: datasets.load_dataset("{out}", "{name}")')
    print(f"Look at it: milan data show {out} --config {name}")
