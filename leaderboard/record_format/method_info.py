"""What made a file of descriptions: what a reader needs to judge it and to make it again."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from pydantic import BaseModel, ConfigDict

if TYPE_CHECKING:
    from baselines import MethodSpec


class About(BaseModel):
    """A method as its makers state it. "" and None are not known; nothing here is a score.

    Attributes:
        kind: "floor" looks at no exemplar, "reference" knows the answer, else "method".
        title: what it does, in a line.
        authors, paper, licence: whose, where it is described, under which licence.
        code, commit: where its code lies, and which state of it ran.
        command: the exact command that made the descriptions.
        requires: what it needs beyond exemplars (`baselines.framework.method.REQUIREMENTS`).
        trained_on: networks or editions whose descriptions it learned from.
        saw_test_units: whether any unit of the track was among them; None is not known.
        external_data, external_models: what else went into it.
        hardware, cost: what it ran on, and what that took.
        seed: of the draws of this file, where there are any.
    """

    model_config = ConfigDict(extra="forbid")

    kind: Literal["method", "floor", "reference"] = "method"
    title: str
    authors: list[str] = []
    paper: str = ""
    licence: str = ""
    code: str = ""
    commit: str = ""
    command: str = ""
    requires: list[str] = []
    trained_on: list[str] = []
    saw_test_units: bool | None = None
    external_data: list[str] = []
    external_models: list[str] = []
    hardware: str = ""
    cost: str = ""
    seed: int | None = None


def of_spec(spec: MethodSpec, command: str, seed: int | None = None) -> About:
    """Return what a method of this suite says of itself.

    Args:
        spec: of the method.
        command: that ran it.
        seed: of its draws.
    """
    return About(
        kind=spec.kind,
        title=spec.title,
        paper=spec.paper,
        licence=spec.license,
        command=command,
        requires=list(spec.requires),
        trained_on=[spec.trained_on] if spec.trained_on else [],
        seed=seed,
    )
