"""How many pilots each model's waiting work is worth, and how many it may have where GPUs are short."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from heapq import heapify, heappop, heappush
from math import ceil, inf

from ndif_batch.scheduling.cluster import Backlog, Limits, Room
from ndif_batch.scheduling.policy import DEFAULT_SHARES


def worth(backlog: Mapping[str, Backlog], limits: Limits) -> dict[str, int]:
    """Pilots that each model's work is worth, without regard to other models.

    The allowance of a user whose GPUs are limited goes to the longest waiting models first.
    """
    used: dict[str, float] = defaultdict(float)
    wanted = {}
    for model in sorted(backlog, key=lambda model: (-backlog[model].waited_seconds, model)):
        one = backlog[model]
        pieces = _allowed(_pieces(one, limits), one.gpus, limits, used)
        most = min(one.shards, inf if one.maximum is None else one.maximum)
        wanted[model] = int(max(one.minimum, min(ceil(sum(pieces.values())), most)))
    return wanted


def parts(
    backlog: Mapping[str, Backlog], wanted: Mapping[str, int], limits: Limits, shares: Mapping[str, float]
) -> dict[str, int]:
    """Pilots that each model may have of those wanted: weighted max-min fairness, dealt one pilot at a time.

    A model weighs the shares of its waiting users. Its first pilot weighs more the longer it waits unserved, so that
    none starves; its minimum goes before everything.
    """
    room, dealt = Room(limits), dict.fromkeys(sorted(wanted), 0)
    users = {model: max(1e-9, _shares(backlog[model], shares)) for model in wanted}

    def turn(model: str) -> tuple[bool, float, str]:
        one, count = backlog[model], dealt[model] + 1
        boost = 1.0 if count > 1 else 1 + one.waited_seconds / max(1.0, limits.patience_seconds)
        return (count > one.minimum, count * one.gpus / (users[model] * boost), model)

    heap = [turn(model) for model in dealt]
    heapify(heap)
    while heap:
        model = heappop(heap)[-1]
        one = backlog[model]
        if dealt[model] < wanted[model] and room.holds(one.partition, one.gpus):
            room.take(one.partition, one.gpus)
            dealt[model] += 1
            heappush(heap, turn(model))
    return dealt


def _pieces(one: Backlog, limits: Limits) -> dict[str, float]:
    """Pilots that each user's work is worth; together one, if it is not known how fast a pilot is."""
    whole = sum(one.tokens.values())
    piece = max(limits.least_seconds, limits.worth * one.load_seconds)
    pilot = one.tokens_per_second * piece if one.tokens_per_second else whole
    return {user: tokens / pilot for user, tokens in one.tokens.items() if tokens > 0}


def _allowed(pieces: dict[str, float], gpus: int, limits: Limits, used: dict[str, float]) -> dict[str, float]:
    if limits.gpus_per_user is None:
        return pieces
    allowed = {}
    for user, pilots in pieces.items():
        allowed[user] = max(0.0, min(pilots, (limits.gpus_per_user - used[user]) / gpus))
        used[user] += allowed[user] * gpus
    return allowed


def _shares(one: Backlog, shares: Mapping[str, float]) -> float:
    return sum(shares.get(user, DEFAULT_SHARES) for user, tokens in one.tokens.items() if tokens > 0)
