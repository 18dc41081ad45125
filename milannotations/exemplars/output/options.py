"""What exemplars may be asked to be written as, and which pictures that takes."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from annotated_types import Ge, Interval

from milannotations.editions.shards import check_quality
from milannotations.errors import InputError

if TYPE_CHECKING:
    from milannotations.exemplars.results import NetworkExemplars

MASKS = ("clamped", "2022")
_LABEL = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._+-]{0,99}")


@dataclass(frozen=True)
class OutputOptions:
    """How exemplars are written.

    Attributes:
        masks: masks beyond an image's edge: clamped, or 2022 (zeros); see
            `milannotations.exemplars.tallies.masks`.
        quality: quality of lossy WebP, 1 to 100 (default: lossless).
        side: side of images and masks in pixels (default: the network's input size).
        npy: folder to write the 2022 format to as well.
    """

    masks: str = "clamped"
    quality: Annotated[int, Interval(ge=1, le=100)] | None = None
    side: Annotated[int, Ge(1)] | None = None
    npy: Path | None = None


def check_form(masks: str = "clamped", quality: int | None = None, side: int | None = None) -> None:
    """Raise InputError unless exemplars can be written with such masks, pictures and sides."""
    check_quality(quality)
    if masks not in MASKS:
        raise InputError(f"No masks '{masks}' (masks: {', '.join(MASKS)}).")
    if side is not None and side < 1:
        raise InputError(f"Pictures of {side} pixels were asked for; expected at least 1.")


def check_labels(labels: Iterable[str]) -> None:
    """Raise InputError unless layers may be called so: their labels name files and folders."""
    for label in labels:
        if not _LABEL.fullmatch(label):
            raise InputError(
                f"A layer is called {label[:100]!r}, which is to name a file; expected up to 100 "
                "letters, digits, dots, dashes and underscores. Give it another label: "
                "Layer(name, label='...')."
            )


def shown(computed: NetworkExemplars) -> list[int]:
    """Return the ids of all exemplars of all layers, ascending, each once."""
    return sorted(
        {id_ for layer in computed.layers.values() for id_ in layer.ids.unique().tolist()}
    )
