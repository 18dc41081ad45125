"""Scorer that reads presences computed elsewhere, so that any judge can be used.

A CSV or parquet file with the columns `description`, `image` and `presence`, one row per pair, from
a language model, a human or a detector. `image` is the source id of an image: its path in the
folder. A description that is not in the table is unreadable.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from leaderboard.metrics.base import Floats
from leaderboard.metrics.text import normalise
from milannotations.errors import InputError, some
from milannotations.utils.files import check_is_file, sha256

if TYPE_CHECKING:
    import pandas as pd

    from milannotations.probes import Probe

COLUMNS = ("description", "image", "presence")


class TableScorer:
    """Presence of descriptions in whole images, looked up in a table.

    Args:
        frame: DataFrame with the columns `COLUMNS`.
        name: file name of the table.
        digest: sha256 of the file.

    Raises:
        InputError: a pair that occurs twice; a presence that is no number from 0 to 1.
    """

    has_regions = False
    source: dict[str, Any]

    def __init__(self, frame: pd.DataFrame, name: str, digest: str) -> None:
        self.source = {"scorer": "table", "file": name, "digest": digest}
        values = frame["presence"].to_numpy(dtype=np.float64, na_value=np.nan)
        valid = (values >= 0) & (values <= 1)
        if not valid.all():
            row = int(np.flatnonzero(~valid)[0])
            # Row 1 of the file is its header.
            raise InputError(f"{name}: presence {values[row]} in row {row + 2}; expected 0 to 1.")
        keyed = frame.assign(
            description=[normalise(str(text)) for text in frame["description"]],
            image=frame["image"].astype(str),
        )
        duplicated = keyed.duplicated(["description", "image"])
        if duplicated.any():
            pair = keyed[duplicated].iloc[0]
            raise InputError(
                f"{name} has '{pair.description}' in {pair.image} twice; expected one row per pair."
            )
        self._table = keyed.pivot_table(index="description", columns="image", values="presence")

    def presence(self, texts: Sequence[str], probe: Probe, grid: int | None) -> Floats:
        """Return presence in whole images; see `Scorer.presence`.

        Raises:
            InputError: an image that the table lacks.
        """
        images = [probe.source_id(i) for i in range(len(probe))]
        missing = [image for image in images if image not in self._table.columns]
        if missing:
            raise InputError(
                f"{self.source['file']} lacks {len(missing):,} of {len(images):,} images: "
                f"{some(missing)}. Expected their source ids in the column image."
            )
        presence = self._table.reindex(index=list(texts), columns=images).to_numpy(np.float64)
        readable = [text in self._table.index for text in texts]
        for text, row in zip(np.array(texts)[readable], presence[readable], strict=True):
            if np.isnan(row).any():
                raise InputError(
                    f"{self.source['file']} has '{text}' in {np.isfinite(row).sum():,} of "
                    f"{len(images):,} images; missing {some(np.array(images)[np.isnan(row)])}."
                )
        return presence


def create(argument: str = "", *, cache: str | None = None) -> TableScorer:
    """Create the scorer from a file.

    Raises:
        InputError: no such file, other columns; as `TableScorer`.
    """
    import pandas as pd

    if not argument:
        raise InputError("The scorer 'table' needs a file: --scorer table:FILE, CSV or parquet.")
    path = check_is_file(Path(argument).expanduser())
    frame = pd.read_parquet(path) if path.suffix == ".parquet" else pd.read_csv(path)
    if not set(COLUMNS) <= set(frame.columns):
        raise InputError(
            f"{path} has the columns {', '.join(map(str, frame.columns))}; expected "
            f"{', '.join(COLUMNS)}."
        )
    return TableScorer(frame, path.name, sha256(path))
