"""Most common: a floor that knows a unit's layer and nothing else."""

from __future__ import annotations

from typing import Any

from baselines.framework.context import Context
from baselines.framework.method import Description, MethodSpec
from baselines.shared.text import most_common_text

SPEC = MethodSpec(
    name="most-common",
    version="1.0",
    kind="floor",
    title="The commonest training description of the unit's layer",
    trained_on="the training split",
    requires=("training",),
)


class MostCommon:
    """Describe each unit by the most common training description of its layer.

    Units of a layer that is not in training get the most common description of all.
    """

    spec = SPEC

    def describe(self, units: Any, context: Context) -> list[Description]:
        texts = context.cached("most-common", lambda: _texts_by_layer(context))
        layers = zip(units["network"], units["layer"], strict=True)
        return [Description.of(texts.get(layer, texts[None])) for layer in layers]


def _texts_by_layer(context: Context) -> dict[tuple[str, str] | None, str]:
    """Return the most common text of each (network, layer), and of all under None."""
    texts: dict[tuple[str, str] | None, list[str]] = {None: []}
    for unit, text in context.descriptions:
        texts[None].append(text)
        texts.setdefault(unit[:2], []).append(text)
    return {layer: str(most_common_text(members)) for layer, members in texts.items()}


def create() -> MostCommon:
    """Return the floor."""
    return MostCommon()
