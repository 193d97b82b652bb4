"""Which pilots to start and which to drain: the work that waits against the time to load, within limits."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from math import ceil

from ndif_batch.scheduling import demand, release
from ndif_batch.scheduling.cluster import Backlog, Decisions, Limits, PilotPhase, PilotView, Room, Start

MARGIN = 1.5
"""A walltime holds this many times the measured work, so that a slow node still ends it."""


def pilots_wanted(
    backlog: Mapping[str, Backlog],
    pilots: Sequence[PilotView],
    limits: Limits,
    now: float,
    shares: Mapping[str, float] | None = None,
) -> Decisions:
    """What to do now. Once that is carried out, the same backlog asks for nothing more.

    A model wants a pilot for every piece of work that is worth a load (:func:`demand.worth`) and gets its part of the
    GPUs (:func:`demand.parts`). Pilots beyond their model's part give way when others are short. ``shares`` are those
    of users.
    """
    wanted = demand.worth(backlog, limits)
    parts = demand.parts(backlog, wanted, limits, shares or {})
    alive: dict[str, list[PilotView]] = defaultdict(list)
    for pilot in sorted(pilots, key=lambda pilot: pilot.name):
        if pilot.phase is not PilotPhase.DRAINING:
            alive[pilot.model].append(pilot)
    drain = release.surplus(alive, wanted, backlog, limits, now)
    alive = {model: [pilot for pilot in group if pilot.name not in drain] for model, group in alive.items()}
    missing = {
        model: max(0, part - _lasting(alive.get(model, []), backlog[model], now)) for model, part in parts.items()
    }
    counts = _fit(missing, backlog, _free(limits, pilots))
    short = {model: missing[model] - counts[model] for model in parts}
    room = _free(limits, (pilot for group in alive.values() for pilot in group))
    for model, count in counts.items():
        room.take(backlog[model].partition, count * backlog[model].gpus)
    beyond = (release.dispensable(group, parts.get(model, 0), limits, now) for model, group in alive.items())
    victims = sorted((pilot for group in beyond for pilot in group), key=lambda one: release.eviction_order(one, now))
    drain |= release.evicted(short, backlog, victims, room, limits)
    starts = [Start(model, n, _walltime(backlog[model], parts[model], limits)) for model, n in counts.items() if n]
    return Decisions(tuple(starts), tuple(sorted(drain)))


def _free(limits: Limits, pilots: Iterable[PilotView]) -> Room:
    room = Room(limits)
    for pilot in pilots:
        room.take(pilot.partition, pilot.gpus)
    return room


def _lasting(pilots: Iterable[PilotView], one: Backlog, now: float) -> int:
    return sum(release.lasts(pilot, one.load_seconds, now) for pilot in pilots)


def _fit(missing: Mapping[str, int], backlog: Mapping[str, Backlog], room: Room) -> dict[str, int]:
    """How many of the missing pilots fit now, longest waiting models first."""
    counts = dict.fromkeys(missing, 0)
    for model in sorted(missing, key=lambda model: (-backlog[model].waited_seconds, model)):
        one = backlog[model]
        while counts[model] < missing[model] and room.holds(one.partition, one.gpus):
            room.take(one.partition, one.gpus)
            counts[model] += 1
    return counts


def _walltime(one: Backlog, pilots: int, limits: Limits) -> float:
    """Seconds, whole minutes, for a load and a pilot's part of the work."""
    work = sum(one.tokens.values()) / one.tokens_per_second / pilots if one.tokens_per_second else 0.0
    seconds = min(max(one.load_seconds + MARGIN * work, limits.shortest_walltime), limits.longest_walltime)
    return ceil(seconds / 60) * 60.0
