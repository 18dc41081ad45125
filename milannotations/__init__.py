"""MILANNOTATIONS: units of vision networks, their exemplars and human descriptions."""

from __future__ import annotations

from typing import TYPE_CHECKING

import lazy_loader

from milannotations.errors import InputError
from milannotations.schema import Unit

if TYPE_CHECKING:
    from milannotations.editions.loading import load
    from milannotations.splits import split

__all__ = ["InputError", "Unit", "__version__", "load", "split"]

__version__ = "0.1.0"

# Names are imported on first use: every start of the command line imports this package.
__getattr__, __dir__, _ = lazy_loader.attach(
    __name__,
    submodules={"splits"},
    submod_attrs={"editions.loading": ["load"], "splits": ["split"]},
)
