"""The floor that knows a unit's layer and nothing else of it."""

from __future__ import annotations

from typing import Any

from baselines.framework.context import Context
from baselines.framework.method import Description, MethodSpec
from baselines.shared.text import commonest

SPEC = MethodSpec(
    name="most-common",
    version="1.0",
    kind="floor",
    title="The commonest training description of the unit's layer",
    trained_on="the training split",
    requires=("training",),
)


class MostCommon:
    """Says each layer's commonest text; of a layer not in training, the commonest of all."""

    spec = SPEC

    def describe(self, units: Any, context: Context) -> list[Description]:
        table = context.cached("most-common", lambda: _table(context))
        layers = zip(units["network"], units["layer"], strict=True)
        return [Description.of(table.get(layer, table[None])) for layer in layers]


def _table(context: Context) -> dict[tuple[str, str] | None, str]:
    texts: dict[tuple[str, str] | None, list[str]] = {None: []}
    for unit, text in context.descriptions:
        texts[None].append(text)
        texts.setdefault(unit[:2], []).append(text)
    return {layer: str(commonest(said)) for layer, said in texts.items()}


def create() -> MostCommon:
    """Return the floor."""
    return MostCommon()
