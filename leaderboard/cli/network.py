"""Options of verbs that run the described network, and the network that they open."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated, Any

import typer

from leaderboard.cli.options import OptionsOf, progress_wanted
from milannotations.errors import InputError
from milannotations.exemplars.options import NetworkOptions
from milannotations.exemplars.run_config import RunConfig

if TYPE_CHECKING:
    from baselines import Subject

SubjectModel = Annotated[
    str | None,
    typer.Option(
        "--subject",
        help="Network of the units, as in milan exemplars; for methods that need activations.",
    ),
]
Probe = Annotated[
    str | None,
    typer.Option(help="Probe dataset: broden:DIR, coco:DIR, segments:DIR or images:DIR."),
]
DeviceOptions = OptionsOf(RunConfig, only=("device",))


def open_subject(
    model: str | None,
    probe: str | None,
    network: NetworkOptions,
    device: dict[str, Any],
    cache: str | None,
) -> Subject | None:
    """Return the network with its probe dataset, or None where neither is given.

    Raises:
        InputError: one of them without the other; options of a network without one.
    """
    if model is None and probe is None:
        if network != NetworkOptions() or device or cache:
            raise InputError(
                "--weights, --random, --preprocess, --device and --cache belong to a network: "
                "add --subject MODEL --probe PROBE."
            )
        return None
    if model is None or probe is None:
        missing = "--probe PROBE" if probe is None else "--subject MODEL"
        raise InputError(f"A network and its probe dataset go together: add {missing}.")
    from baselines import Subject

    return Subject(
        model, probe, **asdict(network), **device, cache=cache, progress=progress_wanted()
    )
