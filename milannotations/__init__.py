"""MILANNOTATIONS: units of vision networks, their exemplars, and what people wrote of them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from milannotations.errors import InputError
from milannotations.schema import Unit

if TYPE_CHECKING:
    from milannotations.editions import load

__all__ = ["InputError", "Unit", "load"]


def __getattr__(name: str) -> Any:
    # `load` is looked up late: the command line imports this package at every start
    if name == "load":
        from milannotations.editions import load

        return load
    raise AttributeError(f"module 'milannotations' has no attribute '{name}'")
