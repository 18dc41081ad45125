"""One person of the references: listed here, computed where descriptions are scored."""

from __future__ import annotations

from baselines.framework.method import Method, MethodSpec
from milannotations.errors import InputError

SPEC = MethodSpec(
    name="human",
    version="1.0",
    kind="reference",
    title="One person, against the others of the unit; computed by 'milan score'",
    requires=("truth",),
)


def create() -> Method:
    """Refuse: a person is not run.

    Raises:
        InputError: always.
    """
    raise InputError(
        "'human' writes no file: 'milan score' computes one person itself, from the "
        "descriptions of the edition, beside every method that it scores."
    )
