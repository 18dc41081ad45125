"""Contact sheets of flagged units with their exemplars, for a human to check."""

from __future__ import annotations

import io
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from baselines.framework.units import unit_keys
from milannotations.schema import Unit
from milannotations.utils.contact_sheet import unit_sheet

if TYPE_CHECKING:
    import pandas as pd

MOST = 40
"""Most units on a sheet."""

EXEMPLARS = 10
"""Images of each unit."""


def encode_sheet(units: Any, flagged: pd.DataFrame, seed: int) -> bytes | None:
    """Return a contact sheet of flagged units as PNG, or None if none has images.

    More than `MOST` flagged units are sampled at random, and the sheet's first line says so.

    Args:
        units: `datasets.Dataset` of one network, with exemplars.
        flagged: rows of the table of flagged units, of that network.
        seed: random seed of the sample.
    """
    rows = {
        Unit(row.network, row.layer, row.unit): row
        for row in flagged.itertuples()
        if row.description
    }
    indices = [i for i, unit in enumerate(unit_keys(units)) if unit in rows]
    if not indices:
        return None
    count = len(indices)
    heading = f"{count} flagged units"
    if count > MOST:
        heading += f", {MOST} of them drawn at random"
        sample = np.random.default_rng(seed).choice(count, MOST, replace=False)
        indices = [indices[i] for i in sorted(sample)]
    selected = units.select(indices)
    # editions may leave out images that may not be passed on
    if any(images is None for images in selected.with_format("arrow")["images"].to_pylist()):
        return None
    first = unit_keys(selected)[0]

    def caption(row: Mapping[str, Any]) -> list[str]:
        unit = Unit(row["network"], row["layer"], row["unit"])
        values = rows[unit]
        measured = ""
        if values.selectivity is not None and np.isfinite(values.selectivity):
            measured = f"   measured selectivity {values.selectivity:.2f}"
        lines = [heading] if unit == first else []
        return [*lines, f"{unit}{measured}", f"“{values.description}”   [{values.words}]"]

    stream = io.BytesIO()
    unit_sheet(selected, exemplars=EXEMPLARS, side=64, says=caption).save(stream, "PNG")
    return stream.getvalue()
