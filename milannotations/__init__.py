"""MILANNOTATIONS: units of vision networks, their exemplars and human descriptions."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from milannotations.errors import InputError
from milannotations.schema import Unit

if TYPE_CHECKING:
    from milannotations.editions.loading import load
    from milannotations.splits import split

__all__ = ["InputError", "Unit", "load", "split"]

_LATE = {"load": "milannotations.editions.loading", "split": "milannotations.splits"}


def __getattr__(name: str) -> Any:
    # resolved lazily: every start of the command line imports this package
    if name in _LATE:
        return getattr(importlib.import_module(_LATE[name]), name)
    if name == "splits":
        return importlib.import_module("milannotations.splits")
    raise AttributeError(f"module 'milannotations' has no attribute '{name}'")
