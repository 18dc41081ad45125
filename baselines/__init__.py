"""Description methods behind one contract, one file each."""

from __future__ import annotations

from baselines.framework.context import Context
from baselines.framework.method import Description, Method, MethodSpec
from baselines.framework.provenance import Account
from baselines.framework.registry import get, options_of, specs
from baselines.framework.run import (
    context_of,
    describe,
    open_training,
    open_units,
    run,
    shuffled_exemplars,
)
from baselines.shared.subject import Subject

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
