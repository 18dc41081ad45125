"""The network that is described, on the command line."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Annotated

import typer

from milannotations.errors import InputError

if TYPE_CHECKING:
    from baselines import Subject

Model = Annotated[
    str | None,
    typer.Option(
        "--subject",
        help="The network that the units are of, for methods that need its activations: as of "
        "milan exemplars.",
    ),
]
Probe = Annotated[
    str | None,
    typer.Option(
        "--probe", help="What it is shown: broden:DIR, coco:DIR, segments:DIR or images:DIR."
    ),
]
Weights = Annotated[
    str | None, typer.Option("--weights", help="Of the subject: safetensors or a .pth.")
]
Random = Annotated[bool, typer.Option("--random", help="Random weights of the subject.")]
Device = Annotated[str | None, typer.Option("--device", help="For the subject: cpu, cuda, mps.")]
Cache = Annotated[
    str | None, typer.Option("--cache", help="Folder that keeps what the subject's passes found.")
]


def subject_of(
    model: str | None,
    probe: str | None,
    weights: str | None,
    random: bool,
    device: str | None,
    cache: str | None,
) -> Subject | None:
    """Return the subject that was asked for, or None.

    Raises:
        InputError: half of one.
    """
    if model is None and probe is None:
        if weights or random or device or cache:
            raise InputError("Weights, device and cache are of a subject: --subject MODEL.")
        return None
    if model is None or probe is None:
        lacking = "--probe PROBE" if probe is None else "--subject MODEL"
        raise InputError(f"A network on a probe data set takes both; add {lacking}.")
    from baselines import Subject

    return Subject(
        model,
        probe,
        weights=weights,
        random=random,
        device=device,
        cache=cache,
        progress=sys.stderr.isatty(),
    )
