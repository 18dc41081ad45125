"""Account of how descriptions were made: method, seed, cost, and what they were chosen on."""

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
"""Suffix of an account's file beside its predictions: `nearest.csv.account.json`."""


@dataclass
class Account:
    """Account of how a method made its descriptions; `baselines.run` updates it batch by batch.

    Attributes:
        method: spec of the method.
        options: options that it was created with, as text.
        seed: random seed.
        blind: the method was shown other units' exemplars, as a control.
        n_units: units described while this account was kept.
        n_kept: units that an interrupted run had described before.
        seconds: time for the `n_units`, loading of models included.
        tokens_in, tokens_out: tokens that a language model read and wrote; None if there is none.
        chosen_on: by network, the probe images (with their digest) that descriptions were chosen
            on; scores on the same images are not held out.
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
        """Return the account as JSON, with the cost per unit."""
        content = {**asdict(self), "seconds": round(self.seconds, 3)}
        n = max(self.n_units, 1)
        content["a_unit"] = {
            "seconds": round(self.seconds / n, 5),
            "tokens_in": None if self.tokens_in is None else round(self.tokens_in / n, 2),
            "tokens_out": None if self.tokens_out is None else round(self.tokens_out / n, 2),
        }
        return content

    def write(self, predictions: str | os.PathLike[str]) -> Path:
        """Write the account beside a file of predictions, with that file's digest.

        Returns:
            Path of the account.
        """
        target = Path(f"{os.fspath(predictions)}{SUFFIX}")
        content = {"predictions": sha256(predictions), **self.to_dict()}
        with replacing(target) as temporary:
            temporary.write_text(json.dumps(content, indent=1, sort_keys=True) + "\n", "utf-8")
        return target


def read_account(predictions: str | os.PathLike[str], digest: str) -> Mapping[str, Any] | None:
    """Return the account beside a file of predictions; None if there is none for its content.

    Args:
        predictions: path of the predictions.
        digest: their sha256.

    Raises:
        InputError: the account's file is not JSON.
    """
    path = Path(f"{os.fspath(predictions)}{SUFFIX}")
    if not path.is_file():
        return None
    try:
        content = json.loads(path.read_text("utf-8"))
    except (ValueError, RecursionError) as error:
        raise InputError(f"{path} is not JSON: {error}. Remove it, or describe again.") from None
    if not isinstance(content, dict) or content.pop("predictions", None) != digest:
        return None
    return content
