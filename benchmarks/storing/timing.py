"""Times as every part of the benchmark takes them."""

from __future__ import annotations

from collections.abc import Callable
from statistics import median
from time import perf_counter
from typing import Any


def seconds(work: Callable[[], Any], repeats: int) -> list[float]:
    """How long each of ``repeats`` took."""
    found = []
    for _ in range(repeats):
        began = perf_counter()
        work()
        found.append(perf_counter() - began)
    return found


def milliseconds(work: Callable[[], Any], repeats: int) -> dict[str, float]:
    """Median and longest, after one that is not counted."""
    work()
    found = seconds(work, repeats)
    return {"median_ms": 1000 * median(found), "longest_ms": 1000 * max(found)}
