"""The reference model: p(d | E), p(d), and the search for descriptions.

from milan import Milan

model = Milan.from_pretrained("folder")
print(model.describe(images, masks).text)
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from milan.config import Config, Search
    from milan.model import Candidate, Descriptions, Milan

_WHERE = {"config": ("Config", "Search"), "model": ("Candidate", "Descriptions", "Milan")}

__all__ = ["Candidate", "Config", "Descriptions", "Milan", "Search"]


def __getattr__(name: str) -> Any:
    # torch takes seconds to import, which commands that do not need it must not wait for
    for module, names in _WHERE.items():
        if name in names:
            return getattr(importlib.import_module(f"{__name__}.{module}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
