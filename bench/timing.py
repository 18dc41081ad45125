"""A stopwatch and a line of the report."""

import time
from collections.abc import Callable


def seconds(work: Callable[[], object]) -> float:
    started = time.perf_counter()
    work()
    return time.perf_counter() - started


def line(what: str, value: float, unit: str = "x", aim: str = "") -> None:
    print(f"  {what:<68} {value:9.2f} {unit}{'   ' + aim if aim else ''}", flush=True)
