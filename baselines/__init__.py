"""Description methods behind one interface, one file per method."""

from __future__ import annotations

from baselines.framework.context import Context
from baselines.framework.method import Description, Method, MethodSpec
from baselines.framework.provenance import Account
from baselines.framework.registry import get, parse_options, specs
from baselines.framework.run import describe, make_context, run
from baselines.framework.units import open_training, open_units, shuffled_exemplars
from baselines.shared.subject import Subject
from milannotations import __version__

__all__ = [
    "Account",
    "Context",
    "Description",
    "Method",
    "MethodSpec",
    "Subject",
    "__version__",
    "describe",
    "get",
    "make_context",
    "open_training",
    "open_units",
    "parse_options",
    "run",
    "shuffled_exemplars",
    "specs",
]
