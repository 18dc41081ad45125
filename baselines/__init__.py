"""Description methods behind one contract, one file each."""

from __future__ import annotations

from baselines.context import Context
from baselines.contract import Description, Method, MethodSpec
from baselines.registry import get, specs
from baselines.running import describe, open_training, open_units, run, shuffled_exemplars

__all__ = [
    "Context",
    "Description",
    "Method",
    "MethodSpec",
    "describe",
    "get",
    "open_training",
    "open_units",
    "run",
    "shuffled_exemplars",
    "specs",
]
