"""Floors: descriptions that know nothing of a unit, scored beside the method's."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from baselines.shared.text import most_common_text
from leaderboard.evaluation.references import Descriptions, References
from leaderboard.metrics.text import normalise
from leaderboard.record_format.score_record import CONSTANT_FLOOR, LAYER_FLOOR


def floor_descriptions(
    references: References,
    constants: Sequence[str],
    texts: Sequence[Sequence[str]] | None = None,
    accepts: Callable[[str], bool] | None = None,
) -> dict[str, Descriptions]:
    """Return the descriptions of the floors, one per unit.

    The shuffled floor and the share of units with no overlap are not here: the one follows from
    lift (`estimates`), the other is a metric (`no-overlap`).

    Args:
        references: the units.
        constants: strings that are floors as well.
        texts: texts of each unit from which the most common is taken (default: the references).
        accepts: returns whether a text may be the most common (default: any text).

    Returns:
        By floor: the most common text of all, each constant, and the most common text of the
        unit's layer (None where the layer has no text).
    """
    texts = references.texts if texts is None else texts
    n = len(references.units)
    most_common = most_common_text((text for members in texts for text in members), accepts)
    floors: dict[str, Descriptions] = {CONSTANT_FLOOR: [most_common] * n}
    for text in constants:
        floors[f"constant: {text}"] = [normalise(text)] * n
    of_layer: list[str | None] = [None] * n
    for members in references.layers.values():
        text_of_layer = most_common_text((text for i in members for text in texts[i]), accepts)
        for i in members:
            of_layer[i] = text_of_layer
    floors[LAYER_FLOOR] = of_layer
    return floors
