"""Human: the leave-one-out human, which is listed here and computed by `milan score`."""

from __future__ import annotations

from baselines.framework.method import Method, MethodSpec
from milannotations.errors import InputError

SPEC = MethodSpec(
    name="human",
    version="1.0",
    kind="reference",
    title="One human, against the unit's other annotations; computed by 'milan score'",
    requires=("truth",),
)


def create() -> Method:
    """Refuse to create a method, as there is none to run.

    Raises:
        InputError: always.
    """
    raise InputError(
        "'human' writes no file: 'milan score' computes one leave-one-out human itself, from the "
        "annotations of the edition, beside every method that it scores."
    )
