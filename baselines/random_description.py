"""The floor that draws a description at random."""

from __future__ import annotations

from typing import Any

from baselines.framework.context import Context
from baselines.framework.method import Description, MethodSpec
from baselines.framework.run import unit_keys

SPEC = MethodSpec(
    name="random-description",
    version="1.0",
    kind="floor",
    title="A random training description for each unit",
    trained_on="the training split",
    requires=("training",),
)


class RandomDescription:
    """Draws for each unit by the seed and its key, whatever stands around it."""

    spec = SPEC

    def describe(self, units: Any, context: Context) -> list[Description]:
        drawn = []
        for unit in unit_keys(units):
            place = context.draw(SPEC.name, unit, below=len(context.descriptions))
            drawn.append(Description.of(context.descriptions[place][1]))
        return drawn


def create() -> RandomDescription:
    """Return the floor."""
    return RandomDescription()
