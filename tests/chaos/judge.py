"""What must be true when the attack is over."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta

import numpy as np

from ndif_batch.archive import Results, TaskStatus
from ndif_batch.archive.files import is_temporary
from ndif_batch.archive.group import MANIFEST
from ndif_batch.queue import Queue
from ndif_batch.queue.records import EventKind, EventRecord, JobRecord, JobState, ShardState, WorkerState
from ndif_batch.queue.states import SUSPECT_DEATHS
from ndif_batch.scheduler.janitor import Janitor
from ndif_batch.sweep.space import Space
from ndif_batch.sweep.task import make_tasks
from tests import toy
from tests.chaos.roles import BROKEN, logit
from tests.chaos.world import World
from tests.queue.queue_samples import check_sums
from tests.worker.toy_engine import values

LOSSES = {EventKind.SHARD_RETURNED, EventKind.SHARD_EXPIRED, EventKind.SHARD_ORPHANED, EventKind.SHARD_DEFERRED}
ENDS = {*LOSSES, EventKind.SHARD_DONE, EventKind.SHARD_FAILED}
LATER = timedelta(days=1)
MANY = 100_000


def assert_nothing_lost(world: World) -> Counter[str]:
    """Every task is there once and right; nobody holds anything; nothing is left over; every delay has its event.

    How many jobs and tasks there were, and how often a lease came to nothing, by the event that says so and its reason.
    """
    _assert_tidy(world)
    queue = world.client.queue
    jobs = queue.jobs(limit=MANY)
    assert [job.key for job in reversed(jobs)] == [f"job {number}" for number in range(world.submitted)]
    check_sums(queue)
    events = _events(queue)
    told = Counter({"jobs": len(jobs), "tasks": sum(job.tasks for job in jobs)})
    for job in jobs:
        _assert_right(job)
        for shard in queue.shards(job.id):
            assert (shard.state, shard.worker_id, shard.lease_until) == (ShardState.DONE, None, None)
            told += _losses(events[shard.id])
    return told


def _assert_right(job: JobRecord) -> None:
    assert (job.state, job.tasks_done, job.tasks_failed) == (JobState.COMPLETED, job.tasks, 0)
    results = Results(job.store)
    space = Space.from_json(job.space)
    tasks = make_tasks(toy.reading(), space, job.seed, range(job.tasks))
    rows = [{**values(task), "logit": logit(task)} for task in tasks]
    for name in rows[0]:
        found = np.asarray(results[name])
        expected = np.array([row[name] for row in rows])
        assert np.array_equal(found.reshape(expected.shape), expected), (job.id, name)
    assert np.isin(results.status(), (TaskStatus.SAVED, TaskStatus.REUSED)).all(), job.id
    assert results.verify() == [], job.id
    assert (job.store / MANIFEST).exists(), job.id


def _losses(events: Sequence[EventRecord]) -> Counter[str]:
    """The leases of a shard that came to nothing; the last one did not. It failed only as it was promised to."""
    lost: Counter[str] = Counter()
    deaths = 0
    held = False
    for event in events:
        assert held is (event.kind in ENDS), [one.kind for one in events]
        held = event.kind is EventKind.SHARD_LEASED
        if event.kind in LOSSES:
            lost[f"{event.kind}: {event.detail.get('reason', 'its worker ended')}".partition(": pilot")[0]] += 1
        if event.kind in (EventKind.SHARD_ORPHANED, EventKind.SHARD_FAILED):
            assert event.detail["code"] == "worker_died"
            deaths += 1
        if event.kind is EventKind.SHARD_FAILED:
            assert deaths > SUSPECT_DEATHS
            deaths = 0
    kinds = [event.kind for event in events]
    assert (kinds.count(EventKind.SHARD_DONE), kinds[-1]) == (1, EventKind.SHARD_DONE)
    return lost


def _events(queue: Queue) -> dict[int, list[EventRecord]]:
    """Of each shard, in the order in which they happened."""
    found: dict[int, list[EventRecord]] = defaultdict(list)
    for event in queue.events(limit=10 * MANY):
        if event.shard_id is not None:
            found[event.shard_id].append(event)
    return found


def _assert_tidy(world: World) -> None:
    """A day later no worker counts as alive, no pilot is there, and the janitor has put every archive in order."""
    with Queue.open(world.client.settings.database, lambda: datetime.now(UTC) + LATER) as queue:
        worker = queue.register_worker(toy.NAME, "here", 1)
        assert queue.lease(worker, toy.NAME, MANY, 60.0) == []
        queue.stop_worker(worker)
        janitor, before = Janitor(), None
        janitor.tidy(queue)
        while janitor.until != before:
            before = janitor.until
            janitor.wait()
            janitor.tidy(queue)
        assert {one.state for one in queue.workers()} <= {WorkerState.STOPPED, WorkerState.LOST}
        assert queue.pilots() == []
    assert world.pilots() == []
    assert [path for path in world.disk.rglob("*") if is_temporary(path)] == []
    assert list(world.client.settings.pilots.glob(f"*/{BROKEN}")) == []
    if world.slurm is not None:
        assert world.slurm.slurm("squeue", "--noheader") == ""
