"""The reference that knows the planted answer."""

from __future__ import annotations

from typing import Any

from baselines.framework.context import Context
from baselines.framework.method import Description, MethodSpec
from milannotations.errors import InputError

SPEC = MethodSpec(
    name="truth",
    version="1.0",
    kind="reference",
    title="What the unit was made to respond to, in plain words (synthetic editions)",
    requires=("truth",),
)


class Truth:
    """Says the truth; its senses after it where there are several; abstains at none."""

    spec = SPEC

    def describe(self, units: Any, context: Context) -> list[Description]:
        columns = ("network", "layer", "unit", "truth", "truth_formula")
        return [_answer(*row) for row in zip(*(units[name] for name in columns), strict=True)]


def _answer(
    network: str, layer: str, unit: int, truth: str | None, formula: str | None
) -> Description:
    if truth is None:
        raise InputError(
            f"Nobody knows the truth of {network}/{layer}/{unit}: it is known of synthetic "
            "units alone, such as those of the edition mini."
        )
    if formula is None:
        return Description.of(truth)
    from milannotations.synthetic.formulas import Formula
    from milannotations.synthetic.grammar import phrase

    meant = Formula.parse(formula)
    if not meant.means_something:
        return Description.abstained()
    senses = meant.senses if len(meant.senses) > 1 else ()
    # single-answer scores read the first alone: it is the whole truth
    return Description(((truth, None), *((phrase(sense), None) for sense in senses)))


def create() -> Truth:
    """Return the reference."""
    return Truth()
