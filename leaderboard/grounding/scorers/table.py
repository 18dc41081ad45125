"""Presences that were made elsewhere, so that any judge can be used.

A CSV or parquet with the columns `description`, `image` and `presence`, a row for each pair:
what a language model, a person or a detector said. `image` is a picture's source id, its path
in the folder; a description that is not in the table cannot be read.
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
    """Looks presences up.

    Args:
        frame: a DataFrame with `COLUMNS`.
        name, digest: of its file.

    Raises:
        InputError: a pair twice; a presence that is no number from 0 to 1.
    """

    has_regions = False
    source: dict[str, Any]

    def __init__(self, frame: pd.DataFrame, name: str, digest: str) -> None:
        self.source = {"scorer": "table", "file": name, "digest": digest}
        values = frame["presence"].to_numpy(dtype=np.float64, na_value=np.nan)
        if not ((values >= 0) & (values <= 1)).all():
            wrong = int(np.flatnonzero(~((values >= 0) & (values <= 1)))[0])
            raise InputError(
                f"{name}: presence {values[wrong]} in row {wrong + 2}; expected 0 to 1."
            )
        keyed = frame.assign(
            description=[normalise(str(text)) for text in frame["description"]],
            image=frame["image"].astype(str),
        )
        if keyed.duplicated(["description", "image"]).any():
            twice = keyed[keyed.duplicated(["description", "image"])].iloc[0]
            raise InputError(f"{name} has '{twice.description}' in {twice.image} twice.")
        self._table = keyed.pivot_table(index="description", columns="image", values="presence")

    def presence(self, texts: Sequence[str], probe: Probe, grid: int | None) -> Floats:
        """Return presence in whole pictures; see `Scorer.presence`.

        Raises:
            InputError: a picture that the table does not have for a description that it has.
        """
        images = [probe.source_id(i) for i in range(len(probe))]
        lacking = [image for image in images if image not in self._table.columns]
        if lacking:
            raise InputError(
                f"{self.source['file']} lacks {len(lacking):,} of {len(images):,} pictures: "
                f"{some(lacking)}. Expected their source ids in the column image."
            )
        found = self._table.reindex(index=list(texts), columns=images).to_numpy(np.float64)
        known = [text in self._table.index for text in texts]
        for text, row in zip(np.array(texts)[known], found[known], strict=True):
            if np.isnan(row).any():
                raise InputError(
                    f"{self.source['file']} has '{text}' in {np.isfinite(row).sum():,} of "
                    f"{len(images):,} pictures; lacking {some(np.array(images)[np.isnan(row)])}."
                )
        return found


def create(said: str = "", *, cache: str | None = None) -> TableScorer:
    """Return the scorer of a file.

    Raises:
        InputError: no such file, other columns; as `TableScorer`.
    """
    import pandas as pd

    if not said:
        raise InputError("The scorer 'table' needs a file: table:FILE, CSV or parquet.")
    path = check_is_file(Path(said).expanduser())
    frame = pd.read_parquet(path) if path.suffix == ".parquet" else pd.read_csv(path)
    if not set(COLUMNS) <= set(frame.columns):
        raise InputError(
            f"{path} has the columns {', '.join(map(str, frame.columns))}; expected "
            f"{', '.join(COLUMNS)}."
        )
    return TableScorer(frame, path.name, sha256(path))
