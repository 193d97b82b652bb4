"""Whose turn it is: priority, then fair share by what was used, then age; quotas refuse and hold back."""

from __future__ import annotations

from collections import Counter

import pytest

from ndif_batch.errors import NotAllowedError
from ndif_batch.queue.cluster import Cost, Quotas
from ndif_batch.queue.protocol import Finished
from ndif_batch.queue.records import JobState, Lease
from ndif_batch.queue.store import Queue
from tests.queue.conftest import HandClock
from tests.queue.queue_samples import ALL, MODEL, SECONDS, indices, job_spec, new_worker, take


def users(leases: list[Lease]) -> list[str]:
    return [lease.job.user for lease in leases]


def serve(queue: Queue, worker: int, seconds: float) -> str:
    """One shard is leased and done, and costs ``seconds``; its user."""
    (lease,) = take(queue, worker)
    assert queue.commit([Finished(lease.shard.id, lease.shard.epoch, cost=Cost(seconds, 50))])
    return lease.job.user


def test_who_has_used_less_goes_first(queue: Queue) -> None:
    queue.submit(job_spec(shards=9, user="ada"))
    worker = new_worker(queue)
    assert serve(queue, worker, 100.0) == "ada"
    queue.submit(job_spec(shards=2, user="bob"))
    assert users(take(queue, worker, 4)) == ["bob", "bob", "ada", "ada"]


def test_priority_beats_fair_share(queue: Queue) -> None:
    queue.submit(job_spec(user="ada"))
    worker = new_worker(queue)
    serve(queue, worker, 100.0)
    queue.submit(job_spec(user="bob"))
    queue.submit(job_spec(user="ada", shards=1, priority=1))
    assert users(take(queue, worker, 2)) == ["ada", "bob"]


@pytest.mark.parametrize(("shares", "expected"), [(1.0, {"ada": 20, "bob": 20}), (3.0, {"ada": 10, "bob": 30})])
def test_service_follows_shares(queue: Queue, clock: HandClock, shares: float, expected: dict[str, int]) -> None:
    queue.submit(job_spec(shards=40, user="ada"))
    queue.submit(job_spec(shards=40, user="bob"))
    queue.set_shares("bob", shares, actor="root")
    worker = new_worker(queue)
    served: Counter[str] = Counter()
    for _ in range(40):
        clock.forward(1)
        served[serve(queue, worker, 1.0)] += 1
    assert all(abs(served[user] - count) <= 2 for user, count in expected.items()), served


def test_a_user_alone_gets_everything(queue: Queue) -> None:
    queue.submit(job_spec(shards=9, user="ada"))
    worker = new_worker(queue)
    serve(queue, worker, 10_000.0)
    assert indices(take(queue, worker, 9)) == list(range(1, 9))


def test_usage_fades_with_its_half_life(queue: Queue, clock: HandClock) -> None:
    queue.submit(job_spec(shards=3, user="ada"))
    queue.submit(job_spec(shards=3, user="bob"))
    queue.set_settings({"half_life_hours": 1}, actor="root")
    worker = new_worker(queue)
    assert serve(queue, worker, 1000.0) == "ada"
    clock.forward(20 * 3600)
    assert serve(queue, worker, 1.0) == "bob"
    assert serve(queue, worker, 0.0) == "ada"


def test_what_is_leased_counts_before_it_is_done(queue: Queue, clock: HandClock) -> None:
    queue.submit(job_spec(shards=9, user="ada"))
    worker = new_worker(queue)
    serve(queue, worker, 1.0)
    queue.submit(job_spec(shards=9, user="bob"))
    assert users(take(queue, worker, 4)) == ["bob"] * 4
    assert users(take(queue, worker, 1)) == ["ada"]


def test_a_lease_reaches_many_users_with_small_jobs(queue: Queue) -> None:
    for number in range(20):
        queue.submit(job_spec(shards=1, user=f"user{number:02}"))
    leases = queue.lease(new_worker(queue), MODEL.name, ALL, SECONDS, 16)
    assert users(leases) == [f"user{number:02}" for number in range(16)]


def test_pending_tasks_over_the_quota_are_refused_with_the_number(queue: Queue) -> None:
    queue.set_quotas("ada", Quotas(pending_tasks=100), actor="root")
    first = queue.submit(job_spec(shards=6, each=10, key="monday"))
    over = r"user 'ada' would have 101 pending tasks \(60 and these 41\), of 100 allowed"
    with pytest.raises(NotAllowedError, match=over):
        queue.submit(job_spec(shards=1, each=41))
    assert queue.jobs() == [first]
    assert queue.submit(job_spec(shards=6, each=10, key="monday")) == first
    queue.submit(job_spec(shards=1, each=41, user="bob"))
    (lease,) = take(queue, new_worker(queue))
    assert queue.commit([Finished(lease.shard.id, lease.shard.epoch)])
    assert queue.submit(job_spec(shards=1, each=41)).state is JobState.PENDING


def test_archive_bytes_over_the_quota_are_refused_with_the_number(queue: Queue) -> None:
    queue.set_quotas("ada", Quotas(archive_bytes=1000), actor="root")
    queue.submit(job_spec(archive_bytes=600))
    with pytest.raises(NotAllowedError, match=r"1,001 archive bytes \(600 and these 401\), of 1,000 allowed"):
        queue.submit(job_spec(archive_bytes=401))
    assert queue.submit(job_spec(archive_bytes=400)).archive_bytes == 400


def test_a_user_without_running_shards_submits_nothing(queue: Queue) -> None:
    queue.set_quotas("ada", Quotas(running_shards=0), actor="root")
    with pytest.raises(NotAllowedError, match="may run 0 shards"):
        queue.submit(job_spec())


def test_running_shards_wait_at_the_quota(queue: Queue) -> None:
    queue.submit(job_spec(user="ada", shards=5))
    queue.set_quotas("ada", Quotas(running_shards=2), actor="root")
    queue.submit(job_spec(user="bob", shards=2))
    worker = new_worker(queue)
    leases = take(queue, worker, 9)
    assert Counter(users(leases)) == {"ada": 2, "bob": 2}
    assert take(queue, worker, 9) == []
    mine = next(lease for lease in leases if lease.job.user == "ada")
    assert queue.commit([Finished(mine.shard.id, mine.shard.epoch)])
    assert users(take(queue, worker, 9)) == ["ada"]
