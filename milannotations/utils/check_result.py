"""Result of one named check, as `milan check`, `milan doctor` and `milan submit check` list it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Status = Literal["pass", "skip", "warn", "fail"]
"""Outcomes of a check, from best to worst."""


@dataclass(frozen=True)
class CheckResult:
    """Result of one named check.

    Attributes:
        name: of the check.
        status: `fail` is an error; `warn` is for readers and refuses nothing; `skip` means that
            something the check needs was not available.
        message: what was seen, in one sentence.
    """

    name: str
    status: Status
    message: str

    @classmethod
    def of(cls, name: str, passed: bool, message: str) -> CheckResult:
        """Return the result of a check that either passes or fails."""
        return cls(name, "pass" if passed else "fail", message)

    @property
    def passed(self) -> bool:
        """True unless the status is `fail`."""
        return self.status != "fail"
