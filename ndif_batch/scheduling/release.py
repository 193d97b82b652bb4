"""Which pilots to let go: those that nobody needs, and those whose GPUs others have waited for."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from math import inf

from ndif_batch.scheduling.cluster import Backlog, Limits, PilotPhase, PilotView, Room

SLACK = 2
"""Queued pilots are cancelled beyond this many times the wanted: with less, a backlog that wavers flaps."""


def surplus(
    alive: Mapping[str, Sequence[PilotView]],
    wanted: Mapping[str, int],
    backlog: Mapping[str, Backlog],
    limits: Limits,
    now: float,
) -> set[str]:
    """Pilots that nobody needs: queued for work that is gone, or idle for long.

    Those that do not last until another has loaded count for nothing, since others are started in their place.
    """
    drain: set[str] = set()
    for model, pilots in alive.items():
        keep = wanted.get(model, 0)
        load = backlog[model].load_seconds if model in backlog else 0.0
        ending = {pilot.name for pilot in pilots if not lasts(pilot, load, now)}
        queued = [pilot.name for pilot in pilots if pilot.phase is PilotPhase.QUEUED and pilot.name not in ending]
        cancelled = queued[::-1][: max(0, len(pilots) - len(ending) - SLACK * keep)]
        idle = [pilot for pilot in pilots if _idle(pilot, now) >= limits.idle_seconds]
        spare = max(0, len(pilots) - len(ending) - len(cancelled) - keep)
        idle.sort(key=lambda pilot: _idle(pilot, now), reverse=True)
        drain.update(cancelled, (pilot.name for pilot in idle if pilot.name in ending))
        drain.update([pilot.name for pilot in idle if pilot.name not in ending][:spare])
    return drain


def lasts(pilot: PilotView, load_seconds: float, now: float) -> bool:
    """Whether a pilot will still be there when one that starts now has loaded."""
    return pilot.ends_at is None or pilot.ends_at > now + load_seconds


def evicted(
    short: Mapping[str, int],
    backlog: Mapping[str, Backlog],
    victims: Sequence[PilotView],
    room: Room,
    limits: Limits,
) -> set[str]:
    """Pilots among the ``victims``, in their order, that make room for so many pilots of each model in ``short``.

    A pilot that works gives way only to a model whose oldest shard has waited for ``patience_seconds``. Nobody is
    evicted for a pilot that would not fit even then.
    """
    evicted: set[str] = set()
    for model, count in short.items():
        one = backlog[model]
        patient = one.oldest_seconds >= limits.patience_seconds
        helpful = (
            victim
            for victim in victims
            if victim.name not in evicted
            and (patient or not _works(victim))
            and room.helped(one.partition, one.gpus, victim.partition)
        )
        for _ in range(count):
            chosen = _victims(one, helpful, room)
            if chosen is None:
                break
            evicted |= chosen
            room.take(one.partition, one.gpus)
    return evicted


def dispensable(pilots: Sequence[PilotView], part: int, limits: Limits, now: float) -> list[PilotView]:
    """Pilots beyond their model's part that may be evicted: idle, queued, or at work for ``residence_seconds``."""
    free = [
        pilot
        for pilot in pilots
        if not _works(pilot)
        or now - (now if pilot.started_at is None else pilot.started_at) >= limits.residence_seconds
    ]
    return sorted(free, key=lambda pilot: eviction_order(pilot, now))[: max(0, len(pilots) - part)]


def eviction_order(pilot: PilotView, now: float) -> tuple[float, bool, float, str]:
    """Longest idle first, then queued, then longest at work."""
    started = inf if pilot.started_at is None else pilot.started_at
    return (-_idle(pilot, now), pilot.phase is PilotPhase.RUNNING, started, pilot.name)


def _victims(one: Backlog, helpful: Iterator[PilotView], room: Room) -> set[str] | None:
    """The next victims that make room for a pilot; None, and the room as it was, if there are not enough."""
    chosen: list[PilotView] = []
    while not room.holds(one.partition, one.gpus):
        victim = next(helpful, None)
        if victim is None:
            for kept in chosen:
                room.take(kept.partition, kept.gpus)
            return None
        room.take(victim.partition, -victim.gpus)
        chosen.append(victim)
    return {victim.name for victim in chosen}


def _idle(pilot: PilotView, now: float) -> float:
    return -inf if pilot.idle_since is None else now - pilot.idle_since


def _works(pilot: PilotView) -> bool:
    return pilot.phase is PilotPhase.RUNNING and pilot.idle_since is None
