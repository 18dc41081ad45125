"""Does a method keep the contract? Named checks, run on a few units of the mini edition."""

from __future__ import annotations

import os
import resource
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from baselines.framework.context import Context
from baselines.framework.method import Description, Method
from baselines.framework.registry import get
from baselines.framework.run import make_context, open_training, open_units, run, unit_keys
from milannotations.errors import InputError
from milannotations.utils.check_result import CheckResult

UNITS = 27
"""Units that are described: three of each layer."""

NO_TEXTS = {"nan", "none", "null", "n/a", "error", "failed", "unknown", "undefined"}
"""Words that programs write where they have no answer."""

REFUSALS = ("traceback (most recent call last)", "i'm sorry", "i cannot", "as an ai", "error:")


def check(
    method: str | os.PathLike[str],
    options: Mapping[str, Any] | None = None,
    *,
    seed: int = 0,
) -> list[CheckResult]:
    """Return the checks of a method, in order; they end where going on makes no sense.

    Args:
        method: name, or `path/to/file.py`.
        options: what its `create` takes.
        seed: of draws.

    Raises:
        InputError: no such method, or what it needs is not given.
    """
    made = get(os.fspath(method), **(options or {}))
    return list(_checks(made, seed))


def _checks(method: Method, seed: int) -> Iterator[CheckResult]:
    spec, units = method.spec, _units()
    training = open_training("mini") if "training" in spec.requires else None

    def context() -> Context:
        return make_context(spec, units, training, None, seed)

    lacking = [name for name in ("title", "version", "license") if not getattr(spec, name)]
    yield CheckResult.of(
        "spec is complete",
        not lacking,
        f"{spec.name}@{spec.version}, {spec.kind}"
        + (f"; without {', '.join(lacking)}" if lacking else ""),
    )
    begun, before = time.perf_counter(), _peak()
    try:
        answers = run(method, units, context(), batch_size=len(units))
    except InputError:
        raise
    except Exception as error:  # whatever a stranger's program raises
        cause = error.__cause__ or error
        yield CheckResult.of(
            "one answer a unit", False, f"it raised {type(cause).__name__}: {cause}"
        )
        return
    seconds = time.perf_counter() - begun
    yield CheckResult.of(
        "one answer a unit", len(answers) == len(units), f"{len(answers)} of {len(units)}"
    )
    yield _same(
        "order of units is kept",
        run(method, units.select(range(len(units) - 1, -1, -1)), context())[::-1],
        answers,
        "the same answers when units come backwards",
    )
    yield _same(
        "same seed, same answers",
        run(method, units, context(), batch_size=len(units)),
        answers,
        f"run twice with seed {seed}",
    )
    yield _same(
        "batch size changes nothing",
        run(method, units, context(), batch_size=5),
        answers,
        f"batches of 5 and of {len(units)}",
    )
    yield CheckResult.of(
        "empty input",
        run(method, units.select([]), context()) == [],
        "no unit, no answer",
    )
    yield _failures(method, units, context(), answers)
    counts = {
        status: sum(a.status == status for a in answers) for status in ("ok", "abstained", "failed")
    }
    yield CheckResult.of(
        "describes something",
        counts["ok"] > 0,
        ", ".join(f"{count} {status}" for status, count in counts.items()),
    )
    yield CheckResult.of(
        "time and memory",
        seconds / len(units) < 60,
        f"{seconds / len(units):.2f} s a unit, {max(0.0, _peak() - before):,.0f} MB more",
    )


def _units() -> Any:
    """Return three test units of each layer, one without a region among them where there is one."""
    units = open_units("mini", split="test")
    layers: dict[tuple[str, str], list[int]] = {}
    for i, unit in enumerate(unit_keys(units)):
        layers.setdefault(unit[:2], []).append(i)
    chosen = [i for own in layers.values() for i in own[: UNITS // len(layers)]]
    return units.select(sorted(chosen))


def _same(
    name: str, again: Sequence[Description], answers: Sequence[Description], how: str
) -> CheckResult:
    wrong = [i for i, pair in enumerate(zip(again, answers, strict=True)) if pair[0] != pair[1]]
    if not wrong:
        return CheckResult.of(name, True, how)
    first = wrong[0]
    return CheckResult.of(
        name,
        False,
        f"{len(wrong)} of {len(answers)} differ ({how}); unit {first}: "
        f"{_short(answers[first])}, then {_short(again[first])}",
    )


def _short(answer: Description) -> str:
    return f"'{answer.text}' {answer.senses[0][1]}" if answer.senses else answer.status


def _failures(
    method: Method, units: Any, context: Context, answers: Sequence[Description]
) -> CheckResult:
    """Look for failures that are not said as such: exceptions, and texts that are no answers."""
    name = "failures are a status"
    texts = [answer.text.lower() for answer in answers if answer.text]
    wrong = [t for t in texts if t.strip(". ") in NO_TEXTS or t.startswith(REFUSALS)]
    if wrong:
        return CheckResult.of(name, False, f"'{wrong[0]}' was said as a description")
    try:
        said = run(method, _blind(units), context)
    except InputError as error:
        return CheckResult.of(name, False, f"units whose masks are empty stop it: {error}")
    except Exception as error:
        return CheckResult.of(
            name,
            False,
            f"units whose masks are empty make it raise {type(error).__name__}: {error}",
        )
    return CheckResult.of(name, True, f"of units without a region: {_short(said[0])}")


def _blind(units: Any) -> Any:
    """Return two units whose masks are all empty."""
    from datasets import Dataset
    from PIL import Image

    rows = [units[i] for i in range(2)]
    for row in rows:
        row["masks"] = [Image.new("1", mask.size) for mask in row["masks"]]
    return Dataset.from_list(rows, features=units.features)


def _peak() -> float:
    """Return the most memory that this process has held, in MB."""
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 1e6
