"""Configuration of an analysis: which scores order the units, and how many are ablated."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from annotated_types import Ge

from milannotations.errors import InputError

ORDERS = ("decreasing", "increasing")
"""Orders of ablation: the highest score first, or the lowest."""


@dataclass(frozen=True)
class AnalyzeConfig:
    """Configuration of `analyze`."""

    scores: tuple[str, ...] | None = None
    """Scores of descriptions to order units by (default: all that the language gives)."""

    similar_to: tuple[str, ...] = ()
    """Words whose similarity to each description is a score too (default: none)."""

    orders: tuple[str, ...] = ORDERS
    """Orders of ablation: `decreasing`, `increasing` or both (default: both)."""

    step: float = 0.02
    """Share of all units that each step ablates (default: .02)."""

    most: float = 0.2
    """Share of all units that is ablated after the last step (default: .2)."""

    draws: Annotated[int, Ge(2)] = 5
    """Random orders of units with equal scores, each with a control of its own (default: 5)."""

    how: str = "zero"
    """Value of an ablated unit: `zero`, `mean` or `resample` (default: zero)."""

    seed: Annotated[int, Ge(0)] = 0
    """Random seed of all draws (default: 0)."""

    def __post_init__(self) -> None:
        if not 0 < self.step <= self.most < 1:
            raise InputError(
                f"--step {self.step} and --most {self.most} are not shares of all units; expected "
                "0 < step <= most < 1, such as .02 and .2."
            )
        if self.draws < 2:
            raise InputError(f"--draws {self.draws} is too few; expected at least 2 random orders.")
        unknown = [order for order in self.orders if order not in ORDERS]
        if unknown or not self.orders:
            raise InputError(f"No order '{next(iter(unknown), '')}' ({', '.join(ORDERS)}).")

    @property
    def shares(self) -> list[float]:
        """Shares of all units that are ablated after each step."""
        # the small number keeps .2 / .02 from being rounded down to 9 steps
        count = int(self.most / self.step + 1e-9)
        return [round(self.step * (k + 1), 9) for k in range(count)]
