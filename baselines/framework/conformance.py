"""Named checks of a method's interface, run on a few units of the mini edition."""

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
from baselines.framework.run import make_context, run
from baselines.framework.units import open_training, open_units, unit_keys
from milannotations.errors import InputError
from milannotations.utils.check_result import CheckResult

N_UNITS = 27
"""Number of units described: three per layer."""

NON_ANSWERS = {"nan", "none", "null", "n/a", "error", "failed", "unknown", "undefined"}
"""Texts that programs write where they have no answer."""

REFUSALS = ("traceback (most recent call last)", "i'm sorry", "i cannot", "as an ai", "error:")
"""Beginnings of texts that are error messages or refusals."""

MAX_SECONDS = 60
"""Most seconds per unit."""


def check(
    method: str | os.PathLike[str],
    options: Mapping[str, Any] | None = None,
    *,
    seed: int = 0,
) -> list[CheckResult]:
    """Run all checks of a method, in order, until one fails that the rest depends on.

    Args:
        method: name, or `path/to/file.py`.
        options: arguments of its `create`.
        seed: random seed.

    Raises:
        InputError: unknown method, or something that it needs is missing.
    """
    created = get(os.fspath(method), **(options or {}))
    return list(_checks(created, seed))


def _checks(method: Method, seed: int) -> Iterator[CheckResult]:
    spec, units = method.spec, _open_units()
    training = open_training("mini") if "training" in spec.requires else None

    def context() -> Context:
        # a new one for every run, so that none profits from the memory of another
        return make_context(spec, units, training, None, seed)

    missing = [name for name in ("title", "version", "license") if not getattr(spec, name)]
    message = f"{spec.name}@{spec.version}, {spec.kind}"
    if missing:
        message += f"; without {', '.join(missing)}"
    yield CheckResult.of("spec is complete", not missing, message)
    start, memory = time.perf_counter(), _peak_memory()
    try:
        descriptions = run(method, units, context(), batch_size=len(units))
    except InputError:
        raise
    except Exception as error:  # a third-party program may raise anything
        cause = error.__cause__ or error
        yield CheckResult.of(
            "one answer a unit", False, f"it raised {type(cause).__name__}: {cause}"
        )
        return
    seconds = (time.perf_counter() - start) / len(units)
    yield CheckResult.of(
        "one answer a unit",
        len(descriptions) == len(units),
        f"{len(descriptions)} of {len(units)}",
    )
    backwards = units.select(range(len(units) - 1, -1, -1))
    yield _compare(
        "order of units is kept",
        run(method, backwards, context())[::-1],
        descriptions,
        "the same descriptions for units in reverse order",
    )
    yield _compare(
        "same seed, same answers",
        run(method, units, context(), batch_size=len(units)),
        descriptions,
        f"run twice with seed {seed}",
    )
    yield _compare(
        "batch size changes nothing",
        run(method, units, context(), batch_size=5),
        descriptions,
        f"batches of 5 and of {len(units)}",
    )
    yield CheckResult.of(
        "empty input",
        run(method, units.select([]), context()) == [],
        "no unit, no description",
    )
    yield _check_failures(method, units, context(), descriptions)
    counts = {
        status: sum(description.status == status for description in descriptions)
        for status in ("ok", "abstained", "failed")
    }
    yield CheckResult.of(
        "describes something",
        counts["ok"] > 0,
        ", ".join(f"{count} {status}" for status, count in counts.items()),
    )
    yield CheckResult.of(
        "time and memory",
        seconds < MAX_SECONDS,
        f"{seconds:.2f} s per unit, {max(0.0, _peak_memory() - memory):,.0f} MB more",
    )


def _open_units() -> Any:
    """Return the first test units of each layer, among them one without a region."""
    units = open_units("mini", split="test")
    layers: dict[tuple[str, str], list[int]] = {}
    for i, unit in enumerate(unit_keys(units)):
        layers.setdefault(unit[:2], []).append(i)
    chosen = [i for rows in layers.values() for i in rows[: N_UNITS // len(layers)]]
    return units.select(sorted(chosen))


def _compare(
    name: str,
    repeated: Sequence[Description],
    descriptions: Sequence[Description],
    condition: str,
) -> CheckResult:
    """Check that descriptions made under another condition are the same."""
    pairs = enumerate(zip(repeated, descriptions, strict=True))
    wrong = [i for i, (again, first) in pairs if again != first]
    if not wrong:
        return CheckResult.of(name, True, condition)
    i = wrong[0]
    return CheckResult.of(
        name,
        False,
        f"{len(wrong)} of {len(descriptions)} differ ({condition}); unit {i}: "
        f"{_short(descriptions[i])}, then {_short(repeated[i])}",
    )


def _short(description: Description) -> str:
    if not description.senses:
        return description.status
    return f"'{description.text}' {description.senses[0][1]}"


def _check_failures(
    method: Method, units: Any, context: Context, descriptions: Sequence[Description]
) -> CheckResult:
    """Check that failures have a status: no exceptions, and no texts that are no answers."""
    name = "failures are a status"
    texts = [description.text.lower() for description in descriptions if description.text]
    wrong = [text for text in texts if text.strip(". ") in NON_ANSWERS or text.startswith(REFUSALS)]
    if wrong:
        return CheckResult.of(name, False, f"'{wrong[0]}' was returned as a description")
    try:
        returned = run(method, _without_regions(units), context)
    except InputError as error:
        return CheckResult.of(name, False, f"it stops at units with empty masks: {error}")
    except Exception as error:
        return CheckResult.of(
            name,
            False,
            f"it raises {type(error).__name__} for units with empty masks: {error}",
        )
    return CheckResult.of(name, True, f"for units without a region: {_short(returned[0])}")


def _without_regions(units: Any) -> Any:
    """Return two units with empty masks."""
    from datasets import Dataset
    from PIL import Image

    rows = [units[i] for i in range(2)]
    for row in rows:
        row["masks"] = [Image.new("1", mask.size) for mask in row["masks"]]
    return Dataset.from_list(rows, features=units.features)


def _peak_memory() -> float:
    """Return the peak memory of this process in MB."""
    # ru_maxrss is in bytes on macOS and in KiB on Linux
    scale = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * scale / 1e6
