"""The reference model: p(d | E), p(d), and the search for descriptions.

from milan import Milan

model = Milan.from_pretrained("folder")
print(model.describe(images, masks).text)
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import lazy_loader

from milannotations import __version__

if TYPE_CHECKING:
    from milan.config import Config, Search
    from milan.model import Candidate, Descriptions, Milan

__all__ = ["Candidate", "Config", "Descriptions", "Milan", "Search", "__version__"]

# Names are imported on first use: torch takes seconds, and `milan --help` must not wait for it.
__getattr__, __dir__, _ = lazy_loader.attach(
    __name__,
    submod_attrs={
        "config": ["Config", "Search"],
        "model": ["Candidate", "Descriptions", "Milan"],
    },
)
