"""Who is next: priority tier, then decayed fair share and age, and what may join the pass of the first."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from math import fsum

DEFAULT_SHARES = 1.0
"""The shares of a user for whom none are set."""

HIGHEST_OF_USERS = 0
"""The highest priority that users give their jobs; more is an administrator's to give."""

AGE_SECONDS = 7 * 24 * 3600.0
"""The wait that weighs as much as the whole range of fair share; Slurm's ``PriorityMaxAge``, but without its cap."""

HALF_LIFE_HOURS = 7 * 24.0
"""After this time a GPU-second counts half; Slurm's ``PriorityDecayHalfLife``."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Candidate:
    """Shards of one job that wait: ``shards`` of them, ``tokens`` each.

    ``age_seconds`` is the time since the later of the job's submission and the last lease that its user got, so that
    who is served does not age. Jobs of one ``mode`` can share a pass. What must run ``alone`` shares its worker with
    nothing; it is a candidate beside the job's other shards.
    """

    job_id: int
    user: str
    tokens: int
    shards: int = 1
    priority: int = 0
    age_seconds: float = 0.0
    mode: str = ""
    alone: bool = False


@dataclass(frozen=True, slots=True)
class Choice:
    """Lease ``shards`` of those that ``candidate`` stands for."""

    candidate: Candidate
    shards: int


@dataclass(frozen=True, slots=True)
class Whole:
    """The sums of usage and shares over all users that wait, of whom the candidates are the first."""

    usage: float
    shares: float


def choose(
    candidates: Iterable[Candidate],
    usage: Mapping[str, float],
    shares: Mapping[str, float],
    budget_tokens: int,
    *,
    max_shards: int | None = None,
    holding: bool = False,
    whole: Whole | None = None,
) -> list[Choice]:
    """What a worker gets: the head of the order, even beyond the budget, then in order what joins it and still fits.

    ``usage``, ``shares`` and ``whole`` are those of :func:`fair_share`. A head that must run alone goes to a worker
    that is not ``holding`` anything; until then the worker gets nothing, so that it runs dry and the head has its turn.
    """
    order = ordered(candidates, usage, shares, whole)
    if not order or max_shards == 0:
        return []
    head = order[0]
    if head.alone:
        return [] if holding else [Choice(head, 1)]
    slots = max_shards if max_shards is not None else sum(candidate.shards for candidate in order)
    room, choices = max(budget_tokens, _size(head)), []
    for candidate in order:
        count = min(candidate.shards, slots, room // _size(candidate))
        if count > 0 and candidate.mode == head.mode and not candidate.alone:
            choices.append(Choice(candidate, count))
            room -= count * _size(candidate)
            slots -= count
    return choices


def ordered(
    candidates: Iterable[Candidate],
    usage: Mapping[str, float],
    shares: Mapping[str, float],
    whole: Whole | None = None,
) -> list[Candidate]:
    """The candidates, the next one first: by priority; within it by fair share plus age; older jobs first.

    The age has no bound, so within one priority nobody starves, however many users with less usage come.
    """
    waiting = [candidate for candidate in candidates if candidate.shards > 0]
    users = {candidate.user for candidate in waiting}
    fair = fair_share(
        {user: usage.get(user, 0.0) for user in users},
        {user: shares.get(user, DEFAULT_SHARES) for user in users},
        whole,
    )

    def place(one: Candidate) -> tuple[float, float, float, int, bool]:
        return (
            -one.priority,
            -(fair[one.user] + one.age_seconds / AGE_SECONDS),
            -one.age_seconds,
            one.job_id,
            one.alone,
        )

    return sorted(waiting, key=place)


def fair_share(usage: Mapping[str, float], shares: Mapping[str, float], whole: Whole | None = None) -> dict[str, float]:
    """Each user's factor: 1 if unserved, 1/2 if served exactly its part, towards 0 beyond; 0 without shares.

    ``usage`` is decayed GPU-seconds, those of leased shards included, or all workers of one moment choose the same
    user. Both are normalised over ``whole``, else the users in either mapping, as in Slurm's multifactor plugin; the
    curve is ``s / (s + u)`` in place of ``2^(-u / s)``, which underflows where a thousand users share a cluster.
    """
    users = usage.keys() | shares.keys()
    parts = {user: shares.get(user, DEFAULT_SHARES) for user in users}
    sums = whole or Whole(fsum(usage.values()), fsum(parts.values()))
    used, all_parts = sums.usage or 1.0, sums.shares or 1.0
    return {user: _factor(usage.get(user, 0.0) / used, parts[user] / all_parts) for user in sorted(users)}


def decayed(usage: Iterable[tuple[float, float]], half_life_hours: float = HALF_LIFE_HOURS) -> float:
    """GPU-seconds that still count, of rows (hours ago, GPU-seconds)."""
    return fsum(seconds * 0.5 ** (max(0.0, hours) / half_life_hours) for hours, seconds in usage)


def _size(candidate: Candidate) -> int:
    return max(1, candidate.tokens)


def _factor(used: float, part: float) -> float:
    return part / (part + used) if part > 0 else 0.0
