"""Random description: a floor that draws a training description for each unit."""

from __future__ import annotations

from typing import Any

from baselines.framework.context import Context
from baselines.framework.method import Description, MethodSpec
from baselines.framework.units import unit_keys

SPEC = MethodSpec(
    name="random-description",
    version="1.0",
    kind="floor",
    title="A random training description for each unit",
    trained_on="the training split",
    requires=("training",),
)


class RandomDescription:
    """Describe each unit by a training description drawn by the seed and the unit's key."""

    spec = SPEC

    def describe(self, units: Any, context: Context) -> list[Description]:
        descriptions = []
        for unit in unit_keys(units):
            index = context.draw(SPEC.name, unit, below=len(context.descriptions))
            descriptions.append(Description.of(context.descriptions[index][1]))
        return descriptions


def create() -> RandomDescription:
    """Return the floor."""
    return RandomDescription()
