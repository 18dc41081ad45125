"""Truth: a reference that returns the planted truth of synthetic units."""

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
    """Describe each unit by its planted truth.

    Of a unit with several senses, these follow the whole truth. A unit that responds to nothing
    is abstained.
    """

    spec = SPEC

    def describe(self, units: Any, context: Context) -> list[Description]:
        columns = ("network", "layer", "unit", "truth", "truth_formula")
        return [_describe(*row) for row in zip(*(units[name] for name in columns), strict=True)]


def _describe(
    network: str, layer: str, unit: int, truth: str | None, formula: str | None
) -> Description:
    if truth is None:
        raise InputError(
            f"The truth of {network}/{layer}/{unit} is unknown: only synthetic units have one, "
            "such as those of the edition mini."
        )
    if formula is None:
        return Description.of(truth)
    from milannotations.synthetic.formulas import Formula
    from milannotations.synthetic.grammar import phrase

    parsed = Formula.parse(formula)
    if not parsed.means_something:
        return Description.abstained()
    senses = parsed.senses if len(parsed.senses) > 1 else ()
    # the whole truth comes first, as most scores read only the first sense
    return Description(((truth, None), *((phrase(sense), None) for sense in senses)))


def create() -> Truth:
    """Return the reference."""
    return Truth()
