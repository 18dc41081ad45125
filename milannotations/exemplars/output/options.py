"""Options of how exemplars are written, and the check of layer labels that name files."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from annotated_types import Ge, Interval

from milannotations.editions.shards import check_quality
from milannotations.errors import InputError

_LABEL = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._+-]{0,99}")


@dataclass(frozen=True)
class OutputOptions:
    """Options for writing exemplars.

    Attributes:
        masks: masks beyond an image's edge: clamped, or 2022 (zeros); see
            `milannotations.exemplars.tallies.masks`.
        quality: quality of lossy WebP, 1 to 100 (default: lossless).
        side: side of images and masks in pixels (default: the network's input size).
        npy: folder to write the 2022 format to as well.

    Raises:
        InputError: no such masks, quality or side.
    """

    masks: str = "clamped"
    quality: Annotated[int, Interval(ge=1, le=100)] | None = None
    side: Annotated[int, Ge(1)] | None = None
    npy: Path | None = None

    def __post_init__(self) -> None:
        from milannotations.exemplars.tallies.masks import HOWS

        check_quality(self.quality)
        if self.masks not in HOWS:
            raise InputError(f"No masks '{self.masks}' (masks: {', '.join(HOWS)}).")
        if self.side is not None and self.side < 1:
            raise InputError(f"Images have a side of {self.side} pixels; expected at least 1.")


def check_labels(labels: Iterable[str]) -> None:
    """Raise InputError unless the labels of layers can name files and folders."""
    for label in labels:
        if not _LABEL.fullmatch(label):
            raise InputError(
                f"Layer label {label[:100]!r} cannot name a file; expected up to 100 letters, "
                "digits, dots, dashes and underscores. Give the layer another label: "
                "Layer(name, label='...')."
            )
