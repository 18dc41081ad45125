"""Contact sheets: the exemplars of flagged units, for a person to check."""

from __future__ import annotations

import io
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from baselines.framework.run import unit_keys
from milannotations.schema import Unit
from milannotations.utils.contact_sheet import unit_sheet

if TYPE_CHECKING:
    import pandas as pd

MOST = 40
"""Units on a sheet."""

EXEMPLARS = 10
"""Pictures of each."""


def flagged(units: Any, rows: pd.DataFrame, seed: int) -> bytes | None:
    """Return a sheet of flagged units as PNG; None where none has pictures.

    Of more than `MOST`, so many are drawn at random, and the sheet's first line says so.

    Args:
        units: `datasets.Dataset` of one network, with exemplars.
        rows: of the table of flagged units, of that network.
        seed: of the draw.
    """
    said = {
        Unit(row.network, row.layer, row.unit): row for row in rows.itertuples() if row.description
    }
    places = [i for i, unit in enumerate(unit_keys(units)) if unit in said]
    if not places:
        return None
    count = len(places)
    if count > MOST:
        drawn = np.random.default_rng(seed).choice(count, MOST, replace=False)
        places = [places[i] for i in sorted(drawn)]
    chosen = units.select(places)
    if any(images is None for images in chosen.with_format("arrow")["images"].to_pylist()):
        return None
    first = f"{count} flagged units" + (f", {MOST} of them drawn at random" if count > MOST else "")

    def says(row: Mapping[str, Any]) -> list[str]:
        unit = Unit(row["network"], row["layer"], row["unit"])
        found = said[unit]
        measured = (
            f"   measured selectivity {found.selectivity:.2f}"
            if found.selectivity is not None and np.isfinite(found.selectivity)
            else ""
        )
        head = [first] if unit == unit_keys(chosen)[0] else []
        return [*head, f"{unit}{measured}", f"“{found.description}”   [{found.words}]"]

    stream = io.BytesIO()
    unit_sheet(chosen, exemplars=EXEMPLARS, side=64, says=says).save(stream, "PNG")
    return stream.getvalue()
