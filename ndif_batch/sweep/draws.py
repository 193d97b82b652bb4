"""Draws values from distributions: the same on every machine for the same seed, and the first N of any more."""

from __future__ import annotations

from bisect import bisect
from collections.abc import Sequence
from itertools import accumulate
from math import exp, log
from random import Random
from statistics import NormalDist
from typing import TypeVar, assert_never

from ndif_batch.sweep.distributions import IntUniform, LogUniform, Normal, Uniform

Item = TypeVar("Item")


def numbers(count: int, name: str, seed: int) -> list[float]:
    """``count`` numbers from 0 to below 1 for the parameter ``name``; of other names they are independent.

    Python promises that ``Random.random`` gives the same for the same seed in every version.
    """
    random = Random(f"sweep/{seed}/{name}").random
    return [random() for _ in range(count)]


def drawn(kind: Uniform | LogUniform | IntUniform | Normal, places: Sequence[float]) -> Sequence[int | float]:
    """The values of a distribution where its cumulative probability is ``places``, each from 0 to below 1."""
    if isinstance(kind, Uniform):
        low, width = kind.min, kind.max - kind.min
        return [low + width * place for place in places]
    if isinstance(kind, LogUniform):
        low, width = log(kind.min), log(kind.max) - log(kind.min)
        return [min(kind.max, max(kind.min, exp(low + width * place))) for place in places]
    if isinstance(kind, IntUniform):
        first, count = kind.min, kind.max - kind.min + 1
        return [first + int(count * place) for place in places]
    if isinstance(kind, Normal):
        quantile = NormalDist(kind.mu, kind.sigma).inv_cdf
        return [quantile(max(place, 2**-54)) for place in places]
    assert_never(kind)


def chosen(length: int, probabilities: Sequence[float] | None, places: Sequence[float]) -> list[int]:
    """Which of ``length`` values each place means; all are as probable as the others unless it is said."""
    if probabilities is None:
        return [int(length * place) for place in places]
    sums = list(accumulate(probabilities))
    last = max(k for k, probability in enumerate(probabilities) if probability)
    return [min(bisect(sums, place), last) for place in places]
