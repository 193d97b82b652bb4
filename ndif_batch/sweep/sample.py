"""Which tasks of a job are run again alone: decided by its seed and their numbers, however they are batched."""

from __future__ import annotations

from collections.abc import Iterable
from hashlib import blake2b

from ndif_batch.sweep.space import Excluded

VERIFY_FRACTION = 0.01
"""How many of a job's tasks are run again alone unless it says otherwise."""


def sample(
    job_seed: int, job_tasks: int, fraction: float, among: Iterable[int], excluded: Excluded | None = None
) -> list[int]:
    """Those of the tasks ``among`` that are in the sample of a job of ``job_tasks``, the first to be run again first.

    It is about ``fraction`` of the tasks and, unless that is 0, at least one of each job, if it runs: not one that is
    ``excluded``. The sample of a larger fraction holds that of a smaller one, in the same order.
    """
    if not fraction:
        return []
    first = _first(_place(f"{job_seed}"), job_tasks, excluded)
    places = {task: 0.0 if task == first else _place(f"{job_seed}/{task}") for task in among}
    return sorted((task for task, place in places.items() if place < fraction), key=lambda task: (places[task], task))


def _first(place: float, job_tasks: int, excluded: Excluded | None) -> int:
    if excluded is None:
        return int(place * job_tasks)
    running = (~excluded).nonzero()[0]
    return int(running[int(place * len(running))])


def _place(name: str) -> float:
    """A number from 0 to below 1 that is the same on every machine (BLAKE2b)."""
    return int.from_bytes(blake2b(f"verify/{name}".encode(), digest_size=6).digest()) / 2**48
