"""What describing took, and what answers were chosen on: it goes into records."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from milannotations.errors import InputError
from milannotations.utils.files import replacing, sha256

SUFFIX = ".account.json"
"""An account stands beside its predictions: `nearest.csv` and `nearest.csv.account.json`."""


@dataclass
class Account:
    """How a method made its answers. `baselines.run` adds to it, batch by batch.

    Attributes:
        method: its spec.
        options: that it was made with, as text.
        seed: of its draws.
        blind: it was shown other units' exemplars, as a control.
        n_units: units described while this account was kept.
        n_kept: units that an interrupted run had described before.
        seconds: that the `n_units` took, loading of models included.
        tokens_in, tokens_out: that a language model read and wrote; None where there is none.
        chosen_on: by network, the probe pictures (with their digest) that answers were chosen
            on: scores on the same pictures are not held out.
    """

    method: dict[str, Any] = field(default_factory=dict)
    options: dict[str, str] = field(default_factory=dict)
    seed: int = 0
    blind: bool = False
    n_units: int = 0
    n_kept: int = 0
    seconds: float = 0.0
    tokens_in: int | None = None
    tokens_out: int | None = None
    chosen_on: dict[str, Any] = field(default_factory=dict)

    def to_dict(self) -> dict[str, Any]:
        """Return it as JSON, with what a unit took."""
        made = {**asdict(self), "seconds": round(self.seconds, 3)}
        n = max(self.n_units, 1)
        made["a_unit"] = {
            "seconds": round(self.seconds / n, 5),
            "tokens_in": None if self.tokens_in is None else round(self.tokens_in / n, 2),
            "tokens_out": None if self.tokens_out is None else round(self.tokens_out / n, 2),
        }
        return made

    def write(self, predictions: str | os.PathLike[str]) -> Path:
        """Write it beside a file of predictions, which it knows by digest; return where."""
        target = Path(f"{os.fspath(predictions)}{SUFFIX}")
        content = {"predictions": sha256(predictions), **self.to_dict()}
        with replacing(target) as temporary:
            temporary.write_text(json.dumps(content, indent=1, sort_keys=True) + "\n", "utf-8")
        return target


def read_account(predictions: str | os.PathLike[str], digest: str) -> Mapping[str, Any] | None:
    """Return the account beside a file of predictions; None if there is none, or of another file.

    Args:
        predictions: the file.
        digest: its sha256.

    Raises:
        InputError: a file of that name which is no account.
    """
    path = Path(f"{os.fspath(predictions)}{SUFFIX}")
    if not path.is_file():
        return None
    try:
        found = json.loads(path.read_text("utf-8"))
    except (ValueError, RecursionError) as error:
        raise InputError(f"{path} is not JSON: {error}. Remove it, or describe again.") from None
    if not isinstance(found, dict) or found.pop("predictions", None) != digest:
        return None
    return found
