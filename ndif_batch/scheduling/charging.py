"""Who pays for a pass: its users, by the tokens that each would have cost alone."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Charge:
    """A user's part of a pass; of the ``tokens`` that it would have cost alone, sharing saved ``shared_tokens``."""

    gpu_seconds: float
    tokens: int
    shared_tokens: int


def charge(gpu_seconds: float, alone: Mapping[str, int], tokens: int) -> dict[str, Charge]:
    """The parts of a pass that took ``gpu_seconds`` and ran ``tokens``; ``alone`` is each user's tokens without others.

    The true cost is split in proportion to ``alone``, so sharing is a discount to all. Nothing is lost to rounding:
    the saved tokens sum to what was saved, the GPU-seconds to what was spent.
    """
    whole = sum(alone.values())
    if whole <= 0:
        return {user: Charge(gpu_seconds / len(alone), 0, 0) for user in sorted(alone)}
    saved = max(0, whole - tokens)
    charges, before = {}, 0
    for user in sorted(alone):
        after = before + alone[user]
        shared = saved * after // whole - saved * before // whole
        charges[user] = Charge(gpu_seconds * alone[user] / whole, alone[user], shared)
        before = after
    return charges
