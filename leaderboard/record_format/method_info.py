"""Information about a method: what a reader needs to judge its descriptions and make them again."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from pydantic import Field

from leaderboard.record_format.base import StrictModel

if TYPE_CHECKING:
    from baselines import MethodSpec


class About(StrictModel):
    """A method as its authors state it. "" and None mean unknown; nothing here is a score.

    Attributes:
        kind: "floor" looks at no exemplar, "reference" knows the answer, otherwise "method".
        title: what it does, in one line.
        authors, paper, licence: who made it, where it is described, under which licence.
        code, commit: where its code is, and which commit ran.
        command: the exact command that made the descriptions.
        requires: what it needs besides exemplars (`baselines.framework.method.REQUIREMENTS`).
        trained_on: networks or editions whose annotations it learned from.
        saw_test_units: whether they include any unit of the track; None if unknown.
        external_data, external_models: other data and models that it uses.
        hardware, cost: what it ran on, and what that took.
        seed: random seed of this file, if the method has one.
    """

    kind: Literal["method", "floor", "reference"] = "method"
    title: str
    authors: list[str] = Field(default=[])
    paper: str = ""
    licence: str = ""
    code: str = ""
    commit: str = ""
    command: str = ""
    requires: list[str] = Field(default=[])
    trained_on: list[str] = Field(default=[])
    saw_test_units: bool | None = None
    external_data: list[str] = Field(default=[])
    external_models: list[str] = Field(default=[])
    hardware: str = ""
    cost: str = ""
    seed: int | None = None


def from_spec(spec: MethodSpec, command: str, seed: int | None = None) -> About:
    """Return the information about a method of this suite.

    Args:
        spec: spec of the method.
        command: command that ran it.
        seed: random seed of the run.
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
