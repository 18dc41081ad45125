"""Description methods behind one contract, one file each."""

from __future__ import annotations

from baselines.account import Account
from baselines.context import Context
from baselines.contract import Description, Method, MethodSpec
from baselines.registry import get, options_of, specs
from baselines.running import (
    context_of,
    describe,
    open_training,
    open_units,
    run,
    shuffled_exemplars,
)
from baselines.subject import Subject

__all__ = [
    "Account",
    "Context",
    "Description",
    "Method",
    "MethodSpec",
    "Subject",
    "context_of",
    "describe",
    "get",
    "open_training",
    "open_units",
    "options_of",
    "run",
    "shuffled_exemplars",
    "specs",
]
